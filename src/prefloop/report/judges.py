"""What the judges of each round cost, and what their verdicts say of them."""

from collections.abc import Mapping

from prefloop.report.figures import ABSENT, count, fixed
from prefloop.report.plots import DataTable
from prefloop.report.view import RunView

HEADINGS = (
    "round",
    "step",
    "calls",
    "kept before",
    "tokens read",
    "written",
    "price, $",
    "invalid, %",
    "same in both orders, %",
    "same again, %",
    "first wins, %",
    "longer wins, %",
    "members differ, %",
    "100 tokens are worth",
)
NOTE = (
    "Kept before: calls that were answered from what this run was told earlier. Same in both orders: of pairs that "
    "were shown both ways. First wins: of comparisons with a winner; 50 is a judge that place means nothing to. Longer "
    "wins: of pairs of different length with a winner. Members differ: of two models of an ensemble, how often they "
    "have another winner; 50 is two that know nothing of each other. The last column is in scores, or in the "
    "probability of winning."
)


def judges_table(run: RunView) -> DataTable | None:
    """A line for every judge step of every round; None where no journal knows the calls of one."""
    lines = tuple(
        (one.label, step, *_cells(counts))
        for one in run.rounds
        for step, counts in one.counts.items()
        if "judgments" in counts and "calls" in counts
    )
    return DataTable(HEADINGS, lines, NOTE) if lines else None


def _cells(counts: Mapping[str, float]) -> tuple[str, ...]:
    def known(name: str, digits: int, factor: float = 1.0) -> str:
        return ABSENT if name not in counts else fixed(factor * counts[name], digits)

    whole = (
        ABSENT if name not in counts else count(counts[name]) for name in ("cache_hits", "tokens_in", "tokens_out")
    )
    shares = (
        "invalid_share",
        "position_consistency",
        "self_consistency",
        "first_share",
        "prefers_longer",
        "disagreement",
    )
    return (
        count(counts["calls"]),
        *whole,
        known("price", 2),
        *(known(name, 1, 100) for name in shares),
        known("length_slope", 3),
    )
