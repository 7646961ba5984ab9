"""What judges of MT-Bench, Arena-Hard and AlpacaEval are asked, in words of our own, and how their texts are read.

What their programs read stands here as they read it: the marks `[[7]]`, `[[A]]` and `[[A>>B]]`, and the tokens m and M.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Literal

REFERENCE_CATEGORIES = frozenset({"math", "reasoning", "coding"})
"""Their answers are graded beside a reference answer."""

NO_RATING = -1

VERDICTS: Mapping[str, tuple[float, int]] = {
    "A>>B": (1.0, 3),
    "A>B": (1.0, 1),
    "A=B": (0.5, 1),
    "B=A": (0.5, 1),
    "A<B": (0.0, 1),
    "B>A": (0.0, 1),
    "A<<B": (0.0, 3),
    "B>>A": (0.0, 3),
    "B<A": (1.0, 1),
    "B<<A": (1.0, 3),
}
"""What a verdict says: outcome for the answer shown as A, and how many battles it counts as."""

_DOUBLE_RATING, _SINGLE_RATING = re.compile(r"\[\[(\d+\.?\d*)\]\]"), re.compile(r"\[(\d+\.?\d*)\]")
_SCORES = re.compile(r"\[\[(\d+\.?\d*),\s*(\d+\.?\d*)\]\]")
_CLOSE = 0.1  # two scores no further apart than this are a tie
_DOUBLE_LABEL, _SINGLE_LABEL = re.compile(r"\[\[([AB<>=]+)\]\]"), re.compile(r"\[([AB<>=]+)\]")

Winner = Literal["A", "B", "tie"]


def judge_prompt_name(category: str, turn: int, *, pairwise: bool = False) -> str:
    """FastChat's name of the prompt for a question's category and turn, 1 or 2."""
    reference = "-math" if category in REFERENCE_CATEGORIES else ""
    return f"{'pair' if pairwise else 'single'}{reference}-v1{'-multi-turn' if turn == 2 else ''}"


def rating(text: str) -> int | float:
    """The first number in double square brackets, else the first in single ones, as it is; -1 without either."""
    found = _DOUBLE_RATING.search(text) or _SINGLE_RATING.search(text)
    if found is None:
        return NO_RATING
    return float(found[1]) if "." in found[1] else int(found[1])


def pair_winner(text: str) -> Winner | None:
    """Who won a game, by what is in double square brackets: A, B, C for a tie, or two scores; None without any."""
    labels: dict[str, Winner] = {"[[A]]": "A", "[[B]]": "B", "[[C]]": "tie"}
    for label, winner in labels.items():
        if label in text:
            return winner
    if (scores := _SCORES.search(text)) is None:
        return None
    gap = float(scores[1]) - float(scores[2])
    return "tie" if abs(gap) <= _CLOSE + 1e-12 else "A" if gap > 0 else "B"


def verdict(text: str) -> str | None:
    """The last label in double square brackets of a judge's text, else the last in single ones; None without either.

    Case does not matter. A label that is none of the ten, such as `[[A>]]`, is not one.
    """
    upper = text.upper()
    found = _DOUBLE_LABEL.findall(upper) or _SINGLE_LABEL.findall(upper)
    return found[-1] if found and found[-1] in VERDICTS else None


_SINGLE_REQUEST = (
    "You are an impartial judge. Grade the quality of the assistant's answer to the user's question{part} below: is it "
    "helpful, relevant, accurate, deep, creative, detailed enough? Begin with a short explanation and be as objective "
    "as possible. Then give a rating from 1 to 10 in exactly this form: [[rating]], for example: Rating: [[5]]."
)
_REFERENCE_REQUEST = (
    "You are an impartial judge. Grade the assistant's answer to the user's question{part} below for correctness and "
    "helpfulness. A reference answer is given: compare the assistant's answer with it, find every mistake and correct "
    "it. Be as objective as possible. Then give a rating from 1 to 10 in exactly this form: [[rating]], for example: "
    "Rating: [[5]]."
)


def grading_messages(
    questions: Sequence[str], answers: Sequence[str], references: Sequence[str] | None, *, category: str
) -> list[dict[str, str]]:
    """The messages that ask a judge for a rating of the last answer.

    Args:
        questions: The first question, or both.
        answers: As many.
        references: Good answers to the same questions; exactly for math, reasoning and coding.
        category: Of the question.

    Returns:
        A system and a user message. With one question the request stands before the question; with two it is the
        system message, and the user message is the conversation.

    Raises:
        ValueError: there are not as many answers as questions, or references where none belong or the other way.
    """
    _check(questions, answers, references, category)
    request = _SINGLE_REQUEST if references is None else _REFERENCE_REQUEST
    parts: list[str] = []
    if len(questions) == 1:
        parts = [request.format(part=""), f"[Question]\n{questions[0]}"]
        if references is not None:
            parts.append(_between("Reference Answer", references[0]))
        parts.append(_between("Assistant's Answer", answers[0]))
        return _messages("You are a helpful assistant.", "\n\n".join(parts))
    if references is not None:
        parts.append(_between("Reference Conversation", _talk(questions, references, "Reference answer")))
    parts.append(_between("Conversation with Assistant", _talk(questions, answers, "Assistant")))
    part = "s; the rating is of the answer to the second question, and so is your attention"
    return _messages(request.format(part=part), "\n\n".join(parts))


_PAIR_REQUEST = (
    "You are an impartial judge. Two assistants, A and B, answered the user's question{part} below{with_reference}. "
    "Say which answer is better: which follows the instructions more closely, and is more {qualities}. The order of "
    "the answers, their lengths and the assistants' names must not matter. Explain your comparison shortly and be as "
    "objective as possible. End with your verdict in exactly this form: [[A]] if assistant A is better, [[B]] if "
    "assistant B is, [[C]] for a tie."
)
_QUALITIES = ("helpful, relevant, accurate, deep, creative and detailed", "correct and helpful")


def pair_messages(
    questions: Sequence[str],
    first: Sequence[str],
    second: Sequence[str],
    references: Sequence[str] | None,
    *,
    category: str,
) -> list[dict[str, str]]:
    """The messages that ask a judge which of two assistants answered the last question better.

    Args:
        questions: The first question, or both.
        first: The answers of the assistant who is shown as A.
        second: Those of B.
        references: Good answers; exactly for math, reasoning and coding.
        category: Of the question.

    Raises:
        ValueError: as `grading_messages`.
    """
    _check(questions, first, references, category)
    _check(questions, second, references, category)
    part = "" if len(questions) == 1 else "s; it is the answers to the second question that you compare"
    request = _PAIR_REQUEST.format(
        part=part,
        with_reference="" if references is None else ", and a reference answer shows what is right",
        qualities=_QUALITIES[references is not None],
    )
    if len(questions) == 1:
        parts = [f"[User Question]\n{questions[0]}"]
        if references is not None:
            parts.append(_between("Reference Answer", references[0]))
        parts += [
            _between(f"Assistant {name}'s Answer", said[0]) for name, said in zip("AB", (first, second), strict=True)
        ]
        return _messages(request, "\n\n".join(parts))
    parts = (
        [] if references is None else [_between("Reference Answer", _talk(questions, references, "Reference answer"))]
    )
    parts += [
        _between(f"Assistant {name}'s Conversation with User", _talk(questions, said, f"Assistant {name}"))
        for name, said in zip("AB", (first, second), strict=True)
    ]
    return _messages(request, "\n\n".join(parts))


_VERDICT_REQUEST = (
    "You are an impartial judge of two assistants, A and B, who answered the prompt below. {own_answer}compare both "
    "answers {with_it}and name and correct their mistakes. Weigh whether they are helpful, that is right, and what was "
    "asked for; whether they are relevant and concise; then, where the prompt leaves room, whether they are creative; "
    "and what they leave out. Close with one of these labels in exactly this form: [[A>>B]] A is significantly better, "
    "[[A>B]] A is slightly better, [[A=B]] both are about as good, [[B>A]] B is slightly better, [[B>>A]] B is "
    "significantly better."
)


def verdict_messages(prompt: str, first: str, second: str, *, creative: bool = False) -> list[dict[str, str]]:
    """The messages that ask a judge for one of Arena-Hard's five labels.

    Args:
        prompt: What was asked.
        first: The answer that is shown as A.
        second: That of B.
        creative: Creative writing, for which the judge writes no answer of its own first.
    """
    own = "First write an answer of your own. Then " if not creative else "Read both with care. Then "
    request = _VERDICT_REQUEST.format(own_answer=own, with_it="" if creative else "with yours, ")
    parts = [
        f"[User Prompt]\n{prompt}",
        _between("Assistant A's Answer", first),
        _between("Assistant B's Answer", second),
    ]
    return _messages(request, "\n\n".join(parts))


def preference_messages(instruction: str, first: str, second: str) -> list[dict[str, str]]:
    """The messages that ask a judge for AlpacaEval 2's one token: `m` for the answer shown first, else `M`.

    Args:
        instruction: What was asked.
        first: The answer that is shown first.
        second: The one that is shown second.
    """
    system = (
        "You compare answers of language models quickly and reliably. Your verdicts rank the models by what people "
        "would prefer."
    )
    answers = [{"model": name, "answer": text} for name, text in (("m", first), ("M", second))]
    user = (
        "Which of two models gave the answer to this instruction that people would prefer?\n\n"
        f"{json.dumps({'instruction': instruction}, ensure_ascii=False, indent=2)}\n\n"
        f"Their answers:\n\n{json.dumps(answers, ensure_ascii=False, indent=2)}\n\n"
        "Reply with the name of the better model, m or M, and nothing else: no words, no quotes, no punctuation."
    )
    return _messages(system, user)


def _check(questions: Sequence[str], answers: Sequence[str], references: Sequence[str] | None, category: str) -> None:
    if len(questions) not in {1, 2} or len(answers) != len(questions):
        raise ValueError(f"{len(questions)} questions and {len(answers)} answers, expected one or two of each")
    if (references is not None) != (category in REFERENCE_CATEGORIES) or len(references or questions) != len(questions):
        raise ValueError(f"references belong to {', '.join(sorted(REFERENCE_CATEGORIES))}, one a question")


def _messages(system: str, user: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def _between(title: str, text: str) -> str:
    return f"[The Start of {title}]\n{text}\n[The End of {title}]"


def _talk(questions: Sequence[str], answers: Sequence[str], who: str) -> str:
    return "\n\n".join(
        f"### User:\n{question}\n\n### {who}:\n{answer}" for question, answer in zip(questions, answers, strict=True)
    )
