"""Where every figure of the page is from, and how to make them again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prefloop.report.plots import Plot
from prefloop.report.view import RunView


@dataclass(frozen=True)
class Origin:
    """A figure and the files that hold its numbers."""

    figure: str
    files: str


def figures_from(run: RunView, plots: Sequence[Plot]) -> tuple[Origin, ...]:
    """Every plot and table, with its files and the names of its fields in them."""
    return tuple(_origins(run, plots))


def how_to_repeat(run: RunView) -> str:
    """The command that makes the same numbers: the resolved recipe lies in the run folder."""
    return "prefloop run RUN/recipe.yaml --run ANOTHER" if run.recipe.steps else ""


def _origins(run: RunView, plots: Sequence[Plot]) -> Iterator[Origin]:
    if run.rounds:
        yield Origin(
            "Result, meaning, round by round, decisions", "round-NN/evaluation.json and summary.json; counts: journal"
        )
    for plot in plots:
        yield Origin(plot.title, plot.source)
    if run.plain is not None:
        seeds = ", ".join(map(str, run.plain.seeds))
        yield Origin(
            "Plain DPO, in grey",
            f"ships with prefloop as report/plain_curve.json; made by {run.plain.command} (seed {seeds})",
        )
    if run.rounds:
        yield Origin("Usable pairs", "what the step pairs counted, in journal.sqlite and round-NN/summary.json")
    if any(train.validation for one in run.rounds for train in one.training):
        yield Origin("On examples that were kept apart", "round-NN/policy/validation.json")
    if run.reward_models:
        yield Origin("Reward models on pairs that were kept apart", "reward_model.json beside each")
    if run.comparisons:
        yield Origin(
            "Answers before and after",
            "setup/evaluation-prompts, setup/evaluation-initial, round-NN/evaluation-samples and their judgments",
        )
