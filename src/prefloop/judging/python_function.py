"""A user's own function as a judge."""

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, SupportsFloat

from pydantic import JsonValue

from prefloop.config import PythonJudge
from prefloop.errors import DataError, RecipeError
from prefloop.judging.protocol import Ask, Verdict
from prefloop.records import Prompt, file_digest, in_pieces


@dataclass(frozen=True)
class PythonFunction:
    """Scores by a function of the user's; what goes wrong in it is said with the answer that it was asked about."""

    config: PythonJudge

    @property
    def kind(self) -> Literal["score", "preference"]:
        """What its number is."""
        return "preference" if self.config.compares else "score"

    @property
    def name(self) -> str:
        """The function and the content of its file."""
        ((_, content),) = source_of(self.config).items()
        return f"python:{self.config.function}:{content[:12]}"

    @cached_property
    def function(self) -> Callable[..., Any]:
        """The user's function."""
        return function_of(self.config)

    def seen(self, ask: Ask) -> JsonValue:
        """What the function is called with."""
        return [one if isinstance(one, str) else one.model_dump(mode="json") for one in self._shown(ask)]

    def judge(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Verdict]]:
        """What the function says of each ask, in calls of one or of so many."""
        for numbers in in_pieces(range(len(asks)), self.config.batch or 1):
            shown = [self._shown(asks[number]) for number in numbers]
            if self.config.batch is None:
                values = [self._called(shown[0], asks[numbers[0]])]
            else:
                columns = [list(column) for column in zip(*shown, strict=True)]
                values = self._called(columns, asks[numbers[0]], len(numbers))
            for number, value in zip(numbers, values, strict=True):
                yield number, Verdict(values=(self._number(value, asks[number]),))

    def _shown(self, ask: Ask) -> tuple[Any, ...]:
        if self.config.gives == "records":
            return (ask.prompt, *ask.subjects)
        return (text_of(ask.prompt), *(subject.text for subject in ask.subjects))

    def _called(self, shown: Sequence[Any], ask: Ask, count: int | None = None) -> Any:
        """What the function returns; with `count` it must be a list of so many."""
        try:
            found = self.function(*shown)
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            raise DataError(
                f"judge {self.config.function}: {type(error).__name__}: {_first_line(error)} "
                f"({Path(where.filename).name}, line {where.lineno}), asked about {_named(ask)}"
                f"{'' if count is None else f' and {count - 1} after it'}. Repair the function."
            ) from error
        if count is None:
            return found
        values = list(found) if isinstance(found, Iterable) and not isinstance(found, str | Mapping) else None
        if values is None or len(values) != count:
            what = f"a {type(found).__name__}" if values is None else f"{len(values)} values"
            raise DataError(
                f"judge {self.config.function}: returned {what}, expected a list of {count} numbers, one an answer "
                f"(the first is {_named(ask)}). Repair the function, or remove judge.batch."
            )
        return values

    def _number(self, value: object, ask: Ask) -> float | None:
        if value is None:
            return None
        if not isinstance(value, SupportsFloat):
            raise DataError(
                f"judge {self.config.function}: returned {value!r}, expected a number, or None for no verdict, asked "
                f"about {_named(ask)}. Repair the function."
            )
        if self.config.compares and not 0 <= float(value) <= 1:
            raise DataError(
                f"judge {self.config.function}: returned {value!r}, expected the probability that the first answer is "
                f"better, from 0 to 1, asked about {_named(ask)}. Repair the function, or remove judge.compares."
            )
        return float(value)


def text_of(prompt: Prompt) -> str:
    """A prompt as text: what its only turn says, or `role: content` turn by turn."""
    if len(prompt.messages) == 1:
        return prompt.messages[0].content
    return "\n\n".join(f"{message.role}: {message.content}" for message in prompt.messages)


def source_of(config: PythonJudge) -> Mapping[str, str]:
    """The content of the file that a function stands in, by the function's name.

    Raises:
        RecipeError: there is no such module, or it is not a file of Python.
    """
    module, _, _ = config.function.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    importlib.invalidate_caches()
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError) as error:
        raise RecipeError(f"judge.function is '{config.function}': {_first_line(error)}. {_HINT}") from error
    if found is None or found.origin is None or not Path(found.origin).is_file():
        raise RecipeError(
            f"judge.function is '{config.function}', but there is no module {module} in {here} or where Python finds "
            f"modules. {_HINT}"
        )
    return {config.function: file_digest(Path(found.origin))}


def function_of(config: PythonJudge) -> Callable[..., Any]:
    """The function itself, its module imported.

    Raises:
        RecipeError: the module cannot be imported, or has no such function.
    """
    source_of(config)
    module, _, name = config.function.partition(":")
    try:
        imported = importlib.import_module(module)
    except Exception as error:
        raise RecipeError(
            f"judge.function is '{config.function}', but importing {module} fails: {type(error).__name__}: "
            f"{_first_line(error)}. Repair the module."
        ) from error
    function = vars(imported).get(name)
    if not callable(function):
        known = ", ".join(key for key, value in vars(imported).items() if callable(value) and key[0] != "_")
        raise RecipeError(
            f"judge.function is '{config.function}', but {module} has no function {name}. It has {known or 'none'}."
        )
    return function


_HINT = "Expected `module:name`, as in `rewards:score` for the function score in rewards.py."


def _named(ask: Ask) -> str:
    names = " and ".join(subject.response_id for subject in ask.subjects)
    return f"{'answer' if len(ask.subjects) == 1 else 'answers'} {names} to {ask.prompt.source or ask.prompt.prompt_id}"


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "no message")
