"""AlpacaEval's files: judgments, difficulties and gamed baselines read; annotations and leaderboards, both ways."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefloop.data.compressed import to_read, to_write
from prefloop.errors import DataError
from prefloop.evaluation.alpaca_protocol import (
    DRAW,
    is_switched,
    listed_logprobs,
    noisy_label,
    preference_of,
    prob_first,
)
from prefloop.evaluation.lines import Line, read_json, read_lines
from prefloop.statistics import GAMED_WEIGHT, GamedRows


@dataclass(frozen=True)
class Judged:
    """One model's judged answers as a file holds them."""

    name: str
    preferences: NDArray[np.float64]
    """Probability that the model beats the baseline; NaN where the judgment failed."""

    lengths: tuple[NDArray[np.float64], NDArray[np.float64]] | None
    """Characters of the baseline's and of the model's answers, where they are known."""

    indices: tuple[int, ...] | None
    """Official number of each row's instruction, where the file says it."""

    instructions: tuple[str, ...] | None
    """Text of each row's instruction, where the file has it."""

    switched: tuple[bool, ...] | None = None
    """Which rows showed the model first, where the order was computed."""

    one_answer: bool = False
    """Whether the model gave one and the same answer to every instruction."""


@dataclass(frozen=True)
class Difficulties:
    """The difficulty of every instruction, by number and, where the file has texts, by text."""

    values: Mapping[int, float]
    numbers: Mapping[str, int]


def read_judged(path: Path, name: str, *, order_coin: bool = False, p_label_flip: float = 0.0) -> Judged:
    """One model's judgments: JSON lines of preferences and lengths, or an official annotation file.

    Args:
        path: The file.
        name: What the model is called.
        order_coin: Whether shown order and preference are computed anew from instruction and log-probabilities.
        p_label_flip: Share of preferences that are turned round, as 1 or 2, by draws seeded with the instruction;
            draws stay.

    Raises:
        DataError: a row lacks what is needed, or there is more than one model in the file.
    """
    lines = read_lines(path)
    if len(models := {str(line.values["generator_2"]) for line in lines if "generator_2" in line.values}) > 1:
        raise DataError(
            f"{path.name}: holds {len(models)} models ({', '.join(sorted(models))}). Give each its own file."
        )
    switched = tuple(is_switched(line.text("instruction")) for line in lines) if order_coin else None
    preferences = (
        [_preference(line) for line in lines]
        if switched is None
        else [_recomputed(line, switched=first) for line, first in zip(lines, switched, strict=True)]
    )
    if p_label_flip:
        preferences = [_flipped(line, was, p_label_flip) for line, was in zip(lines, preferences, strict=True)]
    answers = {line.values.get("output_2") for line in lines}
    return Judged(
        name=name,
        preferences=np.array(preferences),
        lengths=_lengths(lines),
        indices=tuple(line.whole("index") for line in lines) if "index" in lines[0].values else None,
        instructions=tuple(line.text("instruction") for line in lines) if "instruction" in lines[0].values else None,
        switched=switched,
        one_answer=len(lines) > 1 and len(answers) == 1 and None not in answers,
    )


def _preference(line: Line) -> float:
    """Probability that the model wins, from [1, 2]; 0 and 1.5 are draws, and anything else is a failed judgment."""
    value = line.given("preference")
    if value is None or (isinstance(value, float) and isnan(value)):
        return nan
    number = line.number("preference")
    return 0.5 if number == 0 else number - 1.0 if 1 <= number <= 2 else nan


def _flipped(line: Line, preference: float, p_label_flip: float) -> float:
    """The preference, or a coin's; equal answers and failed judgments stay what they are."""
    label = noisy_label(line.text("instruction"), p_label_flip)
    return preference if label is None or isnan(preference) or preference == DRAW - 1.0 else label - 1.0


def _recomputed(line: Line, *, switched: bool) -> float:
    if "output_1" in line.values and line.values["output_1"] == line.values.get("output_2"):
        return DRAW - 1.0
    try:
        return preference_of(prob_first(listed_logprobs(_top_logprobs(line))), switched=switched) - 1.0
    except (KeyError, IndexError, TypeError, ValueError):
        expected = "tokens with their log-probabilities"
        raise line.wrong("top_logprobs" if "top_logprobs" in line.values else "raw_completion", expected) from None


def _top_logprobs(line: Line) -> Any:
    """Of a line of its own, or inside the completion that an annotation file keeps; none where there was none."""
    if "top_logprobs" in line.values:
        return line.values["top_logprobs"]
    completion = line.values.get("raw_completion", line.values.get("preference_raw_completion"))
    if completion is None:
        line.given("top_logprobs" if "raw_completion" not in line.values else "raw_completion")
        return []
    return completion["logprobs"]["content"][0]["top_logprobs"]


