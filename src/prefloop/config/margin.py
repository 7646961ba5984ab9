"""SimPO's margin under the name that its paper's tables use: gamma over beta."""

from typing import Any

from prefloop.config.base import is_mapping
from prefloop.errors import RecipeError

GAMMA, RATIO = "gamma", "gamma_beta_ratio"
WITH_MARGIN = frozenset({"simpo", "cpo_simpo", "alphapo", "tpo_length_normalised", "tpo_l"})
"""Objectives whose gamma is a margin in units of reward, which other tools divide by beta."""


def in_units_of_reward(raw: dict[str, Any], where: str, notes: list[str]) -> dict[str, Any]:
    """A recipe in which every `gamma_beta_ratio` of these objectives is a `gamma`, once all layers are put together.

    Raises:
        RecipeError: a ratio stands without the beta that it is a multiple of, or beside a gamma.
    """
    translated = dict(raw)
    for name, step in raw.items():
        objective = step.get("objective") if is_mapping(step) else None
        if is_mapping(objective) and objective.get("name") in WITH_MARGIN and RATIO in objective:
            translated[name] = {**step, "objective": _translated(objective, f"{where}: {name}.objective", notes)}
    return translated


def _translated(objective: dict[str, Any], where: str, notes: list[str]) -> dict[str, Any]:
    ratio, beta = objective[RATIO], objective.get("beta")
    if GAMMA in objective:
        raise RecipeError(f"{where}.{RATIO} and {where.rpartition(': ')[2]}.{GAMMA} are the same setting. Keep one.")
    for key, value in ((RATIO, ratio), ("beta", beta)):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RecipeError(
                f"{where}.{RATIO} is read as {GAMMA} = {RATIO} * beta, but {key} is {value!r}, expected a number. "
                f"Write {key} as a number, or give {GAMMA}."
            )
    notes.append(f"{where.rpartition(': ')[2]}.{RATIO} {ratio} is read as {GAMMA} {ratio * beta} (times beta {beta})")
    return {**{key: value for key, value in objective.items() if key != RATIO}, GAMMA: ratio * beta}
