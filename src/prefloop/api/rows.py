"""Rows: what a notebook has - dicts, a `datasets.Dataset` - and the records that they become."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any

from prefloop.data.given import Given, given_response
from prefloop.errors import DataError
from prefloop.records import Judgment, Message, Prompt, Response, digest

Row = dict[str, Any]
Rows = Iterable[Any]
"""Mappings, or whatever yields them: a list, a `datasets.Dataset`; of prompts also texts and lists of messages."""

SAMPLED = ("token_ids", "finish_reason", "logp")
"""What `sample` says of an answer beside its text."""


def rows_of(data: Rows, what: str) -> list[Row]:
    """Rows as dicts, in order.

    Raises:
        DataError: there are none, or one is no row.
    """
    if isinstance(data, str | bytes | PathLike | Mapping):
        found = type(data).__name__
        raise DataError(f"{what}: found one {found}, expected rows: a list of dicts, or a datasets.Dataset.")
    rows = [_row(one, f"{what}, row {number}") for number, one in enumerate(data)]
    if not rows:
        raise DataError(f"{what}: there is no row.")
    return rows


def _row(one: Any, where: str) -> Row:
    if isinstance(one, str) or (isinstance(one, Sequence) and not isinstance(one, bytes)):
        return {"prompt": one}
    if not isinstance(one, Mapping):
        raise DataError(f"{where}: found {type(one).__name__}, expected a dict with the keys `prompt` and others.")
    return {str(key): value for key, value in one.items()}


def prompt_of(row: Mapping[str, Any], where: str) -> Prompt:
    """The prompt of a row: a text, which is what the user says, or messages.

    Raises:
        DataError: there is none.
    """
    found = row.get("prompt")
    if isinstance(found, str) and found.strip():
        return Prompt.of((Message(role="user", content=found),), answer=_gold(row), source=where)
    if isinstance(found, Sequence) and not isinstance(found, str) and found:
        try:
            messages = tuple(Message.model_validate(dict(one)) for one in found)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{where}: prompt is no list of messages with role and content: {_first_line(error)}"
            ) from error
        return Prompt.of(messages, answer=_gold(row), source=where)
    raise DataError(f"{where}: `prompt` is {found!r}, expected a text or a list of messages.")


def _gold(row: Mapping[str, Any]) -> str | None:
    return None if row.get("answer") is None else str(row["answer"])


def response_of(prompt: Prompt, row: Mapping[str, Any], where: str, key: str = "completion") -> Response:
    """The answer of a row; its tokens are taken as they were sampled, where the row has them.

    Raises:
        DataError: there is none.
    """
    text = row.get(key)
    if isinstance(text, Sequence) and not isinstance(text, str) and len(text) == 1:
        text = dict(text[0]).get("content")
    if not isinstance(text, str):
        raise DataError(f"{where}: `{key}` is {row.get(key)!r}, expected the text of an answer.")
    given = given_response(prompt, text)
    if row.get("token_ids") is None:
        return given
    ids = tuple(int(one) for one in row["token_ids"])
    reason = row.get("finish_reason") or "stop"
    index = int(row.get("index", 0))
    return given.model_copy(
        update={
            "response_id": digest([prompt.prompt_id, "sampled", list(ids), index])[:16],
            "text": text,
            "token_ids": ids,
            "ids_from": "sampler",
            "finish_reason": reason,
            "sum_logp": row.get("logp"),
            "index": index,
        }
    )


def givens(rows: Sequence[Row], what: str) -> Iterator[tuple[Prompt, Response]]:
    """Prompt and answer of each row."""
    for number, row in enumerate(rows):
        where = f"{what}, row {number}"
        prompt = prompt_of(row, where)
        yield prompt, response_of(prompt, row, where)


def paired(rows: Sequence[Row]) -> list[Given] | None:
    """Pairs whose tokens are known (`pair` makes them), as given rows; None where a row says nothing of its tokens."""
    if not all({"prompt", "chosen", "rejected", "chosen_ids", "rejected_ids"} <= row.keys() for row in rows):
        return None
    return [_paired(row, f"data, row {number}") for number, row in enumerate(rows)]


def _paired(row: Row, where: str) -> Given:
    prompt = prompt_of(row, where)
    sides: list[Response] = []
    for side in ("chosen", "rejected"):
        own = {side: row[side], "token_ids": row[f"{side}_ids"], "finish_reason": row.get(f"{side}_finish_reason")}
        sides.append(response_of(prompt, own, where, side))
    ids = tuple(one.response_id for one in sides)
    preference = Judgment(judge="dataset:rows", kind="preference", subjects=ids, values=(1.0,))
    scores = [row.get(f"{side}_score") for side in ("chosen", "rejected")]
    values = tuple(float(one) for one in scores if isinstance(one, int | float))
    scored = (Judgment(judge="dataset:rows", kind="score", subjects=ids, values=values),) if len(values) == 2 else ()
    return Given(prompt=prompt, responses=tuple(sides), judgments=(preference, *scored))


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "")
