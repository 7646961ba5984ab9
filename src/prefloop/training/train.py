"""One train step from start to end: references scored once, then optimiser steps, resumable at each checkpoint."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from prefloop.errors import DataError
from prefloop.policy import PolicyFiles, Workbench
from prefloop.records import in_pieces
from prefloop.training.average import MovingAverage, average_at_start
from prefloop.training.best import MEASURED, best_step, is_given_up, is_measured_after, require_measurable
from prefloop.training.checkpoint import (
    MARGINS,
    STATE,
    Metrics,
    checkpoint_at,
    latest_checkpoint,
    optimizer_tensors,
    restore,
    restored_margins,
    restored_state,
    save_checkpoint,
    state_tensors,
    steps_at,
)
from prefloop.training.columns import data_columns, picked
from prefloop.training.engine import Engine
from prefloop.training.loss import LossOfPlan
from prefloop.training.margins import margins_after, margins_before, write_margins
from prefloop.training.optimizers import optimizer_for
from prefloop.training.processes import Processes
from prefloop.training.references import frozen_policies, reference_scores, same_as_start, weights_of, with_mixtures
from prefloop.training.request import Notice, Progress, TrainRequest
from prefloop.training.rows import TokenExample, step_plan
from prefloop.training.schedule import Schedule
from prefloop.training.skipped import keep_skipped, step_or_skip
from prefloop.training.validation import Validation

EMA = "ema"
"""The folder of the policy whose weights are the average of those of the steps."""


def train(
    request: TrainRequest, bench: Workbench, out: Path, progress: Progress, notice: Notice = lambda _text: None
) -> list[Metrics]:
    """Trains and writes the policy as a Hugging Face directory to `out`; returns the metrics of each step.

    A moving average of it, if wanted, is written under the same name to the folder `ema` beside it.

    Beside it, where examples are pairs, stands how far each chosen answer was ahead when last seen, and of the worst
    also before and after; and what was measured on the validation examples, where there are any. Where validation
    chooses the best step, the policy is as it was after that one, and so is what the next block of the round goes on
    from.
    Progress is kept in `request.scratch`: a train step that was killed goes on from there, bit for bit.

    Raises:
        DataError: soft labels, or what is to be measured, cannot have an effect.
    """
    settings = request.settings
    require_measurable(settings, request.objective, validation=len(request.validation) > 0)
    plan = step_plan(len(request.examples), settings.batch_size, settings.epochs, request.seed)
    weights = {policy: weights_of(policy) for policy in {*frozen_policies(request).values()}}
    loss = _loss(request, request.examples, plan[: len(plan) // settings.epochs], weights, bench, progress)
    _require_soft_labels(request, loss)
    held_plan = list(in_pieces(range(len(request.validation)), settings.batch_size))
    held_loss = _loss(request, request.validation, held_plan, weights, bench, progress) if held_plan else None
    averaged = average_at_start(request, bench)
    with bench.for_training(
        request.start,
        settings.lora,
        request.seed,
        settings.precision,
        recompute=request.recompute,
        live=request.live,
    ) as trainable:
        engine = Engine(
            trainable,
            loss,
            request.examples,
            optimizer_for(trainable.parameters(), settings),
            settings.max_grad_norm,
            request.budget,
            request.layout,
            Processes.joined(),
            notice,
        )
        validation = Validation.of(engine, held_loss, request.validation, held_plan)
        decay = settings.ema_decay
        average = None if decay is None else MovingAverage(averaged or trainable.parameters(), decay)
        metrics = _begun(request, engine, average, plan[0])
        before = validation.before(engine.state, request.scratch)
        schedule = _schedule(request, len(plan))
        _take_steps(request, engine, average, validation, plan, schedule, metrics, progress)
        step = _at_best(request, engine, average, metrics)
        measured = {name: value for name, value in metrics[step - 1].items() if name.startswith(MEASURED)}
        after = {name.removeprefix(MEASURED): value for name, value in measured.items()}
        validation.write(out.parent, before, after or validation.measured(engine.state), step)
        margins = margins_after(request, engine)
        trainable.save(out)
        keep_skipped(request.scratch, out.parent)
        if not request.block.is_last:
            save_checkpoint(out.parent, schedule.begun + step, [], _held(engine))
        if average is not None:
            average.save(trainable, out.parent / EMA / out.name)
    started = margins_before(request, engine, list(margins), bench)
    write_margins(out.parent, [one.example_id for one in request.examples], engine.margins, started, margins)
    return metrics


def _take_steps(
    request: TrainRequest,
    engine: Engine,
    average: MovingAverage | None,
    validation: Validation,
    plan: Sequence[Sequence[int]],
    schedule: Schedule,
    metrics: list[Metrics],
    progress: Progress,
) -> None:
    """Takes the steps that are left, and adds their metrics; a checkpoint is due by number, and where one is best."""
    settings = request.settings
    for number in range(len(metrics), len(plan)):
        if is_given_up(settings, metrics):
            break
        step, rate = number + 1, schedule.rate(number)
        done = step_or_skip(engine, plan[number], rate, metrics, request.scratch)
        line: Metrics = {"step": step, **done, "learning_rate": rate, "examples": len(plan[number])}
        if average is not None:
            line["ema_distance"] = average.take(engine.trainable.parameters())
        if is_measured_after(step, len(plan), settings):
            line |= {f"{MEASURED}{name}": value for name, value in validation.measured(engine.state).items()}
        metrics.append(line)
        progress("train", step, len(plan))
        best = best_step(settings, metrics)
        if (step % request.checkpoint_steps == 0 or step == best) and step < len(plan):
            tensors = {**_held(engine), MARGINS: engine.margins, **({} if average is None else average.tensors())}
            save_checkpoint(request.scratch, step, metrics, tensors, request.keep_last, best)


def _at_best(request: TrainRequest, engine: Engine, average: MovingAverage | None, metrics: Sequence[Metrics]) -> int:
    """Puts an engine back to the best step where that is not the last; returns which one it stands at."""
    step = best_step(request.settings, metrics) or len(metrics)
    if step < len(metrics):
        state = checkpoint_at(request.scratch, step) / STATE
        restore(state, engine.trainable.parameters(), engine.optimizer)
        engine.state = restored_state(state, engine.state)
        if average is not None:
            average.restore(state)
    return step


def _held(engine: Engine) -> dict[str, Tensor]:
    """What training holds beside margins."""
    return {**optimizer_tensors(engine.trainable.parameters(), engine.optimizer), **state_tensors(engine.state)}


def _begun(
    request: TrainRequest, engine: Engine, average: MovingAverage | None, first_step: Sequence[int]
) -> list[Metrics]:
    """Puts an engine where training goes on: at the newest checkpoint, or where the block before ended.

    Returns:
        The metrics of the steps that are done.
    """
    parameters, optimizer = engine.trainable.parameters(), engine.optimizer
    if (checkpoint := latest_checkpoint(request.scratch)) is not None:
        state, _, metrics = checkpoint
        restore(state, parameters, optimizer)
        engine.state = restored_state(state, engine.state)
        engine.margins = restored_margins(state)
        if average is not None:
            average.restore(state)
        return metrics
    engine.check_start(first_step, same_as_start(request))
    if request.block.optimizer_state is not None:
        restore(request.block.optimizer_state, parameters, optimizer)
        engine.state = restored_state(request.block.optimizer_state, engine.state)
    return []


def _loss(
    request: TrainRequest,
    examples: Sequence[TokenExample],
    plan: Sequence[Sequence[int]],
    weights: Mapping[PolicyFiles, str],
    bench: Workbench,
    progress: Progress,
) -> LossOfPlan:
    """The objective on some examples, with what its references say of them."""
    soft_labels = request.settings.soft_labels
    data = data_columns(examples, request.objective, soft_labels=soft_labels)
    frozen = {
        name: reference_scores(name, policy, weights[policy], request, examples, plan, bench, progress)
        for name, policy in frozen_policies(request).items()
    }
    parts = tuple(example.part for example in examples)
    return LossOfPlan(
        request.objective,
        request.hyper,
        data,
        with_mixtures(frozen, request),
        soft_labels,
        request.seed,
        parts if any(parts) else (),
    )


def _require_soft_labels(request: TrainRequest, loss: LossOfPlan) -> None:
    count = len(request.examples)
    if loss.soft_labels and bool((picked(loss.data["prob_chosen_wins"], range(count)) == 1).all()):
        raise DataError(
            f"soft_labels has no effect: in all {count} examples the chosen answer wins for certain. "
            "Remove it, or give data with prob_chosen_wins."
        )


def _schedule(request: TrainRequest, steps: int) -> Schedule:
    """The rates of this train step, by where it stands in its round."""
    settings, block = request.settings, request.block
    return Schedule(
        peak=settings.learning_rate,
        shape=settings.schedule,
        warmup=settings.warmup,
        warmup_steps=settings.warmup_steps,
        steps=steps,
        block=block.number,
        blocks=block.count,
        begun=0 if block.optimizer_state is None else steps_at(block.optimizer_state),
    )
