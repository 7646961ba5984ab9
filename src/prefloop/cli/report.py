"""`prefloop report`, and what `prefloop run` ends with: the page, and its table in the terminal."""

from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from rich import box
from rich.table import Table

from prefloop.cli.console import output
from prefloop.report import TABLE_CAPTION, RoundRow, closing_table, text_table, with_coarse_interval, write_report


def report_command(run: Path) -> dict[str, Any]:
    """Writes the page and prints the table of rounds."""
    page = write_report(run)
    rows = closing_table(run)
    console = output()
    if rows:
        shown = text_table(rows, with_coarse_interval)
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), caption=TABLE_CAPTION, caption_justify="left")
        for heading, *column in zip(shown.headings, *shown.lines, strict=True):
            table.add_column(heading, overflow="fold", min_width=min(8, max(map(len, column))))
        for line in shown.lines:
            table.add_row(*line)
        console.print(table)
    console.print(f"report: {page}", highlight=False, markup=False, soft_wrap=True)
    return {"report": str(page), "rounds": TypeAdapter(tuple[RoundRow, ...]).dump_python(rows, mode="json")}
