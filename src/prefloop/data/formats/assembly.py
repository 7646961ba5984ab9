"""From what a row says to a prompt, given answers and given judgments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prefloop.data.formats.fields import (
    ABOUT_PROMPT,
    Values,
    flag_of,
    gold_answer,
    optional_number,
    required,
    row_id,
    tools_of,
)
from prefloop.data.given import Given, given_response
from prefloop.data.messages import shown, taken_apart, text_of, to_be_answered
from prefloop.data.problems import RowRefused
from prefloop.records import Judgment, Message, Prompt, Response

SCORES = (
    ("score_chosen", "score_rejected"),
    ("chosen_score", "rejected_score"),
    ("chosen_rating", "rejected_rating"),
    ("chosen-rating", "rejected-rating"),
    ("chosen_avg_rating", "rejected_avg_rating"),
)
"""What data sets call the scores of the two answers: TRL's scripts and UltraFeedback, open-instruct, Tulu, Argilla."""
MODELS = (("chosen_model", "rejected_model"), ("chosen-model", "rejected-model"))
LABELS = frozenset({"question_id", "uid", "index", "category", "cluster", "dataset"})
"""Columns by which suites call their questions and sort them."""
ABOUT_PAIR = ABOUT_PROMPT.union({"weight", "margin", "prob_chosen_wins"}, *SCORES, *MODELS)
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
    """A prompt with what the row says about it: a system turn, a gold answer and tools in columns of their own.

    Raises:
        RowRefused: it ends with an answer; or one of those columns is malformed.
    """
    return Prompt.of(
        _with_system(to_be_answered(messages, field), values.get("system")),
        source=place,
        answer=gold_answer(values),
        tools=tools_of(values.get("tools")),
    )


def labelled_prompt(prompt: Prompt, values: Values) -> Prompt:
    """A prompt with what its row calls it."""
    labels = {name: str(values[name]) for name in sorted(LABELS) if isinstance(values.get(name), str | int)}
    return prompt.model_copy(update={"labels": labels}) if labels else prompt


def given_pair(prompt: Prompt, chosen: str, rejected: str, values: Values, place: str) -> Given:
    """A prompt with two answers, which one is preferred, how surely, and the scores of both where the row has them.

    Raises:
        RowRefused: a number beside the pair is malformed.
    """
    sure = optional_number(values, "prob_chosen_wins")
    if sure is not None and not 0 <= sure <= 1:
        raise RowRefused("out_of_range", f"prob_chosen_wins is {shown(sure)}, expected a number from 0 to 1")
    answers = [Answer(chosen, _model(values, 0)), Answer(rejected, _model(values, 1))]
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


def given_dialogues(
    chosen: tuple[Message, ...],
    rejected: tuple[Message, ...],
    values: Values,
    place: str,
    fields: tuple[str, str] = ("chosen", "rejected"),
) -> Given:
    """A pair of dialogues that differ only in their last turn, the answer.

    Raises:
        RowRefused: they do not, or one does not end with an answer.
    """
    (before, good), (other, bad) = taken_apart(chosen, fields[0]), taken_apart(rejected, fields[1])
    if before != other:
        raise RowRefused("different_prompts", f"{fields[0]} and {fields[1]} differ before their last turn")
    return given_pair(prompt_of(before, values, place, fields[0]), good, bad, values, place)


def given_dialogue(
    messages: tuple[Message, ...], values: Values, place: str, field: str, label: str | None = None
) -> Given:
    """A dialogue as a prompt and its answer, the last turn; with the label of a column, where one is named.

    Raises:
        RowRefused: it does not end with an answer; or the label is absent or malformed.
    """
    before, said = taken_apart(messages, field)
    prompt = prompt_of(before, values, place, field)
    if label is None:
        return judged_answers(prompt, [Answer(said)], {}, values, place)
    return labelled(prompt, said, label, values, place)


def labelled(prompt: Prompt, answer: str, field: str, values: Values, place: str) -> Given:
    """A prompt with one answer and whether it is good.

    Raises:
        RowRefused: the label is absent or malformed.
    """
    label = float(flag_of(required(values, field), field))
    return judged_answers(prompt, [Answer(answer)], {("label", "overall"): [label]}, values, place)


def _with_system(messages: tuple[Message, ...], system: object) -> tuple[Message, ...]:
    """The messages after the system turn of a column; an empty column gives none."""
    if system is None or (isinstance(system, str) and not system.strip()):
        return messages
    if any(message.role == "system" for message in messages):
        raise RowRefused("two_system_turns", "the column system, and a system turn among the messages")
    return (Message(role="system", content=text_of(system, "system")), *messages)


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


def _model(values: Values, side: int) -> str:
    return next((found for names in MODELS if isinstance(found := values.get(names[side]), str)), "")


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
