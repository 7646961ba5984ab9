"""`prefloop gc`."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from prefloop.cli.console import output
from prefloop.loop import in_bytes
from prefloop.loop.gc import removable, remove
from prefloop.loop.journal import Journal
from prefloop.loop.stage import locked


def gc_command(run: Path, *, yes: bool) -> dict[str, Any]:
    """Shows what no later round needs, and removes it when told so."""
    Journal(run, read_only=True).close()
    with locked(run):
        journal = Journal(run)
        items = removable(run, journal)
        total = sum(item.bytes for item in items)
        console = output()
        if not items:
            console.print(f"{run}: nothing to remove.", highlight=False, markup=False, soft_wrap=True)
        else:
            table = Table("path", "why", "size", box=None, pad_edge=False)
            for item in items:
                table.add_row(item.path, item.why, in_bytes(item.bytes))
            console.print(table)
        removes = bool(items) and (
            yes or (sys.stdin.isatty() and typer.confirm(f"Remove {in_bytes(total)}?", err=True))
        )
        if removes:
            remove(run, journal, items)
        journal.close()
    if items:
        done = "removed" if removes else "would be removed; nothing was. Give --yes to remove them"
        console.print(f"{len(items)} items, {in_bytes(total)}: {done}.", highlight=False, markup=False, soft_wrap=True)
    return {"run": str(run), "removed": removes, "bytes": total, "items": [asdict(item) for item in items]}
