"""How many prompts gave a pair, and why the others did not: from what the steps counted."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prefloop.report.view import Round, RunView

_DROPPED = "dropped: "
_EVALUATION = "evaluation"
"""How the names of steps begin whose answers are held out, and are paired by nobody."""
_NOTHING: Mapping[str, float] = {}


@dataclass(frozen=True)
class PairsOfRound:
    """The pairs of one round, or of one block of it."""

    label: str
    prompts: int
    usable: int
    dropped: tuple[tuple[str, int], ...]
    """Why the other prompts gave nothing, and how many."""
    answers: int
    cut: int
    """Answers at the length limit; by default they take no part."""
    note: str = ""

    @property
    def share(self) -> float:
        """Of the prompts that gave a pair, percent."""
        return 100 * self.usable / self.prompts if self.prompts else 0.0


def usable_pairs(run: RunView) -> tuple[PairsOfRound, ...]:
    """A line for each round in which pairs were chosen, or could have been."""
    return tuple(line for one in run.rounds for line in _lines(one))


def _lines(one: Round) -> Iterator[PairsOfRound]:
    by_folder: dict[str, list[Mapping[str, float]]] = {}
    for place, counts in one.counts.items():
        folder, _, step = place.rpartition("/")
        if not step.startswith(_EVALUATION):
            by_folder.setdefault(folder, []).append(counts)
    for folder, steps in by_folder.items():
        sampled: Mapping[str, float] = next((counts for counts in steps if "responses" in counts), _NOTHING)
        paired = next((counts for counts in reversed(steps) if "groups" in counts and "examples" in counts), None)
        label = one.label + (f", block {int(folder.removeprefix('block-')) + 1}" if folder else "")
        answers, cut = int(sampled.get("responses", 0)), int(sampled.get("cut", 0))
        if paired is not None:
            reasons = {name.removeprefix(_DROPPED): int(n) for name, n in paired.items() if name.startswith(_DROPPED)}
            dropped = tuple(sorted(reasons.items(), key=lambda item: -item[1]))
            yield PairsOfRound(label, int(paired["groups"]), int(paired["examples"]), dropped, answers, cut)
        elif any("judgments" in counts for counts in steps) and one.summary is None:
            yield PairsOfRound(label, 0, 0, (), answers, cut, note="judged, but no pairs are there")
