"""The dry pass: the largest pass goes forward and backward once, so that what will not fit fails at once."""

from collections.abc import Sequence

import torch

from prefloop.config import TrainStep
from prefloop.objectives import Objective
from prefloop.policy import ModelFacts, PolicyFiles, TokenRow, Workbench
from prefloop.policy.memory import MOMENTS, micro_batch
from prefloop.training.answers import Together
from prefloop.training.layout import ROWS, Budget, Layout
from prefloop.training.loss import functionals_of, outputs_of
from prefloop.training.rows import TokenExample


def largest_pass(
    examples: Sequence[TokenExample],
    roles: Sequence[str],
    batch_size: int,
    budget: Budget,
    facts: ModelFacts,
    layout: Layout = ROWS,
) -> list[TokenRow]:
    """Of the passes into which examples of similar length would be cut, the answers of the one that needs most memory.

    Args:
        examples: what training could meet.
        roles: of the answers that are read.
        batch_size: examples an optimiser step.
        budget: of a pass.
        facts: of the model.
        layout: of training.
    """
    order = sorted(range(len(examples)), key=lambda index: -examples[index].longest)
    passes: list[list[TokenRow]] = []
    for start in range(0, len(order), batch_size):
        step = {index: examples[index] for index in order[start : start + batch_size]}
        for batch in layout.cut(step, budget.tokens):
            together = Together.of(step, roles, [(batch, True)]).within(layout, budget)
            passes += [[together.answers[place].row for place in places] for places in together.passes]

    def need(rows: list[TokenRow]) -> int:
        shape = layout.shape(rows, facts)
        return sum(part.bytes for part in micro_batch(facts, shape))

    return max(passes, key=need)


def dry_pass(
    rows: Sequence[TokenRow],
    objective: Objective,
    settings: TrainStep,
    bench: Workbench,
    start: PolicyFiles,
    layout: Layout = ROWS,
    *,
    recompute: bool = False,
) -> None:
    """One real forward and backward pass while all is held that training holds. Nothing is updated or left behind.

    Args:
        rows: the answers that pass.
        objective: says what is computed of them.
        settings: of the train step.
        bench: whose models are used; the base stays loaded for what follows.
        start: the policy that is trained.
        layout: of training.
        recompute: layers are computed again going backward.

    Raises:
        MemoryError: there is not enough; so do RuntimeError and OSError (`is_out_of_memory`).
    """
    wanted = functionals_of(objective, "policy")
    with torch.random.fork_rng():
        nf4 = settings.precision if settings.lora is not None and settings.lora.quantize else None
        bench.base(start.directory, nf4)  # stays loaded once references were scored or answers sampled
        with bench.for_training(
            start,
            settings.lora,
            0,
            settings.precision,
            recompute=recompute,
            live=None if objective.live is None else start,
            heads=outputs_of(wanted),
        ) as trainable:
            parameters = trainable.parameters().values()
            count = MOMENTS[settings.optimizer]
            moments = [torch.full_like(parameter, 0.0) for parameter in parameters for _ in range(count)]
            prompts = range(len(rows)) if "prompt_logps" in wanted else ()
            scores = layout.scores(trainable.model, rows, wanted, prompts, trainable.live, trainable.heads)
            torch.stack([values.double().sum() for values in scores.values()]).sum().backward()
            del moments
