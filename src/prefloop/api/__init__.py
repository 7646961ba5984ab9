"""The Python API: what the commands do, on models and rows in memory. `prefloop` itself exports these functions."""

from prefloop.api.answers import judge, sample
from prefloop.api.evaluating import evaluate
from prefloop.api.pairing import pair
from prefloop.api.running import Ran, run
from prefloop.api.training import Trained, train
from prefloop.api.trl_names import TRL_NAMES

__all__ = ["TRL_NAMES", "Ran", "Trained", "evaluate", "judge", "pair", "run", "sample", "train"]
