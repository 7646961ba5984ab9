"""What frozen policies say of a round's examples: computed once for all train steps of a run that ask the same."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import torch

from prefloop.policy import PolicyFiles, Workbench, model_identity
from prefloop.records import content_of, digest
from prefloop.training.columns import column
from prefloop.training.loss import Scores, functionals_of, outputs_of
from prefloop.training.mixtures import mixed
from prefloop.training.request import FrozenPolicies, Progress, TrainRequest
from prefloop.training.rows import TokenExample
from prefloop.training.score_cache import ScoreCache
from prefloop.training.scoring import frozen_scores

FORMAT = 1
"""Raised when the same model is to say something else of the same tokens, so that older scores are not taken for it."""
COMPUTE = ("torch", "transformers", "peft")
"""Packages on whose versions rounding depends."""


def weights_of(policy: PolicyFiles) -> str:
    """Hash of the bytes of a policy's files, read now: neither its name and place nor how it came about enter."""
    heads = [] if policy.heads is None else [content_of(policy.heads)]
    return digest([model_identity(policy.directory), policy.adapter and content_of(policy.adapter), *heads])


def frozen_policies(request: TrainRequest) -> dict[str, PolicyFiles]:
    """The policies that are scored, by model name; several under one name have numbers, as `aux_ref.0`."""
    found: dict[str, PolicyFiles] = {}
    for name, reference in request.references.items():
        if isinstance(reference, PolicyFiles):
            found[name] = reference
        else:
            found |= {f"{name}.{number}": policy for number, policy in enumerate(reference.policies)}
    return found


def same_as_start(request: TrainRequest) -> list[str]:
    """Names of the policies that are scored and are the one from which training starts; none inside a mixture."""
    mixtures = [name for name, one in request.references.items() if isinstance(one, FrozenPolicies) and one.mixture]
    return [
        name
        for name, policy in frozen_policies(request).items()
        if policy.identity == request.start.identity and name.partition(".")[0] not in mixtures
    ]


def with_mixtures(scores: Mapping[str, Scores], request: TrainRequest) -> dict[str, Scores]:
    """Scores of policies with those of mixtures in place of what they are made of."""
    found = dict(scores)
    for name, reference in request.references.items():
        if isinstance(reference, FrozenPolicies) and reference.mixture is not None:
            parts = [found.pop(f"{name}.{number}") for number in range(len(reference.policies))]
            found[name] = mixed(parts, reference.mixture)
    return found


def reference_scores(
    name: str,
    policy: PolicyFiles,
    weights: str,
    request: TrainRequest,
    examples: Sequence[TokenExample],
    plan: Sequence[Sequence[int]],
    bench: Workbench,
    progress: Progress,
) -> Scores:
    """Scores of a frozen policy for some examples; the policy is loaded only where some are not in the cache.

    The cache is asked pass by pass, in the layout of the first epoch. A pass is known by everything that decides the
    bits of its scores: the weights, what is computed, how, and the tokens of its answers in their order. So scores
    that are found are those that would be computed, and stopping costs at most one pass.

    Args:
        name: model name of the quantity grammar; of several policies with its number, as `aux_ref.0`.
        policy: that is asked.
        weights: hash of its weights (`weights_of`).
        request: of the train step.
        examples: that are scored.
        plan: the examples of each optimiser step of an epoch.
        bench: loads the policy.
        progress: is told what is being scored.
    """
    objective, budget, layout = request.objective, request.budget.tokens, request.layout
    functionals = functionals_of(objective, name.partition(".")[0])
    computed_as = [
        FORMAT,
        weights,
        sorted(functionals),
        layout.name,
        _device(bench.device),
        request.settings.precision,
        request.quantize,
        [version(package) for package in COMPUTE],
    ]
    scores: dict[str, list[Any]] = {}
    done = 0

    def take(batch: Sequence[int], values: dict[str, list[Any]]) -> None:
        nonlocal done
        for key, of_batch in values.items():
            into = scores.setdefault(key, [None] * len(examples))
            for index, value in zip(batch, of_batch, strict=True):
                into[index] = value
        done += len(batch)

    with ScoreCache.at(request.score_cache) as cache:
        missing: list[tuple[str, list[int]]] = []
        for step in plan:
            of_step = {index: examples[index] for index in step}
            for batch in layout.cut(of_step, budget):
                key = digest([computed_as, [_tokens(of_step[index], objective.roles) for index in batch]])
                if (found := cache.find(key)) is None:
                    missing.append((key, batch))
                else:
                    take(batch, found)
        if missing:
            batches = [batch for _, batch in missing]
            heads = bench.heads(policy, outputs_of(functionals), request.seed)
            with bench.for_scoring(policy, request.settings.precision, request.quantize) as model:
                passes = frozen_scores(model, examples, objective.roles, batches, budget, functionals, layout, heads)
                for (key, batch), (_, values) in zip(missing, passes, strict=True):
                    cache.keep(key, values)
                    take(batch, values)
                    progress(f"score with {name}", done, len(examples))
    return {key: column(values) for key, values in scores.items()}


def _tokens(example: TokenExample, roles: Sequence[str]) -> list[Any]:
    """What a model reads of an example, and which of it counts."""
    return [[role, row.prompt_ids, row.answer_ids, row.counted] for role, row in example.answers(roles)]


def _device(device: torch.device) -> list[str | int]:
    """What rounds: the kind of GPU, or how many threads of a CPU share a sum."""
    if device.type == "cuda":
        return [device.type, torch.cuda.get_device_name(device)]
    return [device.type, torch.get_num_threads()]
