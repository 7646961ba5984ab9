"""What frozen policies say of a round's examples, computed once and kept."""

from collections.abc import Sequence
from typing import Any

from prefloop.policy import PolicyFiles, Workbench
from prefloop.training.checkpoint import computed_once
from prefloop.training.columns import column
from prefloop.training.loss import Scores, functionals_of
from prefloop.training.request import Progress, TrainRequest
from prefloop.training.rows import TokenExample
from prefloop.training.scoring import frozen_scores


def reference_scores(
    name: str,
    policy: PolicyFiles,
    request: TrainRequest,
    examples: Sequence[TokenExample],
    plan: Sequence[Sequence[int]],
    bench: Workbench,
    progress: Progress,
    of: str,
) -> Scores:
    """Scores of a frozen policy for some examples, computed once and kept in the scratch folder."""
    objective, count = request.objective, len(examples)
    layout = f"{request.layout.name}-{bench.device.type}-{request.budget.tokens}"  # rounding differs between them

    lora = request.settings.lora
    quantize = None if lora is None else lora.quantize

    def scored() -> dict[str, list[Any]]:
        scores: dict[str, list[Any]] = {}
        done = 0
        with bench.for_scoring(policy, request.settings.precision, quantize) as model:
            for batch, values in frozen_scores(
                model,
                examples,
                objective.roles,
                plan,
                request.budget.tokens,
                functionals_of(objective, name),
                request.layout,
            ):
                for key, of_batch in values.items():
                    into = scores.setdefault(key, [None] * count)
                    for index, value in zip(batch, of_batch, strict=True):
                        into[index] = value
                done += len(batch)
                progress(f"score with {name}", done, count)
        return scores

    kept = computed_once(request.scratch / f"{of}{name}-scores-{layout}.json", scored)
    return {key: column(values) for key, values in kept.items()}
