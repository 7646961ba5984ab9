"""Conversations of several questions: what is asked after an answer."""

from prefloop.records import Message, Prompt, Response

TURN = "turn"
"""Label of a prompt: which of its question's turns it asks, from 2."""


def next_turn(prompt: Prompt, response: Response) -> Prompt | None:
    """The prompt that follows an answer, the conversation so far and the user's next turn; None where that is none."""
    if not prompt.later:
        return None
    coming, *rest = prompt.later
    labels = dict(prompt.labels or {})
    said = (Message(role="assistant", content=response.text), Message(role="user", content=coming.content))
    asked = Prompt.of(
        (*prompt.messages, *said),
        source=prompt.source,
        root_id=prompt.prompt_id if TURN not in labels else prompt.root_id,
        answer=coming.answer,
        tools=prompt.tools,
        numbers=prompt.numbers,
    )
    turn = str(int(labels.get(TURN, "1")) + 1)
    return asked.model_copy(
        update={"later": tuple(rest) or None, "labels": {**labels, TURN: turn}, "part": prompt.part}
    )
