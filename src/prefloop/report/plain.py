"""The committed curve of plain DPO: the quickstart without control of length, and who may be compared with it.

`plain_curve.json` holds what was measured with `facts`, the settings of that run but for its control of length. A run
is compared where it differs in that control alone - objective, penalty of pairs; its name, seed, rounds, gate,
monitors, machine and the size of its held-out sample do not matter. `scripts/plain_curve.py` writes the file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefloop.config import is_mapping
from prefloop.report.view import PlainCurve, Recipe

FILE = Path(__file__).with_name("plain_curve.json")
STEPS = ("prompts", "samples", "judgments", "pairs", "policy", "evaluation")
_NOT_COMPARED = {
    "pairs": {"length_penalty"},
    "policy": {"objective"},
    "evaluation": {"count", "num_samples", "resamples"},
}


def committed_curve() -> PlainCurve:
    """The curve that ships."""
    return PlainCurve.model_validate_json(FILE.read_text(encoding="utf-8"))


def comparable_curve(recipe: Recipe) -> PlainCurve | None:
    """The curve, where a run differs from what it was measured with in the control of length alone."""
    objective = recipe.setting("policy", "objective", "name")
    curve = committed_curve()
    if objective in {None, "dpo"} or not curve.rounds or facts(recipe) != curve.facts:
        return None
    return curve


def facts(recipe: Recipe) -> dict[str, Any]:
    """The settings on which a comparison rests."""
    steps = {step: _without(recipe.steps.get(step, {}), _NOT_COMPARED.get(step, set())) for step in STEPS}
    told = recipe.model_extra or {}
    return {
        "model": recipe.model if is_mapping(recipe.model) else {"path": recipe.model},
        "initial": told.get("initial"),
        "blocks": told.get("blocks", 1),
        "beta": recipe.setting("policy", "objective", "beta"),
        **steps,
    }


def _without(settings: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in names}
