"""A run folder as the loop leaves it, with made-up numbers: small, complete, and the same every time."""

import json
import math
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prefloop.records import Alert, Judgment, Message, Prompt, Response, RoundSummary, write_records

RECIPE = """\
name: ilr_dpo
title: Iterative length-regularised DPO
paper: arXiv:2406.11817
model: builtin:smollm2-135m-instruct
rounds: {rounds}
prompts: {{type: prompts, data: everyday, count: 64}}
judgments: {{type: judge, judge: {{type: vader, length_bias: 0.02}}}}
policy: {{type: train, objective: {{name: length_regularized_dpo, beta: 0.1, alpha: {{fitted: 1.0}}}}}}
"""
TRUTH = (58.3, 64.1, 68.2)
CONTROLLED = (61.2, 66.0, 70.7)
JUDGE = (63.5, 72.9, 81.3)
LENGTH = (31.7, 32.9, 32.6)
KL = (1.412, 2.638, 3.094)
HALF_WIDTH = 7.1
WORDS = ["a", "long", "walk", "by", "the", "river", "clears", "your", "head", "and", "costs", "nothing", "at", "all"]


def rate(value: float) -> list[float]:
    return [value - HALF_WIDTH, value + HALF_WIDTH]


def duel(raw: float, controlled: float, *, interval: bool = True) -> dict[str, Any]:
    return {
        "win_rate": raw,
        "standard_error": 3.6,
        "interval": rate(raw) if interval else None,
        "length_controlled_winrate": controlled,
        "lc_standard_error": 3.7,
        "lc_interval": rate(controlled) if interval else None,
        "n": 96,
        "clusters": 96,
        "n_wins": 60,
        "n_wins_base": 30,
        "n_draws": 6,
        "discrete_win_rate": raw,
    }


def evaluation(number: int, *, truth: bool = True, **other: Any) -> dict[str, Any]:
    rates = {"judge": duel(JUDGE[number], CONTROLLED[number])}
    if truth:
        rates["truth"] = duel(TRUTH[number], TRUTH[number] + 0.4)
    return {
        "round": number,
        "suite": "everyday",
        "prompts": 96,
        "num_samples": 1,
        "against": {"initial": rates, "previous": {name: duel(53.1, 52.0) for name in rates}},
        "length": {
            "mean": LENGTH[number],
            "standard_error": 0.9,
            "interval": [LENGTH[number] - 1.8, LENGTH[number] + 1.8],
            "unit": "tokens",
            "initial": 30.2,
            "ratio": LENGTH[number] / 30.2,
            "ratio_standard_error": 0.02,
            "ratio_interval": [LENGTH[number] / 30.2 - 0.04, LENGTH[number] / 30.2 + 0.04],
        },
        "finish_rate": {"value": 0.98 - 0.01 * number, "initial": 1.0},
        "distinct_2": {"value": 0.71 - 0.02 * number, "initial": 0.73},
        "kl": {
            "value": KL[number],
            "standard_error": 0.21,
            "interval": [KL[number] - 0.42, KL[number] + 0.42],
            "n": 96,
            "unit": "nats",
        },
        "score": {"judge": {"mean": 0.61, "initial": 0.43}},
        **other,
    }


def policy(number: int) -> str:
    """Identity of the policy with which a round begins."""
    return f"{number:064x}"


def summary(number: int, decision: str = "accepted", alerts: tuple[Alert, ...] = ()) -> RoundSummary:
    return RoundSummary.model_validate(
        {
            "round": number,
            "decision": decision,
            "reasons": [
                "not shown worse than the last accepted round; this suite could have seen a change of 10 points"
            ],
            "policies": {"initial": policy(0), "round_start": policy(number), "current": policy(number + 1)},
            "counts": {
                "samples": {"responses": 256, "cut": 3},
                "pairs": {"groups": 64, "examples": 57 + number, "cut answers": 3, "dropped: tie": 4},
                "policy": {"examples": 57 + number, "steps": 8},
            },
            "training": {"loss": 0.61},
            "evaluation": {},
            "judges": ["vader-1 (length bias 0.02)"],
            "alerts": [alert.model_dump() for alert in alerts],
        }
    )


def metrics(number: int) -> str:
    lines = (
        {
            "step": step,
            "loss": 0.6931 - 0.012 * step + 0.008 * math.sin(3 * step + number),
            "logps/chosen": -58.0 - 2 * number - 0.25 * step,
            "logps/rejected": -61.0 - 3 * number - 0.7 * step,
            "rewards/chosen": 0.01 * step,
            "rewards/rejected": -0.02 * step,
            "rewards/margins": 0.03 * step + 0.01 * math.sin(2 * step),
            "rewards/accuracies": 0.6,
            "grad_norm": 1.2,
            "learning_rate": 1e-4,
        }
        for step in range(1, 13)
    )
    return "".join(json.dumps(line) + "\n" for line in lines)


