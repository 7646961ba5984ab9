"""Rows in the forms of other tools: TRL's and UltraFeedback's columns; our own rows hold everything."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from prefloop.data.checks import overall_scores
from prefloop.data.formats import find_format
from prefloop.data.given import Given, whole_text
from prefloop.data.problems import RowRefused
from prefloop.errors import DataError
from prefloop.records import Judgment, Message, Prompt, Response, to_line

Form = Literal["trl", "ultrafeedback", "prefloop"]
Columns = dict[str, Any]


class CannotHoldError(Exception):
    """A form has no place for something that a row holds."""


def line_of(given: Given, to: Form) -> str:
    """A row in a form, as one line of JSON.

    Raises:
        DataError: the form cannot hold it; says what.
    """
    if to == "prefloop":
        return to_line(given)
    try:
        format_name, columns = FORMS[to](given)
        text = json.dumps(columns, ensure_ascii=False)
        for lost in _lost(given, format_name, text):
            raise CannotHoldError(lost)
    except CannotHoldError as error:
        raise DataError(
            f"{given.prompt.source}: {to} cannot hold {error}. Convert with --to prefloop, which holds everything."
        ) from error
    return f"{text}\n"


def _trl(given: Given) -> tuple[str, Columns]:
    """TRL's conversational columns, and ours beside them."""
    row: Columns = {"prompt": _turns(given.prompt.messages)}
    if not given.responses:
        return "prompts", row | _about(given)
    if len(given.responses) == 1:
        row["completion"] = _reply(given.responses[0])
        labels = [judgment for judgment in given.judgments if judgment.kind == "label"]
        if labels:
            row["label"] = labels[0].values[0] == 1
        return "trl_unpaired" if labels else "trl_completion", row | _about(given)
    pair = _pair(given)
    row |= {"chosen": _reply(pair.chosen), "rejected": _reply(pair.rejected)}
    return "trl_preference", row | dict(pair.beside) | _about(given)


def _ultrafeedback(given: Given) -> tuple[str, Columns]:
    """UltraFeedback-binarized columns for pairs, those of UltraFeedback for any number of answers with ratings."""
    if any(judgment.kind == "preference" for judgment in given.judgments):
        return _ultrafeedback_binarized(given)
    if not given.responses:
        raise CannotHoldError("a prompt alone")
    messages = given.prompt.messages
    *before, last = messages
    if last.role != "user" or any(message.role != "system" for message in before):
        raise CannotHoldError("a prompt of more than one turn")
    scores = [judgment for judgment in given.judgments if judgment.kind == "score"]
    order = scores[0].subjects if scores else tuple(response.response_id for response in given.responses)
    rated: list[Columns] = [{"annotations": {}} for _ in order]
    for judgment in scores:
        if judgment.subjects != order:
            raise CannotHoldError("ratings of different answers by aspect")
        for completion, value in zip(rated, judgment.values, strict=True):
            _rate(completion, judgment.aspect, value)
    by_id = {response.response_id: response for response in given.responses}
    completions = [
        {"model": by_id[subject].policy, "response": whole_text(by_id[subject]), **ratings}
        for subject, ratings in zip(order, rated, strict=True)
    ]
    system = {"system": before[0].content} if before else {}
    row = {"instruction": last.content, "models": [one["model"] for one in completions], "completions": completions}
    return "ultrafeedback", row | system | _about(given)


def _rate(completion: Columns, aspect: str, value: float | None) -> None:
    columns = {"overall": "overall_score", "fine_grained": "fine-grained_score"}
    if aspect in columns:
        completion[columns[aspect]] = value
    else:
        rating = "N/A" if value is None else f"{value:.0f}" if value.is_integer() else str(value)
        completion["annotations"][aspect] = {"Rating": rating}


def _ultrafeedback_binarized(given: Given) -> tuple[str, Columns]:
    asked = [message.content for message in given.prompt.messages if message.role == "user"]
    if not asked:
        raise CannotHoldError("a prompt without a user turn")
    pair = _pair(given)
    turns = _turns(given.prompt.messages)
    row: Columns = {
        "prompt": asked[-1],
        "prompt_id": given.prompt.prompt_id,
        "chosen": [*turns, *_reply(pair.chosen)],
        "rejected": [*turns, *_reply(pair.rejected)],
    }
    return "ultrafeedback_binarized", row | dict(pair.beside) | _about(given)


FORMS: Mapping[str, Callable[[Given], tuple[str, Columns]]] = {"trl": _trl, "ultrafeedback": _ultrafeedback}
"""Form -> a function from a row to the format that reads it again, and its columns."""


