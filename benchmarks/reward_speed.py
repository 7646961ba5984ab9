"""Speed of a reward model as judge: trees, rows of similar length, and padded batches of eight in the data's order.

    python benchmarks/reward_speed.py hh_harmless_test.jsonl.gz [--responses 200] [--per-prompt 2] [--threads 2]
        [--without-rows]

SmolLM2-135M with a random head, which costs what a trained one does, in float32. Prompts are drawn by lot among those
that fit 1,024 tokens with their answers. With more answers a prompt than the data set has, those of others stand in,
so that lengths stay real. All arms get the same token ids of the same conversations and must agree; batches of
eight are what a loop over a data loader with a padding collator does. The times are the best of `--repeats`; with one
thread they are processor time, which other programs change little.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from prefloop.data import Reading, find_source
from prefloop.judging.sequence_scores import SequenceScorer, scores_of_rows
from prefloop.policy import ChatCodec, Forest, resolve_model
from prefloop.records import Message

MODEL = "builtin:smollm2-135m-instruct"
MAX_LENGTH, HF_BATCH = 1024, 8

Ids = tuple[int, ...]


def main() -> None:
    """Times all arms and prints their table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--responses", type=int, default=200)
    parser.add_argument("--per-prompt", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens-per-batch", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=2, help="0: count tokens, time nothing")
    parser.add_argument("--without-rows", action="store_true", help="only trees and batches of eight")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    directory = resolve_model(MODEL).directory
    sequences = conversations(options, ChatCodec.load(directory, {}))
    model = reward_model(directory)
    trees = SequenceScorer(model, options.tokens_per_batch)
    if not trees.takes_trees:
        raise SystemExit("this model takes no trees")
    rows = SequenceScorer(model, options.tokens_per_batch)
    vars(rows)["takes_trees"] = False
    arms: dict[str, Callable[[], dict[int, float]]] = {
        "trees": lambda: dict(trees.scores(sequences)),
        "rows of similar length": lambda: dict(rows.scores(sequences)),
        "padded batches of 8": lambda: in_data_order(model, sequences),
    }
    if options.without_rows:
        del arms["rows of similar length"]
    sys.stdout.write(f"{len(sequences)} conversations of {sum(map(len, sequences)) / len(sequences):.0f} tokens\n")
    passing = {
        "trees": sum(len(Forest.of([sequences[n] for n in batch])) for batch in trees._batches(sequences)),  # pyright: ignore[reportPrivateUsage]
        "rows of similar length": sum(padded(sequences, batch) for batch in rows._batches(sequences)),  # pyright: ignore[reportPrivateUsage]
        "padded batches of 8": sum(padded(sequences, batch) for batch in in_eights(len(sequences))),
    }
    if not options.repeats:
        sys.stdout.write(f"tokens that pass: {passing}\n")
        return
    for score in (lambda: list(trees.scores(sequences[:HF_BATCH])), lambda: in_data_order(model, sequences[:HF_BATCH])):
        score()  # warms up
    clock = time.process_time if options.threads == 1 else time.perf_counter
    best: dict[str, float] = {}
    found: dict[str, dict[int, float]] = {}
    for _ in range(options.repeats):
        for arm, score in arms.items():
            started = clock()
            found[arm] = score()
            best[arm] = min(best.get(arm, float("inf")), clock() - started)
    expected = found["padded batches of 8"]
    apart = {arm: max(abs(one - expected[number]) for number, one in scores.items()) for arm, scores in found.items()}
    for arm, seconds in best.items():
        times = best["padded batches of 8"] / seconds
        sys.stdout.write(
            f"| {arm} | {passing[arm]:,} tokens | {len(sequences) / seconds:.2f} answers/s | {times:.2f} times | "
            f"apart by {apart[arm]:.1e} |\n"
        )


def in_eights(count: int) -> list[range]:
    """Numbers in their order, eight by eight."""
    return [range(start, min(start + HF_BATCH, count)) for start in range(0, count, HF_BATCH)]


def padded(sequences: Sequence[Ids], batch: Sequence[int]) -> int:
    """Tokens of a batch with its padding."""
    return len(batch) * max(len(sequences[number]) for number in batch)


def conversations(options: argparse.Namespace, codec: ChatCodec) -> list[Ids]:
    """Conversations as the template writes them, the answers to a prompt one behind the other."""
    lot = random.Random(1)
    groups = [given for given in Reading(find_source(options.data)) if len(codec.prompt_ids(given.prompt)) < MAX_LENGTH]
    texts = [response.text for given in groups for response in given.responses]
    found: list[Ids] = []
    for given in lot.sample(groups, len(groups)):
        own = [response.text for response in given.responses]
        own += [lot.choice(texts) for _ in range(options.per_prompt - len(own))]
        rendered = [
            codec.rendered(given.prompt, Message(role="assistant", content=text)) for text in own[: options.per_prompt]
        ]
        ids = codec.ids_of_rendered(rendered)
        if max(map(len, ids)) <= MAX_LENGTH:
            found += ids
        if len(found) >= options.responses:
            break
    return found[: options.responses]


def reward_model(directory: Path) -> PreTrainedModel:
    """The model's backbone with a head of random numbers, saved and read as a user's would be."""
    config: Any = AutoConfig.from_pretrained(directory)
    config.num_labels = 1
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        model = AutoModelForSequenceClassification.from_config(config)
        language: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
        model.model.load_state_dict(language.model.state_dict())
        model.save_pretrained(folder)
        saved = json.loads((Path(folder) / "config.json").read_text())
        assert saved["architectures"] == ["LlamaForSequenceClassification"]
        read: Any = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    read.config.use_cache = False
    return read.eval().requires_grad_(False)


def in_data_order(model: PreTrainedModel, sequences: Sequence[Ids]) -> dict[int, float]:
    """Batches of eight as they come, padded to their longest."""
    found: list[float] = []
    for batch in in_eights(len(sequences)):
        with torch.inference_mode():
            found += scores_of_rows(model, [sequences[number] for number in batch]).tolist()
    return dict(enumerate(found))


if __name__ == "__main__":
    main()
