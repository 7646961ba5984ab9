"""The table of rounds: what a run prints at its end and what the page shows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from prefloop.records import Estimate
from prefloop.report.figures import ABSENT, count, fixed, percent, with_error, with_interval
from prefloop.report.read import read_run
from prefloop.report.view import Duel, Evaluation, Round, RunView

TABLE_HEADINGS = (
    "round",
    "judge, %",
    "judge LC, %",
    "truth, %",
    "tokens",
    "length \N{MULTIPLICATION SIGN}",
    "ended, %",
    "KL, nats",
    "pairs",
    "decision",
)
"""Headings of `RoundRow.cells`."""

TABLE_CAPTION = (
    "Judge, judge LC (length-controlled) and truth: win rate against the initial model, %, with its 95 % interval over "
    "prompts. "
    "Tokens: mean length of an answer, and as a multiple of the initial model's. Ended: by themselves, not at the "
    "length limit. KL: from the initial model, an answer, ± its standard error."
)
"""What the columns are."""

DECISIONS = {
    "accepted": "accepted",
    "warned": "warned",
    "rolled_back": "rolled back",
    "stopped": "stopped",
}


@dataclass(frozen=True)
class RoundRow:
    """One line of the table. What was not measured is None."""

    label: str
    """`initial`, or the round as people count: 1 is the folder round-00."""
    judge: Estimate | None = None
    controlled: Estimate | None = None
    """By the judge, if both answers were equally long."""
    truth: Estimate | None = None
    """By the judge without its planted flaws."""
    length: Estimate | None = None
    length_ratio: float | None = None
    """To the initial model's."""
    finish_rate: float | None = None
    kl: Estimate | None = None
    pairs: float | None = None
    decision: str = ""

    def cells(self, written: Callable[[Estimate], str] = with_interval) -> tuple[str, ...]:
        """The line as text, in the order of `TABLE_HEADINGS`, estimates with intervals as `written` says."""

        def known(estimate: Estimate | None) -> str:
            return ABSENT if estimate is None else written(estimate)

        return (
            self.label,
            *map(known, (self.judge, self.controlled, self.truth, self.length)),
            ABSENT if self.length_ratio is None else fixed(self.length_ratio, 2),
            ABSENT if self.finish_rate is None else percent(self.finish_rate),
            ABSENT if self.kl is None else with_error(self.kl),
            ABSENT if self.pairs is None else count(self.pairs),
            self.decision,
        )


@dataclass(frozen=True)
class TextTable:
    """The table as text."""

    headings: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


def closing_table(run: Path) -> tuple[RoundRow, ...]:
    """The table of a run folder.

    Raises:
        DataError: the folder is no run.
    """
    return round_rows(read_run(run))


def round_rows(run: RunView) -> tuple[RoundRow, ...]:
    """A line for the initial model, where it was evaluated, and one for each round."""
    evaluation = next((one.evaluation for one in run.rounds if one.evaluation is not None), None)
    initial = () if evaluation is None else (_initial_row(evaluation),)
    return (*initial, *(_row(one) for one in run.rounds))


def text_table(rows: Sequence[RoundRow], written: Callable[[Estimate], str] = with_interval) -> TextTable:
    """The rows as text, without the columns in which nothing was measured."""
    columns = zip(TABLE_HEADINGS, *(row.cells(written) for row in rows), strict=True)
    kept = [column for column in columns if any(cell != ABSENT for cell in column[1:])]
    headings, *lines = zip(*kept, strict=True) if kept else ((),)
    return TextTable(headings, tuple(lines))


def _initial_row(evaluation: Evaluation) -> RoundRow:
    """The initial model against itself: 50 % and no divergence by definition, its length as measured."""
    even = Estimate(value=50.0)
    judges = evaluation.against.get("initial", {})
    return RoundRow(
        label="initial",
        judge=even if "judge" in judges else None,
        controlled=even if "judge" in judges else None,
        truth=even if "truth" in judges else None,
        length=Estimate(value=evaluation.length.initial),
        length_ratio=1.0,
        finish_rate=evaluation.finish_rate.initial,
        kl=None if evaluation.kl is None else Estimate(value=0.0),
    )


def _row(one: Round) -> RoundRow:
    judge, truth, evaluation = one.duel("judge"), one.duel("truth"), one.evaluation
    return RoundRow(
        label=one.label,
        judge=_raw(judge),
        controlled=None if judge is None else judge.controlled,
        truth=_raw(truth),
        length=None if evaluation is None else length_of(evaluation),
        length_ratio=None if evaluation is None else evaluation.length.ratio,
        finish_rate=None if evaluation is None else evaluation.finish_rate.value,
        kl=None if evaluation is None else kl_of(evaluation),
        pairs=_pairs(one),
        decision="unfinished" if one.summary is None else DECISIONS[one.summary.decision],
    )


def _raw(duel: Duel | None) -> Estimate | None:
    return None if duel is None else duel.raw


def length_of(evaluation: Evaluation) -> Estimate:
    """Mean answer length, tokens."""
    length = evaluation.length
    return Estimate(value=length.mean, standard_error=length.standard_error, interval=length.interval)


def ratio_of(one: Round) -> Estimate | None:
    """Mean answer length as a multiple of the initial model's."""
    if one.evaluation is None:
        return None
    length = one.evaluation.length
    return Estimate(value=length.ratio, standard_error=length.ratio_standard_error, interval=length.ratio_interval)


def kl_of(evaluation: Evaluation) -> Estimate | None:
    """KL from the initial model, nats an answer."""
    kl = evaluation.kl
    return None if kl is None else Estimate(value=kl.value, standard_error=kl.standard_error, interval=kl.interval)


def _pairs(one: Round) -> float | None:
    """Examples, as the first step that counts any calls them."""
    counts = {} if one.summary is None else one.summary.counts
    return next((step["examples"] for step in counts.values() if "examples" in step), None)
