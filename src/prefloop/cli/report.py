"""`prefloop report`, and what `prefloop run` ends with: the page, and its table in the terminal."""

from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table

from prefloop.report import RoundRow, closing_table, text_table, write_report

PLAIN_WIDTH = 120
"""Columns where the output is no terminal."""


def report_command(run: Path) -> dict[str, Any]:
    """Writes the page and prints the table of rounds."""
    page = write_report(run)
    rows = closing_table(run)
    console = Console() if Console().is_terminal else Console(width=PLAIN_WIDTH)
    if rows:
        shown = text_table(rows)
        table = Table()
        for heading in shown.headings:
            table.add_column(heading, overflow="fold")
        for line in shown.lines:
            table.add_row(*line)
        console.print(table)
    console.print(f"report: {page}", highlight=False, markup=False, soft_wrap=True)
    return {"report": str(page), "rounds": TypeAdapter(tuple[RoundRow, ...]).dump_python(rows, mode="json")}
