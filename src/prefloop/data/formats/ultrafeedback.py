"""UltraFeedback: as published, several completions with ratings by aspect; and binarized, as pairs of conversations.

https://github.com/OpenBMB/UltraFeedback and https://huggingface.co/datasets/HuggingFaceH4/ultrafeedback_binarized
"""

from collections.abc import Mapping, Sequence
from typing import Any

from prefloop.data.formats.assembly import (
    ABOUT_PAIR,
    Answer,
    given_dialogues,
    judged_answers,
    prompt_of,
)
from prefloop.data.formats.fields import (
    ABOUT_PROMPT,
    Values,
    asked,
    mappings_of,
    number_of,
    required,
)
from prefloop.data.formats.registry import DIALOGUE, MAPPINGS, MESSAGES, TEXT, Format, register
from prefloop.data.given import Given
from prefloop.data.messages import text_of
from prefloop.data.problems import RowRefused

SCORES = {"overall_score": "overall", "fine-grained_score": "fine_grained"}
"""Scores of a completion -> their aspect."""


def _binarized(values: Values, place: str) -> Given:
    given = given_dialogues(asked(values, "chosen"), asked(values, "rejected"), values, place)
    turns = {turn.content.strip() for turn in given.prompt.messages}
    for asked_in_column in asked(values, "prompt"):
        asks = asked_in_column.content.strip()
        if not any(asks in turn or turn in asks for turn in turns):
            raise RowRefused("different_prompts", "prompt stands nowhere in chosen and rejected")
    return given


def _rated(values: Values, place: str) -> Given:
    prompt = prompt_of(asked(values, "instruction"), values, place, "instruction")
    completions = mappings_of(required(values, "completions"), "completions")
    answers = [
        Answer(text_of(required(one, "response"), f"completions[{number}].response"), str(one.get("model") or ""))
        for number, one in enumerate(completions)
    ]
    said = {("score", aspect): numbers for aspect, numbers in _ratings(completions).items()}
    return judged_answers(prompt, answers, said, values, place)


def _ratings(completions: Sequence[Mapping[str, Any]]) -> Mapping[str, Sequence[float | None]]:
    """Aspect -> the rating of each completion; None where it has none."""
    rated = [_rating_by_aspect(one, f"completions[{number}]") for number, one in enumerate(completions)]
    aspects = dict.fromkeys(aspect for one in rated for aspect in one)
    return {aspect: [one.get(aspect) for one in rated] for aspect in aspects}


def _rating_by_aspect(completion: Mapping[str, Any], field: str) -> Mapping[str, float]:
    annotations = completion.get("annotations") or {}
    if not isinstance(annotations, dict) or not all(isinstance(one, dict) for one in annotations.values()):
        raise RowRefused("wrong_type", f"{field}.annotations holds no mapping for each aspect")
    found = {aspect: (one.get("Rating"), f"{field}.annotations.{aspect}.Rating") for aspect, one in annotations.items()}
    found |= {aspect: (completion.get(key), f"{field}.{key}") for key, aspect in SCORES.items()}
    return {aspect: _rating(value, where) for aspect, (value, where) in found.items() if value not in (None, "N/A")}


def _rating(value: object, field: str) -> float:
    """A rating, which UltraFeedback writes as a text."""
    if isinstance(value, str):
        try:
            return number_of(float(value), field)
        except ValueError:
            pass
    return number_of(value, field)


register(
    Format(
        "ultrafeedback_binarized",
        "UltraFeedback-binarized preference",
        {"prompt": TEXT | MESSAGES, "chosen": DIALOGUE, "rejected": DIALOGUE},
        ABOUT_PAIR | {"messages", "prompt_id"},
        _binarized,
        '{"prompt": "How are you?", '
        '"chosen": [{"role": "user", "content": "How are you?"}, {"role": "assistant", "content": "Fine, thanks."}], '
        '"rejected": [{"role": "user", "content": "How are you?"}, {"role": "assistant", "content": "Go away."}], '
        '"score_chosen": 8.5, "score_rejected": 2.0}',
    )
)
register(
    Format(
        "ultrafeedback",
        "UltraFeedback with ratings by aspect",
        {"instruction": TEXT, "completions": MAPPINGS},
        ABOUT_PROMPT,
        _rated,
        '{"instruction": "How are you?", "completions": ['
        '{"model": "large", "response": "Fine, thanks.", "annotations": {"helpfulness": {"Rating": "5"}}, '
        '"overall_score": 8.5}, '
        '{"model": "small", "response": "Go away.", "annotations": {"helpfulness": {"Rating": "N/A"}}, '
        '"overall_score": 2.0}]}',
    )
)
