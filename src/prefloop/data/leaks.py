"""Evaluation prompts among the prompts of a training set: as they are, nearly, or thirteen words of one."""

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from prefloop.data.checks import normalised
from prefloop.data.given import Given
from prefloop.data.lint import Reading
from prefloop.data.problems import Problem
from prefloop.data.source import find_source
from prefloop.records import Prompt

NGRAM = 13
"""Words in a row that two texts share only when one was copied: GPT-3's choice (arXiv:2005.14165, appendix C), which
lm-evaluation-harness took over. A prompt of fewer words has no such run: it is found whole or not at all."""
FEWEST_WORDS = 5
"""A turn with fewer words ("Hi there!", "Go on.") is no prompt of its own inside a longer conversation."""
TEMPLATE = 10
"""Words in a row that more evaluation prompts than this share are the suite's own wording, not a prompt's."""
_WORD = re.compile(r"\w+")


class Leaks:
    """The check whether a row's prompt is one of an evaluation's.

    An evaluation prompt is its last user turn, or all of them where the last says little. It is looked for among the
    user turns of a row's prompt; runs of words in all of its turns. Answers are not looked at.
    """

    def __init__(self, evaluation: Iterable[Prompt]) -> None:
        self._exact: dict[str, str] = {}
        self._normalised: dict[str, str] = {}
        self._runs: dict[str, str] = {}
        sharing: dict[str, int] = {}
        for prompt in evaluation:
            text = _key(prompt)
            self._exact.setdefault(text, prompt.source)
            self._normalised.setdefault(" ".join(_words(text)), prompt.source)
            for run in set(_runs(text)):
                self._runs.setdefault(run, prompt.source)
                sharing[run] = sharing.get(run, 0) + 1
        for run, number in sharing.items():
            if number > TEMPLATE:
                del self._runs[run]

    def __call__(self, given: Given) -> Iterator[Problem]:
        """The closest likeness of a row's prompt to one of the evaluation's."""
        asked = _candidates(given.prompt)
        for text in asked:
            if text in self._exact:
                yield Problem("eval_prompt", f"the same as {self._exact[text]}")
                return
        for words in (" ".join(_words(text)) for text in asked):
            if words in self._normalised:
                yield Problem("eval_prompt_normalised", f"nearly the same as {self._normalised[words]}")
                return
        for message in given.prompt.messages:
            for run in _runs(message.content):
                if run in self._runs:
                    yield Problem("eval_prompt_ngram", f'"{run}" stands in {self._runs[run]}')
                    return


def leaks_of(name: str) -> Leaks:
    """The check against the prompts of a source; they are read once a process while its files stay as they are."""
    return _read(name, find_source(name).identity)


@lru_cache(maxsize=4)
def _read(name: str, identity: str) -> Leaks:
    del identity  # what a cached result belongs to
    return Leaks(given.prompt for given in Reading(find_source(name)))


def _key(prompt: Prompt) -> str:
    """What makes an evaluation prompt this one and no other."""
    turns = _turns(prompt)
    return turns[-1] if len(turns) == 1 or len(_words(turns[-1])) >= FEWEST_WORDS else "\n".join(turns)


def _candidates(prompt: Prompt) -> list[str]:
    """What of a row's prompt could be an evaluation's: the last turn, the whole, and earlier turns that say much."""
    turns = _turns(prompt)
    earlier = [turn for turn in turns[:-1] if len(_words(turn)) >= FEWEST_WORDS]
    return [turns[-1], "\n".join(turns), *earlier]


def _turns(prompt: Prompt) -> list[str]:
    users = [message.content for message in prompt.messages if message.role == "user"]
    return users or [prompt.messages[-1].content]


def _words(text: str) -> list[str]:
    return _WORD.findall(normalised(text))


def _runs(text: str) -> Iterator[str]:
    words = _words(text)
    return (" ".join(words[start : start + NGRAM]) for start in range(len(words) - NGRAM + 1))
