"""Report: a run folder as one static page, and its table of rounds."""

from prefloop.report.compare import RunComparison, read_comparison
from prefloop.report.compare_page import comparison_path, write_comparison
from prefloop.report.compare_table import arms_table, comparison_table
from prefloop.report.compare_wording import comparison_caveats, comparison_meaning
from prefloop.report.figures import with_coarse_interval
from prefloop.report.intervals import NamedValue, interval_plot
from prefloop.report.page import page_of, write_report
from prefloop.report.read import RunView, read_run
from prefloop.report.table import TABLE_CAPTION, RoundRow, TextTable, closing_table, round_rows, text_table
from prefloop.report.wording import headline

__all__ = [
    "TABLE_CAPTION",
    "NamedValue",
    "RoundRow",
    "RunComparison",
    "RunView",
    "TextTable",
    "arms_table",
    "closing_table",
    "comparison_caveats",
    "comparison_meaning",
    "comparison_path",
    "comparison_table",
    "headline",
    "interval_plot",
    "page_of",
    "read_comparison",
    "read_run",
    "round_rows",
    "text_table",
    "with_coarse_interval",
    "write_comparison",
    "write_report",
]
