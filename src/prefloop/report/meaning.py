"""What a run means, in plain words: only what its intervals show, and what they cannot show said beside it."""

from collections.abc import Iterator
from dataclasses import dataclass

from prefloop.records import Estimate
from prefloop.report.figures import count, fixed, interval, rate
from prefloop.report.table import kl_of, ratio_of
from prefloop.report.view import Duel, Evaluation, PlainCurve, Round, RunView

EVEN = 50.0
WIDE = 20.0
"""Half-width of a win rate's interval, in points, from which on it says nothing."""


@dataclass(frozen=True)
class Statement:
    """One thing that a run shows or does not show."""

    claim: str
    because: str


def meaning(run: RunView) -> tuple[Statement, ...]:
    """What the last accepted round shows; nothing where it was not evaluated against the initial model."""
    shown = run.last_accepted
    if shown is None or shown.evaluation is None or shown.duel("judge") is None:
        return ()
    return tuple(_statements(run, shown, shown.evaluation))


def _statements(run: RunView, shown: Round, evaluation: Evaluation) -> Iterator[Statement]:
    judge, truth = shown.duel("judge"), shown.duel("truth")
    assert judge is not None
    yield _quality(judge, truth)
    if truth is not None:
        yield _honesty(judge, truth)
    if (ratio := ratio_of(shown)) is not None:
        yield _length(ratio)
    if (kl := kl_of(evaluation)) is not None:
        yield Statement(
            f"An answer is {fixed(kl.value, 1)} nats away from the initial model.",
            f"KL on the policy's own answers{_ends(kl, 1)}; 0 is the initial model itself.",
        )
    if (last := shown.duel("truth" if truth else "judge", "previous")) is not None and shown.number > 0:
        yield _step(last.raw, "truth" if truth else "judge")
    if run.plain is not None and truth is not None and ratio is not None:
        yield from _beside_plain(run.plain, shown.number, truth.raw, ratio)
    yield _uncertainty(run, truth or judge, evaluation)


def _quality(judge: Duel, truth: Duel | None) -> Statement:
    wins = truth.raw if truth is not None else judge.controlled
    by = "by the truth" if truth is not None else "by the judge with length controlled"
    claims = {1: "The answers got better.", -1: "The answers got worse.", 0: "Better answers are not shown."}
    return Statement(
        claims[side(wins, EVEN)],
        f"They win {rate(wins)} against the initial model's {by}; 50\N{NO-BREAK SPACE}% is a draw.",
    )


def _honesty(judge: Duel, truth: Duel) -> Statement:
    """The judge and its length control, each against the truth; only intervals that do not meet are a difference."""
    says = f"It says {rate(judge.raw)}, the truth says {rate(truth.raw)}"
    controlled = f"with length controlled it says {rate(judge.controlled)}"
    gap = apart(judge.raw, truth.raw)
    if gap == 0:
        overlap = "The intervals of judge and truth overlap." if judge.interval and truth.interval else "No intervals."
        return Statement("The judge is not shown to mislead.", f"{says}, and {controlled}. {overlap}")
    claim = "The judge flatters this policy." if gap > 0 else "The judge is too hard on this policy."
    end = "which is still not what the truth says"
    if apart(judge.controlled, truth.raw) == 0:
        end = "which fits the truth" if _half_width(judge.controlled) < WIDE else "too uncertain to be of use here"
    return Statement(claim, f"{says}: the intervals do not meet. And {controlled}, {end}.")


def _length(ratio: Estimate) -> Statement:
    claims = {1: "The answers got longer.", -1: "The answers got shorter.", 0: "A change of length is not shown."}
    return Statement(
        claims[side(ratio, 1.0)],
        f"An answer is {fixed(ratio.value, 2)} times as long as the initial model's{_ends(ratio, 2)}; 1 is no change.",
    )


def _step(wins: Estimate, judge: str) -> Statement:
    claims = {
        1: "The last round was still an improvement.",
        -1: "The last round made it worse.",
        0: "The last round alone is not shown to have helped.",
    }
    return Statement(
        claims[side(wins, EVEN)], f"It wins {rate(wins)} against the accepted round before it, by the {judge}."
    )


def _beside_plain(curve: PlainCurve, number: int, truth: Estimate, ratio: Estimate) -> Iterator[Statement]:
    if number >= len(curve.rounds):
        return
    plain = curve.rounds[number]
    longer = {
        1: "Plain DPO writes longer.",
        -1: "Plain DPO writes shorter.",
        0: "Plain DPO is not shown to differ in length.",
    }
    better = {
        1: "It is also better by the truth.",
        -1: "It is worse by the truth.",
        0: "By the truth no difference is shown.",
    }
    yield Statement(
        longer[apart(plain.length_ratio, ratio)],
        f"The same recipe with plain DPO was at {fixed(plain.length_ratio.value, 2)} times the initial length"
        f"{_ends(plain.length_ratio, 2)} after as many rounds, with {rate(plain.truth)} by the truth and "
        f"{rate(plain.judge)} by the judge. {better[apart(plain.truth, truth)]} "
        "It was another run, so only intervals that do not meet are called a difference.",
    )


def _uncertainty(run: RunView, duel: Duel, evaluation: Evaluation) -> Statement:
    half = _half_width(duel.raw)
    known = f" A win rate is known to about ± {fixed(half, 0)} points; less cannot be seen." if half else ""
    answers = "" if evaluation.num_samples == 1 else f", {evaluation.num_samples} answers each"
    return Statement(
        "One run says this much and no more.",
        f"Intervals are 95 %, over {count(evaluation.prompts)} held-out prompts{answers}, at seed {run.recipe.seed}: "
        f"they say how other prompts might have come out, not how another seed would have.{known}",
    )


def _half_width(estimate: Estimate) -> float:
    """Half of the interval; 0 where there is none."""
    return 0.0 if estimate.interval is None else (estimate.interval[1] - estimate.interval[0]) / 2


def side(estimate: Estimate, even: float) -> int:
    """1 where the whole interval lies above a value, -1 where it lies below, 0 where nothing is shown."""
    if estimate.interval is None:
        return 0
    low, high = estimate.interval
    return (low > even) - (high < even)


def apart(one: Estimate, other: Estimate) -> int:
    """1 where the whole interval of the first lies above the other's, -1 where below, 0 where they meet."""
    if one.interval is None or other.interval is None:
        return 0
    return (one.interval[0] > other.interval[1]) - (one.interval[1] < other.interval[0])


def _ends(estimate: Estimate, digits: int) -> str:
    ends = interval(estimate, digits)
    return f" ({ends})" if ends else ""