def _lengths(lines: Sequence[Line]) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    first = lines[0].values
    if "len_baseline" in first or "len_model" in first:
        pairs = [(_characters(line, "len_baseline"), _characters(line, "len_model")) for line in lines]
    elif "output_1" in first:
        pairs = [(float(len(line.text("output_1"))), float(len(line.text("output_2")))) for line in lines]
    else:
        return None
    baseline, model = zip(*pairs, strict=True)
    return np.array(baseline), np.array(model)


def _characters(line: Line, column: str) -> float:
    if (count := line.number(column)) < 0:
        raise line.wrong(column, "a number of characters >= 0")
    return count


def read_difficulties(path: Path) -> Difficulties:
    """The official `instruction_difficulty.csv`: index and difficulty, and texts where it has a column `instruction`.

    Raises:
        DataError: a row is not of this form, or an index stands twice.
    """
    values: dict[int, float] = {}
    numbers: dict[str, int] = {}
    for position, line in enumerate(read_lines(path)):
        index = line.whole("index") if "index" in line.values else position
        if index in values:
            raise DataError(f"{line.place}: index {index} stands twice. Keep one difficulty an instruction.")
        values[index] = line.number("instruction_difficulty")
        if "instruction" in line.values:
            numbers[line.text("instruction")] = index
    return Difficulties(values, numbers)


def read_gamed(path: Path) -> GamedRows:
    """The official `df_gamed.csv`: judgments of the two gamed baselines.

    Raises:
        DataError: a row is not of this form.
    """
    lines = read_lines(path)
    for line in lines:
        if not 0 <= line.number("preference") <= 1:
            raise line.wrong("preference", "the probability in [0, 1] that the gamed baseline wins")
    columns = [
        np.array([line.number(name) for line in lines])
        for name in ("preference", "std_delta_len", "instruction_difficulty")
    ]
    return GamedRows(
        preferences=columns[0],
        lengths=np.tanh(columns[1]),
        difficulty=columns[2],
        instructions=np.array([line.whole("index") for line in lines]),
        weight=GAMED_WEIGHT / len({str(line.given("model")) for line in lines}),
    )


def read_annotations(path: Path) -> list[dict[str, Any]]:
    """An official `annotations.json` or `model_outputs.json`: a list of objects, every column as it is.

    Raises:
        DataError: it is not such a list.
    """
    found = read_json(path)
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise DataError(f"{path.name}: is no list of objects, as annotations and outputs of AlpacaEval are.")
    return found


def write_annotations(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows as AlpacaEval's own tool does: indented by two, no space behind a colon, `/` escaped."""
    text = json.dumps(list(rows), indent=2, separators=(",", ":")).replace("/", "\\/")
    with to_write(path, path.suffix) as file:
        file.write(text.encode())


def read_leaderboard(path: Path) -> list[dict[str, str]]:
    """A leaderboard, model by model; cells are texts, so that it can be written back equal.

    The first column, whose name is empty in official files, is the model.

    Raises:
        DataError: a line has more or fewer cells than the header.
    """
    with to_read(path) as file:
        header, *lines = list(csv.reader(io.StringIO(file.read().decode("utf-8"), newline=""))) or [[]]
    for number, cells in enumerate(lines, start=2):
        if len(cells) != len(header):
            raise DataError(f"{path.name}:{number}: {len(cells)} cells under {len(header)} columns.")
    return [dict(zip(header, cells, strict=True)) for cells in lines]


def write_leaderboard(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Writes a leaderboard; a cell is quoted where it has to be."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([list(rows[0]), *(list(row.values()) for row in rows)])
    with to_write(path, path.suffix) as file:
        file.write(text.getvalue().encode())


LEADERBOARD = (
    "win_rate",
    "standard_error",
    "n_wins",
    "n_wins_base",
    "n_draws",
    "n_total",
    "discrete_win_rate",
    "mode",
    "avg_length",
    "length_controlled_winrate",
    "lc_standard_error",
)
"""Columns of the official leaderboard after the model's name."""


def leaderboard_row(name: str, result: Mapping[str, Any], mode: str = "community") -> dict[str, str]:
    """One model's result as a row of the official leaderboard."""
    cells = {**result, "mode": mode}
    return {"": name, **{column: "" if cells[column] is None else str(cells[column]) for column in LEADERBOARD}}
