"""Prompts that are too long, shortened where it hurts least; and where the assistant's earlier turns stand in them."""

from dataclasses import dataclass
from itertools import takewhile

from prefloop.errors import DataError, ModelError
from prefloop.policy.template import ChatCodec
from prefloop.records import Message, Prompt, Span

_PROBES = ("0", "x")
"""Two contents that begin and end differently: what their renderings share, the template has written."""


@dataclass(frozen=True)
class Shortened:
    """A prompt that fits."""

    prompt: Prompt
    """With the turns that are left."""
    token_ids: tuple[int, ...]
    """With the generation prompt, without the given beginning of an answer."""


def shortened(prompt: Prompt, codec: ChatCodec, room: int) -> Shortened | None:
    """A prompt cut to some tokens; None where not even one token of its last question fits.

    Whole turns go, the oldest first, so that what is left is a conversation as the template writes it: it begins with a
    turn of the user, and the system turn stays. Where the last question alone is too long, its oldest tokens go. BOS,
    the system turn, the headers of turns and the generation prompt are never cut.
    """
    system = prompt.messages[:1] if prompt.messages[:1] and prompt.messages[0].role == "system" else ()
    turns = prompt.messages[len(system) :]
    starts = [number for number, turn in enumerate(turns) if turn.role == "user"]
    left = prompt
    for start in starts:
        left = prompt.model_copy(update={"messages": (*system, *turns[start:])})
        try:
            ids = _ids(left, codec)
        except DataError:
            return None
        if len(ids) <= room:
            return Shortened(left, ids)
    return _cut_question(left, len(system), codec, room) if starts else None


def _cut_question(prompt: Prompt, number: int, codec: ChatCodec, room: int) -> Shortened | None:
    """A conversation of one question, with so many of the question's last tokens as fit."""
    whole = _ids(prompt, codec)
    others = [_ids(_with_content(prompt, number, probe), codec) for probe in _PROBES]
    header = min(_shared(whole, other) for other in others)
    closing = min(_shared(whole[header:][::-1], other[header:][::-1]) for other in others)
    fits = room - header - closing
    if fits < 1:
        return None
    content = whole[header : len(whole) - closing]
    return Shortened(prompt, whole[:header] + content[-fits:] + whole[len(whole) - closing :])


def assistant_spans(prompt: Prompt, prompt_ids: tuple[int, ...], codec: ChatCodec) -> tuple[Span, ...]:
    """Tokens of the assistant's turns in a prompt, each from behind its header to its EOS.

    A turn is found where the conversation before it, with the generation prompt, is a beginning of the whole one; a
    template that writes earlier turns differently (Qwen3 leaves out what was thought) may hide one, which then does
    not count.

    Raises:
        ModelError: the template does not say where the assistant's turns end.
    """
    if not codec.closes_turns:
        raise ModelError("loss_on: all_turns: the model's chat template ends no turn with EOS. Use last_turn.")
    spans: list[Span] = []
    for number, message in enumerate(prompt.messages):
        if message.role != "assistant" or not number:
            continue
        try:
            before = _ids(prompt.model_copy(update={"messages": prompt.messages[:number]}), codec)
        except DataError:
            continue
        start = len(before)
        if prompt_ids[:start] == before:
            length = sum(1 for _ in takewhile(lambda token: token not in codec.eos_ids, prompt_ids[start:]))
            spans.append((start, min(start + length + 1, len(prompt_ids))))
    return tuple(spans)


def _ids(prompt: Prompt, codec: ChatCodec) -> tuple[int, ...]:
    (ids,) = codec.ids_of_rendered([codec.rendered(prompt)])
    return ids


def _with_content(prompt: Prompt, number: int, content: str) -> Prompt:
    messages = list(prompt.messages)
    messages[number] = Message.model_validate({**messages[number].model_dump(), "content": content})
    return prompt.model_copy(update={"messages": tuple(messages)})


def _shared(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
