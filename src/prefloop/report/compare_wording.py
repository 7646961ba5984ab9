"""A comparison in words. What an interval does not show is not claimed."""

from collections.abc import Iterator, Sequence

from prefloop.records import Estimate
from prefloop.report.compare import Against, Arm, Difference, RoundMeasured, RunComparison, SeedMeasured
from prefloop.report.figures import fixed, interval, rate, with_interval

EVEN = 50.0
MOSTLY_FINISHED = 95.0
"""Below this share of finished answers, percent, the length limit is part of the result and is said."""

WIDER = 3.0
"""Where the length-controlled interval is so many times as wide as the plain one, its width is said."""

_JUDGES = {"truth": "the truth", "judge": "the judge"}


def comparison_title(comparison: RunComparison) -> str:
    """What was compared, as a title."""
    first, *others = comparison.arms
    recipe = f"{first.name.removesuffix(first.label).removesuffix(', ')}: " if first.name != first.label else ""
    if not others:
        return f"{first.name}: {_count(len(first.seeds), 'seed')} together"
    return f"{recipe}{others[0].label if len(others) == 1 else _count(len(others), 'arm')} against {first.label}"


def comparison_meaning(comparison: RunComparison) -> tuple[str, ...]:
    """What the figures show: a few sentences for each arm, then for each that is compared with the first."""
    return (
        *(" ".join((_claim(arm), *_judge_against_truth(arm))) for arm in comparison.arms),
        *(" ".join(_compared(one)) for one in comparison.against),
    )


def comparison_caveats(comparison: RunComparison) -> tuple[str, ...]:
    """What has to be known beside the figures."""
    return (
        *(said for arm in comparison.arms for said in _about(arm)),
        *_paired(comparison.against),
        *(said for one in comparison.against for said in _left_out(one)),
        *_several(len(comparison.against)),
    )


def _claim(arm: Arm) -> str:
    if _stands_on_initial(arm):
        return f"{arm.label}: no round was accepted, so it stands where it began, on its initial model."
    wins, judge = arm.last.truth, "by the truth"
    if wins is None:
        wins, judge = arm.last.controlled, "by the judge with length controlled"
    ratio = f"its answers are {with_interval(arm.last.length, 2)} times as long"
    if wins is None:
        return f"{arm.label} was never judged against its initial model; {ratio}."
    over = f" over {len(arm.seeds)} seeds" if len(arm.seeds) > 1 else ""
    seen = f"{rate(wins)} {judge}{over}"
    if wins.interval is None:
        return (
            f"{arm.label} wins {seen} against its initial model, and {ratio}; without an interval, this may be chance."
        )
    low, high = wins.interval
    if low > EVEN:
        return f"{arm.label} is better than its initial model: it wins {seen}, and {ratio}."
    if high < EVEN:
        return f"{arm.label} is worse than its initial model: it wins only {seen}, and {ratio}."
    return (
        f"{arm.label} is not shown to differ from its initial model: it wins {seen}, and the interval contains 50 %; "
        f"{ratio}."
    )


def _stands_on_initial(arm: Arm) -> bool:
    return all(one.last_accepted is None for one in arm.seeds)


def _judge_against_truth(arm: Arm) -> Iterator[str]:
    gap, controlled = arm.judge_over_truth, arm.controlled_over_truth
    if _stands_on_initial(arm):
        return
    if gap is None or controlled is None or gap.interval is None or controlled.interval is None:
        return
    if _shows_sign(gap):
        first = f"The judge gives it {_points(_size(gap))} {'more' if gap.value > 0 else 'fewer'} than the truth does"
    else:
        first = f"Judge and truth are not shown to differ about it: {_points(gap)}"
    shown = "" if _shows_sign(controlled) else ", not shown to differ from zero"
    yield f"{first}; with length controlled the gap is {_points(controlled)}{shown}."


def _compared(one: Against) -> Iterator[str]:
    """By the truth where it is known: what the judge says of it stands in the table."""
    judge = next((judge for judge in ("truth", "judge") if judge in one.differences), None)
    if judge is not None:
        yield _rates_compared(one, judge, one.differences[judge])
    yield _lengths_compared(one, one.differences["length"])
    if judge is not None:
        yield _duelled(one, judge, one.duels[judge])


def _rates_compared(one: Against, judge: str, found: Difference) -> str:
    gap = found.estimate
    if _shows_sign(gap):
        more = "more" if gap.value > 0 else "fewer"
        won = f"{one.arm} wins {_points(_size(gap))} {more} than {one.first} against the initial model"
        return f"By {_JUDGES[judge]}, {won}{_on_seeds(one, found)}."
    return (
        f"By {_JUDGES[judge]}, {one.arm} and {one.first} are not shown to differ in how often they beat the initial "
        f"model: {_points(gap)}.{_could_see(found, 'points', 1)}"
    )


def _lengths_compared(one: Against, found: Difference) -> str:
    gap = found.estimate
    if _shows_sign(gap):
        longer = "longer" if gap.value > 0 else "shorter"
        by = f"by {with_interval(_size(gap), 2)} times the initial length"
        return f"{one.arm} answers {longer} than {one.first}, {by}{_on_seeds(one, found)}."
    return (
        f"{one.arm} and {one.first} are not shown to differ in length: {with_interval(gap, 2)} times the initial "
        f"length.{_could_see(found, 'times the initial length', 2)}"
    )


