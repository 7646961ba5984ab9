"""`prefloop compare`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from rich import box
from rich.table import Table

from prefloop.cli.console import output
from prefloop.report import (
    RunComparison,
    arms_table,
    comparison_caveats,
    comparison_meaning,
    comparison_path,
    comparison_table,
    read_comparison,
    write_comparison,
)

SIDE_BY_SIDE = 3
"""Arms that have room for a column each; of more, each has a line."""


def compare_command(runs: Sequence[Path], out: Path | None) -> dict[str, Any]:
    """Compares runs, writes the page and prints the table."""
    comparison = read_comparison(runs)
    page = write_comparison(comparison, runs, comparison_path(runs) if out is None else out)
    console = output()
    shown = (comparison_table if len(comparison.arms) <= SIDE_BY_SIDE else arms_table)(comparison)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, heading in enumerate(shown.headings):
        table.add_column(heading, overflow="fold", no_wrap=number == 0 and shown.headings[0] == "arm")
    for line in shown.lines:
        table.add_row(*line)
    console.print(table)
    said = {"meaning": comparison_meaning(comparison), "caveats": comparison_caveats(comparison)}
    for line in (*said["meaning"], *said["caveats"]):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(f"comparison: {page}", highlight=False, markup=False, soft_wrap=True)
    found = TypeAdapter(RunComparison).dump_python(comparison, mode="json")
    return {"page": str(page), **found, **{name: list(lines) for name, lines in said.items()}}
