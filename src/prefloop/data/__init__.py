"""Prompt and preference sets: read, checked, and cut into the parts of rounds."""

from prefloop.data.checks import Check
from prefloop.data.collection import Collection, GivenGroup
from prefloop.data.given import Given
from prefloop.data.leaks import Leaks, leaks_of
from prefloop.data.lint import LintReport, Reading, require_rows
from prefloop.data.mixture import Part, part_names, rank_in_mixture, rows_taken
from prefloop.data.problems import CODES
from prefloop.data.prompts import UniquePrompts, chosen_at_turn, prompts_of_turn
from prefloop.data.seen import Seen
from prefloop.data.source import DataSource, RowSource, find_source
from prefloop.data.split import is_for_validation

__all__ = [
    "CODES",
    "Check",
    "Collection",
    "DataSource",
    "Given",
    "GivenGroup",
    "Leaks",
    "LintReport",
    "Part",
    "Reading",
    "RowSource",
    "Seen",
    "UniquePrompts",
    "chosen_at_turn",
    "find_source",
    "is_for_validation",
    "leaks_of",
    "part_names",
    "prompts_of_turn",
    "rank_in_mixture",
    "require_rows",
    "rows_taken",
]
