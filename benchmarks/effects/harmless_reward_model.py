"""A reward model of real comparisons: is it better than chance, and better than knowing lengths alone?

    python benchmarks/effects/harmless_reward_model.py OUT --file hh_harmless_test.jsonl.gz

Draws 500 harmlessness pairs of anthropics/hh-rlhf (MIT) for training and 800 others, of other prompts, for the test;
trains the recipe `reward_model` with SmolLM2-135M-Instruct and LoRA, the settings fixed before the test was looked at;
and tells how often the chosen answer gets the higher reward, from the judge that reads the saved directory. Beside it
the rule that knows lengths alone: shorter, or longer, whichever the training pairs say. Called again, it goes on.
"""

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64
from numpy.typing import NDArray

from prefloop.config import RewardModelJudge, load_recipe
from prefloop.data import Given, Reading, find_source
from prefloop.judging import Ask, RewardModel
from prefloop.loop import Progress, run_recipe
from prefloop.policy import ChatCodec
from prefloop.records import Response, to_line
from prefloop.statistics import clustered_share, clustered_statistic

SEED, TOKENS_PER_BATCH = 0, 2048
SETTINGS = (
    "data.validation=null",
    "reward_model.lora={r: 16, alpha: 32}",
    "reward_model.learning_rate=3e-4",
    "reward_model.batch_size=8",
    "machine.checkpoint_steps=2",
)

Pair = tuple[Response, Response]
Floats = NDArray[np.float64]


def main() -> None:
    """Draws, trains, tests, prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--train", type=int, default=500)
    parser.add_argument("--test", type=int, default=800)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    train, test = drawn(options.file, options.train, options.test)
    file = options.out / "train.jsonl"
    file.write_text("".join(map(to_line, train)), encoding="utf-8")
    overrides = (f"data.source={file}", f"machine.threads={options.threads}")
    run = run_recipe(load_recipe("reward_model", (*SETTINGS, *overrides)), options.out / "run", Progress()).run
    model = run / "round-00" / "reward_model" / "model"
    codec = ChatCodec.load(model, {})
    rewards = rewards_of(model, test)
    gaps = lengths_of(codec, test)
    shorter = np.mean(in_order(-lengths_of(codec, train))) > 0.5
    by_length = in_order(-gaps if shorter else gaps)
    sys.stdout.write(told(in_order(rewards), by_length, shorter=bool(shorter)))


def drawn(file: Path, *counts: int) -> list[list[Given]]:
    """Pairs by lot, no prompt twice."""
    by_prompt = {given.prompt.root_id: given for given in Reading(find_source(str(file))) if len(given.responses) == 2}
    rows = [by_prompt[prompt] for prompt in sorted(by_prompt)]
    random.Random(SEED).shuffle(rows)
    starts = np.cumsum([0, *counts])
    return [rows[start : start + count] for start, count in zip(starts, counts, strict=False)]


def sides(given: Given) -> Pair:
    """Chosen, rejected."""
    (judgment,) = given.judgments
    by_id = {one.response_id: one for one in given.responses}
    first, second = (by_id[subject] for subject in judgment.subjects)
    return (first, second) if judgment.values[0] == 1 else (second, first)


def rewards_of(directory: Path, rows: Sequence[Given]) -> Float64[Floats, " pairs"]:
    """Reward of the chosen answer less that of the rejected one, as the judge says."""
    judge = RewardModel(
        RewardModelJudge(type="reward_model", model=str(directory)), torch.device("cpu"), TOKENS_PER_BATCH
    )
    asks = [Ask(given.prompt, (side,)) for given in rows for side in sides(given)]
    verdicts = dict(judge.judge(asks))
    scores = np.array([verdicts[number].values[0] for number in range(len(asks))], dtype=np.float64)
    return scores[::2] - scores[1::2]


def lengths_of(codec: ChatCodec, rows: Sequence[Given]) -> Float64[Floats, " pairs"]:
    """Tokens of the chosen answer less those of the rejected one."""
    counts = [[len(codec.tokenizer(one.text)["input_ids"]) for one in sides(given)] for given in rows]
    return np.array([chosen - rejected for chosen, rejected in counts], dtype=np.float64)


def in_order(gaps: Float64[Floats, " pairs"]) -> Float64[Floats, " pairs"]:
    """1 where the chosen answer is ahead, a half where neither is."""
    return (np.sign(gaps) + 1) / 2


def told(right: Float64[Floats, " pairs"], by_length: Float64[Floats, " pairs"], *, shorter: bool) -> str:
    """Both accuracies and their difference on the same pairs, with 95 % intervals over prompts."""
    pairs = np.arange(len(right))
    lines = [
        f"{name}: {100 * one.value:.1f} % ({100 * one.interval[0]:.1f} to {100 * one.interval[1]:.1f})"
        for name, one in (
            ("reward model", clustered_share(right, pairs, seed=SEED)),
            ("the shorter" if shorter else "the longer", clustered_share(by_length, pairs, seed=SEED)),
        )
    ]
    gap = clustered_statistic(
        lambda totals: (totals[..., 0] - totals[..., 1]) / totals[..., 2],
        np.stack([right, by_length, np.ones(len(right))], 1),
        rows=len(right),
        seed=SEED,
    )
    low, high = gap.interval
    lines.append(f"difference: {100 * gap.value:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})")
    return "\n".join([*lines, f"{len(right)} pairs, each of another prompt"]) + "\n"


if __name__ == "__main__":
    main()
