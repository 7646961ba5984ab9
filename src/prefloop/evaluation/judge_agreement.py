"""Judges' verdicts in both orders beside labels (LLMBar's form), as statistics with intervals."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefloop.errors import DataError
from prefloop.evaluation.lines import Line, read_lines
from prefloop.evaluation.uncertainty import finite, interval_or_none
from prefloop.statistics import clustered_kappa, clustered_share, mid_p_interval, ordered_agreement

_SHARES = ("acc_ab", "acc_ba", "acc_both", "position_agreement")
"""Of items, which are independent."""


def evaluate_agreement(path: Path, *, draws: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Statistics of every run of a file: lines of `subset, evaluator, gold, order_ab, order_ba`.

    Args:
        path: JSON lines.
        draws: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        DataError: a line is not of this form, or a run stands twice.
    """
    runs: dict[str, Any] = {}
    for line in read_lines(path):
        name = f"{line.name('subset')}|{line.name('evaluator')}"
        if name in runs:
            raise DataError(f"{line.place}: the run {name} stands twice. Keep one.")
        runs[name] = _run(line, draws=draws, seed=seed)
    return {
        "runs": runs,
        "interval_method": "95 %, mid-P over items; kappas, acc_mean and first_share: BCa bootstrap over items",
    }


def _run(line: Line, *, draws: int, seed: int) -> dict[str, Any]:
    columns = {name: line.given(name) for name in ("gold", "order_ab", "order_ba")}
    for name, values in columns.items():
        if not isinstance(values, list) or len(values) != len(columns["gold"]) or not values:
            raise line.wrong(name, "a list with one entry an item, as long as gold and not empty")
    gold, order_ab, order_ba = (np.array([_label(one) for one in values]) for values in columns.values())
    if not np.isin(gold, ("1", "2")).all():
        raise line.wrong("gold", "labels 1 and 2")
    found: dict[str, Any] = asdict(ordered_agreement(gold, order_ab, order_ba))
    intervals: dict[str, Any] = {name: list(mid_p_interval(found[name], gold.size)) for name in _SHARES}
    intervals |= _of_both_orders(gold, order_ab, order_ba, draws=draws, seed=seed)
    return {**{name: finite(value) for name, value in found.items()}, "n": gold.size, "intervals": intervals}


def _label(given: Any) -> str:
    """1, "1 " and 1.0 are one verdict."""
    whole = isinstance(given, float) and given.is_integer()
    return str(int(given)) if whole else str(given).strip()


def _of_both_orders(
    gold: NDArray[Any], order_ab: NDArray[Any], order_ba: NDArray[Any], *, draws: int, seed: int
) -> dict[str, list[float] | None]:
    """Intervals of what is counted over both orders: the verdicts on one item vary together."""
    items, both = np.arange(gold.size), np.tile(np.arange(gold.size), 2)
    ab, ba = (np.where(np.isin(order, ("1", "2")), order, "none") for order in (order_ab, order_ba))
    said, asked = np.concatenate([ab, ba]), np.concatenate([gold, gold])
    first = np.concatenate([ab == "1", ba == "2"]).astype(np.float64)
    parsed = said != "none"
    right = clustered_share((said == asked).astype(np.float64), both, seed=seed, draws=draws)
    kappas = {
        "kappa": clustered_kappa(asked, said, both, seed=seed, draws=draws),
        "position_kappa": clustered_kappa(ab, ba, items, seed=seed, draws=draws),
    }
    shown = clustered_share(first[parsed], both[parsed], seed=seed, draws=draws) if parsed.any() else None
    return {
        "acc_mean": interval_or_none(right.interval),
        "first_share": None if shown is None else interval_or_none(shown.interval),
        **{name: interval_or_none(one.interval) for name, one in kappas.items()},
    }
