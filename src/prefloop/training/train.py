"""One train step from start to end: references scored once, then optimiser steps, resumable at each checkpoint."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from prefloop.config import TrainStep
from prefloop.objectives import Objective
from prefloop.policy import PolicyFiles, Workbench
from prefloop.training.checkpoint import Metrics, latest_checkpoint, optimizer_tensors, restore, save_checkpoint
from prefloop.training.engine import LossOfPlan, PlainEngine, Scores, frozen_scores
from prefloop.training.rows import TokenExample, example_data, step_plan
from prefloop.training.schedule import learning_rate_at


@dataclass(frozen=True)
class BlockOfRound:
    """Where in its round a train step stands: the optimiser and its schedule go on over the blocks of a round."""

    number: int
    count: int
    optimizer_state: Path | None
    """Left by the block before; None in the first."""


@dataclass(frozen=True)
class TrainRequest:
    """Everything that decides what a train step computes, and where it may keep its progress."""

    settings: TrainStep
    objective: Objective
    hyper: Mapping[str, float]
    examples: Sequence[TokenExample]
    start: PolicyFiles
    references: Mapping[str, PolicyFiles]
    seed: int
    block: BlockOfRound
    scratch: Path
    tokens_per_batch: int
    checkpoint_steps: int


Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


def train(request: TrainRequest, bench: Workbench, out: Path, progress: Progress) -> list[Metrics]:
    """Trains and writes the policy as a Hugging Face directory to `out`; returns the metrics of each step.

    Progress is kept in `request.scratch`: a train step that was killed goes on from there, bit for bit.
    """
    plan = step_plan(len(request.examples), request.settings.batch_size, request.settings.epochs, request.seed)
    frozen = {
        name: _reference(name, policy, request, plan, bench, progress) for name, policy in request.references.items()
    }
    data = {
        name: torch.from_numpy(values)
        for name, values in example_data(request.examples, request.objective.roles).items()
    }
    loss = LossOfPlan(request.objective, request.hyper, data, frozen)
    with bench.for_training(request.start, request.settings.lora, request.seed) as trainable:
        parameters = trainable.parameters()
        optimizer = torch.optim.AdamW(
            parameters.values(), lr=request.settings.learning_rate, weight_decay=request.settings.weight_decay
        )
        engine = PlainEngine(
            trainable, loss, request.examples, optimizer, request.settings.max_grad_norm, request.tokens_per_batch
        )
        metrics: list[Metrics] = []
        if (checkpoint := latest_checkpoint(request.scratch)) is not None:
            state, _, metrics = checkpoint
            restore(state, parameters, optimizer)
        else:
            same = [name for name, policy in request.references.items() if policy.identity == request.start.identity]
            engine.check_start(plan[0], same)
            if request.block.optimizer_state is not None:
                restore(request.block.optimizer_state, parameters, optimizer)
        for number, indices in enumerate(plan):
            if number < len(metrics):
                continue
            share = (request.block.number + (number + 0.5) / len(plan)) / request.block.count
            rate = learning_rate_at(
                share,
                peak=request.settings.learning_rate,
                warmup=request.settings.warmup,
                schedule=request.settings.schedule,
            )
            done = engine.step(indices, rate)
            metrics.append({"step": number + 1, **done, "learning_rate": rate, "examples": len(indices)})
            progress("train", number + 1, len(plan))
            if (number + 1) % request.checkpoint_steps == 0 and number + 1 < len(plan):
                save_checkpoint(request.scratch, number + 1, metrics, optimizer_tensors(parameters, optimizer))
        trainable.save(out)
        if request.block.number + 1 < request.block.count:
            save_checkpoint(out.parent, len(plan), [], optimizer_tensors(parameters, optimizer))
    return metrics


def _reference(
    name: str,
    policy: PolicyFiles,
    request: TrainRequest,
    plan: Sequence[Sequence[int]],
    bench: Workbench,
    progress: Progress,
) -> Scores:
    """Scores of a frozen policy for all examples, computed once and kept in the scratch folder."""
    roles, count = request.objective.roles, len(request.examples)
    layout = f"{bench.device.type}-{request.tokens_per_batch}"  # rounding differs between layouts
    kept = request.scratch / f"{name}-scores-{layout}.json"
    if kept.is_file():
        saved: dict[str, list[float]] = json.loads(kept.read_text(encoding="utf-8"))
        return {key: torch.tensor(values, dtype=torch.float64) for key, values in saved.items()}
    first_epoch = plan[: len(plan) // request.settings.epochs]
    scores = {f"{role}_logps": torch.full((count,), torch.nan, dtype=torch.float64) for role in roles}
    done = 0
    with bench.for_scoring(policy) as model:
        for batch, values in frozen_scores(model, request.examples, roles, first_epoch, request.tokens_per_batch):
            for key, column in values.items():
                scores[key][batch] = torch.tensor(column, dtype=torch.float64)
            done += len(batch)
            progress(f"score with {name}", done, count)
    aside = kept.with_suffix(".writing")
    aside.write_text(json.dumps({key: values.tolist() for key, values in scores.items()}), encoding="utf-8")
    aside.rename(kept)
    return scores
