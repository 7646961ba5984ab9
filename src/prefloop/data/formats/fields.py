"""Fields that many formats share: numbers beside an answer, a gold answer, tools, and the records that rows become."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from pydantic import JsonValue

from prefloop.data.given import Given, given_response
from prefloop.data.messages import messages_of, shown, text_of, to_be_answered, transcript_of
from prefloop.data.problems import RowRefused
from prefloop.records import Judgment, Message, Prompt, Response

Values = Mapping[str, Any]
SCORES = (("score_chosen", "score_rejected"), ("chosen_score", "rejected_score"))
"""What data sets call the scores of the two answers."""
MODELS = ("chosen_model", "rejected_model")
ABOUT_PROMPT = frozenset({"id", "answer", "ground_truth", "tools"})
"""Columns about the prompt or the row that most formats read where they are there."""
ABOUT_PAIR = ABOUT_PROMPT | {"weight", "margin", "prob_chosen_wins", *SCORES[0], *SCORES[1], *MODELS}
"""Columns that stand beside pairs."""


@dataclass(frozen=True)
class Answer:
    """An answer of a row, and who gave it where the row says so."""

    text: str
    model: str = ""


def dataset_judge(place: str) -> str:
    """The name under which a data set judges: `pairs.jsonl.gz:412` -> `dataset:pairs`."""
    file = place.rpartition(":")[0] or place
    stem = file.rpartition("/")[2]
    for ending in (".gz", ".zst", ".jsonl", ".json", ".parquet", ".csv", ".tsv", ".arrow"):
        stem = stem.removesuffix(ending)
    return f"dataset:{stem}"


def prompt_of(messages: tuple[Message, ...], values: Values, place: str, field: str = "prompt") -> Prompt:
    """A prompt with what the row says about it.

    Raises:
        RowRefused: it ends with an answer; or a gold answer or tools are malformed.
    """
    return Prompt.of(
        to_be_answered(messages, field), source=place, answer=_gold_answer(values), tools=_tools(values.get("tools"))
    )


def asked(values: Values, field: str, system: str | None = None) -> tuple[Message, ...]:
    """The messages of a column: a text or messages, after the system turn that stands in a column of its own.

    Raises:
        RowRefused: the column is absent or malformed.
    """
    messages = messages_of(required(values, field), field)
    return with_system(messages, values.get(system), system) if system is not None else messages


def asked_in_transcript(values: Values, field: str) -> tuple[Message, ...]:
    """The messages of a column that holds a transcript.

    Raises:
        RowRefused: the column is absent or malformed.
    """
    return transcript_of(required(values, field), field)


def with_system(messages: tuple[Message, ...], system: object, field: str) -> tuple[Message, ...]:
    """The messages after a system turn; a column that is empty gives none.

    Raises:
        RowRefused: the column holds no text, or the messages have a system turn already.
    """
    if system is None or (isinstance(system, str) and not system.strip()):
        return messages
    if any(message.role == "system" for message in messages):
        raise RowRefused("two_system_turns", f"{field}, and a system turn among the messages")
    return (Message(role="system", content=text_of(system, field)), *messages)


def given_pair(prompt: Prompt, chosen: str, rejected: str, values: Values, place: str) -> Given:
    """A prompt with two answers, which one is preferred, how surely, and the scores of both where the row has them.

    Raises:
        RowRefused: a number beside the pair is malformed.
    """
    sure = optional_number(values, "prob_chosen_wins")
    if sure is not None and not 0 <= sure <= 1:
        raise RowRefused("out_of_range", f"prob_chosen_wins is {shown(sure)}, expected a number from 0 to 1")
    answers = [Answer(text, _model(values, column)) for text, column in zip((chosen, rejected), MODELS, strict=True)]
    return judged_pair(prompt, answers, 1.0 if sure is None else sure, _pair_scores(values), values, place)


def judged_pair(
    prompt: Prompt,
    answers: Sequence[Answer],
    prob_first_wins: float,
    scores: Sequence[float] | None,
    values: Values,
    place: str,
) -> Given:
    """A prompt with two answers and how often the first is preferred.

    Raises:
        RowRefused: the weight or the margin is malformed.
    """
    judge, responses = dataset_judge(place), _responses(prompt, answers)
    subjects = tuple(response.response_id for response in responses)
    preference = Judgment(
        judge=judge,
        kind="preference",
        subjects=subjects,
        values=(prob_first_wins,),
        numbers=_numbers_beside(values),
    )
    scored = () if scores is None else (Judgment(judge=judge, kind="score", subjects=subjects, values=tuple(scores)),)
    return Given(prompt=prompt, responses=_once(responses), judgments=(preference, *scored), row_id=row_id(values))


def judged_answers(
    prompt: Prompt,
    answers: Sequence[Answer],
    said: Mapping[tuple[str, str], Sequence[float | None]],
    values: Values,
    place: str,
) -> Given:
    """A prompt with any number of answers and what the row says of them.

    Args:
        prompt: what is answered.
        answers: in the order of the row.
        said: (kind, aspect) -> one value an answer.
        values: the row.
        place: where it stands.
    """
    judge, responses = dataset_judge(place), _responses(prompt, answers)
    subjects = tuple(response.response_id for response in responses)
    judgments = tuple(
        Judgment.model_validate(
            {"judge": judge, "kind": kind, "aspect": aspect, "subjects": subjects, "values": tuple(numbers)}
        )
        for (kind, aspect), numbers in said.items()
    )
    return Given(prompt=prompt, responses=_once(responses), judgments=judgments, row_id=row_id(values))


def required(values: Values, field: str) -> object:
    """What a field holds.

    Raises:
        RowRefused: the row does not have it.
    """
    if values.get(field) is None:
        raise RowRefused("missing_field", f"{field} is not there")
    return values[field]


def optional_number(values: Values, field: str) -> float | None:
    """A number that a row may have.

    Raises:
        RowRefused: the field holds something else, or is not finite.
    """
    return None if values.get(field) is None else number_of(values[field], field)


def number_of(value: object, field: str) -> float:
    """A finite number.

    Raises:
        RowRefused: it is something else.
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise RowRefused("wrong_type", f"{field} is {shown(value)}, expected a number")
    if not isfinite(value):
        raise RowRefused("not_finite", f"{field} is {value}")
    return float(value)


