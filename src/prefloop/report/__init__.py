"""Report: a run folder as one static page, and its table of rounds."""

from prefloop.report.page import page_of, write_report
from prefloop.report.read import RunView, read_run
from prefloop.report.table import RoundRow, TextTable, closing_table, round_rows, text_table
from prefloop.report.wording import headline

__all__ = [
    "RoundRow",
    "RunView",
    "TextTable",
    "closing_table",
    "headline",
    "page_of",
    "read_run",
    "round_rows",
    "text_table",
    "write_report",
]
