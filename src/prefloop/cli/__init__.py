"""The command line: one small module a command, and one place where errors become a line and an exit code."""

from prefloop.cli.app import main

__all__ = ["main"]
