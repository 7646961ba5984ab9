"""Preference data as prompts, given responses and given judgments: pairing need not know where they are from."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from prefloop.data.source import DataSource, messages_of
from prefloop.errors import DataError
from prefloop.records import Judgment, Prompt, Response, digest


@dataclass(frozen=True)
class GivenPair:
    """One row of a preference data set."""

    prompt: Prompt
    responses: tuple[Response, Response]
    judgment: Judgment


def read_preferences(source: DataSource) -> Iterator[GivenPair]:
    """The pairs of a source in TRL's explicit-prompt form: `prompt`, `chosen`, `rejected`, texts or message lists.

    Raises:
        DataError: a row is malformed; or there is no row at all.
    """
    place = None
    for place, row in source.rows():
        missing = [key for key in ("prompt", "chosen", "rejected") if key not in row]
        if missing:
            raise DataError(f"{place}: `{missing[0]}` is missing, expected `prompt`, `chosen` and `rejected`.")
        prompt = Prompt.of(messages_of(row["prompt"], "prompt", place), source=place)
        chosen, rejected = (_given(prompt, _answer(row, key, place)) for key in ("chosen", "rejected"))
        judgment = Judgment(
            judge=f"dataset:{source.path.stem}",
            kind="preference",
            subjects=(chosen.response_id, rejected.response_id),
            values=(1.0,),
        )
        yield GivenPair(prompt, (chosen, rejected), judgment)
    if place is None:
        raise DataError(
            f"{source.path.name}: has no pairs. Add one JSON object a line with `prompt`, `chosen` and `rejected`."
        )


def _answer(row: dict[str, Any], key: str, place: str) -> str:
    value = row[key]
    if isinstance(value, str) and value.strip():
        return value
    messages = messages_of(value, key, place) if not isinstance(value, str) else ()
    if len(messages) == 1 and messages[0].role == "assistant":
        return messages[0].content
    raise DataError(f"{place}: {key} is not an answer, expected a text that is not empty or one assistant message.")


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
