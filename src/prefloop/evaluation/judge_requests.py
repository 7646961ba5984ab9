"""What a language model that judges outside of the program is asked of a suite's answers.

Each line is a judgment in the form of the suite's own files, without what the judge says: `prefloop evaluate mt-bench`,
`arena` and `alpaca-eval` read the lines once `judgment`, or `top_logprobs`, is filled in.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prefloop.config import JudgeForm
from prefloop.errors import DataError
from prefloop.evaluation.alpaca_protocol import is_switched
from prefloop.evaluation.answer_files import Conversation
from prefloop.pairing import (
    REFERENCE_CATEGORIES,
    grading_messages,
    judge_prompt_name,
    preference_messages,
    verdict_messages,
)

Named = tuple[str, Sequence[Conversation]]
"""A model and its answers."""


def judge_requests(form: JudgeForm, ours: Named, baseline: Named | None) -> Iterator[dict[str, Any]]:
    """One line a judgment, with the `messages` that ask for it.

    Args:
        form: Whose protocol.
        ours: The model that is judged.
        baseline: Whom it is held against; ratings need nobody.

    Raises:
        DataError: a baseline is needed, or lacks an answer; or a reference answer is needed.
    """
    if form == "mt_bench":
        yield from _ratings(*ours)
        return
    if baseline is None:
        raise DataError(f"a judge of the form {form} compares with a baseline. Name one: --against.")
    theirs = {one.prompt.prompt_id: one for one in baseline[1] if one.index == 0}
    for one in ours[1]:
        if one.index == 0 and one.prompt.prompt_id in theirs:
            other = theirs[one.prompt.prompt_id]
            yield (_games if form == "arena_hard" else _preference)((ours[0], one), (baseline[0], other))


def _ratings(model: str, given: Sequence[Conversation]) -> Iterator[dict[str, Any]]:
    for one in given:
        category = (one.prompt.labels or {}).get("category", "")
        gold = [one.prompt.answer, *(turn.answer for turn in one.prompt.later or ())]
        for turn in range(1, len(one.answers) + 1):
            references = (
                [text for text in gold[:turn] if text is not None] if category in REFERENCE_CATEGORIES else None
            )
            if references is not None and len(references) < turn:
                raise DataError(
                    f"{one.prompt.source}: a question of {category} is graded beside a reference answer to each turn. "
                    "Name the file of references: --references."
                )
            yield {
                "question_id": one.question_id,
                "model": model,
                "judge_prompt": judge_prompt_name(category, turn),
                "turn": turn,
                "messages": grading_messages(one.questions[:turn], one.texts[:turn], references, category=category),
                "judgment": None,
            }


def _games(ours: tuple[str, Conversation], theirs: tuple[str, Conversation]) -> dict[str, Any]:
    """Both orders: the baseline is A in the first game, the model in the second."""
    (model, one), (_, other) = ours, theirs
    creative = (one.prompt.labels or {}).get("category") == "creative_writing"
    shown = ((other.texts[0], one.texts[0]), (one.texts[0], other.texts[0]))
    games = [
        {"messages": verdict_messages(one.asked, *pair, creative=creative), "judgment": None, "score": None}
        for pair in shown
    ]
    return {"uid": one.question_id, "model": model, "games": games}


def _preference(ours: tuple[str, Conversation], theirs: tuple[str, Conversation]) -> dict[str, Any]:
    """One order, by AlpacaEval's coin; equal answers are a draw, and nobody is asked."""
    (model, one), (baseline, other) = ours, theirs
    answers: Mapping[str, str] = {"output_1": other.texts[0], "output_2": one.texts[0]}
    same = answers["output_1"] == answers["output_2"]
    switched = is_switched(one.asked)
    shown = (one.texts[0], other.texts[0]) if switched else (other.texts[0], one.texts[0])
    return {
        "instruction": one.asked,
        **answers,
        "generator_1": baseline,
        "generator_2": model,
        "dataset": (one.prompt.labels or {}).get("dataset", ""),
        "switched": switched,
        "messages": None if same else preference_messages(one.asked, *shown),
        "preference": 1.5 if same else None,
        "top_logprobs": None,
    }
