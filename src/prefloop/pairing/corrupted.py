"""Pairs of low edit distance made of right answers (DPOP, arXiv:2402.13228, section 4)."""

import random
import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field
from rapidfuzz.distance import Levenshtein

from prefloop.pairing.groups import member, pair
from prefloop.pairing.registry import Dropped, rule
from prefloop.records import Example, Group, Response, digest, seed_for

NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w%]|\.\d)")
Which = Literal["intermediate", "any"]
"""Which numbers may change: those in front of the last one, which is the final answer; or all."""


def relative_edit_distance(first: str, second: str) -> float:
    """Levenshtein's distance in words, by the words of the longer text; 0 for two empty ones."""
    return Levenshtein.normalized_distance(first.split(), second.split())


def corrupted_number(text: str, draw: random.Random, which: Which = "intermediate") -> str | None:
    """The text with one number changed to another of as many digits, wherever else it stands left as it is.

    A number that equals the final one is not changed among the intermediate ones, so that the text still argues towards
    its answer. None where there is no number to change.
    """
    found = list(NUMBER.finditer(text))
    if which == "intermediate":
        found = [one for one in found[:-1] if one[0] != found[-1][0]]
    if not found:
        return None
    one = draw.choice(found)
    return text[: one.start()] + _another(one[0], draw) + text[one.end() :]


def _another(number: str, draw: random.Random) -> str:
    """As many digits, the first not zero unless it was, and not the same number."""
    places = [index for index, sign in enumerate(number) if sign.isdigit()]
    place = draw.choice(places)
    first = place == 0 and len(number) > 1 and number[1] != "." and number[0] != "0"
    digits = [digit for digit in "0123456789" if digit != number[place] and not (first and digit == "0")]
    return number[:place] + draw.choice(digits) + number[place + 1 :]


@rule(writes=Example, roles=("chosen", "rejected"))
def corrupted_numbers(
    group: Group,
    *,
    numbers: Which = "intermediate",
    copies: Annotated[int, Field(ge=1)] = 1,
    max_distance: Annotated[float, Field(gt=0, le=1)] = 0.2,
    seed: int = 0,
) -> Iterator[Example | Dropped]:
    """Every given answer against itself with one number changed, as DPOP's paired MetaMath has it.

    Args:
        group: a prompt with given right answers.
        numbers: which numbers may change.
        copies: corrupted copies of each answer; equal ones count once.
        max_distance: edit distance in words, by the longer text's, that a pair may have.
        seed: another seed changes other numbers.
    """
    given = [response for response in group.responses if response.step == "given"]
    if not given:
        yield Dropped("no given answer")
    for right in given:
        draw = random.Random(seed_for("corrupted_numbers", seed, right.response_id))
        texts = [corrupted_number(right.text, draw, numbers) for _ in range(copies)]
        if texts[0] is None:
            yield Dropped("no number to change")
        for text in dict.fromkeys(text for text in texts if text is not None):
            distance = relative_edit_distance(right.text, text)
            if distance > max_distance:
                yield Dropped("edit distance too large")
            else:
                yield pair(
                    group,
                    member("chosen", right),
                    member("rejected", _wrong(right, text)),
                    why=f"corrupted_numbers: {distance:.3f} of the words differ",
                    edit_distance=distance,
                )


def _wrong(right: Response, text: str) -> Response:
    return right.model_copy(
        update={
            "response_id": digest([right.response_id, text])[:16],
            "text": text,
            "token_ids": None,
            "ids_from": "text",
            "parent_id": right.response_id,
        }
    )


@rule(writes=Example, roles=("chosen", "rejected"))
def wrong_choices(group: Group) -> Iterator[Example | Dropped]:
    """The right one of several given choices against each wrong one, as DPOP's paired ARC and HellaSwag have it.

    Judgments of kind `label` say which choice is right (1) and which are wrong (0).

    Args:
        group: a question with its choices as given answers, and their labels.
    """
    said = {
        subject: value
        for judgment in group.judgments
        if judgment.kind == "label" and judgment.aspect == "overall"
        for subject, value in zip(judgment.subjects, judgment.values, strict=True)
        if value is not None
    }
    right = [one for one in group.responses if said.get(one.response_id) == 1]
    wrong = [one for one in group.responses if said.get(one.response_id) == 0]
    if len(right) != 1 or not wrong:
        yield Dropped("no wrong choice" if len(right) == 1 else "not exactly one right choice")
        return
    for one in wrong:
        if one.text == right[0].text:
            yield Dropped("same text")
            continue
        distance = relative_edit_distance(right[0].text, one.text)
        yield pair(
            group,
            member("chosen", right[0]),
            member("rejected", one),
            why=f"wrong_choices: right choice against one of {len(wrong)} wrong ones",
            edit_distance=distance,
        )
