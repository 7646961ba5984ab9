"""How far judges agree: with labels, with each other, and with themselves when the answers change places."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float64, Shaped

from prefloop.statistics.arrays import Floats, Labels, Truths
from prefloop.statistics.bootstrap import ClusteredEstimate, bca_bootstrap
from prefloop.statistics.proportion import mid_p_interval

Rule = Callable[[Float64[Floats, " items"], Float64[Floats, " items"]], Float64[Floats, " items"]]
"""Agreement of two preferences in [1, 2], by item."""

LONGER = 30.0
"""Characters of difference from which on AlpacaEval's analyzer calls an answer the longer one."""


@dataclass(frozen=True)
class OrderedAgreement:
    """A binary judge that saw every pair in both orders, against labels (LLMBar, arXiv:2310.07641). Shares."""

    acc_ab: float
    """Right with output 1 shown first. A verdict that could not be parsed is wrong."""
    acc_ba: float
    acc_mean: float
    acc_both: float
    """Right in both orders."""
    position_agreement: float
    """The same verdict in both orders; two equal texts that are no verdict agree."""
    first_share: float
    """Parsed verdicts for the answer that was shown first, over both orders. NaN where none was parsed."""
    unparsed: int
    """Verdicts, of both orders, that are neither 1 nor 2."""
    kappa: float
    """Cohen's kappa of verdict and label over both orders; what is no verdict is a third label. NaN if undefined."""
    position_kappa: float
    """Cohen's kappa of the verdicts in the two orders."""


def cohen_kappa(one: Shaped[Labels, " items"], other: Shaped[Labels, " items"]) -> float:
    """Agreement beyond chance: (observed - expected) / (1 - expected), expected from either side's own frequencies.

    Args:
        one: Labels.
        other: Labels of the same items.

    Returns:
        At most 1. NaN where both sides give one and the same label throughout: nothing can be told from chance then.

    Raises:
        ValueError: there are no items.
    """
    if one.size == 0:
        raise ValueError("there are no items")
    both: Labels = np.concatenate([one, other])
    names, number = np.unique(both, return_inverse=True)
    first, second = (np.asarray(part, np.int64) for part in (number[: one.size], number[one.size :]))
    expected = sum(float((first == label).mean() * (second == label).mean()) for label in range(names.size))
    observed = float((first == second).mean())
    return (observed - expected) / (1.0 - expected) if expected < 1.0 else float("nan")


def clustered_kappa(
    one: Shaped[Labels, " rows"],
    other: Shaped[Labels, " rows"],
    clusters: Shaped[Labels, " rows"],
    *,
    seed: int,
    draws: int = 1000,
    level: float = 0.95,
) -> ClusteredEstimate:
    """`cohen_kappa` with a BCa interval over clusters.

    A resample in which both sides say the same throughout has kappa 1, whether or not one label is left. Where that is
    so of all rows, resamples cannot vary, and the interval is that of mid-P for the share that agrees, as many rows
    as there are clusters, with the expected share as it is.

    Args:
        one: Labels.
        other: Labels of the same rows.
        clusters: What rows vary together with, such as their item.
        seed: The same seed draws the same clusters.
        draws: Number of resamples, >= 2.
        level: Coverage, in (0, 1).

    Returns:
        The estimate. NaN where kappa is, and interval and error with a single cluster.

    Raises:
        ValueError: there are no rows, or a value is out of range.
    """
    value = cohen_kappa(one, other)
    labels = np.unique(np.concatenate([one, other]))
    same = (one == other).astype(np.float64)
    sides = [(side[:, None] == labels).astype(np.float64) for side in (one, other)]

    def kappas(weights: Float64[Floats, "resamples rows"]) -> Float64[Floats, " resamples"]:
        total = weights.sum(-1)
        agreed = (weights @ same) / total
        expected = ((weights @ sides[0]) * (weights @ sides[1])).sum(-1) / total**2
        beyond = np.where(agreed < 1.0, 1.0 - expected, 1.0)
        return np.where(agreed < 1.0, (agreed - expected) / beyond, 1.0)

    found = replace(bca_bootstrap(kappas, clusters, seed=seed, draws=draws, level=level), value=value)
    unknown = (float("nan"), float("nan"))
    if np.isnan(value):
        return replace(found, standard_error=float("nan"), interval=unknown)
    if found.clusters > 1 and value == 1.0:
        expected = float((sides[0].mean(0) * sides[1].mean(0)).sum())
        low, high = mid_p_interval(1.0, found.clusters, level=level)
        return replace(found, interval=((low - expected) / (1.0 - expected), (high - expected) / (1.0 - expected)))
    return found


def ordered_agreement(
    gold: Shaped[Labels, " items"], order_ab: Shaped[Labels, " items"], order_ba: Shaped[Labels, " items"]
) -> OrderedAgreement:
    """Statistics of a judge in both orders.

    Args:
        gold: The better output, "1" or "2".
        order_ab: Verdicts with output 1 shown first, as texts; anything but "1" and "2" is no verdict.
        order_ba: Verdicts with output 2 shown first, mapped back to the outputs' own numbers.

    Returns:
        The statistics.

    Raises:
        ValueError: there are no items, or a label is neither "1" nor "2".
    """
    if gold.size == 0:
        raise ValueError("there are no items")
    if not bool(np.all((gold == "1") | (gold == "2"))):
        raise ValueError("a label is neither 1 nor 2")
    right_ab, right_ba = order_ab == gold, order_ba == gold
    parsed = [(order == "1") | (order == "2") for order in (order_ab, order_ba)]
    firsts = int(np.sum(order_ab == "1") + np.sum(order_ba == "2"))
    verdicts = int(parsed[0].sum() + parsed[1].sum())
    readable = [np.where(known, order, "none") for known, order in zip(parsed, (order_ab, order_ba), strict=True)]
    acc_ab, acc_ba = float(right_ab.mean()), float(right_ba.mean())
    return OrderedAgreement(
        acc_ab=acc_ab,
        acc_ba=acc_ba,
        acc_mean=(acc_ab + acc_ba) / 2,
        acc_both=float((right_ab & right_ba).mean()),
        position_agreement=float((order_ab == order_ba).mean()),
        first_share=firsts / verdicts if verdicts else float("nan"),
        unparsed=2 * gold.size - verdicts,
        kappa=cohen_kappa(np.concatenate([gold, gold]), np.concatenate(readable)),
        position_kappa=cohen_kappa(readable[0], readable[1]),
    )


