"""Report: a run folder as one static page, and its table of rounds."""

from prefloop.report.page import page_of, write_report
from prefloop.report.read import RunView, read_run
from prefloop.report.table import TABLE_HEADINGS, RoundRow, closing_table, round_rows
from prefloop.report.wording import headline

__all__ = [
    "TABLE_HEADINGS",
    "RoundRow",
    "RunView",
    "closing_table",
    "headline",
    "page_of",
    "read_run",
    "round_rows",
    "write_report",
]
