"""Step type `train`: an objective on a round's examples."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import ceil, log
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefloop.config import (
    HarmonicMixture,
    LengthHeld,
    MachineConfig,
    ScaledFit,
    StepConfig,
    TrainStep,
    mixture_of,
    policies_of,
)
from prefloop.config.references import Reference
from prefloop.config.tokens import SUFFIX
from prefloop.loop.artifact import Artifact, Inputs
from prefloop.loop.scope import Scope, trains_policy
from prefloop.loop.steps.work import VALIDATION, StepType, Work
from prefloop.objectives import Objective, find_objective
from prefloop.policy import PolicyFiles
from prefloop.records import MixedPolicies, PolicyCard, ReferenceOfPolicy, Response, content_of, seed_for
from prefloop.training import (
    ABOUT,
    MISMATCHED,
    ROWS,
    SCORE_CACHE,
    TREES,
    VALIDATED,
    BlockOfRound,
    Budget,
    FrozenPolicies,
    Layout,
    Metrics,
    Mismatched,
    TokenExample,
    TokensOnDisk,
    TrainRequest,
    best_step,
    example_data,
    train,
)


def layout_of(machine: MachineConfig, *, takes_trees: bool) -> Layout:
    """How training lays out its answers on this machine."""
    return TREES if takes_trees and machine.layout == "auto" else ROWS


TOKENS_PER_BATCH = 2048
"""Tokens of a pass where the machine says `auto`, and one example where that alone has more: on CPU more at once is not
faster."""


def budget_of(machine: MachineConfig) -> Budget:
    """How much passes at once on this machine."""
    if machine.tokens_per_batch == "auto":
        return Budget(TOKENS_PER_BATCH)
    return Budget(machine.tokens_per_batch, splits_examples=True)


def make_policy(work: Work) -> Mapping[str, float]:
    """Fits what is to be fitted, trains, and writes the policy with its metrics and its card."""
    settings = work.settings
    assert isinstance(settings, TrainStep)
    objective = find_objective(settings.objective.name, "objective")
    seed = seed_for(work.recipe.seed, work.artifact.step, work.turn)
    examples = _examples(work.path("tokens"), objective, settings, seed)
    held = work.path("tokens") / VALIDATION
    hyper, fits = _resolved_hyper(work, settings, objective, example_data(examples, objective.roles))
    machine = work.resources.machine
    layout = layout_of(machine, takes_trees=work.resources.bench.takes_trees)
    if layout is ROWS and machine.layout == "auto":
        work.report.note(f"{work.artifact.path}: this model's layers cannot share what answers begin with")
    if (warning := _never_warm(settings, len(examples), work.recipe.blocks)) is not None:
        work.report.note(f"{work.artifact.path}: {warning}")
    request = TrainRequest(
        settings=settings,
        objective=objective,
        hyper=hyper,
        examples=examples,
        validation=_examples(held, objective, settings, seed) if held.is_dir() else (),
        start=work.policy("start"),
        average=work.policy("average") if "average" in work.artifact.inputs else None,
        references={slot: _reference(work, slot, of) for slot, of in settings.references.items()},
        seed=seed,
        block=_block(work),
        scratch=work.scratch,
        score_cache=work.run / SCORE_CACHE,
        budget=budget_of(machine),
        checkpoint_steps=machine.checkpoint_steps,
        keep_last=machine.keep_last,
        layout=layout,
        recompute=machine.gradient_checkpointing is True or work.artifact.path in work.resources.recomputed,
    )
    metrics, *_ = [_member(work, request, number) for number in range(settings.ensemble)]
    if fits:
        (work.out / "fitted.json").write_text(json.dumps(fits, indent=1) + "\n", encoding="utf-8")
    card = _card(work, settings, best_step(settings, metrics))
    (work.out / "policy.json").write_text(card.model_dump_json(indent=1) + "\n", encoding="utf-8")
    chosen = {} if card.best_step is None else {"best step": card.best_step}
    told = {**chosen, **_validated(work.out / VALIDATED), **_accuracy(work.out / ABOUT)}
    return {"examples": len(examples), "steps": len(metrics), **told}


def _member(work: Work, request: TrainRequest, number: int) -> list[Metrics]:
    """Trains one model of a step: the first, or a further reward model of an ensemble with seeds of its own."""
    out = work.out / member_name(number)
    out.mkdir(exist_ok=True)
    if number:
        own = seed_for(request.seed, "member", number)
        scratch = work.scratch / member_name(number)
        scratch.mkdir(exist_ok=True)
        request = replace(request, seed=own, scratch=scratch)
    metrics = train(request, work.resources.bench, out / "model", work.report, work.report.note)
    (out / "training.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics), encoding="utf-8")
    return metrics


def member_name(number: int) -> str:
    """Where in a train step's artifact a model of an ensemble lies; the first is where a single one would be."""
    return "." if number == 0 else f"member-{number:02d}"


