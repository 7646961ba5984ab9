"""The same steps by our train step and by TRL's trainer: rows, order, optimiser, and what both say at each step.

    python benchmarks/same_steps.py build/trl/bin/python
    python benchmarks/same_steps.py build/trl/bin/python --trainer sft         # or kto, reward: ten steps
    python benchmarks/same_steps.py build/trl/bin/python --model builtin:smollm2-135m-instruct --pairs 16 \
        --epochs 1 --rate 1e-6 --data hh_harmless_test.jsonl.gz

TRL is given the prompts as our codec renders them and tokenises by itself; its tokens must be ours before a number is
compared. Both train in float32 with AdamW (0.9, 0.999, 1e-8, no decay), a constant rate and gradients clipped to 1.

`sft` learns the chosen answers; `kto` one answer a prompt, good and bad in turn, all of them in every step, since TRL
takes the answers that its KL is estimated by from the step and we from the whole set; `reward` begins at the same head.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

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
    Mismatched,
    TokenExample,
    TrainRequest,
    step_plan,
    tokenised,
    train,
)

SEED, BETA, MAX_LENGTH, TOKENS_PER_BATCH = 3, 0.1, 512, 2048
TRL_SCRIPT = Path(__file__).with_name("same_steps_trl.py")
LAYOUTS = {layout.name: layout for layout in (ROWS, TREES)}


SHOWN = {
    "loss": ("loss", ".6f"),
    "logps/chosen": ("logps chosen", ".4f"),
    "rewards/margins": ("margin", "+.6f"),
    "grad_norm": ("gradient norm", ".4f"),
}
"""Columns of the table, where both log them: title and format."""


@dataclass(frozen=True)
class Trainer:
    """One of TRL's trainers, and what it is here."""

    objective: str
    hyper: Mapping[str, Any]
    roles: tuple[str, ...]
    """Of the answers that it reads."""
    columns: tuple[str, ...] = ("loss", "grad_norm")
    """What both log, in nats."""


