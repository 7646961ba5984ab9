"""What a judge's verdicts say of the judge: how consistent it is, and what place and length decide. Pure functions."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from math import fsum

from prefloop.records import Judgment, Response

Totals = Mapping[str, tuple[float, float]]
"""By figure: what is divided by what, so that the totals of parts add up."""


def totals(judgments: Sequence[Judgment], responses: Iterable[Response]) -> Totals:
    """Totals of a judge's figures over some prompts.

    Args:
        judgments: of one judge.
        responses: the answers that they are about.

    Returns:
        `invalid_share` of all values. `position_consistency`: share of pairs judged in both orders whose winner is the
        same (ties are one). `first_share`: share of comparisons with a winner that the answer shown first won.
        `self_consistency`: share of repetitions, two by two, that say the same. `prefers_longer`: share of pairs of
        different length with a winner that the longer won, in tokens. `length_slope`: what 100 tokens more are worth,
        in score within a prompt, or in P(wins); least squares.
    """
    answers = {response.response_id: response for response in responses}
    gaps = [(gap, ahead) for gap, ahead in _gaps(judgments, answers).values() if gap]
    return {
        "invalid_share": _share(value is None for judgment in judgments for value in judgment.values),
        "position_consistency": _share(_consistent(judgments)),
        "first_share": _share(value > 0.5 for _, value in _preferences(judgments) if value != 0.5),
        "self_consistency": _share(_repeated(judgments)),
        "prefers_longer": _share((gap > 0) == (ahead > 0) for gap, ahead in gaps if ahead),
        "length_slope": (100 * fsum(gap * ahead for gap, ahead in gaps), fsum(gap * gap for gap, _ in gaps)),
    }


def disagreement(by_member: Sequence[Sequence[Judgment]], responses: Iterable[Response]) -> Totals:
    """Totals of how far the members of an ensemble contradict each other.

    Args:
        by_member: judgments of each member.
        responses: the answers that they are about.

    Returns:
        `disagreement`: of pairs of answers to one prompt and two members with a winner each, the share whose winners
        differ. Members that say the same have 0, members that know nothing of each other 1/2.
    """
    answers = {response.response_id: response for response in responses}
    ahead = [{pair: lead for pair, (_, lead) in _gaps(said, answers).items() if lead} for said in by_member]
    differ = [
        (one[pair] > 0) != (other[pair] > 0)
        for one, other in combinations(ahead, 2)
        for pair in one.keys() & other.keys()
    ]
    return {"disagreement": _share(differ)}


def added(one: Totals, other: Totals) -> Totals:
    """Totals over both."""
    return {
        name: tuple(map(sum, zip(one.get(name, (0.0, 0.0)), other.get(name, (0.0, 0.0)), strict=True)))  # pyright: ignore[reportReturnType]
        for name in {**one, **other}
    }


def figures(found: Totals) -> dict[str, float]:
    """The figures; without those that nothing was measured for."""
    return {name: over / of for name, (over, of) in found.items() if of}


def _preferences(judgments: Iterable[Judgment]) -> list[tuple[Judgment, float]]:
    return [
        (judgment, judgment.values[0])
        for judgment in judgments
        if judgment.kind == "preference" and judgment.values[0] is not None
    ]


def _winner(value: float) -> int:
    return (value > 0.5) - (value < 0.5)


def _consistent(judgments: Iterable[Judgment]) -> list[bool]:
    """Of every pair that has a verdict in both orders, whether the same answer won."""
    said = {(judgment.subjects, judgment.repeat): value for judgment, value in _preferences(judgments)}
    return [
        _winner(value) == -_winner(said[subjects[::-1], repeat])
        for (subjects, repeat), value in said.items()
        if subjects < subjects[::-1] and (subjects[::-1], repeat) in said
    ]


def _repeated(judgments: Iterable[Judgment]) -> list[bool]:
    """Of every two repetitions of an ask, whether they say the same of an answer, or of two which is better."""
    said: dict[tuple[str, ...], list[float]] = {}
    for judgment in judgments:
        if judgment.kind == "preference":
            said.setdefault(judgment.subjects, []).extend(
                float(_winner(value)) for value in judgment.values if value is not None
            )
        elif judgment.kind != "steps":
            for subject, value in zip(judgment.subjects, judgment.values, strict=True):
                if value is not None:
                    said.setdefault((subject,), []).append(value)
    return [first == second for values in said.values() for first, second in combinations(values, 2)]


def _gaps(judgments: Sequence[Judgment], answers: Mapping[str, Response]) -> dict[tuple[str, str], tuple[float, float]]:
    """Pairs of answers to one prompt: how many tokens the first is longer, and how far the judge has it ahead."""
    lengths = {name: float(response.num_tokens) for name, response in answers.items()}
    preferences: dict[tuple[str, str], list[float]] = {}
    scores: dict[str, dict[str, list[float]]] = {}
    for judgment in judgments:
        if not set(judgment.subjects) <= answers.keys():
            continue
        if judgment.kind == "preference" and judgment.values[0] is not None:
            first, second = judgment.subjects
            turned = second < first
            key = (second, first) if turned else (first, second)
            preferences.setdefault(key, []).append((judgment.values[0] - 0.5) * (-1 if turned else 1))
        elif judgment.kind in {"score", "label"}:
            for subject, value in zip(judgment.subjects, judgment.values, strict=True):
                if value is not None:
                    scores.setdefault(answers[subject].prompt_id, {}).setdefault(subject, []).append(value)
    ahead = {pair: fsum(said) / len(said) for pair, said in preferences.items()}
    for by_answer in scores.values():
        means = {subject: fsum(said) / len(said) for subject, said in by_answer.items()}
        ahead |= {(a, b): means[a] - means[b] for a, b in combinations(sorted(means), 2)}
    return {(a, b): (lengths[a] - lengths[b], lead) for (a, b), lead in ahead.items()}


def _share(hits: Iterable[bool]) -> tuple[float, float]:
    found = list(hits)
    return float(sum(found)), float(len(found))