def _duelled(one: Against, judge: str, duel: Estimate) -> str:
    met = f"Answer against answer, {one.arm} beats {one.first} in {rate(duel)} by {_JUDGES[judge]}"
    shown = duel.interval is not None and not duel.interval[0] <= EVEN <= duel.interval[1]
    return f"{met}." if shown else f"{met}, which does not show that either is better."


def _could_see(found: Difference, unit: str, digits: int) -> str:
    if found.detectable is None:
        return ""
    return f" A difference of {fixed(found.detectable, digits)} {unit} would have been detected four times in five."


def _on_seeds(one: Against, found: Difference) -> str:
    return f", the same way on {len(found.same_sign)} of {len(one.seeds)} seeds" if len(one.seeds) > 1 else ""


def _about(arm: Arm) -> Iterator[str]:
    if arm.unsaid:
        yield f"{arm.label} also differs in what its name leaves out: {', '.join(arm.unsaid)}."
    for one in arm.seeds:
        yield from _about_seed(arm, one)
    for one in arm.rounds:
        yield from _about_round(arm, one)
    finished = arm.last.finished
    if finished.value < MOSTLY_FINISHED:
        yield (
            f"{arm.label}: {rate(finished)} of its answers end by themselves. The length limit cuts the others, "
            "so its length is understated."
        )
    judge, controlled = arm.last.judge, arm.last.controlled
    if judge is not None and controlled is not None and _width(controlled) > WIDER * _width(judge) > 0:
        yield (
            f"{arm.label}: its answers are so often the longer ones that length and quality can hardly be told apart: "
            f"the length-controlled win rate may lie anywhere in {interval(controlled, 1)} %."
        )


def _about_seed(arm: Arm, one: SeedMeasured) -> Iterator[str]:
    name = f"{arm.label}, seed {one.seed}" if len(arm.seeds) > 1 else arm.label
    if one.ended < one.planned:
        rounds = f"{one.ended} of {_count(one.planned, 'round')}"
        yield f"{name}: {rounds} with answers so far, of which the last accepted one is counted."
    if one.last_accepted is None:
        yield f"{name}: no round was accepted, so its initial model is counted: 50 % at its own length."


def _about_round(arm: Arm, one: RoundMeasured) -> Iterator[str]:
    if one.refused:
        where = f" on {len(one.refused)} of {_count(len(one.seeds), 'seed')}" if len(arm.seeds) > 1 else ""
        yield f"{arm.label}: round {one.label} was not accepted{where}; the plots show it (†), the result does not."
    if len(one.seeds) < len(arm.seeds):
        yield f"{arm.label}: round {one.label} was measured on {len(one.seeds)} of {len(arm.seeds)} seeds."


def _paired(against: Sequence[Against]) -> Iterator[str]:
    """One line for all where all are paired alike."""
    lines = {one.arm: _pairing(one) for one in against}
    if len(lines) > 1 and len(set(lines.values())) == 1:
        yield f"Every arm is paired with {against[0].first} on {lines[against[0].arm]}."
    else:
        yield from (f"{one.arm} is paired with {one.first} on {lines[one.arm]}." for one in against)


def _pairing(one: Against) -> str:
    prompts = f"the same {_count(one.prompts, 'prompt')}"
    if not one.seeds:
        return f"{prompts} only, as they have no seed in common"
    seeds = f"{prompts} and {'seed' if len(one.seeds) == 1 else 'seeds'} {', '.join(map(str, one.seeds))}"
    return f"{seeds}; seeds that only one of them has enter its own figures alone" if one.seeds_apart else seeds


def _left_out(one: Against) -> Iterator[str]:
    if one.left_out:
        left_out = _count(one.left_out, "prompt")
        yield f"{left_out} that only one of {one.arm} and {one.first} answered: left out of their difference."
    for judge in one.not_comparable:
        yield (
            f"{one.arm} and {one.first} were not scored by the same judge ({judge}), so differences and duels by it "
            "would mean nothing and are left out."
        )


def _several(comparisons: int) -> Iterator[str]:
    if comparisons > 1:
        yield (
            f"{comparisons} arms are compared with the first, and no interval is adjusted for it: if no arm differed, "
            f"one of the {comparisons} would still seem to with a probability of up to {min(100, 5 * comparisons)} %, "
            "for each measure."
        )


def _shows_sign(estimate: Estimate) -> bool:
    return estimate.interval is not None and not estimate.interval[0] <= 0 <= estimate.interval[1]


def _width(estimate: Estimate) -> float:
    return 0.0 if estimate.interval is None else estimate.interval[1] - estimate.interval[0]


def _size(estimate: Estimate) -> Estimate:
    """Without its sign, for sentences that say it in words."""
    if estimate.value >= 0 or estimate.interval is None:
        return estimate
    low, high = estimate.interval
    return Estimate(value=-estimate.value, interval=(-high, -low))


def _points(estimate: Estimate) -> str:
    """`−2.1 points (−8.0 to 3.9)`."""
    return f"{fixed(estimate.value, 1)} points ({interval(estimate, 1) or 'no interval'})"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
