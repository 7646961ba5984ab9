"""From what a recipe says of a judge to the judge."""

from collections.abc import Callable, Mapping
from typing import Any

from prefloop.config import (
    ExactMatchJudge,
    FinalNumberJudge,
    JudgeConfig,
    LengthWindowJudge,
    LongerJudge,
    PythonJudge,
    RegexJudge,
    ShorterJudge,
    VaderJudge,
)
from prefloop.judging.protocol import Judge
from prefloop.judging.python_function import PythonFunction, function_of, source_of
from prefloop.judging.rules import length_window, longer, regex, shorter, vader
from prefloop.judging.verifiers import exact_match, final_number

MAKERS: Mapping[type, Callable[[Any], Judge]] = {
    VaderJudge: vader,
    ShorterJudge: lambda _config: shorter(),
    LongerJudge: lambda _config: longer(),
    LengthWindowJudge: length_window,
    RegexJudge: regex,
    ExactMatchJudge: exact_match,
    FinalNumberJudge: lambda _config: final_number(),
    PythonJudge: PythonFunction,
}
"""By the class of a configuration: what makes the judge of it."""


def make_judge(config: JudgeConfig) -> Judge:
    """The judge that a configuration describes; what it needs is loaded when it is first asked."""
    return MAKERS[type(config)](config)


def check_judge(config: JudgeConfig) -> None:
    """Finds out, before a run starts, whether a judge could be asked; no weight is read.

    Raises:
        PrefloopError: it could not; says why.
    """
    if isinstance(config, PythonJudge):
        function_of(config)


def read_from_outside(config: JudgeConfig) -> Mapping[str, str]:
    """Identities of what a judge reads from outside the run."""
    return source_of(config) if isinstance(config, PythonJudge) else {}