def flag_of(value: object, field: str) -> bool:
    """True or false, also as 1 or 0.

    Raises:
        RowRefused: it is something else.
    """
    if isinstance(value, bool) or value in (0, 1):
        return bool(value)
    raise RowRefused("wrong_type", f"{field} is {shown(value)}, expected true or false")


def row_id(values: Values) -> str | None:
    """The row's own name, where it has one."""
    found = values.get("id")
    return str(found) if isinstance(found, str | int) and not isinstance(found, bool) else None


def _responses(prompt: Prompt, answers: Sequence[Answer]) -> tuple[Response, ...]:
    made = [(answer, given_response(prompt, answer.text)) for answer in answers]
    return tuple(
        response.model_copy(update={"policy": answer.model}) if answer.model else response for answer, response in made
    )


def _once(responses: Sequence[Response]) -> tuple[Response, ...]:
    first: dict[str, Response] = {}
    for response in responses:
        first.setdefault(response.response_id, response)
    return tuple(first.values())


def _model(values: Values, field: str) -> str:
    found = values.get(field)
    return found if isinstance(found, str) else ""


def _pair_scores(values: Values) -> tuple[float, float] | None:
    for chosen, rejected in SCORES:
        first, second = optional_number(values, chosen), optional_number(values, rejected)
        if first is not None and second is not None:
            return first, second
        if first is not None or second is not None:
            lacking = rejected if second is None else chosen
            raise RowRefused("missing_field", f"{lacking} is not there, but the other answer has a score")
    return None


def _numbers_beside(values: Values) -> dict[str, float]:
    """The weight and the margin that a row may have."""
    found = {key: optional_number(values, key) for key in ("weight", "margin")}
    if found["weight"] is not None and found["weight"] <= 0:
        raise RowRefused("out_of_range", f"weight is {shown(values['weight'])}, expected a number above 0")
    return {key: value for key, value in found.items() if value is not None}


def _gold_answer(values: Values) -> str | None:
    for field in ("answer", "ground_truth"):
        found = values.get(field)
        if isinstance(found, str):
            return text_of(found, field)
        if found is not None:
            return str(found) if isinstance(found, bool) else f"{number_of(found, field):.15g}"
    return None


def _tools(value: object) -> tuple[JsonValue, ...]:
    """The tools of a row: a list, or a text that holds one as JSON."""
    if value is None or value in ("", []):
        return ()
    found = value
    if isinstance(value, str):
        try:
            found = json.loads(value)
        except json.JSONDecodeError as error:
            raise RowRefused("wrong_type", f"tools is a text, but no JSON: {error.msg}") from error
    if not isinstance(found, list) or not all(isinstance(tool, dict) for tool in found):
        raise RowRefused("wrong_type", f"tools is {shown(value)}, expected a list of mappings")
    return tuple(found)
