"""Step type `train`: an objective on a round's examples."""

import json
from collections.abc import Mapping
from pathlib import Path

from prefloop.config import ScaledFit, StepConfig, TrainStep
from prefloop.errors import DataError
from prefloop.loop.artifact import Inputs
from prefloop.loop.scope import Scope
from prefloop.loop.steps.work import StepType, Work, nearest
from prefloop.objectives import Fit, Objective, find_objective
from prefloop.records import Example, PolicyCard, content_of, seed_for
from prefloop.training import BlockOfRound, TokenExample, TrainRequest, example_data, tokenised, train

TOKENS_PER_BATCH = 2048
"""Padded tokens of a forward pass where the machine says `auto`: on CPU larger ones are not faster."""


def make_policy(work: Work) -> Mapping[str, float]:
    """Tokenises, fits what is to be fitted, trains, and writes the policy with its metrics and its card."""
    settings = work.settings
    assert isinstance(settings, TrainStep)
    objective = find_objective(settings.objective.name, "objective")
    examples, dropped = tokenised(
        list(work.records("examples", Example)), work.resources.bench.codec, objective.roles, settings.max_length
    )
    if not examples:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
        raise DataError(
            f"{work.artifact.place}/{work.artifact.step}: no example can be trained on ({reasons}). "
            f"Raise {work.artifact.step}.max_length."
        )
    hyper, fits = resolved_hyper(objective, settings, examples)
    request = TrainRequest(
        settings=settings,
        objective=objective,
        hyper=hyper,
        examples=examples,
        start=work.policy("start"),
        references={slot: work.policy(slot) for slot in settings.references},
        seed=seed_for(work.recipe.seed, work.artifact.step, work.turn),
        block=_block(work),
        scratch=work.scratch,
        tokens_per_batch=TOKENS_PER_BATCH if (budget := work.resources.machine.tokens_per_batch) == "auto" else budget,
        checkpoint_steps=work.resources.machine.checkpoint_steps,
    )
    metrics = train(request, work.resources.bench, work.out / "model", work.report)
    (work.out / "training.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics), encoding="utf-8")
    if fits:
        (work.out / "fitted.json").write_text(json.dumps(fits, indent=1) + "\n", encoding="utf-8")
    (work.out / "policy.json").write_text(_card(work, settings).model_dump_json(indent=1) + "\n", encoding="utf-8")
    return {"examples": len(examples), "steps": len(metrics), **dropped}


def resolved_hyper(
    objective: Objective, settings: TrainStep, examples: list[TokenExample]
) -> tuple[dict[str, float], dict[str, dict[str, object]]]:
    """Hyper-parameters as numbers, and how the fitted ones came about."""
    options = objective.checked(settings.objective.options, "policy.objective")
    data = example_data(examples, objective.roles)
    hyper: dict[str, float] = {}
    fits: dict[str, dict[str, object]] = {}
    for name in type(options).model_fields:
        value = getattr(options, name)
        if isinstance(value, ScaledFit):
            fit: Fit = objective.fit_on(name, data)
            fits[name] = {"value": fit.value * value.fitted, "factor": value.fitted, "warning": fit.warning}
            value = fit.value * value.fitted
        hyper[name] = value
    return hyper, fits


def _block(work: Work) -> BlockOfRound:
    if (number := work.artifact.place.block) is None:
        return BlockOfRound(0, 1, None)
    state: Path | None = None
    start = work.artifact.inputs["start"][0]
    if number > 0 and start.step == work.artifact.step and start.place.round == work.artifact.place.round:
        (state,) = work.path("start").glob("checkpoint-*/state.safetensors")
    return BlockOfRound(number, work.recipe.blocks, state)


def _card(work: Work, settings: TrainStep) -> PolicyCard:
    source = work.resources.source
    inputs = work.artifact.inputs
    return PolicyCard(
        identity=work.artifact.identity,
        kind="full" if settings.lora is None else "lora",
        base=source.name,
        base_identity=source.identity,
        start=inputs["start"][0].identity,
        references={slot: inputs[slot][0].identity for slot in settings.references},
        examples=inputs["examples"][0].identity,
        round=work.artifact.place.round or 0,
        block=work.artifact.place.block or 0,
        files=content_of(work.out / "model"),
    )


def _inputs(_name: str, settings: StepConfig, scope: Scope) -> Inputs:
    assert isinstance(settings, TrainStep)
    references = {slot: (scope.policy(policy),) for slot, policy in settings.references.items()}
    return {"examples": nearest(settings, scope, Example), "start": (scope.policy(settings.start),), **references}


TRAIN = StepType(make_policy, _inputs)