def _examples(folder: Path, objective: Objective, settings: TrainStep, seed: int) -> Sequence[TokenExample]:
    """The examples of a folder as the objective reads them."""
    examples = TokensOnDisk(folder, objective.roles)
    return Mismatched.of(examples, settings.max_length, seed) if MISMATCHED in objective.roles else examples


def _reference(work: Work, slot: str, reference: Reference) -> PolicyFiles | FrozenPolicies:
    if isinstance(reference, str):
        return work.policy(slot)
    return FrozenPolicies(work.policies(slot), mixture_of(reference))


def _identities(inputs: Inputs, slot: str) -> tuple[str, ...]:
    return tuple(artifact.identity for artifact in inputs[slot])


def _recorded(reference: Reference, identities: tuple[str, ...]) -> ReferenceOfPolicy:
    """A reference as the policy's card has it."""
    mixture = mixture_of(reference)
    if mixture is None:
        return identities[0] if isinstance(reference, str) else identities
    if isinstance(mixture, HarmonicMixture):
        return MixedPolicies(kind="harmonic", policies=identities, weights=mixture.weights, eta=mixture.eta)
    return MixedPolicies(kind="geometric", policies=identities, weights=mixture.weights)


def _never_warm(settings: TrainStep, examples: int, blocks: int) -> str | None:
    """What to say where the warm-up is longer than the round, so that the rate never reaches its peak."""
    steps = ceil(examples / settings.batch_size) * settings.epochs * blocks
    if settings.warmup_steps is None or settings.warmup_steps <= steps:
        return None
    return (
        f"the warm-up takes {settings.warmup_steps} optimiser steps, but the round has about {steps}: the learning "
        f"rate ends at {steps / settings.warmup_steps:.0%} of {settings.learning_rate}. Lower warmup_steps, or give "
        "warmup, a share of the steps."
    )


def _validated(file: Path) -> dict[str, float]:
    """What was measured on validation examples, as numbers of the step."""
    if not file.is_file():
        return {}
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    names = [name for name in ("loss", "rewards/accuracies") if name in found["before"]]
    return {
        "validation examples": found["examples"],
        **{f"validation {name}, {when}": found[when][name] for name in names for when in ("before", "after")},
    }


def members_of(artifact: Path) -> list[Path]:
    """Where the models of a train step lie, the first one first."""
    return [artifact, *sorted(artifact.glob("member-*"))]


def _accuracy(file: Path) -> dict[str, float]:
    """How often a reward model is right on held-out pairs."""
    if not file.is_file():
        return {}
    about: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    low, high = about.get("interval") or (None, None)
    found = {"accuracy": about.get("accuracy"), "accuracy, low": low, "accuracy, high": high}
    return {name: value for name, value in found.items() if value is not None}


