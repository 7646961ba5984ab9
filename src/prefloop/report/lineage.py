"""Which parts of a run folder the present recipe made.

After a changed value and `--until`, what lies behind the step at which the run stopped is still what the recipe of
before made. The journal knows what everything was made from.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefloop.config import Recipe, as_known_now, load_recipe
from prefloop.errors import RecipeError
from prefloop.records import AVERAGED, RoundSummary
from prefloop.report.view import Stage


@dataclass(frozen=True)
class RoundOnDisk:
    """A round as it lies there."""

    folder: str
    summary: RoundSummary | None


def recipe_of(run: Path) -> Recipe | None:
    """The recipe of a run folder with all its settings; None where this version cannot read it."""
    try:
        return load_recipe(str(run / "recipe.yaml")).recipe
    except RecipeError:
        return None


def left_over(recipe: Recipe | None, stages: Sequence[Stage], rounds: Sequence[RoundOnDisk]) -> tuple[str, ...]:
    """What an earlier recipe left: the paths of single artifacts, and folders of whole rounds.

    An artifact belongs to the recipe if it was made with the recipe's settings, from artifacts that belong to it. A
    round belongs if the one before it is closed and ended with the policy that this one began with.
    """
    stale = () if recipe is None else tuple(_stale_artifacts(recipe, stages))
    return (*stale, *_rounds_behind(rounds, stale))


def _stale_artifacts(recipe: Recipe, stages: Sequence[Stage]) -> Iterator[str]:
    by_identity = {stage.identity: stage for stage in stages}
    known: dict[str, bool] = {}

    def belongs(stage: Stage) -> bool:
        if stage.identity not in known:
            read = (by_identity[name] for name in _read_by(stage) if name in by_identity)
            known[stage.identity] = stage.in_place and _as_told(recipe, stage.made_from) and all(map(belongs, read))
        return known[stage.identity]

    return (stage.path for stage in stages if stage.in_place and not belongs(stage))


def _read_by(stage: Stage) -> Iterator[str]:
    """Identities of what it was made from; those that the journal does not know are models."""
    for identities in (stage.made_from or {}).get("inputs", {}).values():
        yield from (identity.removesuffix(AVERAGED) for identity in identities)


def _as_told(recipe: Recipe, made_from: Mapping[str, Any] | None) -> bool:
    """Whether the recipe says now what it said then.

    An older version did not write it down, or did not know a setting yet: then it was what is the default now.
    """
    if made_from is None:
        return True
    name, number = made_from["step"], made_from["round"]
    if name not in recipe.steps or made_from["seed"] != recipe.seed:
        return False
    if number is not None and made_from["blocks"] != recipe.blocks:
        return False
    then = as_known_now(made_from["settings"])
    return then is not None and then.said() == recipe.step(name, number or 0).said()


def _rounds_behind(rounds: Sequence[RoundOnDisk], stale: Sequence[str]) -> Iterator[str]:
    start: str | None = None
    closed = True
    for one in rounds:
        begun = None if one.summary is None else one.summary.policies.get("round_start")
        if not closed or (start is not None and begun is not None and begun != start):
            closed = False
            yield one.folder
            continue
        closed = one.summary is not None and f"{one.folder}/summary.json" not in stale
        if one.summary is not None:
            kept = one.summary.decision in {"accepted", "warned"}
            start = one.summary.policies.get("current" if kept else "round_start")
