"""The commands of `prefloop evaluate`, as they are typed."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from prefloop.cli.results import JsonFile, human_text, write_json

evaluate = typer.Typer(
    help="Numbers with their uncertainty from judgments on file.", no_args_is_help=True, rich_markup_mode=None
)
Bootstrap = Annotated[int, typer.Option(min=2, help="Resamples of the bootstrap.")]
BootstrapSeed = Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")]
PlotFile = Annotated[Path | None, typer.Option("--plot", help="Draw values and intervals into this SVG file.")]


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
    model: Annotated[str, typer.Option(help="A model's or an adapter's directory, builtin:NAME or org/name@revision.")],
    task: Annotated[
        list[str], typer.Option(help="A task of the harness or of --folder, open_llm_v1 or open_llm_v2 (network).")
    ],
    folder: Annotated[Path | None, typer.Option(help="Folder with task files of your own (YAML).")] = None,
    num_fewshot: Annotated[int | None, typer.Option(min=0, help="Examples shown. Default: as the task says.")] = None,
    chat_template: Annotated[bool, typer.Option("--chat-template", help="Ask through the chat template.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Items of each task. Default: all.")] = None,
    before: Annotated[Path | None, typer.Option(help="An earlier --json of the same tasks: what was lost?")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the examples shown.")] = 0,
    plot: PlotFile = None,
    json_file: JsonFile = None,
) -> None:
    """lm-evaluation-harness in process (pip install 'prefloop[harness]'): what alignment cost elsewhere."""
    from prefloop.cli.evaluate import write_plot
    from prefloop.cli.evaluate_harness import lm_eval_command
    from prefloop.evaluation.harness import HarnessSettings

    with human_text(json_file):
        settings = HarnessSettings(tuple(task), folder, num_fewshot, chat_template, limit, seed)
        result = lm_eval_command(model, settings, before)
    write_plot(plot, result)
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
    p_label_flip: Annotated[
        float,
        typer.Option(
            min=0, max=0.5, help="Turn this share of preferences round, by AlpacaEval's seeded draws: how robust is it?"
        ),
    ] = 0.0,
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
            p_label_flip=p_label_flip,
            baseline=baseline,
            bootstrap=bootstrap,
            seed=seed,
        )
    write_plot(plot, result)
    write_json(json_file, result)


@evaluate.command("arena", epilog="Example: prefloop evaluate arena battles.jsonl --baseline gpt-4-0314")
def evaluate_arena_hard(  # noqa: PLR0913, PLR0917  an option each
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
    table_of: Annotated[
        Literal["v2.0"] | None,
        typer.Option("--table", help="Also the scores and 5-95 % intervals that Arena-Hard v2.0's own script prints."),
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
            table_of=table_of,
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
    bootstrap: Bootstrap = 1000,
    seed: BootstrapSeed = 0,
    plot: PlotFile = None,
    json_file: JsonFile = None,
) -> None:
    """Judges against labels and against themselves: accuracy, kappa, position consistency, failures."""
    from prefloop.cli.evaluate import agreement_command, write_plot

    with human_text(json_file):
        result = agreement_command(file, bootstrap=bootstrap, seed=seed)
    write_plot(plot, result)
    write_json(json_file, result)


@evaluate.command("reward-bench", epilog="Example: prefloop evaluate reward-bench scores.jsonl")
def evaluate_reward_bench(
    file: Annotated[Path, typer.Argument(help="Scores of chosen and rejected answers, best-of-4 and Ties.")],
    generative: Annotated[
        bool, typer.Option("--generative", help="Scores are a writing judge's ratings: equal ones earn half a point.")
    ] = False,
    bootstrap: Bootstrap = 1000,
    seed: BootstrapSeed = 0,
    plot: PlotFile = None,
    json_file: JsonFile = None,
) -> None:
    """RewardBench: subsets, sections, best of four, Ties, calibration."""
    from prefloop.cli.evaluate import reward_bench_command, write_plot

    with human_text(json_file):
        result = reward_bench_command(file, generative=generative, bootstrap=bootstrap, seed=seed)
    write_plot(plot, result)
    write_json(json_file, result)


@evaluate.command(
    "frontier", epilog="Example: prefloop evaluate frontier runs/dpo runs/ipo --at 1,2,5 --plot frontier.svg"
)
def evaluate_frontier(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Runs, and files of lines of point, prompt, kl, reward. METHOD=... makes several one method's points.",
            metavar="[METHOD=]RUN|FILE...",
        ),
    ],
    reward: Annotated[
        Literal["score", "win_rate"], typer.Option(help="Of runs: the judge's scores, or win rates against initial.")
    ] = "score",
    by: Annotated[Literal["judge", "truth"], typer.Option(help="Of runs: who judged.")] = "judge",
    at: Annotated[str, typer.Option(help="KLs at which rewards are read off, nats, by commas.")] = "1,2,5,10",
    up_to: Annotated[
        float | None, typer.Option(help="End of the area under each envelope, nats. Default: what all reach.")
    ] = None,
    best_of_n: Annotated[
        Path | None,
        typer.Option(
            help="Lines of prompt, rewards: samples of the reference. Default: the first run's initial answers."
        ),
    ] = None,
    bootstrap: Bootstrap = 1000,
    seed: BootstrapSeed = 0,
    plot: PlotFile = None,
    json_file: JsonFile = None,
) -> None:
    """Reward against KL: points with intervals, envelopes, methods at equal KL, best-of-n beside them."""
    from prefloop.cli.evaluate_frontier import FrontierOptions, frontier_command, write_frontier_plot

    with human_text(json_file):
        options = FrontierOptions(sources, reward, by, at, up_to, best_of_n, bootstrap, seed)
        result = frontier_command(options)
    write_frontier_plot(plot, result)
    write_json(json_file, result)
