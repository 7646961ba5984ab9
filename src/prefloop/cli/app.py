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
from typing import Annotated, Any, Literal

import typer

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
evaluate = typer.Typer(
    help="Numbers with their uncertainty from judgments on file.", no_args_is_help=True, rich_markup_mode=None
)
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
Bootstrap = Annotated[int, typer.Option(min=2, help="Resamples of the bootstrap.")]
BootstrapSeed = Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")]
PlotFile = Annotated[Path | None, typer.Option("--plot", help="Draw values and intervals into this SVG file.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the result as JSON to a file, or to - .")]


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
    json_file: JsonFile = None,
) -> None:
    """Read people's answers to the open asks of a run, or measure a judge against labels."""
    from prefloop.cli.judge import against_command, judge_command

    with human_text(json_file):
        if answers is not None and against is None and judge is None and count is None:
            result = judge_command(folder, answers)
        elif answers is None and against is not None and judge is not None:
            result = against_command(folder, judge, count=count, seed=seed)
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


@evaluate.command(
    "run",
    epilog="Example: prefloop evaluate run --suite everyday --model builtin:tiny --judge vader --against mine.jsonl",
)
def evaluate_run(  # noqa: PLR0913, PLR0917  an option each
    suite: Annotated[
        str, typer.Option(help="everyday, mt_bench, arena_hard, alpaca_eval, a suite file (.yaml) or a prompt set.")
    ],
    model: Annotated[str, typer.Option(help="A model directory, builtin:NAME or org/name@revision.")],
    judge: Annotated[
        str | None,
        typer.Option(help="A judge's type, or its settings: '{type: vader, unit: text}'. Default: the suite's."),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            help="Who samples the model's answers, as a recipe has it: '{type: server, url: http://localhost:8000/v1, "
            "model: NAME}'. Default: this process."
        ),
    ] = None,
    prompts: Annotated[str | None, typer.Option(help="The questions, where the suite leaves them to you.")] = None,
    references: Annotated[
        str | None, typer.Option(help="Reference answers by the questions' ids, for judges that read gold answers.")
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            help="An opponent: a file of answers (ours, AlpacaEval's, Arena-Hard's, FastChat's) or a model, which "
            "answers once; NAME=... names it. May be given again.",
            metavar="[NAME=]ANSWERS|MODEL",
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="Another value of the suite, KEY=VALUE: num_samples=2, count=20, temperature=0.7."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder. Default: runs/SUITE-MODEL.")] = None,
    bootstrap: Annotated[int, typer.Option(min=100, help="Resamples of the bootstrap.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the answers and of the bootstrap.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. Default: one a core.")] = None,
    plot: PlotFile = None,
    json_file: JsonFile = None,
) -> None:
    """A model answers a suite of questions, a judge compares. The same command again resumes."""
    from prefloop.cli.evaluate import write_plot
    from prefloop.cli.evaluate_run import RunOptions, evaluate_run_command

    with human_text(json_file):
        options = RunOptions(
            suite,
            model,
            judge,
            prompts,
            references,
            against or (),
            changes or (),
            out,
            bootstrap,
            seed,
            threads,
            sampler,
        )
        result = evaluate_run_command(options)
    write_plot(plot, result)
    write_json(json_file, result)


