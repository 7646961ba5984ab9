"""Prompt and preference sets: read, checked, and cut into the parts of rounds."""

from prefloop.data.checks import Check
from prefloop.data.given import Given
from prefloop.data.leaks import Leaks
from prefloop.data.lint import LintReport, Reading, require_rows
from prefloop.data.preferences import GivenPair, read_preferences
from prefloop.data.prompts import prompts_of_turn, read_prompts
from prefloop.data.source import DataSource, find_source

__all__ = [
    "Check",
    "DataSource",
    "Given",
    "GivenPair",
    "Leaks",
    "LintReport",
    "Reading",
    "find_source",
    "prompts_of_turn",
    "read_preferences",
    "read_prompts",
    "require_rows",
]
