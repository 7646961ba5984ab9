"""Training: examples as tokens, the step, the schedule, checkpoints."""

from prefloop.training.best import best_step, require_measurable
from prefloop.training.columns import Column, data_columns
from prefloop.training.dry import dry_pass, largest_pass
from prefloop.training.engine import Engine, NotFiniteError
from prefloop.training.layout import ROWS, TREES, Budget, Layout
from prefloop.training.loss import LossOfPlan
from prefloop.training.margins import Margin, read_margins
from prefloop.training.mixtures import not_mixed
from prefloop.training.out_of_memory import is_out_of_memory
from prefloop.training.request import BlockOfRound, FrozenPolicies, TrainRequest
from prefloop.training.rows import TokenExample, example_data, step_plan, tokenised
from prefloop.training.schedule import learning_rate_at
from prefloop.training.score_cache import SCORE_CACHE
from prefloop.training.scoring import frozen_scores
from prefloop.training.tokens import TokensOnDisk, left_out, write_tokens
from prefloop.training.train import EMA, train
from prefloop.training.validation import VALIDATED

__all__ = [
    "EMA",
    "ROWS",
    "SCORE_CACHE",
    "TREES",
    "VALIDATED",
    "BlockOfRound",
    "Budget",
    "Column",
    "Engine",
    "FrozenPolicies",
    "Layout",
    "LossOfPlan",
    "Margin",
    "NotFiniteError",
    "TokenExample",
    "TokensOnDisk",
    "TrainRequest",
    "best_step",
    "data_columns",
    "dry_pass",
    "example_data",
    "frozen_scores",
    "is_out_of_memory",
    "largest_pass",
    "learning_rate_at",
    "left_out",
    "not_mixed",
    "read_margins",
    "require_measurable",
    "step_plan",
    "tokenised",
    "train",
    "write_tokens",
]