TRAINERS = {
    "dpo": Trainer(
        "dpo",
        {"beta": BETA},
        ("chosen", "rejected"),
        (
            "loss",
            "rewards/chosen",
            "rewards/rejected",
            "rewards/margins",
            "logps/chosen",
            "logps/rejected",
            "grad_norm",
        ),
    ),
    "sft": Trainer("sft", {"nll_reduction": "token_mean"}, ("chosen",)),
    "kto": Trainer("kto", {"beta": BETA, "desirable_weight": 1.5}, ("response",)),
    "reward": Trainer("bradley_terry", {"center_coef": 0.01}, ("chosen", "rejected")),
}


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
    trainer: str = "dpo"

    @classmethod
    def ten_steps(cls, trainer: str, layout: Layout = TREES) -> "Task":
        """Of the tiny model: each pair once, or with KTO all of them in every step."""
        if trainer == "kto":
            return cls(batch=40, epochs=10, layout=layout, trainer=trainer)
        return cls(epochs=1, layout=layout, trainer=trainer)


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
    parser.add_argument("--trainer", choices=TRAINERS, default=Task.trainer)
    parser.add_argument("--model", default=Task.model)
    parser.add_argument("--data", default=Task.data)
    parser.add_argument("--pairs", type=int, default=Task.pairs)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--rate", type=float, default=Task.rate)
    parser.add_argument("--layout", choices=LAYOUTS, default=Task.layout.name)
    parser.add_argument("--threads", type=int, default=Task.threads)
    given = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
    trl_python, layout = given.pop("trl_python"), LAYOUTS[given.pop("layout")]
    begun = Task() if given["trainer"] == "dpo" else Task.ten_steps(given["trainer"])
    task = replace(begun, **given, layout=layout)
    with tempfile.TemporaryDirectory() as folder:
        steps = both(task, trl_python, Path(folder))
    sys.stdout.write(table(steps, TRAINERS[task.trainer].columns))


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
    plan = step_plan(len(examples), task.batch, task.epochs, SEED)
    if task.trainer == "kto":
        plan = [plan[0][::-1]] * task.epochs  # TRL borrows from the row before, we from the one behind
    order = [index for step in plan for index in step]
    rows, head = folder / "rows.json", folder / "head.safetensors"
    rows.write_text(json.dumps([row(records[index], bench.codec, task.trainer) for index in order]))
    save_file({"weight": reward_head(bench)}, head)
    command = [trl_python, str(TRL_SCRIPT), str(rows), str(source.directory), "--rate", str(task.rate)]
    command += ["--batch", str(task.batch), "--threads", str(task.threads), "--trainer", task.trainer]
    command += ["--head", str(head)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    trl = json.loads(done.stdout.splitlines()[-1])
    return Steps(
        ours=our_steps(task, bench, examples, folder),
        trl=trl["steps"],
        our_ids=[ids_of(examples[index], task.trainer) for index in order],
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
    if task.trainer == "kto":
        pairs = list({one.prompt.prompt_id: one for one in records}.values())
        records = [alone(one, good=number % 2 == 0) for number, one in enumerate(pairs)]
    tokens = {one.example_id: one for one in tokenised(records, codec, EncodingSettings(MAX_LENGTH, "drop"))[0]}
    kept = [one for one in records if one.example_id in tokens][: task.pairs]
    if len(kept) < task.pairs:
        raise SystemExit(f"{task.data}: {len(kept)} pairs were found, {task.pairs} are asked for.")
    return kept, [tokens[one.example_id] for one in kept]


def alone(pair: Example, *, good: bool) -> Example:
    """The chosen answer of a pair as a good one, or its rejected answer as a bad one."""
    (one,) = (member for member in pair.members if member.role == ("chosen" if good else "rejected"))
    labelled = one.model_copy(update={"role": "response", "numbers": {"label": float(good)}})
    return pair.model_copy(update={"members": (labelled,)})


def row(example: Example, codec: ChatCodec, trainer: str = Task.trainer) -> dict[str, str | bool]:
    """An example as texts for TRL, which writes EOS behind the answers itself."""
    texts = {member.role: member.text for member in example.members}
    prompt = codec.rendered(example.prompt)
    if trainer == "sft":
        return {"prompt": prompt, "completion": texts["chosen"]}
    if trainer == "kto":
        label = example.members[0].numbers["label"] == 1
        return {"prompt": prompt, "completion": texts["response"], "label": label}
    return {"prompt": prompt, **{role: texts[role] for role in ("chosen", "rejected")}}


def ids_of(example: TokenExample, trainer: str) -> list[tuple[int, ...]]:
    """What is trained on of an example: prompt and answers, but with TRL's reward trainer and SFT whole rows."""
    answers = [example.rows[role].answer_ids for role in TRAINERS[trainer].roles]
    if trainer in {"reward", "sft"}:
        return [(*example.prompt_ids, *answer) for answer in answers]
    return [example.prompt_ids, *answers]


def reward_head(bench: Workbench) -> torch.Tensor:
    """The weights at which our reward model begins."""
    start = PolicyFiles("start", bench.source.directory)
    return bench.heads(start, {"rewards": 1}, SEED)["rewards"].weight.detach()


def our_steps(task: Task, bench: Workbench, examples: list[TokenExample], folder: Path) -> list[dict[str, Any]]:
    """Our train step on the same pairs, as a recipe would ask for it."""
    start, trainer = PolicyFiles("start", bench.source.directory), TRAINERS[task.trainer]
    objective = find_objective(trainer.objective, "objective")
    settings = TrainStep(
        type="train",
        objective=ObjectiveConfig(name=trainer.objective),
        learning_rate=task.rate,
        schedule="constant",
        warmup=0,
        epochs=task.epochs,
        batch_size=task.batch,
    )
    request = TrainRequest(
        settings=settings,
        objective=objective,
        hyper={**objective.options().model_dump(), **trainer.hyper},
        examples=Mismatched.of(examples, MAX_LENGTH, SEED) if task.trainer == "kto" else examples,
        start=start,
        references={"ref": start} if task.trainer in {"dpo", "kto"} else {},
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


def table(steps: Steps, columns: Sequence[str]) -> str:
    """A line a step, and the largest differences."""
    if steps.our_ids != steps.trl_ids:
        raise SystemExit("TRL's tokens are not ours: nothing can be compared.")
    pairs = list(zip(steps.ours, steps.trl, strict=True))
    shown = [name for name in SHOWN if name in columns]
    titles = [f"{SHOWN[name][0]} | TRL's" for name in shown]
    lines = [f"| step | {' | '.join(titles)} |", "|---" * (1 + 2 * len(shown)) + "|"]
    for number, sides in enumerate(pairs, 1):
        cells = [format(side[name], SHOWN[name][1]) for name in shown for side in sides]
        lines.append(f"| {number} | {' | '.join(cells)} |")
    largest = ", ".join(f"{name} {steps.furthest(name):.1e}" for name in columns)
    return "\n".join(lines) + f"\n\nLargest difference over all steps, nats: {largest}.\n"


if __name__ == "__main__":
    main()
