"""The dry pass: the largest micro-batch goes forward and backward once, so that what will not fit fails at once."""

from collections.abc import Sequence

import torch

from prefloop.config import TrainStep
from prefloop.objectives import Objective
from prefloop.policy import ModelFacts, PolicyFiles, Workbench
from prefloop.policy.memory import LOGIT_COPIES_TRAINING, activations, batch_logits
from prefloop.training.columns import data_columns, picked
from prefloop.training.engine import LossOfPlan, functionals_of
from prefloop.training.layout import ROWS, Layout
from prefloop.training.rows import TokenExample


def largest_micro_batch(
    examples: Sequence[TokenExample],
    batch_size: int,
    tokens_per_batch: int | None,
    facts: ModelFacts,
    layout: Layout = ROWS,
) -> list[TokenExample]:
    """Of the micro-batches that examples of similar length would be cut into, the one that needs most memory.

    Args:
        examples: what training could meet.
        batch_size: examples an optimiser step.
        tokens_per_batch: padded tokens of a forward pass; None where an optimiser step has to stay together.
        facts: of the model.
        layout: of training.
    """
    order = sorted(range(len(examples)), key=lambda index: -examples[index].longest)
    steps = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    batches = [
        [examples[index] for index in batch] for step in steps for batch in layout.cut(examples, step, tokens_per_batch)
    ]

    def need(batch: list[TokenExample]) -> int:
        shape = layout.shape(batch, facts)
        return activations(facts, shape).bytes + batch_logits(facts, shape, LOGIT_COPIES_TRAINING).bytes

    return max(batches, key=need)


def dry_pass(
    batch: Sequence[TokenExample],
    objective: Objective,
    settings: TrainStep,
    bench: Workbench,
    start: PolicyFiles,
    layout: Layout = ROWS,
) -> None:
    """One real forward and backward pass while all is held that training holds. Nothing is updated or left behind.

    Args:
        batch: the micro-batch.
        objective: the loss; hyper-parameters that are fitted later are taken as zero, memory does not depend on them.
        settings: of the train step.
        bench: whose models are used; the base stays loaded for what follows.
        start: the policy that is trained.
        layout: of training.

    Raises:
        MemoryError: there is not enough; so do RuntimeError and OSError (`is_out_of_memory`).
    """
    options = objective.checked(settings.objective.options, "policy.objective").model_dump()
    hyper = {name: 0.0 if isinstance(value, dict) else value for name, value in options.items()}
    data = data_columns(batch, objective, soft_labels=settings.soft_labels, missing=1.0)
    with torch.random.fork_rng():
        bench.base(start.directory)  # stays loaded once references were scored or answers sampled
        live = start if objective.live is not None else None
        with bench.for_training(start, settings.lora, seed=0, live=live) as trainable:
            parameters = trainable.parameters().values()
            moments = [torch.full_like(parameter, 0.0) for parameter in parameters for _ in range(2)]
            wanted = functionals_of(objective, "policy")
            scores = layout.scores(trainable.model, batch, objective.roles, wanted, trainable.live)
            answers = {name: values.cpu() for name, values in scores.items()}
            at_reference = {name: values.detach() for name, values in answers.items()}
            frozen = dict.fromkeys(objective.models, at_reference)
            loss = LossOfPlan(objective, hyper, data, frozen, settings.soft_labels)
            everything = range(len(batch))
            of_step = loss.of_step(everything, 0)
            if objective.state is not None:
                of_step["state"] = objective.state.initial(hyper)
            (loss(everything, answers, of_step) * picked(data["weights"], everything)).mean().backward()
            del moments


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is exhausted: torch and the operating system have several ways."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError | OSError) and "allocate memory" in str(error)
    )
