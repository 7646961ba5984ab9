"""What a reward model is written with: the directory that others load, its mean reward, and how often it is right."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prefloop.objectives import REPEATED_ROLES
from prefloop.policy import Workbench
from prefloop.policy.reward_model_directory import save_reward_model
from prefloop.records import digest, in_pieces, seed_for
from prefloop.statistics import clustered_share
from prefloop.training.engine import Engine
from prefloop.training.request import TrainRequest
from prefloop.training.rows import TokenExample, step_plan
from prefloop.training.scoring import frozen_scores
from prefloop.training.validation import Validation

ABOUT = "reward_model.json"
"""Beside the model directory."""
CENTERED_ON = 1000
"""Examples, drawn from those that were trained on, whose best answers have the mean reward that is subtracted."""

Floats = NDArray[np.float64]


def write_reward_model(
    request: TrainRequest, engine: Engine, validation: Validation, bench: Workbench, out: Path
) -> None:
    """Writes the model to `out` and what is known of it beside it.

    `center` is the mean reward of demonstrations, the best answers of the examples that were trained on
    (arXiv:2009.01325): a judge subtracts it. `accuracy` is the share of held-out pairs that are in order, a tie half,
    with its interval over prompts.
    """
    save_reward_model(engine.trainable, bench.codec, out)
    (order,) = step_plan(len(engine.examples), len(engine.examples), 1, request.seed)
    best = [rewards[0] for rewards in _rewards(request, engine, sorted(order[:CENTERED_ON]))]
    about = {"center": float(np.mean(best)), "center_examples": len(best)}
    if validation.engine is not None:
        held = validation.engine
        about |= _accuracy(request, held.examples, _rewards(request, held, range(len(held.examples))))
    (out.parent / ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _rewards(request: TrainRequest, engine: Engine, indices: Sequence[int]) -> list[Floats]:
    """Rewards of the answers of some examples, best answer first, in the order of the indices."""
    own = engine.trainable
    roles = request.objective.roles
    plan = list(in_pieces(indices, request.settings.batch_size))
    found: dict[int, Floats] = {}
    for batch, of_batch in frozen_scores(
        own.model, engine.examples, roles, plan, engine.budget.tokens, {"rewards"}, engine.layout, own.heads
    ):
        columns = [of_batch[f"{role}_rewards"] for role in roles]
        for place, index in enumerate(batch):
            rows = [column[place] for column in columns]
            found[index] = np.array(rows[0] if roles[0] in REPEATED_ROLES else rows, dtype=np.float64)
    return [found[index] for index in indices]


def _accuracy(request: TrainRequest, examples: Sequence[TokenExample], rewards: Sequence[Floats]) -> dict[str, object]:
    """How many pairs of answers are in order; answers to one prompt vary together."""
    right: list[float] = []
    prompts: list[str] = []
    for example, own in zip(examples, rewards, strict=True):
        better, worse = np.triu_indices(len(own), 1)
        gaps = own[better] - own[worse]
        right += ((np.sign(gaps) + 1) / 2).tolist()
        prompts += [digest(list(example.prompt_ids))[:16]] * len(gaps)
    found = clustered_share(np.array(right), np.array(prompts), seed=seed_for(request.seed, "accuracy"))
    return {
        "accuracy": found.value,
        "interval": list(found.interval) if np.isfinite(found.interval).all() else None,
        "pairs": len(right),
        "prompts": found.clusters,
    }
