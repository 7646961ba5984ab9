"""Judges' verdicts in both orders beside labels (LLMBar's form), as statistics with intervals."""

from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from prefloop.errors import DataError
from prefloop.evaluation.lines import Line, read_lines
from prefloop.statistics import ordered_agreement, wilson_interval

_SHARES = ("acc_ab", "acc_ba", "acc_both", "position_agreement")


def evaluate_agreement(path: Path) -> dict[str, Any]:
    """Statistics of every run of a file: lines of `subset, evaluator, gold, order_ab, order_ba`.

    Raises:
        DataError: a line is not of this form, or a run stands twice.
    """
    runs: dict[str, Any] = {}
    for line in read_lines(path):
        name = f"{line.given('subset')}|{line.given('evaluator')}"
        if name in runs:
            raise DataError(f"{line.place}: the run {name} stands twice. Keep one.")
        runs[name] = _run(line)
    return {"runs": runs, "interval_method": "95 %, Wilson over items"}


def _run(line: Line) -> dict[str, Any]:
    columns = {name: line.given(name) for name in ("gold", "order_ab", "order_ba")}
    for name, values in columns.items():
        if not isinstance(values, list) or len(values) != len(columns["gold"]) or not values:
            raise line.wrong(name, "a list with one entry an item, as long as gold and not empty")
    gold, order_ab, order_ba = (np.array([str(one).strip() for one in values]) for values in columns.values())
    if not np.isin(gold, ("1", "2")).all():
        raise line.wrong("gold", "labels 1 and 2")
    found: dict[str, Any] = asdict(ordered_agreement(gold, order_ab, order_ba))
    intervals = {name: list(wilson_interval(found[name], gold.size)) for name in _SHARES}
    known = {name: value if isfinite(value) else None for name, value in found.items()}
    return {**known, "n": gold.size, "intervals": intervals}
