"""Prompt and preference sets: read, checked, and cut into the parts of rounds."""

from prefloop.data.answer_files import AnswersOnFile, answers_of, is_foreign, read_answers, with_references
from prefloop.data.checks import Check
from prefloop.data.collection import Collection, GivenGroup
from prefloop.data.given import Given
from prefloop.data.leaks import Leaks, leaks_of
from prefloop.data.lint import LintReport, Reading, require_rows
from prefloop.data.mixture import Part, part_names, rank_in_mixture, rows_taken
from prefloop.data.next_turn import TURN, next_turn
from prefloop.data.problems import CODES
from prefloop.data.prompts import UniquePrompts, chosen_at_turn, prompts_of_turn
from prefloop.data.seen import Seen
from prefloop.data.source import DataSource, RowSource, find_source
from prefloop.data.split import is_for_validation

__all__ = [
    "CODES",
    "TURN",
    "AnswersOnFile",
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
    "answers_of",
    "chosen_at_turn",
    "find_source",
    "is_for_validation",
    "is_foreign",
    "leaks_of",
    "next_turn",
    "part_names",
    "prompts_of_turn",
    "rank_in_mixture",
    "read_answers",
    "require_rows",
    "rows_taken",
    "with_references",
]
