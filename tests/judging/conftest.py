"""Answers to judge."""

from prefloop.records import Message, Prompt, Response

PROMPT = Prompt.of((Message(role="user", content="How was it?"),), source="mine.jsonl:3")


def answer(text: str, prompt: Prompt = PROMPT, *, tokens: int = 4, name: str = "r") -> Response:
    return Response(
        response_id=name,
        prompt_id=prompt.prompt_id,
        root_id=prompt.root_id,
        step="samples",
        text=text,
        token_ids=(0,) * tokens,
        finish_reason="stop",
    )
