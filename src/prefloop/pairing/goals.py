"""Each pair once for either answer's score as the goal in the prompt (reward-augmented data, arXiv:2410.08067)."""

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from pydantic import Field

from prefloop.pairing.groups import member, pair, scores
from prefloop.pairing.registry import Dropped, rule
from prefloop.records import Example, Group, Judgment, Message

Placement = Literal["system", "user"]
"""The goal as a system turn, before an existing one; or before the first question."""
Goal = Literal["chosen", "rejected"]
"""Whose score is the goal."""
Template = Annotated[str, Field(pattern=r"\{score\}")]


def goal_text(template: str, score: float) -> str:
    """The template with the score in it; a whole number is written without a fraction."""
    return template.replace("{score}", str(int(score)) if score == int(score) else str(score))


def with_goal(messages: Sequence[Message], text: str, placement: Placement) -> tuple[Message, ...] | None:
    """The conversation with a goal at its beginning; None where there is no question to put it before."""
    role = placement
    place = next((index for index, message in enumerate(messages) if message.role == role), None)
    if role == "system" and place != 0:
        return (Message(role="system", content=text), *messages)
    if place is None:
        return None
    said = messages[place]
    changed = said.model_copy(update={"content": f"{text}\n\n{said.content}"})
    return (*messages[:place], changed, *messages[place + 1 :])


def has_goal(messages: Sequence[Message], template: str) -> bool:
    """A turn begins with a goal of this template."""
    pattern = re.escape(template).replace(re.escape("{score}"), r"-?\d+(?:\.\d+)?")
    return any(re.match(pattern, message.content) for message in messages)


def goal_orders(
    chosen_score: float,
    rejected_score: float,
    *,
    drop_ties: bool = True,
    goals: Sequence[Goal] = ("chosen", "rejected"),
) -> list[tuple[float, bool]]:
    """(goal, order is kept) of each record that a pair becomes; none where its scores contradict it.

    Args:
        chosen_score: of the chosen answer.
        rejected_score: of the rejected one.
        drop_ties: equal scores give nothing, since the two records contradict each other.
        goals: the chosen answer's score keeps the order, the rejected one's swaps it.
    """
    if chosen_score < rejected_score or (drop_ties and chosen_score == rejected_score):
        return []
    return [(chosen_score, True) if goal == "chosen" else (rejected_score, False) for goal in goals]


@rule(writes=Example, roles=("chosen", "rejected"), reads_given=True)
def goal_labelled(
    group: Group,
    *,
    template: Template = "Target quality: {score} of 10.",
    placement: Placement = "system",
    drop_ties: bool = True,
    goals: tuple[Goal, ...] = ("chosen", "rejected"),
) -> Iterator[Example | Dropped]:
    """Every given pair with scores as one example a goal: asked for the lower score, the lower answer is the better.

    Args:
        group: a prompt with given preferences and a score for both answers.
        template: text of the goal, with {score} in it.
        placement: as a system turn, or before the first question for models without one.
        drop_ties: equal scores give nothing.
        goals: which records are made, in this order.
    """
    scored = scores(group)
    for judgment in group.judgments:
        two = _ordered(judgment)
        if two is None:
            continue
        if isinstance(two, Dropped):
            yield two
            continue
        if any(subject not in scored for subject in two):
            yield Dropped("answer without score")
            continue
        if group.text(two[0]) == group.text(two[1]):
            yield Dropped("same text")
            continue
        prompt = group.prompt_of(two[0])
        if has_goal(prompt.messages, template):
            yield Dropped("the prompt has a goal already")
            continue
        orders = goal_orders(scored[two[0]], scored[two[1]], drop_ties=drop_ties, goals=goals)
        if not orders:
            yield Dropped("tie" if scored[two[0]] == scored[two[1]] else "scores contradict the order")
        for goal, kept in orders:
            messages = with_goal(prompt.messages, goal_text(template, goal), placement)
            if messages is None:
                yield Dropped("no question to put a goal before")
                continue
            better, worse = two if kept else two[::-1]
            made = pair(
                group,
                member("chosen", group.by_id[better], score=scored[better]),
                member("rejected", group.by_id[worse], score=scored[worse]),
                why=f"goal_labelled: goal {goal:g}, {'order kept' if kept else 'order swapped'}",
                goal=goal,
            )
            yield made.model_copy(update={"prompt": prompt.derived(messages=messages)})


def _ordered(judgment: Judgment) -> tuple[str, str] | Dropped | None:
    """Better and worse answer of a preference; why there is none; None for another kind of judgment."""
    if judgment.kind != "preference" or len(judgment.subjects) != 2:
        return None
    sure = judgment.values[0]
    if sure is None:
        return Dropped("no verdict")
    if sure == 0.5:
        return Dropped("tie")
    first, second = judgment.subjects
    return (first, second) if sure > 0.5 else (second, first)
