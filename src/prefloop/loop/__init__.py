"""The loop: rounds, scope, stage, gate and monitors. Start reading at rounds.py."""

from prefloop.loop.progress import Progress
from prefloop.loop.run import RunResult, run_recipe

__all__ = ["Progress", "RunResult", "run_recipe"]
