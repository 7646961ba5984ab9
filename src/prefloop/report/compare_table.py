"""The tables of a comparison: arms side by side, their rounds, their seeds."""

from collections.abc import Iterator, Sequence

from prefloop.records import Estimate
from prefloop.report.compare import Against, Arm, Measured, RunComparison, SeedMeasured
from prefloop.report.figures import ABSENT, fixed, with_coarse_interval, with_interval
from prefloop.report.table import TextTable

RATES = {"truth": "win % truth", "judge": "win % judge", "controlled": "win % judge, length-controlled"}
"""How the tables call the win rates, in their order."""
BELOW = "  "
"""Before the heading of a line that belongs to the one above it."""
_UNITS = {"truth": "points", "judge": "points", "length": "times"}


def comparison_table(comparison: RunComparison) -> TextTable:
    """A column for each arm after its last accepted round; below a figure, its difference to the first arm's."""
    arms, against = comparison.arms, (None, *comparison.against)
    lines = [
        ("seeds", *(_seeds(arm) for arm in arms)),
        ("last accepted round", *(_last_rounds(arm) for arm in arms)),
        *_measure("truth", RATES["truth"], arms, against),
        *_measure("judge", RATES["judge"], arms, against),
        ("win % judge, length-controlled", *(_shown(arm.last.controlled) for arm in arms)),
        *_measure("length", "length, times the initial", arms, against),
        ("finished %", *(_shown(arm.last.finished) for arm in arms)),
        ("KL, nats", *(_shown(arm.last.kl, 2) for arm in arms)),
        ("judge over truth, points", *(_shown(arm.judge_over_truth) for arm in arms)),
        ("length-controlled judge over truth, points", *(_shown(arm.controlled_over_truth) for arm in arms)),
        *(
            (f"beats {arms[0].label} directly, % {judge}", *(_shown(one and one.duels.get(judge)) for one in against))
            for judge in ("truth", "judge")
        ),
    ]
    measured = tuple(line for line in lines if any(cell not in {ABSENT, ""} for cell in line[1:]))
    return TextTable(("after the last accepted round", *(arm.label for arm in arms)), measured)


def arms_table(comparison: RunComparison) -> TextTable:
    """A line for each arm after its last accepted round, for many arms on a terminal; intervals in whole numbers."""
    against = (None, *comparison.against)
    lines = [
        (
            arm.label,
            _last_rounds(arm),
            _coarse(arm.last.truth),
            _coarse(_difference(one, "truth")),
            _coarse(arm.last.judge),
            _coarse(arm.last.controlled),
            _shown(arm.last.length, 2),
        )
        for arm, one in zip(comparison.arms, against, strict=True)
    ]
    first = comparison.arms[0].label
    headings = ("arm", "round", "truth, %", f"to {first}", "judge, %", "judge LC, %", "length")
    return _without_empty(headings, lines)


def rounds_table(comparison: RunComparison) -> TextTable:
    """A line for each round of each arm: the trajectories of the plots in figures."""
    lines = [
        (arm.label, one.label, str(len(one.seeds)), _refused(len(one.refused), len(one.seeds)), *_cells(one.measured))
        for arm in comparison.arms
        for one in arm.rounds
    ]
    return _without_empty(("arm", "round", "seeds", "accepted", *_HEADINGS), lines)


def seeds_table(comparison: RunComparison) -> TextTable:
    """A line for each run, after its last accepted round."""
    lines = [
        (arm.label, str(one.seed), _round_of(one), *_cells(one.measured))
        for arm in comparison.arms
        for one in arm.seeds
    ]
    return _without_empty(("arm", "seed", "last accepted round", *_HEADINGS), lines)


_HEADINGS = (*RATES.values(), "length, times", "finished %", "KL, nats")


def _cells(measured: Measured) -> tuple[str, ...]:
    return (
        _shown(measured.truth),
        _shown(measured.judge),
        _shown(measured.controlled),
        _shown(measured.length, 2),
        fixed(measured.finished.value, 1),
        _shown(measured.kl, 2),
    )


def _measure(
    name: str, heading: str, arms: Sequence[Arm], against: Sequence[Against | None]
) -> Iterator[tuple[str, ...]]:
    """The figure; where arms are compared, the difference, and the one that could have been detected."""
    digits = 2 if name == "length" else 1
    yield (heading, *(_shown(_value(arm.last, name), digits) for arm in arms))
    found = [one.differences.get(name) if one is not None else None for one in against]
    yield (
        f"{BELOW}difference to {arms[0].label}, {_UNITS[name]}",
        *("" if one is None else with_interval(one.estimate, digits) for one in found),
    )
    yield (
        f"{BELOW}difference that could have been detected, {_UNITS[name]}",
        *("" if one is None or one.detectable is None else fixed(one.detectable, digits) for one in found),
    )


def _difference(against: Against | None, name: str) -> Estimate | None:
    found = None if against is None else against.differences.get(name)
    return None if found is None else found.estimate


def _coarse(estimate: Estimate | None) -> str:
    return ABSENT if estimate is None else with_coarse_interval(estimate)


def _value(measured: Measured, name: str) -> Estimate | None:
    return {"truth": measured.truth, "judge": measured.judge, "length": measured.length}[name]


def _shown(estimate: Estimate | None, digits: int = 1) -> str:
    return ABSENT if estimate is None else with_interval(estimate, digits)


def _seeds(arm: Arm) -> str:
    return ", ".join(str(one.seed) for one in arm.seeds)


def _last_rounds(arm: Arm) -> str:
    """One number where all seeds agree, else one for each seed."""
    rounds = [_round_of(one) for one in arm.seeds]
    return rounds[0] if len(set(rounds)) == 1 else ", ".join(rounds)


def _round_of(one: SeedMeasured) -> str:
    return "none" if one.last_accepted is None else str(one.last_accepted + 1)


def _refused(refused: int, seeds: int) -> str:
    return "yes" if not refused else "no" if refused == seeds else f"{seeds - refused} of {seeds}"


def _without_empty(headings: tuple[str, ...], lines: Sequence[tuple[str, ...]]) -> TextTable:
    """Without the columns in which nothing was measured."""
    columns = zip(headings, *lines, strict=True)
    kept = [column for column in columns if any(cell != ABSENT for cell in column[1:])]
    head, *rest = zip(*kept, strict=True)
    return TextTable(head, tuple(rest))
