"""The same DPO steps by our train step and by TRL's trainer: pairs, order, optimiser, and what both say at each step.

    python benchmarks/same_steps.py build/trl/bin/python
    python benchmarks/same_steps.py build/trl/bin/python --model builtin:smollm2-135m-instruct --pairs 16 \
        --epochs 1 --rate 1e-6 --data hh_harmless_test.jsonl.gz

TRL is given the prompts as our codec renders them and tokenises by itself; its tokens must be ours before a number is
compared. Both train in float32 with AdamW (0.9, 0.999, 1e-8, no decay), a constant rate and gradients clipped to 1.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from prefloop.config import ObjectiveConfig, TrainStep
from prefloop.data import Reading, find_source
from prefloop.objectives import find_objective
from prefloop.pairing import find_rule
from prefloop.policy import ChatCodec, EncodingSettings, PolicyFiles, Workbench, resolve_model
from prefloop.records import Example, Group
from prefloop.training import (
    ROWS,
    TREES,
    BlockOfRound,
    Budget,
    Layout,
    TokenExample,
    TrainRequest,
    step_plan,
    tokenised,
    train,
)

SEED, BETA, MAX_LENGTH, TOKENS_PER_BATCH = 3, 0.1, 512, 2048
TRL_SCRIPT = Path(__file__).with_name("same_steps_trl.py")
LAYOUTS = {layout.name: layout for layout in (ROWS, TREES)}
COLUMNS = ("loss", "rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen", "logps/rejected")
"""What both log, in nats."""


@dataclass(frozen=True)
class Task:
    """What is trained on what, and how."""

    model: str = "builtin:tiny"
    data: str = "everyday_pairs"
    pairs: int = 40
    epochs: int = 2
    batch: int = 4
    rate: float = 1e-3
    layout: Layout = TREES
    threads: int = 1


@dataclass(frozen=True)
class Steps:
    """What each side says of every optimiser step, and the tokens of each pair in the order of training."""

    ours: list[dict[str, Any]]
    trl: list[dict[str, Any]]
    our_ids: list[list[tuple[int, ...]]]
    trl_ids: list[list[tuple[int, ...]]]

    def furthest(self, name: str) -> float:
        """Largest difference in one column over all steps."""
        return max(abs(own[name] - other[name]) for own, other in zip(self.ours, self.trl, strict=True))


def main() -> None:
    """Runs both and writes a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("trl_python")
    parser.add_argument("--model", default=Task.model)
    parser.add_argument("--data", default=Task.data)
    parser.add_argument("--pairs", type=int, default=Task.pairs)
    parser.add_argument("--epochs", type=int, default=Task.epochs)
    parser.add_argument("--rate", type=float, default=Task.rate)
    parser.add_argument("--layout", choices=LAYOUTS, default=Task.layout.name)
    parser.add_argument("--threads", type=int, default=Task.threads)
    given = vars(parser.parse_args())
    trl_python, layout = given.pop("trl_python"), LAYOUTS[given.pop("layout")]
    with tempfile.TemporaryDirectory() as folder:
        steps = both(Task(**given, layout=layout), trl_python, Path(folder))
    sys.stdout.write(table(steps))


