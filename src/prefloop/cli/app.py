"""All commands, and what becomes of errors and signals."""

import errno
import json
import os
import signal
import sys
import warnings
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from prefloop.errors import PrefloopError

app = typer.Typer(
    help="Align open-weight language models with preferences, and prove that it worked.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the result as JSON to a file, or to - .")]


@app.command(epilog="Example: prefloop run ilr_dpo --run runs/first --set rounds=2 --until round-00/pairs")
def run(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped recipe.")],
    folder: Annotated[Path | None, typer.Option("--run", help="Run folder. Default: runs/NAME.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="KEY.KEY=VALUE; may be given again.")] = None,
    until: Annotated[str | None, typer.Option(help="Stop after this step: STEP or round-NN/STEP.")] = None,
    reuse: Annotated[Path | None, typer.Option(help="Copy equal artifacts from this run.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Run a recipe: offline training or the whole loop. The same command again resumes."""
    from prefloop.cli.run import run_command

    with human_text(json_file):
        result = run_command(recipe, folder, overrides or [], until, reuse)
    write_json(json_file, result)


@app.command(epilog="Example: prefloop report runs/quickstart")
def report(
    folder: Annotated[Path, typer.Argument(help="Run folder.", metavar="RUN")],
    json_file: JsonFile = None,
) -> None:
    """Write the run's report, one static page, and print its table."""
    from prefloop.cli.report import report_command

    with human_text(json_file):
        result = report_command(folder)
    write_json(json_file, result)


@app.command(epilog="Example: prefloop compare runs/quickstart runs/quickstart_plain")
def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Run folders. The first one's arm is compared with all others.", metavar="RUN"),
    ],
    out: Annotated[Path | None, typer.Option(help="The page. Default: compare/index.html beside the first run.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Compare runs on the same prompts: one page and one table. Runs that differ only in the seed are pooled."""
    from prefloop.cli.compare import compare_command

    with human_text(json_file):
        result = compare_command(runs, out)
    write_json(json_file, result)


@app.command("import-gguf", epilog="Example: prefloop import-gguf model.gguf models/mine")
def import_gguf(
    file: Annotated[Path, typer.Argument(help="A GGUF file.")],
    out: Annotated[Path, typer.Argument(help="The model directory to write.")],
    json_file: JsonFile = None,
) -> None:
    """Rebuild a GGUF file as an ordinary Hugging Face model directory."""
    from prefloop.cli.import_gguf import import_gguf as command

    with human_text(json_file):
        command(file, out)
    write_json(json_file, {"model": str(out)})


@app.command(epilog="Example: prefloop verify --vectors methods/vectors --json out.json")
def verify(
    vectors: Annotated[Path | None, typer.Option(help="A folder of vector files. Default: those that ship.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Check this installation's numbers against published ones."""
    from prefloop.cli.verify import verify_command

    with human_text(json_file):
        result, passed = verify_command(vectors)
    write_json(json_file, result)
    if not passed:
        raise typer.Exit(1)


def human_text(json_file: Path | None) -> AbstractContextManager[object]:
    """Where `--json -` has standard output, what people read goes to standard error."""
    return redirect_stdout(sys.stderr) if json_file == Path("-") else nullcontext()


def write_json(file: Path | None, result: dict[str, Any]) -> None:
    """Writes a command's result where `--json` says."""
    if file is None:
        return
    text = json.dumps(result, indent=1) + "\n"
    if str(file) == "-":
        sys.stdout.write(text)
    else:
        file.write_text(text, encoding="utf-8")


def main() -> None:
    """Entry point. Errors that a user can act on are one line; the exit code says what kind they are."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stopped)
    # Threads that wait for each other spin for some 10 microseconds, then sleep. OpenMP's own milliseconds make busy
    # cores many times slower; no spinning at all costs a quarter of the speed. Read when torch is first imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    os.environ.setdefault("TQDM_DISABLE", "1")  # progress is ours to show
    if not sys.warnoptions:
        warnings.simplefilter("ignore", FutureWarning)  # what our libraries tell each other is not for our users
    try:
        app(standalone_mode=True)
    except PrefloopError as error:
        _say(str(error))
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            _say("the disk is full. Make room and run the same command again; it goes on from here.")
            sys.exit(75)
        if error.errno in {errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.ENOENT, errno.EISDIR}:
            _say(f"{error.filename}: cannot be written ({error.strerror}). Name another path.")
            sys.exit(2)
        raise


def _stopped(number: int, _frame: FrameType | None) -> None:
    _say(f"{signal.strsignal(number)}. The same command goes on from here.")
    sys.exit(128 + number)


def _say(text: str) -> None:
    sys.stderr.write(f"prefloop: {text}\n")