@dataclass(frozen=True)
class _Pair:
    chosen: Response
    rejected: Response
    beside: Mapping[str, float | str]
    """Scores, models, weight, margin and how sure the preference is."""


def _pair(given: Given) -> _Pair:
    """The two answers of a row, the better one as chosen, whichever the row names first."""
    preferences = [judgment for judgment in given.judgments if judgment.kind == "preference"]
    if len(preferences) != 1 or len(given.responses) != 2:
        raise CannotHoldError(f"{len(given.responses)} answers with {_joined(given.judgments)}")
    sure = preferences[0].values[0]
    if sure is None or sure == 0.5:
        raise CannotHoldError("a tie")
    by_id = {response.response_id: response for response in given.responses}
    subjects, sign = preferences[0].subjects, 1.0
    if sure < 0.5:
        subjects, sign, sure = subjects[::-1], -1.0, 1 - sure
    numbers = preferences[0].numbers
    beside: dict[str, float | str] = {} if sure == 1 else {"prob_chosen_wins": sure}
    beside |= {key: sign * value if key == "margin" else value for key, value in numbers.items()}
    scores = overall_scores(given)
    for side, subject in zip(("chosen", "rejected"), subjects, strict=True):
        if (score := scores.get(subject)) is not None:
            beside[f"score_{side}"] = score
        if by_id[subject].policy:
            beside[f"{side}_model"] = by_id[subject].policy
    return _Pair(by_id[subjects[0]], by_id[subjects[1]], beside)


def _about(given: Given) -> Columns:
    """What a row says of itself and of its prompt."""
    found = {"id": given.row_id, "answer": given.prompt.answer, "tools": list(given.prompt.tools) or None}
    return {column: value for column, value in found.items() if value is not None}


def _turns(messages: Sequence[Message]) -> list[Columns]:
    return [message.model_dump(mode="json", exclude_defaults=True) for message in messages]


def _reply(response: Response) -> list[Columns]:
    return [{"role": "assistant", "content": whole_text(response)}]


def _lost(given: Given, format_name: str, text: str) -> Iterator[str]:
    """What does not come back when a written row is read again. Names of places and judges are not looked at."""
    try:
        again = find_format(format_name, "").read(json.loads(text), given.prompt.source)
    except RowRefused as refused:
        yield f"the row: {refused}"
        return
    aside = {"prompt_id", "source"} | ({"root_id"} if given.prompt.root_id == given.prompt.prompt_id else set())
    yield from (f"prompt.{name}" for name in _differing(given.prompt, again.prompt, aside))
    texts, found = ({whole_text(one): one for one in row.responses} for row in (given, again))
    if texts.keys() != found.keys():
        yield "the texts of the answers"
        return
    aside = {"response_id", "prompt_id", "root_id", "step"}
    for answer, response in texts.items():
        unknown = {"ids_from"} if response.token_ids is None else set[str]()
        yield from (f"response.{name}" for name in _differing(response, found[answer], aside | unknown))
    if sorted(_said(given)) != sorted(_said(again)):
        yield f"{len(given.responses)} answers with {_joined(given.judgments)}"
    if given.row_id != again.row_id:
        yield "row_id"


def _differing(one: Prompt | Response, other: Prompt | Response, aside: set[str]) -> list[str]:
    first, second = (record.model_dump(exclude=aside) for record in (one, other))
    return [name for name in first if first[name] != second[name]]


def _said(given: Given) -> Iterator[str]:
    """Judgments as texts, a preference seen from the side of the better answer, others in the order of the answers."""
    texts = {response.response_id: whole_text(response) for response in given.responses}
    for judgment in given.judgments:
        subjects = [texts[subject] for subject in judgment.subjects]
        values = [None if value is None else value + 0.0 for value in judgment.values]  # -0.0 is 0.0
        numbers = {key: value + 0.0 for key, value in judgment.numbers.items()}
        if judgment.kind != "preference":
            order = sorted(range(len(subjects)), key=lambda place: (subjects[place], repr(values[place])))
            subjects, values = [subjects[place] for place in order], [values[place] for place in order]
        elif values[0] is not None and values[0] < 0.5:
            subjects, values = subjects[::-1], [1 - values[0]]
            numbers = {key: 0.0 - value if key == "margin" else value for key, value in numbers.items()}
        rest = judgment.model_dump(mode="json", exclude={"judge", "subjects", "values", "numbers"})
        yield json.dumps([rest, subjects, values, numbers], sort_keys=True)


def _joined(judgments: Sequence[Judgment]) -> str:
    kinds = dict.fromkeys(
        f"{judgment.kind}s" if judgment.aspect == "overall" else f"{judgment.kind}s of {judgment.aspect}"
        for judgment in judgments
    )
    return " and ".join(kinds) or "no judgment"
