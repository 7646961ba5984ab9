"""After which step the policy was best on validation examples, and when going on is given up."""

from collections.abc import Sequence
from math import isfinite

from prefloop.config import TrainStep
from prefloop.errors import RecipeError
from prefloop.objectives import Objective
from prefloop.training.checkpoint import Metrics

MEASURED = "eval_"
"""Before the name of a metric of validation examples, in the line of the step after which it was measured."""
SMALLER_IS_BETTER = {"eval_loss"}


def require_measurable(settings: TrainStep, objective: Objective, *, validation: bool) -> None:
    """What is to be measured on validation examples can be (RecipeError where not).

    Args:
        settings: of the train step.
        objective: that is trained.
        validation: there are such examples.
    """
    if settings.eval_steps is not None and not validation:
        raise RecipeError(
            f"eval_steps is {settings.eval_steps}, but no examples are kept apart for validation. "
            "Give the data step `validation: {share: 0.05}`, or remove it."
        )
    has_rewards = "ref" in objective.models and {"chosen", "rejected"} <= {*objective.roles}
    if (settings.metric_for_best_model or "").startswith("eval_rewards/") and not (
        objective.told == "rewards" or (has_rewards and "beta" in objective.options.model_fields)
    ):
        raise RecipeError(
            f"metric_for_best_model is {settings.metric_for_best_model}, but {objective.name} has no implicit rewards: "
            "they need a reference, beta and pairs. Use eval_loss."
        )


def is_measured_after(step: int, steps: int, settings: TrainStep) -> bool:
    """Whether validation examples are measured after a step, counted from 1: every `eval_steps`, and at the end."""
    return settings.eval_steps is not None and (step % settings.eval_steps == 0 or step == steps)


def best_step(settings: TrainStep, lines: Sequence[Metrics]) -> int | None:
    """The first step with the best metric so far, among finite ones; None where none is chosen.

    Args:
        settings: of the train step.
        lines: the metrics of all steps so far; some have those of validation examples too.
    """
    measured = [(step, value) for step, value in _measured(settings, lines) if isfinite(value)]
    if not measured:
        return None
    sign = 1 if settings.metric_for_best_model in SMALLER_IS_BETTER else -1
    return min(measured, key=lambda one: sign * one[1])[0]


def is_given_up(settings: TrainStep, lines: Sequence[Metrics]) -> bool:
    """Whether as many measurements as there is patience for followed the best one."""
    if settings.early_stopping_patience is None:
        return False
    best = best_step(settings, lines) or 0
    return sum(step > best for step, _ in _measured(settings, lines)) >= settings.early_stopping_patience


def _measured(settings: TrainStep, lines: Sequence[Metrics]) -> list[tuple[int, float]]:
    name = settings.metric_for_best_model
    return [(step, line[name]) for step, line in enumerate(lines, start=1) if name is not None and name in line]
