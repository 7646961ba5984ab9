"""All commands, and what becomes of errors and signals."""

import errno
import os
import signal
import sys
import warnings
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal

import typer
from typer.exceptions import TyperException

from prefloop.cli.evaluate_app import evaluate
from prefloop.cli.results import JsonFile, human_text, write_json
from prefloop.errors import PrefloopError, RecipeError

app = typer.Typer(
    help="Align open-weight language models with preferences, and prove that it worked.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
recipes = typer.Typer(help="The shipped recipes: list, show, diff, copy.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(recipes, name="recipes")
app.add_typer(evaluate, name="evaluate")
Overrides = Annotated[list[str] | None, typer.Option("--set", help="KEY.KEY=VALUE; may be given again.")]
MaxLength = Annotated[
    int | None, typer.Option(min=1, help="Longest prompt and answer, in the model's tokens. Default: no limit.")
]
TruncationOption = Annotated[
    Literal["drop", "cut_response", "cut_prompt_left"] | None,
    typer.Option(help="What becomes of longer ones, as in a recipe. Default: drop."),
]
TemplateKwargs = Annotated[
    str | None, typer.Option(help="Settings of the chat template, as JSON: '{\"enable_thinking\": false}'.")
]


@app.command(epilog="Example: prefloop run ilr_dpo --run runs/first --set rounds=2 --until round-00/pairs")
def run(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped recipe.")],
    folder: Annotated[Path | None, typer.Option("--run", help="Run folder. Default: runs/NAME.")] = None,
    overrides: Overrides = None,
    until: Annotated[str | None, typer.Option(help="Stop after this step: STEP or round-NN/STEP.")] = None,
    reuse: Annotated[Path | None, typer.Option(help="Copy equal artifacts from this run.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Run only if `prefloop lint` finds nothing.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Run a recipe: offline training or the whole loop. The same command again resumes."""
    from prefloop.cli.run import run_command

    with human_text(json_file):
        result = run_command(recipe, folder, overrides or [], until, reuse, strict=strict)
    write_json(json_file, result)


@app.command(epilog="Example: prefloop plan quickstart --set samples.num_samples=8")
def plan(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped recipe.")],
    folder: Annotated[Path | None, typer.Option("--run", help="Run folder. Default: runs/NAME.")] = None,
    overrides: Overrides = None,
    json_file: JsonFile = None,
) -> None:
    """Say what a run would do: steps, answers, tokens, pairs, memory by part, disk, what is done. Loads no weights."""
    from prefloop.cli.plan import plan_command

    with human_text(json_file):
        result = plan_command(recipe, folder, overrides or [])
    write_json(json_file, result)


@app.command(epilog="Example: prefloop judge runs/mine --answers answered.jsonl")
def judge(
    folder: Annotated[Path, typer.Argument(help="Run folder, or the file of a labelled set.", metavar="RUN|FILE")],
    answers: Annotated[
        Path | None, typer.Option(help="Reads answers into the run: lines of open_asks.jsonl with `values` filled in.")
    ] = None,
    against: Annotated[
        Literal["labels"] | None, typer.Option(help="Asks a judge about a labelled set and says how often it is right.")
    ] = None,
    judge: Annotated[str | None, typer.Option(help="The judge that is measured, as a recipe has it.")] = None,
    count: Annotated[int | None, typer.Option(help="Pairs at most, drawn by the seed. Default: all.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Of the draw and of the bootstrap.")] = 0,
    kept: Annotated[
        Path | None, typer.Option("--run", help="Where a judge's paid answers are kept. Default: runs/labels.")
    ] = None,
    max_calls: Annotated[int | None, typer.Option(help="Calls that the judge may have got there.", min=0)] = None,
    max_cost: Annotated[float | None, typer.Option(help="US dollars that they may have cost.", min=0)] = None,
    json_file: JsonFile = None,
) -> None:
    """Read people's answers to the open asks of a run, or measure a judge against labels."""
    from prefloop.cli.judge import against_command, judge_command
    from prefloop.judging import Budget

    with human_text(json_file):
        if answers is not None and {against, judge, count, kept, max_calls, max_cost} == {None}:
            result = judge_command(folder, answers)
        elif answers is None and against is not None and judge is not None:
            result = against_command(folder, judge, Budget(max_calls, max_cost), kept, count=count, seed=seed)
        else:
            raise RecipeError(
                "prefloop judge needs either --answers FILE, for a run, or --against labels and --judge, for a "
                "labelled set. Give one of the two."
            )
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
    out: Annotated[
        Path | None, typer.Option(help="The page. Default: compare/index.html beside the first run.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Compare runs on the same prompts: one page and one table. Runs that differ only in the seed are pooled."""
    from prefloop.cli.compare import compare_command

    with human_text(json_file):
        result = compare_command(runs, out)
    write_json(json_file, result)


@recipes.command("list", epilog="Example: prefloop recipes list --json recipes.json")
def recipes_list(json_file: JsonFile = None) -> None:
    """List the shipped recipes: what each does, its paper, and its twin that runs in seconds."""
    from prefloop.cli.recipes import list_command

    with human_text(json_file):
        result = list_command()
    write_json(json_file, result)


@recipes.command("show", epilog="Example: prefloop recipes show quickstart --set samples.num_samples=8")
def recipes_show(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped recipe.")],
    overrides: Overrides = None,
    json_file: JsonFile = None,
) -> None:
    """Show a recipe with every value that holds, and where each comes from."""
    from prefloop.cli.recipes import show_command

    with human_text(json_file):
        result = show_command(recipe, overrides or [])
    write_json(json_file, result)


@recipes.command("diff", epilog="Example: prefloop recipes diff quickstart quickstart_plain")
def recipes_diff(
    one: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped recipe.", metavar="A")],
    other: Annotated[str, typer.Argument(help="Another.", metavar="B")],
    json_file: JsonFile = None,
) -> None:
    """Show in which values two recipes differ, defaults included."""
    from prefloop.cli.recipes import diff_command

    with human_text(json_file):
        result = diff_command(one, other)
    write_json(json_file, result)


@recipes.command("copy", epilog="Example: prefloop recipes copy quickstart mine.yaml")
def recipes_copy(
    name: Annotated[str, typer.Argument(help="The name of a shipped recipe.")],
    file: Annotated[Path, typer.Argument(help="The file to write; it must not exist.")],
    json_file: JsonFile = None,
) -> None:
    """Copy a shipped recipe into a file of your own, ready to be edited and run."""
    from prefloop.cli.recipes import copy_command

    with human_text(json_file):
        result = copy_command(name, file)
    write_json(json_file, result)


@app.command(epilog="Example: prefloop objectives simpo")
def objectives(
    name: Annotated[str | None, typer.Argument(help="An objective, or what it is called elsewhere.")] = None,
    json_file: JsonFile = None,
) -> None:
    """List the objectives, or say everything about one: formula, numbers it reads, ranges, other tools' names."""
    from prefloop.cli.objectives import objectives_command

    with human_text(json_file):
        result = objectives_command(name)
    write_json(json_file, result)


@app.command(epilog="Example: prefloop why 3f2a --run runs/quickstart")
def why(
    example: Annotated[str, typer.Argument(help="Id of an example or a prompt, or how it begins.")],
    folder: Annotated[Path, typer.Option("--run", help="Run folder.")],
    json_file: JsonFile = None,
) -> None:
    """Say how a pair came about, or why a prompt gave none."""
    from prefloop.cli.why import why_command

    with human_text(json_file):
        result = why_command(example, folder)
    write_json(json_file, result)


@app.command(epilog="Example: prefloop gc runs/quickstart --yes")
def gc(
    folder: Annotated[Path, typer.Argument(help="Run folder.", metavar="RUN")],
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Show what of a run nothing needs any more, and remove it when told so."""
    from prefloop.cli.gc import gc_command

    with human_text(json_file):
        result = gc_command(folder, yes=yes)
    write_json(json_file, result)


@app.command(epilog="Example: prefloop inspect pairs.jsonl --model builtin:smollm2-135m-instruct --rows 2")
def inspect(
    what: Annotated[str, typer.Argument(help="A data set, or a run folder.", metavar="DATA | RUN")],
    model: Annotated[str | None, typer.Option(help="Whose tokens are shown; a run has its own.")] = None,
    max_length: MaxLength = None,
    truncation: TruncationOption = None,
    template_kwargs: TemplateKwargs = None,
    rows: Annotated[int, typer.Option(min=1, help="How many rows.")] = 3,
    worst: Annotated[
        int | None, typer.Option(min=1, help="Of a run: so many pairs, those first that its policy gets most wrong.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Show rows token by token: what the template writes, where the answer begins, what counts in the loss."""
    from prefloop.cli.inspect import inspect_command
    from prefloop.cli.model_tokens import ModelTokens

    with human_text(json_file):
        tokens = ModelTokens(model, max_length, truncation, template_kwargs)
        result = inspect_command(what, tokens=tokens, rows=rows, worst=worst)
    write_json(json_file, result)


@app.command(epilog="Example: prefloop lint pairs.jsonl --against everyday:heldout --quarantine refused.jsonl")
def lint(
    data: Annotated[str, typer.Argument(help="Pairs or prompts: whatever a recipe may name.")],
    model: Annotated[str | None, typer.Option(help="Also check what this model's tokenizer and template see.")] = None,
    max_length: MaxLength = None,
    truncation: TruncationOption = None,
    template_kwargs: TemplateKwargs = None,
    against: Annotated[
        list[str] | None, typer.Option(help="Evaluation prompts that must not be among these; may be given again.")
    ] = None,
    format_name: Annotated[
        str | None, typer.Option("--format", help="Format of the rows. Default: recognised.")
    ] = None,
    quarantine: Annotated[Path | None, typer.Option(help="Write the refused rows to this file.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Say every problem of a preference or prompt set, and what it is like. Exit code 1 if a row is refused."""
    from prefloop.cli.lint import lint_command
    from prefloop.cli.model_tokens import ModelTokens

    with human_text(json_file):
        result, accepted = lint_command(
            data,
            tokens=ModelTokens(model, max_length, truncation, template_kwargs),
            against=against or [],
            format_name=format_name,
            quarantine=quarantine,
        )
    write_json(json_file, result)
    if not accepted:
        raise typer.Exit(1)


@app.command(epilog="Example: prefloop convert pairs.parquet pairs.jsonl.gz --to trl")
def convert(
    data: Annotated[str, typer.Argument(help="Pairs or prompts: whatever a recipe may name.")],
    out: Annotated[Path, typer.Argument(help="The file to write: .jsonl, .jsonl.gz or .jsonl.zst.")],
    to: Annotated[
        Literal["trl", "ultrafeedback", "prefloop"], typer.Option(help="The form; prefloop holds everything.")
    ] = "trl",
    format_name: Annotated[
        str | None, typer.Option("--format", help="Format of the rows. Default: recognised.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Read a preference or prompt set in any format and write it in another form. Refused rows are left out."""
    from prefloop.cli.convert import convert_command

    with human_text(json_file):
        result = convert_command(data, out, to, format_name)
    write_json(json_file, result)


@app.command(epilog="Example: prefloop export runs/quickstart models/mine --merged")
def export(
    policy: Annotated[Path, typer.Argument(help="A run folder, or the directory of a policy.", metavar="RUN|POLICY")],
    out: Annotated[Path, typer.Argument(help="The model directory to write.")],
    merged: Annotated[bool, typer.Option("--merged", "--merge", help="Write an adapter as a whole model.")] = False,
    round_number: Annotated[
        int | None, typer.Option("--round", min=0, help="Of the run. Default: the last that was not refused.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Write a trained policy for other tools: as an adapter, or merged into a whole model."""
    from prefloop.cli.export import export_command

    with human_text(json_file):
        result = export_command(policy, out, round_number, merged=merged)
    write_json(json_file, result)


Source = Annotated[str, typer.Argument(help="A data set in any format, a shipped one, or org/name@revision.")]
OutFile = Annotated[Path, typer.Argument(help="The file of rows to write.")]
Changes = Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE of this stage; may be given again.")]


@app.command(epilog="Example: prefloop sample everyday answers.jsonl --model builtin:tiny --set num_samples=4")
def sample(
    prompts: Source,
    out: OutFile,
    model: Annotated[str, typer.Option(help="A model directory, builtin:NAME or org/name@revision.")],
    seed: Annotated[int, typer.Option(min=0, help="Of all draws.")] = 0,
    changes: Changes = None,
    json_file: JsonFile = None,
) -> None:
    """Sample a model's answers to prompts: rows of prompt and completion. The same command again goes on."""
    from prefloop.cli.on_files import sample_command

    with human_text(json_file):
        result = sample_command(prompts, out, model, seed, changes or [])
    write_json(json_file, result)


@app.command(epilog="Example: prefloop score answers.jsonl scored.jsonl --judge vader")
def score(
    rows: Annotated[str, typer.Argument(help="Rows of prompt and completion, as `prefloop sample` writes them.")],
    out: OutFile,
    judge: Annotated[str, typer.Option(help="A judge's type, or its settings as a recipe has them.")],
    model: Annotated[str, typer.Option(help="Whose tokens a judge counts.")] = "builtin:tiny",
    name: Annotated[str, typer.Option(help="Key of the score in the rows.")] = "score",
    seed: Annotated[int, typer.Option(min=0, help="Of a judge that draws.")] = 0,
    json_file: JsonFile = None,
) -> None:
    """Say what a judge thinks of each answer: the rows again, with a score. The same command again goes on."""
    from prefloop.cli.on_files import score_command

    with human_text(json_file):
        result = score_command(rows, out, judge, model, name, seed)
    write_json(json_file, result)


@app.command(epilog="Example: prefloop pair scored.jsonl pairs.jsonl --rule best_worst")
def pair(
    rows: Annotated[str, typer.Argument(help="Scored answers, as `prefloop score` writes them.")],
    out: OutFile,
    rule: Annotated[str, typer.Option(help="A rule of pairing; its settings with --set.")] = "best_worst",
    score: Annotated[str, typer.Option(help="Key of the score in the rows.")] = "score",
    changes: Changes = None,
    json_file: JsonFile = None,
) -> None:
    """Make examples of scored answers: rows of prompt, chosen and rejected, each saying why."""
    from prefloop.cli.on_files import pair_command

    with human_text(json_file):
        result = pair_command(rows, out, rule, score, changes or [])
    write_json(json_file, result)


@app.command(epilog="Example: prefloop train pairs.jsonl models/mine --model builtin:tiny --set learning_rate=1e-4")
def train(
    data: Source,
    out: Annotated[Path, typer.Argument(help="The model directory to write.")],
    model: Annotated[str, typer.Option(help="The model that is trained; the reference is the same before training.")],
    kind: Annotated[
        Literal["preference", "sft", "reward_model"], typer.Option("--type", help="dpo, sft or bradley_terry.")
    ] = "preference",
    objective: Annotated[str | None, typer.Option(help="Another objective than that of --type.")] = None,
    folder: Annotated[Path | None, typer.Option("--run", help="Run folder. Default: OUT.run.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the order and of adapters.")] = 0,
    changes: Changes = None,
    json_file: JsonFile = None,
) -> None:
    """Train a model on rows of any format. The same command again goes on where it was stopped."""
    from prefloop.cli.on_files import OBJECTIVES, train_command

    with human_text(json_file):
        result = train_command(data, out, model, objective or OBJECTIVES[kind], folder, seed, changes or [])
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
        sys.exit(app(standalone_mode=False))
    except TyperException as error:
        message, context = error.format_message(), getattr(error, "ctx", None)
        if "\n" in message:  # the help of a group that got no command
            typer.echo(message, err=True)
        else:
            of = "prefloop" if context is None else context.command_path
            _say(f"{message.rstrip('.')}. `{of} --help` says what it takes.")
        sys.exit(2)
    except PrefloopError as error:
        _say(str(error))
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            _say("the disk is full. Make room and run the same command again; it goes on from here.")
            sys.exit(75)
        if error.errno in {errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.ENOENT, errno.EISDIR}:
            _say(f"{error.filename}: cannot be opened ({error.strerror}). Name another path.")
            sys.exit(2)
        raise


def _stopped(number: int, _frame: FrameType | None) -> None:
    _say(f"{signal.strsignal(number)}. The same command goes on from here.")
    sys.exit(128 + number)


def _say(text: str) -> None:
    sys.stderr.write(f"prefloop: {text}\n")
