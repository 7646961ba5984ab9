"""From examples to token rows: where the answer begins, which tokens count, and what becomes of too long ones.

The prompt's tokens are those of the template's rendering with the generation prompt, made once and shared by all
answers of an example. An answer's tokens follow them: sampled ones as they are, a text as `ChatCodec.written` has it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from prefloop.errors import DataError
from prefloop.policy.functionals import TokenRow
from prefloop.policy.shortening import assistant_spans, shortened
from prefloop.policy.template import ChatCodec, WrittenAnswer
from prefloop.records import Example, Member, Message, Prompt, Span

Truncation = Literal["drop", "cut_response", "cut_prompt_left"]
LossOn = Literal["last_turn", "all_turns"]


@dataclass(frozen=True)
class EncodingSettings:
    """What of an example becomes tokens, and which of them count."""

    max_length: int
    """Tokens of prompt and answer."""
    truncation: Truncation = "drop"
    """What becomes of longer ones."""
    loss_on: LossOn = "last_turn"
    """Whether the assistant's earlier turns, which stand in the prompt, count as well."""
    loss_on_thinking: bool = True
    """Whether the thinking part of an answer counts."""


@dataclass(frozen=True)
class Encoded:
    """An example as tokens, or why it is left out; reasons are codes of `data/problems.py`."""

    example: Example
    rows: tuple[TokenRow, ...] = ()
    """One a member, in their order; they share the prompt. None where the example is left out."""
    marked: tuple[tuple[bool, ...], ...] = ()
    """Which answer tokens lie in each member's marked spans."""
    left_out: str | None = None
    warned: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Answer:
    """The tokens of one member behind its prompt, with the spans of them that count and that are marked."""

    token_ids: tuple[int, ...]
    counted: tuple[bool, ...]
    marked: tuple[bool, ...]

    def cut(self, room: int) -> "_Answer":
        """Its first tokens; EOS, which is the last, is gone with the first that is cut."""
        return _Answer(self.token_ids[:room], self.counted[:room], self.marked[:room])


def encoded(examples: Sequence[Example], codec: ChatCodec, settings: EncodingSettings) -> Iterator[Encoded]:
    """Examples as tokens, in their order. All of them are tokenised together: give it about a thousand at a time."""
    prompts = _prompts(examples, codec)
    texts = [(member.thinking, member.text) for one in examples for member in one.members if member.token_ids is None]
    written = iter(codec.written(texts))
    keeps = iter(_keeps_prompts(examples, prompts, codec))
    for example in examples:
        answers = [_answer(example.prompt, member, written, codec, settings) for member in example.members]
        prompt = prompts[example.prompt.prompt_id]
        warned = () if all([next(keeps) for _ in example.members]) else ("not_a_prefix",)
        if prompt is None:
            yield Encoded(example, left_out="template_refuses")
        else:
            ids = prompt.token_ids + example.prompt.prefix_ids
            yield _fitted(Encoded(example, warned=warned), ids, answers, codec, settings)


@dataclass(frozen=True)
class _Prompt:
    text: str
    token_ids: tuple[int, ...]


def _prompts(examples: Sequence[Example], codec: ChatCodec) -> dict[str, _Prompt | None]:
    """Every prompt rendered once, without the given beginning of an answer; None where the template refuses it."""
    texts: dict[str, str] = {}
    found: dict[str, _Prompt | None] = {}
    for example in examples:
        if (prompt_id := example.prompt.prompt_id) not in found:
            found[prompt_id] = None
            try:
                texts[prompt_id] = codec.rendered(example.prompt)
            except DataError:
                continue
    ids = codec.ids_of_rendered(list(texts.values()))
    return found | {key: _Prompt(texts[key], of_prompt) for key, of_prompt in zip(texts, ids, strict=True)}