@evaluate.command(
    "lm-eval",
    epilog="Example: prefloop evaluate lm-eval --model runs/a/export --task my_task --folder tasks --json a.json",
)
def evaluate_lm_eval(
    model: Annotated[str, typer.Option(help="A model directory, builtin:NAME or org/name@revision.")],
    task: Annotated[
        list[str], typer.Option(help="A task of the harness or of --folder, open_llm_v1 or open_llm_v2 (network).")
    ],
    folder: Annotated[Path | None, typer.Option(help="Folder with task files of your own (YAML).")] = None,
    num_fewshot: Annotated[int | None, typer.Option(min=0, help="Examples shown. Default: as the task says.")] = None,
    chat_template: Annotated[bool, typer.Option("--chat-template", help="Ask through the chat template.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Items of each task. Default: all.")] = None,
    before: Annotated[Path | None, typer.Option(help="An earlier --json of the same tasks: what was lost?")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the examples shown.")] = 0,
    json_file: JsonFile = None,
) -> None:
    """lm-evaluation-harness in process (pip install 'prefloop[harness]'): what alignment cost elsewhere."""
    from prefloop.cli.evaluate_harness import lm_eval_command
    from prefloop.evaluation.harness import HarnessSettings

    with human_text(json_file):
        settings = HarnessSettings(tuple(task), folder, num_fewshot, chat_template, limit, seed)
        result = lm_eval_command(model, settings, before)
    write_json(json_file, result)


@evaluate.command(
    "alpaca-eval", epilog="Example: prefloop evaluate alpaca-eval mine.jsonl --difficulty d.csv --gamed g.csv"
)
def evaluate_alpaca_eval(  # noqa: PLR0913, PLR0917  an option each
    files: Annotated[
        list[Path],
        typer.Argument(help="Judgments, a file a model: JSON lines, or official annotations.", metavar="FILE..."),
    ],
    difficulty: Annotated[Path | None, typer.Option(help="instruction_difficulty.csv")] = None,
    gamed: Annotated[Path | None, typer.Option(help="df_gamed.csv")] = None,
    variant: Annotated[
        Literal["full", "noreg", "minimal"] | None,
        typer.Option(help="Default: as much as the files named above allow."),
    ] = None,
    c: Annotated[
        str, typer.Option("--c", metavar="VALUE|search", help="Inverse L1 penalty; search: 5-fold cross-validation.")
    ] = "search",
    by_position: Annotated[
        bool, typer.Option("--by-position", help="Take difficulties by row number, as the official tool does.")
    ] = False,
    order_coin: Annotated[
        bool,
        typer.Option("--order-coin", help="Recompute shown order and preference from instruction and top_logprobs."),
    ] = False,
    baseline: Annotated[
        str | None, typer.Option(help="Also give win rates against this one of the files.", metavar="NAME")
    ] = None,
    bootstrap: Bootstrap = 1000,
    seed: BootstrapSeed = 0,
    plot: PlotFile = None,
    json_file: JsonFile = None,
) -> None:
    """AlpacaEval 2: win rate and length-controlled win rate against the baseline."""
    from prefloop.cli.evaluate import alpaca_eval_command, write_plot

    with human_text(json_file):
        result = alpaca_eval_command(
            files,
            difficulty=difficulty,
            gamed=gamed,
            variant=variant,
            c=c,
            by_position=by_position,
            order_coin=order_coin,
            baseline=baseline,
            bootstrap=bootstrap,
            seed=seed,
        )
    write_plot(plot, result)
    write_json(json_file, result)


@evaluate.command("arena", epilog="Example: prefloop evaluate arena battles.jsonl --baseline gpt-4-0314")
def evaluate_arena_hard(
    file: Annotated[Path, typer.Argument(help="Battles, or judgments in Arena-Hard's form.")],
    baseline: Annotated[
        str | None, typer.Option(help="Scores are against this model. Default: the one in every battle.")
    ] = None,
    bootstrap: Annotated[
        int | None,
        typer.Option(min=0, help="Resamples; 0: the sandwich's interval. Default: 4000, with a style file 1000."),
    ] = None,
    seed: BootstrapSeed = 0,
    cluster: Annotated[
        Literal["q", "none"],
        typer.Option(help="Resample prompts, or single battles as the published intervals do."),
    ] = "q",
    style: Annotated[Path | None, typer.Option(help="Style of every answer: lines of q, model and numbers.")] = None,
    features: Annotated[
        str | None, typer.Option(help="Columns of the style file, by commas. Default: all.", metavar="A,B")
    ] = None,
    style_offset: Annotated[
        float | None, typer.Option(min=0, help="Features are (a-b)/(a+b+OFFSET); Arena-Hard v0.1 has 1. Default: 0.")
    ] = None,
    plot: PlotFile = None,
    json_file: JsonFile = None,
) -> None:
    """Arena-Hard: Bradley-Terry scores against a baseline, with or without control of style."""
    from prefloop.cli.evaluate import arena_command, write_plot

    with human_text(json_file):
        result = arena_command(
            file,
            baseline=baseline,
            bootstrap=bootstrap,
            seed=seed,
            clustered=cluster == "q",
            style=style,
            features=features,
            style_offset=style_offset,
        )
    write_plot(plot, result)
    write_json(json_file, result)


@evaluate.command(
    "mt-bench", epilog="Example: prefloop evaluate mt-bench gpt-4_single.jsonl --questions question.jsonl"
)
def evaluate_mt_bench(
    file: Annotated[Path, typer.Argument(help="Judgments of single answers, or of pairs (FastChat's form).")],
    questions: Annotated[Path | None, typer.Option(help="MT-Bench's questions, for means by category.")] = None,
    baseline: Annotated[str | None, typer.Option(help="Of pairs: only those with this model. Default: all.")] = None,
    bootstrap: Bootstrap = 1000,
    seed: BootstrapSeed = 0,
    plot: PlotFile = None,
    json_file: JsonFile = None,
) -> None:
    """MT-Bench: ratings by turn, or wins, losses and ties of pairs that were judged in both orders."""
    from prefloop.cli.evaluate import mt_bench_command, write_plot

    with human_text(json_file):
        result = mt_bench_command(file, questions=questions, baseline=baseline, bootstrap=bootstrap, seed=seed)
    write_plot(plot, result)
    write_json(json_file, result)


@evaluate.command("agreement", epilog="Example: prefloop evaluate agreement judges.jsonl")
def evaluate_agreement(
    file: Annotated[Path, typer.Argument(help="Verdicts in both orders beside labels (LLMBar's form).")],
    plot: PlotFile = None,
    json_file: JsonFile = None,
) -> None:
    """Judges against labels and against themselves: accuracy, kappa, position consistency, failures."""
    from prefloop.cli.evaluate import agreement_command, write_plot

    with human_text(json_file):
        result = agreement_command(file)
    write_plot(plot, result)
    write_json(json_file, result)


@evaluate.command("reward-bench", epilog="Example: prefloop evaluate reward-bench scores.jsonl")
def evaluate_reward_bench(
    file: Annotated[Path, typer.Argument(help="Scores of chosen and rejected answers, best-of-4 and Ties.")],
    plot: PlotFile = None,
    json_file: JsonFile = None,
) -> None:
    """RewardBench: subsets, sections, best of four, Ties, calibration."""
    from prefloop.cli.evaluate import reward_bench_command, write_plot

    with human_text(json_file):
        result = reward_bench_command(file)
    write_plot(plot, result)
    write_json(json_file, result)


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
            _say(f"{error.filename}: cannot be opened ({error.strerror}). Name another path.")
            sys.exit(2)
        raise


def _stopped(number: int, _frame: FrameType | None) -> None:
    _say(f"{signal.strsignal(number)}. The same command goes on from here.")
    sys.exit(128 + number)


def _say(text: str) -> None:
    sys.stderr.write(f"prefloop: {text}\n")
