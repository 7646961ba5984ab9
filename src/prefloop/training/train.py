"""One train step from start to end: references scored once, then optimiser steps, resumable at each checkpoint."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from prefloop.errors import DataError
from prefloop.policy import Workbench
from prefloop.records import in_pieces
from prefloop.training.checkpoint import (
    MARGINS,
    Metrics,
    latest_checkpoint,
    optimizer_tensors,
    restore,
    restored_margins,
    restored_state,
    save_checkpoint,
    state_tensors,
)
from prefloop.training.columns import data_columns, picked
from prefloop.training.engine import LossOfPlan, PlainEngine
from prefloop.training.margins import write_margins
from prefloop.training.references import reference_scores
from prefloop.training.request import Progress, TrainRequest
from prefloop.training.rows import TokenExample, step_plan
from prefloop.training.schedule import learning_rate_at
from prefloop.training.validation import Validation


def train(request: TrainRequest, bench: Workbench, out: Path, progress: Progress) -> list[Metrics]:
    """Trains and writes the policy as a Hugging Face directory to `out`; returns the metrics of each step.

    Beside it, where examples are pairs, stands how far each chosen answer was ahead when last seen; and what was
    measured on the validation examples before and after, where there are any.
    Progress is kept in `request.scratch`: a train step that was killed goes on from there, bit for bit.
    """
    plan = step_plan(len(request.examples), request.settings.batch_size, request.settings.epochs, request.seed)
    first_epoch = plan[: len(plan) // request.settings.epochs]
    loss = _loss(request, request.examples, first_epoch, bench, progress)
    _require_soft_labels(request, loss)
    held_plan = list(in_pieces(range(len(request.validation)), request.settings.batch_size))
    held_loss = _loss(request, request.validation, held_plan, bench, progress, "validation-") if held_plan else None
    with bench.for_training(request.start, request.settings.lora, request.seed, request.live) as trainable:
        parameters = trainable.parameters()
        optimizer = torch.optim.AdamW(
            parameters.values(),
            lr=request.settings.learning_rate,
            weight_decay=request.settings.weight_decay,
            fused=True,
        )
        engine = PlainEngine(
            trainable,
            loss,
            request.examples,
            optimizer,
            request.settings.max_grad_norm,
            request.tokens_per_batch,
            request.layout,
        )
        validation = Validation.of(engine, held_loss, request.validation, held_plan)

        def held() -> dict[str, Tensor]:
            return {**optimizer_tensors(parameters, optimizer), **state_tensors(engine.state)}

        metrics: list[Metrics] = []
        if (checkpoint := latest_checkpoint(request.scratch)) is not None:
            state, _, metrics = checkpoint
            restore(state, parameters, optimizer)
            engine.state = restored_state(state, engine.state)
            engine.margins = restored_margins(state)
        else:
            same = [name for name, policy in request.references.items() if policy.identity == request.start.identity]
            engine.check_start(plan[0], same)
            if request.block.optimizer_state is not None:
                restore(request.block.optimizer_state, parameters, optimizer)
                engine.state = restored_state(request.block.optimizer_state, engine.state)
        before = validation.before(engine.state, request.scratch)
        for number, indices in enumerate(plan):
            if number < len(metrics):
                continue
            rate = _learning_rate(request, number, len(plan))
            done = engine.step(indices, rate, number)
            metrics.append({"step": number + 1, **done, "learning_rate": rate, "examples": len(indices)})
            progress("train", number + 1, len(plan))
            if (number + 1) % request.checkpoint_steps == 0 and number + 1 < len(plan):
                save_checkpoint(request.scratch, number + 1, metrics, {**held(), MARGINS: engine.margins})
        validation.write(out.parent, before, validation.measured(engine.state))
        trainable.save(out)
        if request.block.number + 1 < request.block.count:
            save_checkpoint(out.parent, len(plan), [], held())
    if not bool(engine.margins.isnan().any()):
        write_margins(out.parent, [one.example_id for one in request.examples], engine.margins)
    return metrics


def _loss(
    request: TrainRequest,
    examples: Sequence[TokenExample],
    plan: Sequence[Sequence[int]],
    bench: Workbench,
    progress: Progress,
    of: str = "",
) -> LossOfPlan:
    """The objective on some examples, with what its references say of them."""
    soft_labels = request.settings.soft_labels
    data = data_columns(examples, request.objective, soft_labels=soft_labels)
    frozen = {
        name: reference_scores(name, policy, request, examples, plan, bench, progress, of)
        for name, policy in request.references.items()
    }
    parts = tuple(example.part for example in examples)
    return LossOfPlan(
        request.objective, request.hyper, data, frozen, soft_labels, request.seed, parts if any(parts) else ()
    )


def _require_soft_labels(request: TrainRequest, loss: LossOfPlan) -> None:
    count = len(request.examples)
    if loss.soft_labels and bool((picked(loss.data["prob_chosen_wins"], range(count)) == 1).all()):
        raise DataError(
            f"soft_labels has no effect: in all {count} examples the chosen answer wins for certain. "
            "Remove it, or give data with prob_chosen_wins."
        )


def _learning_rate(request: TrainRequest, number: int, steps: int) -> float:
    """The rate of a step, by where it stands in its round."""
    return learning_rate_at(
        (request.block.number + (number + 0.5) / steps) / request.block.count,
        peak=request.settings.learning_rate,
        warmup=request.settings.warmup,
        schedule=request.settings.schedule,
    )
