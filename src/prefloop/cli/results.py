"""Where a command's result goes: to people on standard output, and to programs as JSON."""

import json
import sys
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the result as JSON to a file, or to - .")]


def human_text(json_file: Path | None) -> AbstractContextManager[object]:
    """Where `--json -` has standard output, what people read goes to standard error."""
    return redirect_stdout(sys.stderr) if json_file == Path("-") else nullcontext()


def write_json(file: Path | None, result: dict[str, Any] | list[dict[str, Any]]) -> None:
    """Writes a command's result where `--json` says."""
    if file is None:
        return
    text = json.dumps(result, indent=1) + "\n"
    if str(file) == "-":
        sys.stdout.write(text)
    else:
        file.write_text(text, encoding="utf-8")
