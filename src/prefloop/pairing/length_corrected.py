"""Best against worst after a charge on length that is set so that chosen and rejected are equally long on average."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import Annotated, Any, Literal

from pydantic import Field

from prefloop.pairing.combination import mean
from prefloop.pairing.groups import member, pair, scores
from prefloop.pairing.registry import Dropped, SetConstant, rule
from prefloop.records import Example, Group, Response

Candidate = tuple[int, float, int]
"""Index of an answer in its prompt, score, length."""
Ties = Literal["first", "last"]
"""Which of equally good answers is chosen; the first of equally bad ones is always rejected."""


@dataclass(frozen=True)
class LengthSearch:
    """What a search over charges on length found."""

    alpha: float
    """Score a unit of length."""
    mean_length_gap: float
    """Mean over pairs of the chosen answer's length less the rejected one's, at alpha."""
    mean_length_gap_at_start: float
    """At the first value that was tried."""
    evaluated: int
    """Values that were tried."""
    pairs: list[tuple[int, int] | None]
    """Chosen and rejected by index; None for a prompt without a pair."""


def usable(num_chars: int, *, cut: bool, min_chars: int, max_chars: int) -> bool:
    """An answer ended by itself, and its length lies strictly between the bounds, in characters (DICE)."""
    return not cut and min_chars < num_chars < max_chars


def charged_pair(candidates: Sequence[Candidate], alpha: float, ties: Ties = "first") -> tuple[int, int] | None:
    """Best and worst by score less alpha times length; None for fewer than two answers, or none better than another."""
    charged = [(score - alpha * length, index) for index, score, length in candidates]
    if len(charged) < 2:
        return None
    low = min(charged)
    high = max(charged) if ties == "last" else max(charged, key=lambda one: (one[0], -one[1]))
    if high[0] == low[0] and ties == "first":
        return None
    return high[1], low[1]


def search_alpha(
    prompts: Sequence[Sequence[Candidate]],
    grid: Sequence[float],
    *,
    stop_at_rise: bool,
    ties: Ties = "first",
) -> LengthSearch:
    """The charge on length at which chosen and rejected answers are most nearly equally long on average.

    Args:
        prompts: the answers of each prompt that may become a pair.
        grid: charges to try, in this order; the first of equally good ones is taken.
        stop_at_rise: stop at the first charge whose absolute gap is above the smallest so far (DICE's published code,
            arXiv:2406.09760); else try all.
        ties: which of equally good answers is chosen.
    """
    lengths = [{index: length for index, _, length in candidates} for candidates in prompts]

    def at(alpha: float) -> tuple[list[tuple[int, int] | None], float]:
        pairs = [charged_pair(candidates, alpha, ties) for candidates in prompts]
        gaps = [length[two[0]] - length[two[1]] for two, length in zip(pairs, lengths, strict=True) if two]
        return pairs, mean(gaps) if gaps else 0.0

    pairs, first_gap = at(grid[0])
    found = LengthSearch(grid[0], first_gap, first_gap, 1, pairs)
    for evaluated, alpha in enumerate(grid[1:], start=2):
        pairs, gap = at(alpha)
        if abs(gap) < abs(found.mean_length_gap):
            found = LengthSearch(alpha, gap, first_gap, evaluated, pairs)
        elif stop_at_rise and abs(gap) > abs(found.mean_length_gap):
            break
    else:
        evaluated = len(grid)
    return LengthSearch(found.alpha, found.mean_length_gap, first_gap, evaluated, found.pairs)


def arange(start: float, stop: float, step: float) -> list[float]:
    """start, start + step, ... below stop."""
    return [start + number * step for number in range(max(ceil((stop - start) / step), 1))]


# --------------------------------------------------------------------------------------------------------------- rules


def break_points(prompts: Sequence[Sequence[Candidate]]) -> list[float]:
    """Charges between which no prompt's best or worst answer changes, one between each two, and one beyond either end.

    The mean gap is a step function of the charge: these are all its values, those of negative charges included.
    """
    crossings = sorted(
        {
            (first[1] - second[1]) / (first[2] - second[2])
            for candidates in prompts
            for number, first in enumerate(candidates)
            for second in candidates[:number]
            if first[2] != second[2]
        }
    )
    if not crossings:
        return [0.0]
    inner = [(low + high) / 2 for low, high in pairwise(crossings)]
    return sorted({0.0, crossings[0] - 1, *inner, crossings[-1] + 1}, key=lambda alpha: (abs(alpha), alpha))


def fit_two_sided(groups: Iterable[Group], options: Mapping[str, Any]) -> SetConstant:
    """The smallest charge on length, of either sign, at which the mean gap in length is nearest to zero: exact."""
    prompts = [_candidates(group, options["min_answers"]) for group in groups]
    found = search_alpha(prompts, break_points(prompts), stop_at_rise=False)
    return _constant(found)


def fit_first_rise(groups: Iterable[Group], options: Mapping[str, Any]) -> SetConstant:
    """DICE's search: 0, 0.001, ... below 1, stopped at the first rise of the absolute gap."""
    prompts = [_in_characters(group, options) for group in groups]
    return _constant(search_alpha(prompts, arange(0.0, 1.0, 0.001), stop_at_rise=True, ties="last"))


