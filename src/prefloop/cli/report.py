"""`prefloop report`, and what `prefloop run` ends with: the page, and its table in the terminal."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def report_command(run: Path, *, nothing_to_do: bool = False) -> dict[str, Any]:
    """Writes the page and prints the table of rounds."""
    from prefloop.report import closing_table, write_report

    page = write_report(run)
    console = Console()
    if nothing_to_do:
        console.print(f"{run} is done: nothing to do.", highlight=False, markup=False)
    rows = closing_table(run)
    if rows:
        columns = list(asdict(rows[0]))
        table = Table(*columns)
        for row in rows:
            table.add_row(*(str(value) for value in asdict(row).values()))
        console.print(table)
    console.print(f"report: {page}", highlight=False, markup=False, soft_wrap=True)
    return {"report": str(page), "rounds": [asdict(row) for row in rows]}
