"""Preference data as prompts, given responses and given judgments: pairing need not know where they are from."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from prefloop.data.source import DataSource, messages_of, usable
from prefloop.errors import DataError
from prefloop.records import Judgment, Prompt, Response, digest

SCORES = (("score_chosen", "score_rejected"), ("chosen_score", "rejected_score"))
"""What data sets call the scores of the two answers."""


@dataclass(frozen=True)
class GivenPair:
    """One row of a preference data set."""

    prompt: Prompt
    responses: tuple[Response, Response]
    judgments: tuple[Judgment, ...]
    """Which answer is preferred, and the scores of both where the row has them."""


def read_preferences(source: DataSource) -> Iterator[GivenPair]:
    """The pairs of a source in TRL's explicit-prompt form: `prompt`, `chosen`, `rejected`, texts or message lists.

    How sure a preference is may stand beside it, as `prob_chosen_wins`; without it the chosen answer wins for certain.
    Scores of the answers may stand there too, as `score_chosen` and `score_rejected` (or `chosen_score` and so on).

    Raises:
        DataError: a row is malformed; or there is no row at all.
    """
    place = None
    for place, row in usable(source):
        missing = [key for key in ("prompt", "chosen", "rejected") if key not in row]
        if missing:
            raise DataError(f"{place}: `{missing[0]}` is missing, expected `prompt`, `chosen` and `rejected`.")
        prompt = Prompt.of(messages_of(row["prompt"], "prompt", place), source=place)
        chosen, rejected = (_given(prompt, _answer(row, key, place)) for key in ("chosen", "rejected"))
        judge, subjects = f"dataset:{Path(source.name).stem}", (chosen.response_id, rejected.response_id)
        sure = _prob_chosen_wins(row, place)
        preference = Judgment(judge=judge, kind="preference", subjects=subjects, values=(sure,))
        scores = _scores(row, place)
        scored = () if scores is None else (Judgment(judge=judge, kind="score", subjects=subjects, values=scores),)
        yield GivenPair(prompt, (chosen, rejected), (preference, *scored))
    if place is None:
        raise DataError(
            f"{source.name}: has no pairs. Add one JSON object a line with `prompt`, `chosen` and `rejected`."
        )


def _answer(row: Mapping[str, Any], key: str, place: str) -> str:
    value = row[key]
    if isinstance(value, str) and value.strip():
        return value
    messages = messages_of(value, key, place) if not isinstance(value, str) else ()
    if len(messages) == 1 and messages[0].role == "assistant":
        return messages[0].content
    raise DataError(f"{place}: {key} is not an answer, expected a text that is not empty or one assistant message.")


def _prob_chosen_wins(row: Mapping[str, Any], place: str) -> float:
    """How often the chosen answer would be preferred."""
    found = row.get("prob_chosen_wins")
    if found is None:
        return 1.0
    if not _is_number(found) or not 0 <= found <= 1:
        raise DataError(f"{place}: prob_chosen_wins: found {found!r}, expected a number from 0 to 1.")
    return float(found)


def _scores(row: Mapping[str, Any], place: str) -> tuple[float, float] | None:
    """The scores of the chosen and of the rejected answer; None where the row has none."""
    for keys in SCORES:
        values = [row.get(key) for key in keys]
        for key, value in zip(keys, values, strict=True):
            if values != [None, None] and not _is_number(value):
                raise DataError(f"{place}: {key}: found {value!r}, expected a number, for both answers or for neither.")
        if values != [None, None]:
            return float(row[keys[0]]), float(row[keys[1]])
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _given(prompt: Prompt, text: str) -> Response:
    return Response(
        response_id=digest([prompt.prompt_id, "given", text])[:16],
        prompt_id=prompt.prompt_id,
        root_id=prompt.root_id,
        step="given",
        text=text,
        ids_from="text",
        finish_reason="given",
    )
