"""Asking a judge about all answers and recording what it said."""

from collections.abc import Iterable, Iterator, Sequence
from math import isfinite

from prefloop.errors import ResumableError
from prefloop.judging.protocol import Ask, Judge, Verdict
from prefloop.records import Judgment, Prompt, Response

SAME = "the same text"
"""What is recorded as said of two answers that nobody was asked about."""


def ask_each(prompts: Iterable[Prompt], responses: Iterable[Response]) -> list[Ask]:
    """The design `each`: every answer alone, in the order of the records."""
    by_id = {prompt.prompt_id: prompt for prompt in prompts}
    return [Ask(by_id[response.prompt_id], (response,)) for response in responses]


def judgments(judge: Judge, asks: Sequence[Ask]) -> Iterator[Judgment]:
    """What the judge said, in the order of the asks; a value that is no number is recorded as invalid.

    Two answers with one text are equal, and nobody is asked about them.

    Raises:
        ResumableError: the judge left asks without a verdict.
    """
    same = {number for number, ask in enumerate(asks) if judge.kind == "preference" and _is_one_text(ask)}
    put = [number for number in range(len(asks)) if number not in same]
    verdicts = {put[place]: verdict for place, verdict in judge.judge([asks[number] for number in put])}
    verdicts |= dict.fromkeys(same, Verdict((0.5,), SAME, calls=0))
    if len(verdicts) < len(asks):
        raise ResumableError(
            f"{judge.name}: {len(asks) - len(verdicts)} of {len(asks)} answers have no verdict. "
            "Run the same command again."
        )
    for number, ask in enumerate(asks):
        verdict = verdicts[number]
        yield Judgment(
            judge=judge.name,
            kind=judge.kind,
            subjects=tuple(subject.response_id for subject in ask.subjects),
            values=tuple(value if value is not None and isfinite(value) else None for value in verdict.values),
            repeat=ask.repeat,
            raw=verdict.raw,
            calls=verdict.calls,
            tokens_in=verdict.tokens_in,
            tokens_out=verdict.tokens_out,
            spans=verdict.spans,
        )


def _is_one_text(ask: Ask) -> bool:
    return len({subject.text for subject in ask.subjects}) == 1
