"""A right step against the first wrong one behind the same beginning of a solution (Step-DPO, arXiv:2406.18629).

Two rules: the first makes a prompt of every solution up to its first bad step; after more solutions have been sampled
from there, the second makes the pairs. Verdicts on steps are judgments of kind `steps`: a span of tokens a step, which
begins behind the step's label, and for each 1 (right), 0.5 (neutral), 0 (wrong), or how likely it is right; or None.
Verdicts on final answers are judgments of kind `label`: 1 right, 0 wrong, None for an answer without a final one, which
counts as wrong.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import Field

from prefloop.pairing.groups import member, pair
from prefloop.pairing.registry import Dropped, rule
from prefloop.pairing.steps import FirstBad
from prefloop.records import Example, Group, Judgment, Prompt, Response, Span

Bad = FirstBad | Literal["least_likely"]
"""Which verdict makes a step the first bad one: below 0.5; below 1; or the first of the lowest, whatever it is: a wrong
solution has a wrong step, and a language model's probabilities need not be centred."""
BELOW: dict[FirstBad, float] = {"incorrect": 0.5, "incorrect_or_neutral": 1.0}
"""A step is bad where its verdict is below this."""


def _first_bad(group: Group, response: Response, first_bad: Bad) -> Span | None:
    """Tokens of the first step that the first verdict on the response calls bad."""
    verdict = _steps(group, response)
    if verdict is None:
        return None
    if first_bad == "least_likely":
        known = [(value, span) for span, value in zip(verdict.spans, verdict.values, strict=True) if value is not None]
        return min(known, key=lambda one: one[0])[1] if known else None
    for span, value in zip(verdict.spans, verdict.values, strict=True):
        if value is not None and value < BELOW[first_bad]:
            return span
    return None


def _steps(group: Group, response: Response) -> Judgment | None:
    return next(
        (one for one in group.judgments if one.kind == "steps" and one.subjects == (response.response_id,)), None
    )


def _right(group: Group) -> dict[str, bool]:
    """Whether each answer with a verdict ends in the right final answer."""
    return {
        subject: value == 1
        for judgment in group.judgments
        if judgment.kind == "label" and judgment.aspect == "overall"
        for subject, value in zip(judgment.subjects, judgment.values, strict=True)
    }


@rule(writes=Prompt, of_each="answer")
def first_bad_steps(
    group: Group,
    *,
    first_bad: Bad = "incorrect",
    max_per_question: Annotated[int, Field(ge=1)] = 2,
) -> Iterator[Prompt | Dropped]:
    """The beginning of every wrong solution, up to the first bad step, as a prompt to sample better steps from.

    Args:
        group: a question with sampled solutions, verdicts on their final answers and on their steps.
        first_bad: which verdicts make a step bad.
        max_per_question: wrong solutions of a question that are looked at, in their order.
    """
    right = _right(group)
    asked = [one for one in group.responses if one.prompt_id == group.root.prompt_id and one.response_id in right]
    wrong = [one for one in asked if not right[one.response_id]]
    if not wrong:
        yield Dropped("no wrong solution" if asked else "no verdict on final answers")
    begun: set[tuple[int, ...]] = set()
    for solution in wrong[:max_per_question]:
        bad = _first_bad(group, solution, first_bad)
        if bad is None:
            yield Dropped("no bad step found")
        elif solution.token_ids is None:
            yield Dropped("solution without tokens")
        elif solution.token_ids[: bad[0]] in begun:
            yield Dropped("same beginning")
        else:
            begun.add(solution.token_ids[: bad[0]])
            yield group.root.derived(prefix_ids=solution.token_ids[: bad[0]])


@rule(writes=Example, roles=("chosen", "rejected"), of_each="answer")
def better_steps(group: Group, *, first_bad: Bad = "incorrect", verified: bool = False) -> Iterator[Example | Dropped]:
    """The next step of every continuation that ends right, against the bad step that it replaces.

    Only the step's own tokens are behind the prompt; EOS belongs to it only where the step ends the answer. A step that
    occurs twice, or is the bad one again, is left out.

    Args:
        group: a question with wrong solutions, prompts derived from them, and continuations of these, with verdicts.
        first_bad: as the rule that derived the prompts was told.
        verified: the step itself must be judged right too, since a right answer can follow a wrong step.
    """
    right = _right(group)
    found = [
        (prompt, *cut) for prompt in group.prompts if (cut := _rejected(group, prompt, right, first_bad)) is not None
    ]
    if not found:
        yield Dropped("no beginning to go on from" if len(group.prompts) == 1 else "bad step not found again")
    for prompt, solution, bad in found:
        tokens = solution.token_ids or ()
        seen = {tokens[: bad[1]]}
        made = 0
        for response in group.responses:
            if response.prompt_id != prompt.prompt_id or not right.get(response.response_id, False):
                continue
            step = _step_at(group, response, len(prompt.prefix_ids), verified)
            if step is None or (response.token_ids or ())[: step[1]] in seen:
                continue
            seen.add((response.token_ids or ())[: step[1]])
            made += 1
            yield pair(
                group,
                member("chosen", _up_to(response, step[1])),
                member("rejected", _up_to(solution, bad[1])),
                why=f"better_steps: behind {len(prompt.prefix_ids)} tokens",
            ).model_copy(update={"prompt": prompt})
        if not made:
            yield Dropped("no better step")


def _rejected(group: Group, prompt: Prompt, right: Mapping[str, bool], first_bad: Bad) -> tuple[Response, Span] | None:
    """The solution with a wrong end that a prompt is the beginning of, and its bad step."""
    length = len(prompt.prefix_ids)
    wrong = [one for one in group.responses if not right.get(one.response_id, True)]
    for one in wrong:
        if one.prompt_id == group.root.prompt_id and (one.token_ids or ())[:length] == prompt.prefix_ids:
            bad = _first_bad(group, one, first_bad)
            if bad is not None and bad[0] == length:
                return one, bad
    return None


def _step_at(group: Group, response: Response, start: int, verified: bool) -> Span | None:
    """The step of a response that begins at a token; None where there is none, or it is not judged right as asked."""
    verdict = _steps(group, response)
    if verdict is None:
        return None
    for span, value in zip(verdict.spans, verdict.values, strict=True):
        if span[0] == start and span[1] > start:
            return span if (value or 0.0) > 0.5 or not verified else None
    return None


def _up_to(response: Response, end: int) -> Response:
    """A response up to a token; where that is not its end, it has not ended by itself."""
    tokens = response.token_ids or ()
    if end >= len(tokens):
        return response
    return response.model_copy(update={"token_ids": tokens[:end], "finish_reason": "length"})