def both(task: Task, trl_python: str, folder: Path) -> Steps:
    """The steps of both sides.

    Args:
        task: of both.
        trl_python: interpreter of the environment that has TRL.
        folder: for files in between.
    """
    torch.set_num_threads(task.threads)
    source = resolve_model(task.model)
    bench = Workbench(source, ChatCodec.load(source.directory, {}), torch.device("cpu"))
    records, examples = drawn(task, bench.codec)
    order = [index for step in step_plan(len(examples), task.batch, task.epochs, SEED) for index in step]
    rows = folder / "rows.json"
    rows.write_text(json.dumps([row(records[index], bench.codec) for index in order]))
    command = [trl_python, str(TRL_SCRIPT), str(rows), str(source.directory), "--rate", str(task.rate)]
    command += ["--batch", str(task.batch), "--threads", str(task.threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    trl = json.loads(done.stdout.splitlines()[-1])
    return Steps(
        ours=our_steps(task, bench, examples, folder),
        trl=trl["steps"],
        our_ids=[ids_of(examples[index]) for index in order],
        trl_ids=[[tuple(ids) for ids in of_row] for of_row in trl["ids"]],
    )


def drawn(task: Task, codec: ChatCodec) -> tuple[list[Example], list[TokenExample]]:
    """Pairs by lot, as texts and as tokens."""
    rule = find_rule("given", "rule")
    groups = [Group((given.prompt,), given.responses, given.judgments) for given in Reading(find_source(task.data))]
    random.Random(SEED).shuffle(groups)
    records = [
        one
        for group in groups[: 4 * task.pairs]
        for one in rule.apply(group, rule.checked({}, "rule"))
        if isinstance(one, Example)
    ]
    tokens = {one.example_id: one for one in tokenised(records, codec, EncodingSettings(MAX_LENGTH, "drop"))[0]}
    kept = [one for one in records if one.example_id in tokens][: task.pairs]
    if len(kept) < task.pairs:
        raise SystemExit(f"{task.data}: {len(kept)} pairs were found, {task.pairs} are asked for.")
    return kept, [tokens[one.example_id] for one in kept]


def row(example: Example, codec: ChatCodec) -> dict[str, str]:
    """A pair as texts for TRL, which writes EOS behind the answers itself."""
    return {
        "prompt": codec.rendered(example.prompt),
        **{member.role: member.text for member in example.members if member.role in {"chosen", "rejected"}},
    }


def ids_of(example: TokenExample) -> list[tuple[int, ...]]:
    """Prompt, chosen, rejected."""
    return [example.prompt_ids, *(example.rows[role].answer_ids for role in ("chosen", "rejected"))]


def our_steps(task: Task, bench: Workbench, examples: list[TokenExample], folder: Path) -> list[dict[str, Any]]:
    """Our train step on the same pairs, as a recipe would ask for it."""
    start = PolicyFiles("start", bench.source.directory)
    settings = TrainStep(
        type="train",
        objective=ObjectiveConfig(name="dpo"),
        learning_rate=task.rate,
        schedule="constant",
        warmup=0,
        epochs=task.epochs,
        batch_size=task.batch,
    )
    request = TrainRequest(
        settings=settings,
        objective=find_objective("dpo", "objective"),
        hyper={"beta": BETA},
        examples=examples,
        start=start,
        references={"ref": start},
        seed=SEED,
        block=BlockOfRound(0, 1, None),
        scratch=folder / "scratch",
        score_cache=folder / "scores.sqlite",
        budget=Budget(TOKENS_PER_BATCH),
        checkpoint_steps=1_000_000,
        layout=task.layout,
    )
    request.scratch.mkdir(parents=True)
    return train(request, bench, folder / "out" / "model", lambda *_: None)


def table(steps: Steps) -> str:
    """A line a step, and the largest differences."""
    if steps.our_ids != steps.trl_ids:
        raise SystemExit("TRL's tokens are not ours: nothing can be compared.")
    pairs = list(zip(steps.ours, steps.trl, strict=True))
    lines = [
        "| step | loss | TRL's | logps chosen | TRL's | margin | TRL's | gradient norm | TRL's |",
        "|---" * 9 + "|",
    ]
    for number, (own, other) in enumerate(pairs, 1):
        cells = [f"{side['loss']:.6f}" for side in (own, other)]
        cells += [f"{side['logps/chosen']:.4f}" for side in (own, other)]
        cells += [f"{side['rewards/margins']:+.6f}" for side in (own, other)]
        cells += [f"{side['grad_norm']:.4f}" for side in (own, other)]
        lines.append(f"| {number} | {' | '.join(cells)} |")
    largest = ", ".join(f"{name} {steps.furthest(name):.1e}" for name in COLUMNS)
    return "\n".join(lines) + f"\n\nLargest difference over all steps, nats: {largest}.\n"


if __name__ == "__main__":
    main()
