"""Answers on file, as AlpacaEval, Arena-Hard, FastChat and GSM8K have them: found by the question's id or its text."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefloop.data.files import rows_of_file
from prefloop.data.problems import CODES
from prefloop.data.row import Row
from prefloop.errors import DataError
from prefloop.records import Prompt

IDS = ("question_id", "uid")
"""Labels by which questions are found."""

FORMS = (
    "instruction and output (AlpacaEval), question_id and choices (FastChat, Arena-Hard), uid and messages, or "
    "question and objects with a solution (GSM8K's model solutions)"
)


@dataclass
class AnswersOnFile:
    """The answers of one policy: of each question its samples, and of each sample its turns."""

    name: str
    """Of the file, for messages."""
    policy: str = ""
    by_id: dict[str, list[tuple[str, ...]]] = field(default_factory=dict[str, list[tuple[str, ...]]])
    by_text: dict[str, list[tuple[str, ...]]] = field(default_factory=dict[str, list[tuple[str, ...]]])

    def of(self, prompt: Prompt) -> Sequence[tuple[str, ...]]:
        """The samples of a question; none where the file has none."""
        for label in IDS:
            if (found := self.by_id.get((prompt.labels or {}).get(label, ""))) is not None:
                return found
        asked = next(message.content for message in prompt.messages if message.role == "user")
        return self.by_text.get(asked, ())


def is_foreign(path: Path) -> bool:
    """Whether a file holds another tool's answers, by its first row."""
    row = next(iter(rows_of_file(path, path.name)), None)
    return row is not None and row.values is not None and "response_id" not in row.values


def read_answers(path: Path) -> AnswersOnFile:
    """A file of answers.

    Raises:
        DataError: a row is none, or the answers are of several models.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file. Name a file of answers.")
    return answers_of(rows_of_file(path, path.name), path.name)


def answers_of(rows: Iterable[Row], name: str) -> AnswersOnFile:
    """Rows of answers, from a source that is called so (DataError as above)."""
    found = AnswersOnFile(name)
    models: set[str] = set()
    for row in rows:
        if row.values is None:
            problem = next(problem for problem in row.problems if problem.fate == "refused")
            raise DataError(f"{row.place}: {CODES[problem.code].meaning}: {problem.detail}. {CODES[problem.code].fix}")
        models |= _add(found, row.values, row.place)
    if len(models) > 1:
        raise DataError(f"{name}: has answers of {len(models)} models ({', '.join(sorted(models))}). Split it.")
    if not found.by_id and not found.by_text:
        raise DataError(f"{name}: has no answer. Each row needs {FORMS}.")
    found.policy = models.pop() if models else name
    return found


def _add(found: AnswersOnFile, values: Mapping[str, Any], place: str) -> set[str]:
    """Adds the answers of a row; the model that it names, if it does."""
    try:
        if "instruction" in values and "output" in values:
            found.by_text.setdefault(_text(values["instruction"]), []).append((_text(values["output"]),))
            model = values.get("generator")
        elif "choices" in values:
            samples = [tuple(_text(turn) for turn in choice["turns"]) for choice in values["choices"]]
            found.by_id.setdefault(_id(values), []).extend(samples)
            model = values.get("model_id")
        elif "messages" in values:
            answers = [_text(one["content"]) for one in values["messages"] if one["role"] == "assistant"]
            if not answers:
                raise ValueError("there is no assistant's turn in messages")
            found.by_id.setdefault(_id(values), []).append(tuple(answers))
            model = values.get("model")
        elif "question" in values and (
            solved := [one for one in values.values() if isinstance(one, Mapping) and "solution" in one]
        ):
            found.by_text.setdefault(_text(values["question"]), []).extend((_text(one["solution"]),) for one in solved)
            model = None  # of several models, a sample each
        else:
            raise ValueError(f"its columns are {', '.join(values)}")
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{place}: is no row of answers: {error}. Expected {FORMS}.") from None
    return {str(model)} if model is not None else set()


def _id(values: Mapping[str, Any]) -> str:
    found = next((values[name] for name in IDS if values.get(name) is not None), None)
    if found is None:
        raise ValueError("it has no question_id and no uid")
    return str(found)


def _text(value: Any) -> str:
    """A text, or the text inside of Arena-Hard's objects."""
    for key in ("content", "answer"):
        if isinstance(value, Mapping) and key in value:
            value = value[key]
    if not isinstance(value, str):
        raise TypeError(f"found {value!r}, expected a text")
    return value


def with_references(prompt: Prompt, references: AnswersOnFile) -> Prompt:
    """A prompt with its reference answers, turn by turn; as it is where the file has none."""
    samples = references.of(prompt)
    if not samples:
        return prompt
    first, *others = samples[0]
    later = tuple(
        turn.model_copy(update={"answer": others[place] if place < len(others) else None})
        for place, turn in enumerate(prompt.later or ())
    )
    return prompt.model_copy(update={"answer": first, "later": later or None})