def _constant(found: LengthSearch) -> SetConstant:
    num_pairs = sum(two is not None for two in found.pairs)
    figures = {
        "pairs": float(num_pairs),
        "mean_length_gap": found.mean_length_gap,
        "mean_length_gap_at_zero": found.mean_length_gap_at_start,
        "evaluated": float(found.evaluated),
    }
    return SetConstant(found.alpha, figures, None if num_pairs else "No prompt has a pair: the charge on length is 0.")


def _candidates(group: Group, min_answers: int) -> list[Candidate]:
    scored = scores(group)
    found = [(index, scored[one], group.by_id[one].num_tokens) for index, one in enumerate(scored)]
    return found if len(found) >= min_answers else []


def _in_characters(group: Group, options: Mapping[str, Any]) -> list[Candidate]:
    scored = scores(group)
    found = [
        (index, score, len(group.text(one)))
        for index, (one, score) in enumerate(scored.items())
        if usable(
            len(group.text(one)),
            cut=group.by_id[one].finish_reason == "length",
            min_chars=options["min_chars"],
            max_chars=options["max_chars"],
        )
    ]
    return found if len(found) >= options["min_answers"] else []


def _made(
    group: Group, name: str, candidates: Sequence[Candidate], alpha: float, ties: Ties
) -> Iterator[Example | Dropped]:
    found = charged_pair(candidates, alpha, ties)
    if found is None:
        yield Dropped("tie" if candidates else "too few usable answers")
        return
    scored = scores(group)
    chosen, rejected = (group.by_id[list(scored)[index]] for index in found)
    charged = {index: score - alpha * length for index, score, length in candidates}
    if charged[found[0]] == charged[found[1]]:
        yield Dropped("tie")
    elif chosen.text == rejected.text:
        yield Dropped("same text")
    else:
        made: tuple[Response, Response] = (chosen, rejected)
        numbers = [scored[one.response_id] for one in made]
        yield pair(
            group,
            member("chosen", chosen, score=numbers[0]),
            member("rejected", rejected, score=numbers[1]),
            why=f"{name}: {charged[found[0]]:.2f} against {charged[found[1]]:.2f} of {len(candidates)}, "
            f"{alpha:.3g} a unit of length taken off",
            margin=charged[found[0]] - charged[found[1]],
        )


MinAnswers = Annotated[int, Field(ge=2)]


@rule(writes=Example, roles=("chosen", "rejected"), fit={"alpha": fit_two_sided})
def length_corrected(group: Group, *, alpha: float, min_answers: MinAnswers = 2) -> Iterator[Example | Dropped]:
    """Best against worst by score less alpha a token; the first of equal answers counts.

    `alpha: fitted` finds the charge at which chosen and rejected answers are most nearly equally long over the whole
    set: exact, of either sign, the smallest of equally good ones. Where longer answers are better indeed, that takes
    true signal away.

    Args:
        group: a prompt with its answers and their scores.
        alpha: score taken off a token; negative where short answers are favoured.
        min_answers: scored answers that a prompt needs.
    """
    yield from _made(group, "length_corrected", _candidates(group, min_answers), alpha, "first")


@rule(writes=Example, roles=("chosen", "rejected"), fit={"alpha": fit_first_rise})
def dice(
    group: Group,
    *,
    alpha: float,
    min_chars: Annotated[int, Field(ge=0)] = 3,
    max_chars: Annotated[int, Field(ge=1)] = 6700,
    min_answers: MinAnswers = 8,
) -> Iterator[Example | Dropped]:
    """Best against worst by score less alpha a character, as DICE's published code has it (arXiv:2406.09760).

    `alpha: fitted` is its search: 0, 0.001, ... below 1, stopped at the first rise of the absolute mean gap in length,
    so that only a bias towards length is corrected. The last of equally good answers is chosen, the first of equally
    bad ones rejected.

    Args:
        group: a prompt with its answers and their scores, there log pi_t - log pi_{t-1}.
        alpha: score taken off a character.
        min_chars: answers of so many characters or fewer are left out.
        max_chars: answers of so many or more are left out, as are those that were cut.
        min_answers: answers that a prompt then needs.
    """
    options = {"min_chars": min_chars, "max_chars": max_chars, "min_answers": min_answers}
    yield from _made(group, "dice", _in_characters(group, options), alpha, "last")
