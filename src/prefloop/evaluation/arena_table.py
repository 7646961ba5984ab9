"""The table that Arena-Hard v2.0's own script prints: means of resampled battles, or with style medians of refits."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prefloop.errors import DataError
from prefloop.evaluation.arena_hard import Battle, arrays_of
from prefloop.statistics import bradley_terry, normalised_differences, resampled, standardised
from prefloop.statistics.arrays import Floats

DRAWS = 100
ENDS = (0.05, 0.95)
METHOD = "5 to 95 %, 100 resamples of single battles, as Arena-Hard v2.0 prints"
LENGTH = "token_len"
"""The style column with an answer's tokens; the others are counts, and become densities."""

Style = Mapping[tuple[str, str], Sequence[float]]


def table_of_version_2(
    battles: Sequence[Battle], baseline: str, *, seed: int, style: tuple[Style, Sequence[str]] | None = None
) -> dict[str, dict[str, Any]]:
    """Score and interval of every model but the baseline, in percent against it.

    Without style a model's battles are resampled among themselves, and the score is the mean of the resamples' means.
    With style all battles are resampled and fitted anew, and it is the median.

    Args:
        battles: All against the baseline.
        baseline: Its name.
        seed: Of the resamples.
        style: Numbers by prompt and model, and the names of their columns, `token_len` among them.

    Raises:
        DataError: a battle is without the baseline, or has no whole weight; or there is no `token_len`.
    """
    for battle in battles:
        if baseline not in {battle.first, battle.second}:
            raise DataError(
                f"{battle.place}: {battle.first} met {battle.second}, and the table of v2.0 is of battles against one "
                f"baseline, {baseline}. Leave --table out."
            )
        if battle.weight != round(battle.weight):
            raise DataError(f"{battle.place}: n is {battle.weight}, expected a whole number under --table v2.0.")
    names = sorted({name for battle in battles for name in (battle.first, battle.second)} - {baseline})
    draws = _plain(battles, names, seed) if style is None else _with_style(battles, baseline, names, seed, style)
    return {
        name: {
            "score": float((np.mean if style is None else np.median)(scores)),
            "interval": np.quantile(scores, ENDS).tolist(),
        }
        for name, scores in draws.items()
    }


def _plain(battles: Sequence[Battle], names: Sequence[str], seed: int) -> dict[str, Floats]:
    generator = np.random.default_rng(seed)
    found: dict[str, Floats] = {}
    for name in names:
        mine = [battle for battle in battles if name in {battle.first, battle.second}]
        won = np.array([one.outcome if one.first == name else 1.0 - one.outcome for one in mine])
        weights = np.array([one.weight for one in mine], np.float64)
        units = round(float(weights.sum()))
        drawn = generator.multinomial(units, weights / weights.sum(), size=DRAWS)
        found[name] = 100.0 * (drawn @ won) / units
    return found


def _with_style(
    battles: Sequence[Battle], baseline: str, names: Sequence[str], seed: int, style: tuple[Style, Sequence[str]]
) -> dict[str, Floats]:
    everybody = [baseline, *names]
    data = arrays_of(battles, everybody, style_features(battles, style))
    draws = resampled(data, bradley_terry(data), clustered=False, draws=DRAWS, seed=seed)
    return {
        name: 100.0 / (1.0 + np.exp(draws[:, 0] - draws[:, place])) for place, name in enumerate(everybody) if place
    }


def style_features(battles: Sequence[Battle], style: tuple[Style, Sequence[str]]) -> Floats:
    """One line a battle: (a - b)/(a + b) of lengths, (a - b)/(a + b + 1) of densities count/(tokens + 1), z-scored.

    Scaled by the standard deviation of the sample of single battles.

    Raises:
        DataError: there is no `token_len`, or the style of an answer is missing.
    """
    known, columns = style
    if LENGTH not in columns:
        raise DataError(f"--table v2.0: the style file has no {LENGTH}, by which its counts are divided.")
    length = list(columns).index(LENGTH)
    sides: list[list[Floats]] = [[], []]
    for battle in battles:
        for side, model in zip(sides, (battle.first, battle.second), strict=True):
            if (battle.prompt, model) not in known:
                raise DataError(f"{battle.place}: the style of {model} on {battle.prompt} is not in the style file.")
            side.append(np.array(known[battle.prompt, model], np.float64))
    first, second = (np.stack(side) for side in sides)
    counts = np.arange(len(columns)) != length
    differences = np.empty_like(first)
    differences[:, length] = normalised_differences(first[:, [length]], second[:, [length]])[:, 0]
    densities = (side[:, counts] / (side[:, [length]] + 1.0) for side in (first, second))
    differences[:, counts] = normalised_differences(*densities, offset=1.0)
    weights = np.array([battle.weight for battle in battles], np.float64)
    units = float(weights.sum())
    return standardised(differences, weights) * np.sqrt((units - 1.0) / units)
