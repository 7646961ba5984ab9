"""Checks of one row by itself, whatever its format was: what cannot be used, and what is worth a look."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations
from math import isfinite

from prefloop.data.given import Given, whole_text
from prefloop.data.problems import Problem, shortened
from prefloop.records import Judgment

Check = Callable[[Given], Iterable[Problem]]
"""What a row is asked; a check may remember the rows before it."""

CONTROL_TOKENS = re.compile(
    r"<\|\w{2,40}\|>"  # ChatML, Llama 3 and 4, Phi, Zephyr, Qwen, Command, Harmony, GPT's end of text
    r"|<\uff5c[^<>\uff5c]{1,40}\uff5c>"  # DeepSeek
    r"|\[/?INST\]|<</?SYS>>|</s>"  # Llama 2, Mistral
    r"|\[/?(?:AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|SYSTEM_PROMPT)\]"  # Mistral
    r"|<(?:start_of_turn|end_of_turn|bos|eos)>"  # Gemma
    r"|\[gMASK\]|<sop>"  # GLM
)
"""Control tokens of the templates that most models have. `<s>` is left out: in HTML it is a line through a text."""


def row_problems(given: Given) -> Iterator[Problem]:
    """Everything that a row shows by itself, once it is read."""
    for check in (_prompt, _answers, _control_tokens, _numbers, _preference):
        yield from check(given)


def normalised(text: str) -> str:
    """The text without differences of case, white space and Unicode form (NFKC)."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def overall_scores(given: Given) -> dict[str, float]:
    """The score of each answer where the row has one, the mean where it has several."""
    said: dict[str, list[float]] = {}
    for judgment in given.judgments:
        if judgment.kind == "score" and judgment.aspect == "overall":
            for subject, value in _said(judgment):
                said.setdefault(subject, []).append(value)
    return {subject: sum(values) / len(values) for subject, values in said.items()}


def preferred_pairs(given: Given) -> Iterator[tuple[str, str, float]]:
    """What a row says of two answers at a time: the better one's id, the worse one's, and P(the better wins).

    Preferences as they stand; of a ranking every two answers of different rank. Scores are not read: two rows may
    well score an answer differently.
    """
    for judgment in given.judgments:
        if judgment.kind == "preference" and len(judgment.subjects) == 2:
            first, second = judgment.subjects
            prob = judgment.values[0]
            if prob is not None and prob != 0.5:
                yield (first, second, prob) if prob > 0.5 else (second, first, 1 - prob)
        elif judgment.kind == "ranking":
            for (one, its_rank), (other, rank) in combinations(_said(judgment), 2):
                if its_rank != rank:
                    yield (one, other, 1.0) if its_rank < rank else (other, one, 1.0)


def _prompt(given: Given) -> Iterator[Problem]:
    messages = given.prompt.messages
    empty = [not message.content.strip() and not message.tool_calls for message in messages]
    if all(empty):
        yield Problem("empty_text", "the prompt")
    elif any(empty):
        number = empty.index(True)
        yield Problem("empty_message", f"turn {number + 1} of the prompt ({messages[number].role})")
    if sum(message.role == "system" for message in messages) > 1:
        yield Problem("two_system_turns", "in the prompt")
    if messages and messages[-1].role == "assistant":
        yield Problem("ends_with_answer", f"turn {len(messages)} of the prompt")


def _answers(given: Given) -> Iterator[Problem]:
    for number, response in enumerate(given.responses, start=1):
        if not response.text.strip():
            thinks = ", which begins to think and says nothing" if response.thinking else ""
            yield Problem("empty_text", f"answer {number} of {len(given.responses)}{thinks}")
            return


def _control_tokens(given: Given) -> Iterator[Problem]:
    named = [(f"turn {number} of the prompt", turn.content) for number, turn in enumerate(given.prompt.messages, 1)]
    for number, response in enumerate(given.responses, 1):
        named += [(f"answer {number}", response.text), (f"the thinking of answer {number}", response.thinking)]
    for where, text in named:
        if ("<" in text or "[" in text) and (found := CONTROL_TOKENS.search(text)):
            yield Problem("control_token", f"{found.group()} in {where}")
            return