def absolute_agreement(one: Float64[Floats, " items"], other: Float64[Floats, " items"]) -> Float64[Floats, " items"]:
    """1 - |p - q|."""
    return 1.0 - np.abs(one - other)


def zero_one_agreement(one: Float64[Floats, " items"], other: Float64[Floats, " items"]) -> Float64[Floats, " items"]:
    """1 where both round to the same output; a tie, 1.5, is a label of its own."""
    first, second = (np.where(side == 1.5, 0.0, np.rint(side)) for side in (one, other))
    return (first == second).astype(np.float64)


def expected_agreement(
    one: Float64[Floats, "items repeats"],
    other: Float64[Floats, "items others"],
    *,
    votes: tuple[int, int] = (1, 1),
    rule: Rule = absolute_agreement,
    same: bool = False,
) -> float:
    """AlpacaEval analyzer's agreement: of a vote of some annotations with a vote of others, over all choices of them.

    A vote is the mode of its preferences; of several modes every one is taken, with equal weight, where the analyzer
    draws one. Preferences that are not all among 1, 1.5 and 2 vote by their median.

    Args:
        one: Preferences in [1, 2], one line an item.
        other: Those of the other annotator, or of the same one.
        votes: How many annotations vote on either side.
        rule: Agreement of two preferences.
        same: Both are one annotator's: no annotation stands on both sides.

    Returns:
        Mean over items and choices, in [0, 1].

    Raises:
        ValueError: there are fewer annotations than voters.
    """
    choices = [
        (ours, theirs)
        for ours in combinations(range(one.shape[1]), votes[0])
        for theirs in combinations(range(other.shape[1]), votes[1])
        if not same or not set(ours) & set(theirs)
    ]
    if not choices or one.shape[0] == 0:
        raise ValueError(
            f"{one.shape[1]} and {other.shape[1]} annotations of {one.shape[0]} items, {votes} are to vote"
        )
    discrete = bool(np.all(np.isin(one, (1.0, 1.5, 2.0))) and np.all(np.isin(other, (1.0, 1.5, 2.0))))
    total = 0.0
    for ours, theirs in choices:
        for share, mine in _votes(one[:, ours], discrete=discrete):
            for other_share, yours in _votes(other[:, theirs], discrete=discrete):
                total += float((share * other_share * rule(mine, yours)).mean())
    return total / len(choices)


def judge_bias(judge: Float64[Floats, "items repeats"], humans: Float64[Floats, "items others"], rule: Rule) -> float:
    """1 - agreement of the judge's vote with the humans' vote: what repeating the judge does not average out."""
    return 1.0 - expected_agreement(judge, humans, votes=(judge.shape[1], humans.shape[1]), rule=rule)


def judge_variance(judge: Float64[Floats, "items repeats"], rule: Rule) -> float:
    """1 - agreement of one annotation with the vote of the annotator's others."""
    return 1.0 - expected_agreement(judge, judge, votes=(1, judge.shape[1] - 1), rule=rule, same=True)


def prefers_longer(
    preferences: Float64[Floats, " items"], first: Float64[Floats, " items"], second: Float64[Floats, " items"]
) -> float:
    """Share of pairs whose lengths differ by more than 30 characters in which the longer answer is preferred.

    Args:
        preferences: In [1, 2], 2 for the second answer; ties count half.
        first: Characters of the first answers.
        second: Characters of the second answers.

    Returns:
        In [0, 1]; NaN where no pair differs enough.
    """
    return _share_of(preferences, first - second > LONGER, second - first > LONGER)


def prefers_list(
    preferences: Float64[Floats, " items"],
    first: Bool[Truths, " items"],
    second: Bool[Truths, " items"],
) -> float:
    """Share of pairs of which exactly one answer has a list in which that one is preferred; NaN where there is none."""
    return _share_of(preferences, first & ~second, second & ~first)


def _share_of(
    preferences: Float64[Floats, " items"],
    first: Bool[Truths, " items"],
    second: Bool[Truths, " items"],
) -> float:
    """How often the marked answer of a pair is the preferred one."""
    wins = np.concatenate([(preferences < 1.5)[first], (preferences > 1.5)[second]]).astype(np.float64)
    ties = np.concatenate([(preferences == 1.5)[first], (preferences == 1.5)[second]])
    return float((wins + 0.5 * ties).mean()) if wins.size else float("nan")


def _votes(
    preferences: Float64[Floats, "items voters"], *, discrete: bool
) -> list[tuple[Float64[Floats, " items"], Float64[Floats, " items"]]]:
    """Winning preferences of each item with their weights."""
    if not discrete:
        return [(np.ones(preferences.shape[0]), np.median(preferences, axis=1))]
    labels = (1.0, 1.5, 2.0)
    counts = np.stack([(preferences == label).sum(1) for label in labels], axis=1)
    modes = counts == counts.max(1, keepdims=True)
    weights = modes / modes.sum(1, keepdims=True)
    return [(weights[:, place], np.full(preferences.shape[0], label)) for place, label in enumerate(labels)]