def _keeps_prompts(examples: Sequence[Example], prompts: dict[str, _Prompt | None], codec: ChatCodec) -> list[bool]:
    """For every member whether the template, once the answer follows, still begins with the tokens of the prompt."""
    rendered: list[str] = []
    answered: list[str] = []
    for example in examples:
        prompt = prompts[example.prompt.prompt_id]
        for member in example.members:
            rendered.append("" if prompt is None else prompt.text)
            answered.append("" if prompt is None else _answered(example.prompt, member, codec))
    return codec.keeps_prompts(rendered, answered)


def _answered(prompt: Prompt, member: Member, codec: ChatCodec) -> str:
    """The conversation with its answer; nothing where the template refuses it, as it may what it need not answer."""
    try:
        return codec.rendered(prompt, Message(role="assistant", content=member.text))
    except DataError:
        return ""


def _answer(
    prompt: Prompt, member: Member, written: Iterator[WrittenAnswer], codec: ChatCodec, settings: EncodingSettings
) -> _Answer:
    """A member's tokens: sampled ones are taken as they are, except an EOS that ended no answer."""
    prefix = len(prompt.prefix_ids)
    if member.token_ids is None:
        text = next(written)
        ids = (*text.token_ids, codec.eos_id) if member.finished else text.token_ids
        template, thought = text.num_template, text.num_thinking
    else:
        ids, template = member.token_ids[prefix:], 0
        thought = max(codec.num_thinking(member.token_ids) - prefix, 0)
        if not member.finished and ids and ids[-1] in codec.eos_ids:
            ids = ids[:-1]
    counted = [True] * len(ids) if member.counted is None else _covered(member.counted, prefix, len(ids))
    uncounted = template if settings.loss_on_thinking else template + thought
    counted[:uncounted] = [False] * min(uncounted, len(ids))
    return _Answer(ids, tuple(counted), tuple(_covered(member.marked, prefix, len(ids))))


def _covered(spans: Sequence[Span], num_prefix: int, num_tokens: int) -> list[bool]:
    """Which tokens behind a given prefix lie in some spans, which are counted from the prefix's first token."""
    covered = [False] * num_tokens
    for start, end in spans:
        for position in range(max(start - num_prefix, 0), min(end - num_prefix, num_tokens)):
            covered[position] = True
    return covered


def _fitted(
    made: Encoded,
    prompt_ids: tuple[int, ...],
    answers: Sequence[_Answer],
    codec: ChatCodec,
    settings: EncodingSettings,
) -> Encoded:
    """The rows of an example within the length limit."""
    prompt, warned = made.example.prompt, made.warned
    room, longest = settings.max_length - len(prompt_ids), max((len(one.token_ids) for one in answers), default=1)
    if longest > room:
        if settings.truncation == "cut_prompt_left":
            cut = shortened(prompt, codec, settings.max_length - longest - len(prompt.prefix_ids))
            if cut is None:
                return Encoded(made.example, left_out="too_long", warned=warned)
            prompt, prompt_ids = cut.prompt, cut.token_ids + prompt.prefix_ids
        elif room < 1:
            return Encoded(made.example, left_out="prompt_too_long", warned=warned)
        elif settings.truncation == "drop":
            return Encoded(made.example, left_out="too_long", warned=warned)
        else:
            answers = [one.cut(room) for one in answers]
        warned = (*warned, "cut")
    if not all(any(one.counted) for one in answers):
        return Encoded(made.example, left_out="nothing_left", warned=warned)
    if "cut" in warned and len({one.token_ids for one in answers}) < len(answers):
        return Encoded(made.example, left_out="identical_cut", warned=warned)
    earlier = assistant_spans(prompt, prompt_ids, codec) if settings.loss_on == "all_turns" else ()
    begin = earlier[0][0] if earlier else len(prompt_ids)
    turns = tuple(_covered(earlier, begin, len(prompt_ids) - begin))
    rows = tuple(
        TokenRow(prompt_ids[:begin], prompt_ids[begin:] + one.token_ids, turns + one.counted) for one in answers
    )
    marked = tuple((False,) * len(turns) + one.marked for one in answers)
    return Encoded(made.example, rows, marked, warned=warned)