def _numbers(given: Given) -> Iterator[Problem]:
    for name, value in given.prompt.numbers.items():
        if not isfinite(value):
            yield Problem("not_finite", f"{name} is {value}")
    for judgment in given.judgments:
        for value in judgment.values:
            if value is not None and not isfinite(value):
                yield Problem("not_finite", f"a {judgment.kind} ({judgment.aspect}) is {value}")
            elif value is not None and (range_ := _RANGES.get(judgment.kind)) and not range_[0] <= value <= range_[1]:
                yield Problem("out_of_range", f"a {judgment.kind} is {value}, expected {range_[2]}")
        for name, value in judgment.numbers.items():
            if not isfinite(value):
                yield Problem("not_finite", f"{name} is {value}")
            elif name == "weight" and value <= 0:
                yield Problem("out_of_range", f"weight is {value}, expected more than 0")


_RANGES = {
    "preference": (0.0, 1.0, "0 to 1"),
    "label": (0.0, 1.0, "0 or 1"),
    "ranking": (1.0, float("inf"), "1 or more"),
}


def _preference(given: Given) -> Iterator[Problem]:
    texts = {response.response_id: whole_text(response) for response in given.responses}
    preferences = [judgment for judgment in given.judgments if judgment.kind == "preference"]
    for compared in preferences or given.judgments:
        said = [texts[subject] for subject in compared.subjects]
        if len(said) > 1 and len(set(said)) == 1:
            yield Problem("identical", _shown(said[0]))
        elif len(said) > 1 and _nearly_the_same(said):
            yield Problem("identical_normalised", f"{_shown(said[0])} and {_shown(said[1])}")
    yield from _ties(given, bool(preferences))
    yield from _contradictions(given)


def _nearly_the_same(texts: Sequence[str]) -> bool:
    first = {text.split(maxsplit=1)[0].casefold() if text.isascii() and text.strip() else "" for text in texts}
    if len(first) > 1 and "" not in first:
        return False  # most texts differ in their first word; other alphabets have to be looked at whole
    return len({normalised(text) for text in texts}) == 1


def _ties(given: Given, preferences: bool) -> Iterator[Problem]:
    """Rows that compare, and say of no answer that it is better than another."""
    if preferences:
        if all(one.values[0] in {0.5, None} for one in given.judgments if one.kind == "preference"):
            yield Problem("tie", "the preference is 0.5, or there is no verdict")
        return
    ranks = [value for one in given.judgments if one.kind == "ranking" for _, value in _said(one)]
    values = ranks or list(overall_scores(given).values())
    if len(values) > 1 and len(set(values)) == 1:
        yield Problem("tie", f"all {len(values)} answers have the same {'rank' if ranks else 'score'}, {values[0]:g}")


def _contradictions(given: Given) -> Iterator[Problem]:
    scores = overall_scores(given)
    for better, worse, _prob in preferred_pairs(given):
        if better != worse and better in scores and worse in scores:
            if scores[better] < scores[worse]:
                yield Problem("scores_contradict", f"{scores[better]:g} against {scores[worse]:g}")
            elif scores[better] == scores[worse]:
                yield Problem("equal_scores", f"both {scores[better]:g}")
    for judgment in given.judgments:
        if (margin := judgment.numbers.get("margin", 0.0)) < 0:
            yield Problem("scores_contradict", f"the margin is {margin:g}")


def _said(judgment: Judgment) -> Iterator[tuple[str, float]]:
    for subject, value in zip(judgment.subjects, judgment.values, strict=False):
        if value is not None:
            yield subject, value


def _shown(text: str) -> str:
    return f'"{shortened(" ".join(text.split()))}"'
