"""People as judges: what is open is written to a file, and their answers are read from one."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from pydantic import JsonValue

from prefloop.config import HumanJudge, is_mapping
from prefloop.errors import DataError
from prefloop.judging.answers import Answers
from prefloop.judging.protocol import Ask, Verdict
from prefloop.records import digest

OPEN = "open_asks.jsonl"
"""In the run folder: a line for every ask that waits for a person."""


@dataclass(frozen=True)
class Human:
    """Says nothing itself: every ask stays open until somebody has answered it."""

    config: HumanJudge
    kind: Literal["score"] = "score"

    @property
    def name(self) -> str:
        """The scale and the question."""
        return f"human:{self.config.lowest:g}-{self.config.highest:g}:{digest(self.config.question)[:8]}"

    def judge(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Verdict]]:
        """No verdict on anything."""
        del asks
        yield from ()

    def seen(self, ask: Ask) -> JsonValue:
        """The conversation and the answers, in the order in which they are shown."""
        return {
            "prompt": [message.model_dump(mode="json", exclude_defaults=True) for message in ask.prompt.messages],
            "answers": [subject.text for subject in ask.subjects],
        }

    def write_open(self, run: Path, open_asks: Mapping[str, Ask], step: str, price: float) -> None:
        """Writes what waits for an answer. Nothing in it tells which policy gave an answer."""
        lines = [
            {
                "ask": key,
                "judge": self.name,
                "step": step,
                "price": price,
                "question": self.config.question,
                "lowest": self.config.lowest,
                "highest": self.config.highest,
                **dict(self._shown(ask)),
                "values": [None] * len(ask.subjects),
            }
            for key, ask in open_asks.items()
        ]
        aside = run / f".{OPEN}.writing"
        aside.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
        aside.replace(run / OPEN)

    def _shown(self, ask: Ask) -> Mapping[str, Any]:
        seen = self.seen(ask)
        assert is_mapping(seen)
        return seen


@dataclass(frozen=True)
class ReadAnswers:
    """What a file of answers brought."""

    answered: int
    """Asks that it answered."""
    left: int
    """Asks that are still open."""


def read_answers(run: Path, file: Path) -> ReadAnswers:
    """Reads people's answers to the open asks of a run and keeps them: all of a file, or nothing.

    Each line holds `ask` and `values`, as open_asks.jsonl does; lines whose values are null are not answered yet.

    Raises:
        DataError: nothing is open, the file cannot be read, or a line of it is no answer to an open ask.
    """
    if not (run / OPEN).is_file():
        raise DataError(f"{run}: no ask waits for a person, it has no {OPEN}. `prefloop run` writes it when some do.")
    waiting = {line["ask"]: line for line in map(json.loads, (run / OPEN).read_text(encoding="utf-8").splitlines())}
    found: dict[str, tuple[str, tuple[float, ...]]] = {}
    for where, line in _lines(file):
        if (answer := _answer(where, line, waiting)) is None:
            continue
        key, values = answer
        if key in found and found[key][1] != values:
            raise DataError(
                f"{where}: ask {key[:12]} has the values {list(values)}, and {list(found[key][1])} in "
                f"{found[key][0].rpartition(':')[2]}. Keep one of the lines."
            )
        found[key] = (f"line {where.rpartition(':')[2]}", values)
    if not found:
        raise DataError(f"{file}: answers none of the {len(waiting)} open asks: every `values` is null. Fill some in.")
    with Answers.of_run(run) as answers:
        known = answers.find(list(waiting))
        for key, (_, values) in found.items():
            if key in known and known[key].values != values:
                raise DataError(
                    f"{file}: ask {key[:12]} was answered with {list(known[key].values)} before, and has "
                    f"{list(values)} here. Answers are kept as they came; take the line out."
                )
        answers.connection.execute("begin")
        for key in found.keys() - known.keys():
            ask, values = waiting[key], found[key][1]
            answers.keep(key, Verdict(values), judge=ask["judge"], step=ask["step"], price=ask["price"])
        answers.connection.execute("commit")
        left = len(waiting.keys() - known.keys() - found.keys())
    return ReadAnswers(len(found.keys() - known.keys()), left)


def _lines(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else f"not UTF-8 text at byte {error.start}"
        raise DataError(f"{file}: cannot be read: {why}. Expected lines like those of {OPEN}.") from error
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        where = f"{file}:{number}"
        try:
            value = json.loads(line)
        except ValueError as error:
            raise DataError(f"{where}: not JSON: {error}. Expected a line like those of {OPEN}.") from error
        if not is_mapping(value):
            raise DataError(f"{where}: found {line[:40]!r}, expected an object with `ask` and `values`.")
        yield where, value


def _answer(
    where: str, line: Mapping[str, Any], waiting: Mapping[str, Mapping[str, Any]]
) -> tuple[str, tuple[float, ...]] | None:
    """The ask and the values of a line; None where it is not answered yet."""
    key, values = line.get("ask"), line.get("values")
    if not isinstance(key, str) or not isinstance(values, list):
        missing = "ask" if not isinstance(key, str) else "values"
        raise DataError(f"{where}: has no `{missing}`, expected an object with `ask` and a list of `values`.")
    if key not in waiting:
        raise DataError(
            f"{where}: ask '{key[:12]}' is not open in this run. Is the file of another run, or of another step? "
            f"{OPEN} has what is open now."
        )
    ask = waiting[key]
    if len(values) != len(ask["values"]):
        raise DataError(f"{where}: has {len(values)} values, expected {len(ask['values'])}, one an answer shown.")
    if all(value is None for value in values):
        return None
    for value in values:
        number = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
        if not number or not ask["lowest"] <= value <= ask["highest"]:
            raise DataError(
                f"{where}: found {value!r} in `values`, expected a number from {ask['lowest']:g} to "
                f"{ask['highest']:g}, or null for no answer yet."
            )
    return key, tuple(map(float, values))