def _resolved_hyper(
    work: Work, settings: TrainStep, objective: Objective, data: Mapping[str, NDArray[np.float64]]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Hyper-parameters as numbers, and how the fitted ones came about."""
    options = objective.checked(settings.objective.options, "policy.objective")
    hyper: dict[str, Any] = {}
    fits: dict[str, dict[str, Any]] = {}
    for name in type(options).model_fields:
        value = getattr(options, name)
        if isinstance(value, ScaledFit):
            fit = objective.fit_on(name, data)
            scaled = fit.moved(name, fit.value * value.fitted)
            fits[name] = {"value": scaled.value, "factor": value.fitted, "warning": scaled.warning}
        elif isinstance(value, LengthHeld):
            fit, ratio = objective.fit_on(name, data), _length_ratio(work)
            correction = _carried(work, settings, name) + objective.correction(
                name, data, deviation=log(ratio / value.length_ratio), gain=value.gain
            )
            held = fit.moved(name, fit.value + correction)
            fits[name] = {
                "value": held.value,
                "fitted": fit.value,
                "correction": held.value - fit.value,
                "length_ratio": ratio,
                "target": value.length_ratio,
                "warning": held.warning,
            }
        else:
            hyper[name] = value
            continue
        hyper[name] = fits[name]["value"]
    return hyper, fits


def _length_ratio(work: Work) -> float:
    """Mean tokens of this round's own answers over those of the first round's, which the initial policy gave."""
    means = [
        np.mean([response.num_tokens for response in work.records(slot, Response)])
        for slot in ("answers", "first_answers")
    ]
    return float(means[0] / means[1])


def _carried(work: Work, settings: TrainStep, parameter: str) -> float:
    """The corrections so far, where the policy goes on against the same reference; else the policy holds them itself.

    That is so in every round where the reference stays, and in the later blocks of a round where it moves by round.
    """
    inputs = work.artifact.inputs
    for before in inputs["previous"]:
        same = all(_identities(before.inputs, slot) == _identities(inputs, slot) for slot in settings.references)
        fitted = work.path("previous") / "fitted.json"
        if same and fitted.is_file():
            return float(json.loads(fitted.read_text(encoding="utf-8")).get(parameter, {}).get("correction", 0.0))
    return 0.0


def _block(work: Work) -> BlockOfRound:
    if (number := work.artifact.place.block) is None:
        return BlockOfRound(0, 1, None)
    state: Path | None = None
    start = work.artifact.inputs["start"][0]
    if number > 0 and start.step == work.artifact.step and start.place.round == work.artifact.place.round:
        state = next(work.path("start").glob("checkpoint-*/state.safetensors"), None)  # an average has none
    return BlockOfRound(number, work.recipe.blocks, state)


def _card(work: Work, settings: TrainStep, best: int | None) -> PolicyCard:
    source = work.resources.source
    inputs = work.artifact.inputs
    return PolicyCard(
        identity=work.artifact.identity,
        kind="reward_model" if not trains_policy(settings) else "full" if settings.lora is None else "lora",
        base=source.name,
        base_identity=source.identity,
        start=inputs["start"][0].identity,
        references={slot: _recorded(of, _identities(inputs, slot)) for slot, of in settings.references.items()},
        examples=inputs["examples"][0].identity,
        round=work.artifact.place.round or 0,
        block=work.artifact.place.block or 0,
        files=content_of(work.out / "model"),
        best_step=best,
    )


def _inputs(name: str, settings: StepConfig, scope: Scope) -> Inputs:
    assert isinstance(settings, TrainStep)
    references = {slot: tuple(map(scope.policy, policies_of(of))) for slot, of in settings.references.items()}
    start = scope.policy(settings.start)
    tokens = scope.find(name + SUFFIX)
    read: dict[str, tuple[Artifact, ...]] = {
        "examples": tokens[0].inputs["examples"],
        "tokens": tokens,
        "start": (start,),
        **references,
    }
    if settings.ema_decay is not None and (average := scope.begun_average(start)):
        read["average"] = average
    return {**read, **_held_inputs(name, start, scope)} if any(_held(settings)) else read


def _held(settings: TrainStep) -> Iterator[str]:
    """Hyper-parameters that hold the length of the policy's answers."""
    objective = find_objective(settings.objective.name, "objective")
    options = objective.checked(settings.objective.options, "policy.objective")
    return (name for name in type(options).model_fields if isinstance(getattr(options, name), LengthHeld))


def _held_inputs(name: str, start: Artifact, scope: Scope) -> Inputs:
    """What the policy answered just before it is trained, and what the first round's did."""
    own = [
        made
        for made in scope.made_before()
        if made.step_type == "sample" and [one.identity for one in made.inputs["policy"]] == [start.identity]
    ]
    answers = tuple(own[-1:])
    return {
        "answers": answers,
        "first_answers": tuple(_first_of(made, scope) for made in answers),
        "previous": (start,) if start.step == name else (),
    }


def _first_of(made: Artifact, scope: Scope) -> Artifact:
    """What the same step made when it ran first."""
    if not scope.rounds:
        return made
    opened = scope.rounds[0]
    return opened.after[made.step] if made.step in opened.after else opened.blocks[0][made.step]


TRAIN = StepType(make_policy, _inputs, format=2)