def prompt(number: int, text: str | None = None) -> Prompt:
    turns = (
        Message(role="user", content="Hi there!"),
        Message(role="assistant", content="Hello! How can I help you today?"),
        Message(
            role="user", content=text or f"Question {number}: how should I spend a rainy Sunday afternoon at home?"
        ),
    )
    return Prompt.of(turns)


def response(of: Prompt, step: str, text: str, number: int) -> Response:
    return Response(
        response_id=f"{step}-{number}",
        prompt_id=of.prompt_id,
        root_id=of.root_id,
        step=step,
        text=text,
        token_ids=tuple(range(20 + number + (2 if step == "evaluation-samples" else 0))),
        finish_reason="length" if number == 3 else "stop",
    )


def answers(folder: Path, stem: str, prompts: list[Prompt], step: str, shift: float, text: str | None) -> None:
    made = [
        response(of, step, text or f"{step}: " + " ".join(WORDS[number % 5 :] * 2), number)
        for number, of in enumerate(prompts)
    ]
    write_records(folder / step / "part-00000.jsonl", made)
    for judge, name in (("vader", "judgments"), ("vader truth", "truth")):
        scored = [
            Judgment(judge=judge, kind="score", subjects=(one.response_id,), values=(0.1 * (number % 7) + shift,))
            for number, one in enumerate(made)
        ]
        write_records(folder / f"{stem}-{name}" / "part-00000.jsonl", scored)


def journal(run: Path, rounds: int) -> None:
    steps = [
        "prompts",
        "samples",
        "judgments",
        "pairs",
        "policy",
        "evaluation-samples",
        "evaluation.json",
        "summary.json",
    ]
    paths = ["setup/evaluation-prompts", "setup/evaluation-initial"]
    paths += [f"round-{number:02d}/{step}" for number in range(rounds) for step in steps]
    paths.append("superseded/0123456789abcdef/policy")
    connection = sqlite3.connect(run / "journal.sqlite")
    connection.execute(
        "create table artifacts (identity text primary key, step text, place text, path text, state text, "
        "content text, counts text, started real, seconds real)"
    )
    for number, path in enumerate(paths):
        place, step = path.rsplit("/", 1)
        counts = {
            "pairs": {"groups": 64, "examples": 57, "cut answers": 3, "dropped: tie": 4, "dropped: same text": 3},
            "judgments": {"judgments": 256, "invalid": 0},
        }
        row = (
            f"{number:064x}"[::-1],
            step,
            place,
            path,
            "committed",
            "{}",
            json.dumps(counts.get(step, {"responses": 1256, "cut": 3} if "samples" in step else {})),
            1e9 + number,
            1.25 + number,
        )
        connection.execute("insert into artifacts values (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    connection.commit()
    connection.close()


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


BuildRun = Callable[..., Path]


@pytest.fixture
def build_run(tmp_path: Path) -> BuildRun:
    """Makes a run folder of so many finished rounds."""

    def build(
        rounds: int = 3, *, evaluated: bool = True, truth: bool = True, planned: int = 3, text: str | None = None
    ) -> Path:
        return make_run(tmp_path / "run", rounds, evaluated=evaluated, truth=truth, planned=planned, text=text)

    return build


def make_run(run: Path, rounds: int, *, evaluated: bool, truth: bool, planned: int, text: str | None) -> Path:
    run.mkdir()
    (run / "recipe.yaml").write_text(RECIPE.format(rounds=planned), encoding="utf-8")
    write_json(
        run / "environment.json", {"versions": {"torch": "2.13.0"}, "python": "3.11.7", "executable": "/opt/bin/python"}
    )
    prompts = [prompt(number, text) for number in range(1 if text else 15)]
    if evaluated:
        write_records(run / "setup/evaluation-prompts/part-00000.jsonl", prompts)
        answers(run / "setup", "evaluation-initial", prompts, "evaluation-initial", 0.0, text)
    for number in range(rounds):
        folder = run / f"round-{number:02d}"
        write_json(
            folder / "policy/fitted.json", {"alpha": {"value": 0.0131 + 0.002 * number, "factor": 1.0, "warning": None}}
        )
        (folder / "policy/training.jsonl").write_text(metrics(number), encoding="utf-8")
        if evaluated:
            write_json(folder / "evaluation.json", evaluation(number, truth=truth))
            answers(folder, "evaluation", prompts, "evaluation-samples", 0.15, text)
        (folder / "summary.json").write_text(summary(number).model_dump_json(), encoding="utf-8")
    journal(run, rounds)
    return run
