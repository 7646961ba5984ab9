"""Where commands print tables: a terminal as it is, or lines of one width for files and pipes."""

from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

PLAIN_WIDTH = 120
"""Columns where the output is no terminal."""


def output() -> Console:
    """Standard output."""
    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_WIDTH)


def say(lines: Iterable[str | Text]) -> None:
    """Lines of text on standard output, as they are: nothing in them is taken for markup, and none is broken."""
    console = output()
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def rows(count: int) -> str:
    """So many rows, in words."""
    return "1 row" if count == 1 else f"{count:,} rows"
