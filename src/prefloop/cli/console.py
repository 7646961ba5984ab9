"""Where commands print tables: a terminal as it is, or lines of one width for files and pipes."""

from rich.console import Console

PLAIN_WIDTH = 120
"""Columns where the output is no terminal."""


def output() -> Console:
    """Standard output."""
    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_WIDTH)
