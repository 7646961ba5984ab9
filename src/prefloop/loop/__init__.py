"""The loop: rounds, scope, stage, gate and monitors. Start reading at rounds.py."""

from prefloop.loop.needs import in_bytes
from prefloop.loop.plan import Compared, Plan, PlannedStep, plan_recipe
from prefloop.loop.progress import Progress
from prefloop.loop.run import RunResult, run_recipe
from prefloop.loop.suite_run import SuiteAnswers, SuiteRun, run_suite, short_name

__all__ = [
    "Compared",
    "Plan",
    "PlannedStep",
    "Progress",
    "RunResult",
    "SuiteAnswers",
    "SuiteRun",
    "in_bytes",
    "plan_recipe",
    "run_recipe",
    "run_suite",
    "short_name",
]
