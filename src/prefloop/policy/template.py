"""Conversations as token ids, by the model's own chat template; and answers, to ids and back."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.meta import find_undeclared_variables
from jinja2.parser import Parser
from pydantic import JsonValue
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from prefloop.errors import DataError, ModelError
from prefloop.policy.model_files import no_chat_template
from prefloop.policy.thinking import MARKERS, Said, ThinkingMarkers, num_thinking, thinking_markers
from prefloop.records import Message, Prompt

_FILLED_IN = frozenset({"messages", "tools", "add_generation_prompt", "raise_exception", "strftime_now"})
"""Template variables that are ours or transformers' to set."""
_QUESTION, _ANSWER = "Hi", "Hello"
"""Two plain turns, to see what the template writes around an answer."""
_NEUTRAL = ("\n", ".", "0")
"""What stands before an answer while it is tokenised, where a tokenizer treats the beginning of a text specially; the
first that does not merge with it."""
_SPELT = "\ufdd0"
"""Stands inside control tokens that somebody spelt out, while a template is filled; no text of Unicode contains it."""
_AT_BOUNDARY = 64
"""Characters behind a prompt that could merge with its end."""


@dataclass(frozen=True)
class WrittenAnswer:
    """A given answer as tokens that follow the generation prompt, without EOS."""

    token_ids: tuple[int, ...]
    num_template: int = 0
    """Tokens at its beginning that the template writes and nobody said, such as an empty thinking block (Qwen3)."""
    num_thinking: int = 0
    """Tokens at its beginning that are its thinking part."""


@dataclass(frozen=True)
class _Turn:
    """What the template writes around an answer."""

    before: str
    """The conversation with the generation prompt."""
    lead: str
    """Between the generation prompt and the answer: nothing, a space (Llama 2, Mistral), an empty thinking block."""
    closing: str
    """Behind the answer: EOS, as a rule, and perhaps a line break."""


@dataclass(frozen=True)
class ChatCodec:
    """Prompts and answers as token ids. Ids are the truth; text is for people and judges."""

    tokenizer: PreTrainedTokenizerBase
    chat_template_kwargs: Mapping[str, JsonValue]
    """Values for the template's own variables, such as enable_thinking."""
    eos_ids: frozenset[int]
    """An answer is over at any of these."""

    @classmethod
    def load(cls, directory: Path, chat_template_kwargs: Mapping[str, JsonValue]) -> "ChatCodec":
        """The codec of a model directory.

        Raises:
            ModelError: no tokenizer, no chat template, no EOS, or a setting that the template never reads.
        """
        try:
            tokenizer = AutoTokenizer.from_pretrained(directory)
        except (OSError, ValueError) as error:
            raise ModelError(f"{directory}: its tokenizer cannot be read: {str(error).splitlines()[0]}") from error
        if not tokenizer.chat_template:
            raise ModelError(no_chat_template(directory, str(directory)))
        eos_ids = _eos_ids(directory, tokenizer)
        if not eos_ids:
            raise ModelError(
                f"{directory}: neither its tokenizer nor generation_config.json names an EOS token, so no answer could "
                f"end. Set eos_token in {directory / 'tokenizer_config.json'}."
            )
        codec = cls(tokenizer, chat_template_kwargs, eos_ids)
        try:
            codec._require_known_kwargs(directory)
            codec = replace(codec, eos_ids=eos_ids | codec._written_eos)
            assert codec.eos_id in codec.eos_ids
        except TemplateError as error:
            raise ModelError(f"{directory}: its chat template fails on two plain turns: {error}. Repair it.") from error
        return codec

    @cached_property
    def eos_id(self) -> int:
        """The EOS that the template writes after an answer; a tokenizer's own may be another one (Phi-3, Gemma)."""
        closing = [token for token in self._control_ids(self._turn.closing) if token in self.eos_ids]
        own = _own_eos(self.tokenizer)
        return closing[0] if closing else min(own or self.eos_ids)

    @cached_property
    def closes_turns(self) -> bool:
        """Whether the template ends what the assistant said with EOS."""
        return not self.eos_ids.isdisjoint(self._control_ids(self._turn.closing))

    @property
    def closing(self) -> str:
        """What the template writes behind an answer: EOS, as a rule, and perhaps a line break."""
        return self._turn.closing

    @cached_property
    def markers(self) -> ThinkingMarkers | None:
        """Between which tokens the model thinks; None where its tokenizer has none."""
        return thinking_markers(self.tokenizer)

    @cached_property
    def control_ids(self) -> Mapping[int, str]:
        """The model's control tokens, by id."""
        added = self.tokenizer.added_tokens_decoder
        return {number: str(token) for number, token in added.items() if token.special}

    @cached_property
    def control_tokens(self) -> re.Pattern[str]:
        """Finds the model's control tokens in a text."""
        written = {*self.tokenizer.all_special_tokens, *self.control_ids.values()}
        return re.compile(
            "|".join(re.escape(token) for token in sorted(written, key=lambda token: (-len(token), token))) or "(?!)"
        )

    def prompt_ids(self, prompt: Prompt) -> tuple[int, ...]:
        """The conversation with the generation prompt, then the given beginning of the answer.

        Raises:
            DataError: the template refuses the conversation, or would drop a part of it unsaid; or the given beginning
                has ended already.
        """
        (ids,) = self.ids_of_rendered([self.rendered(prompt)])
        if ended := self.eos_ids.intersection(prompt.prefix_ids):
            raise DataError(
                f"{prompt.source or f'prompt {prompt.prompt_id}'}: the given beginning of its answer has EOS at token "
                f"{prompt.prefix_ids.index(min(ended))}, behind which nothing follows. Cut prefix_ids before it."
            )
        return ids + prompt.prefix_ids

    def rendered(self, prompt: Prompt, answer: Message | None = None) -> str:
        """The conversation as the template writes it: with the generation prompt, or with an answer to it.

        Raises:
            DataError: the template refuses the conversation, or would drop a part of it unsaid.
        """
        where = prompt.source or f"prompt {prompt.prompt_id}"
        if prompt.tools and "tools" not in self._variables:
            raise DataError(f"{where}: has tools, which the model's chat template never reads. Take another model.")
        if any(message.tool_calls for message in prompt.messages) and "tool_calls" not in self._template_text:
            raise DataError(f"{where}: has tool_calls, which the model's chat template drops. Take another model.")
        messages = prompt.messages if answer is None else (*prompt.messages, answer)
        try:
            return self._text(messages, tools=prompt.tools, add_generation_prompt=answer is None)
        except TemplateError as error:
            raise DataError(f"{where}: the model's chat template refuses this conversation: {error}") from error

    def ids_of_rendered(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Rendered conversations as token ids; BOS and other control tokens are those that the template wrote."""
        return self._encoded(texts, split_special_tokens=False)

    def conversation_ids(self, conversations: Sequence[tuple[Prompt, str]]) -> list[tuple[int, ...]]:
        """Prompts with an answer each as the template writes them, as token ids.

        A control token that is spelt out in a message stays text, as in `written`: nobody ends their turn by it.

        Raises:
            DataError: the template refuses a conversation, or would drop a part of it unsaid.
        """
        texts = [
            self.rendered(self._marked(prompt), Message(role="assistant", content=self._mark(answer)))
            for prompt, answer in conversations
        ]
        return [tuple(chain(*ids)) for ids in self._ids_of([self._told_apart(text) for text in texts])]

    def keeps_prompts(self, prompts: Sequence[str], answered: Sequence[str]) -> list[bool]:
        """Whether rendered conversations with an answer begin with the token ids of their rendered prompts.

        Where a prompt ends, only what stands between control tokens can merge, so that only this is tokenised again.
        """
        begins = [text.startswith(prompt) for prompt, text in zip(prompts, answered, strict=True)]
        ends = [self._end_of(prompt) for prompt in prompts]
        longer = [
            end + text[len(prompt) : len(prompt) + _AT_BOUNDARY]
            for end, prompt, text in zip(ends, prompts, answered, strict=True)
        ]
        of_ends = dict(zip(unique := list(dict.fromkeys(ends)), self.ids_of_rendered(unique), strict=True))
        return [
            begun and ids[: len(of_ends[end])] == of_ends[end]
            for begun, end, ids in zip(begins, ends, self.ids_of_rendered(longer), strict=True)
        ]

    def response_ids(self, text: str, *, finished: bool) -> tuple[int, ...]:
        """An answer's own tokens, and EOS if it ended by itself."""
        (written,) = self.written([("", text)])
        own = written.token_ids[written.num_template :]
        return (*own, self.eos_id) if finished else own

    def written(self, answers: Sequence[tuple[str, str]]) -> list[WrittenAnswer]:
        """Given answers, each a thinking part (or "") and a text, as tokens that follow the generation prompt.

        Tokenised apart from the prompt, so that none begins inside a merged token, but as in the middle of a text, so
        that no space comes before it that nobody wrote; a control token spelt out in an answer stays text.
        """
        pieces = [self._pieces(thinking, text) for thinking, text in answers]
        return [_joined(of_answer, ids) for of_answer, ids in zip(pieces, self._ids_of(pieces), strict=True)]

    def text_of(self, token_ids: Sequence[int]) -> str:
        """What tokens say, EOS and other control tokens left out, and the space with which the template begins."""
        spoken = [token for token in token_ids if token not in self.eos_ids]
        begun = len(self._decoded(self._anchor))
        text = self._decoded([*self._anchor, *spoken])[begun:]
        return text.removeprefix(self._turn.lead) if self._turn.lead.isspace() else text

    def token_text(self, token: int) -> str:
        """One token as text, control tokens too, with the space that belongs to it."""
        anchor = list(self._anchor)
        begun = len(self._decoded(anchor, skip_special_tokens=False))
        return self._decoded([*anchor, token], skip_special_tokens=False)[begun:]

    def num_thinking(self, token_ids: Sequence[int]) -> int:
        """Tokens at the beginning of an answer that belong to its thinking part."""
        return num_thinking(token_ids, self.markers, is_begun=self._prompt_thinks)[0]

    def said(self, token_ids: Sequence[int]) -> Said:
        """What a sampled answer says, its thinking part apart."""
        thought, is_cut = num_thinking(token_ids, self.markers, is_begun=self._prompt_thinks)
        if not thought:
            return Said(self.text_of(token_ids))
        assert self.markers is not None
        inside = [token for token in token_ids[:thought] if token not in {self.markers.begin_id, self.markers.end_id}]
        return Said(self.text_of(token_ids[thought:]).lstrip("\n"), self.text_of(inside).strip("\n"), thought, is_cut)

    @cached_property
    def _turn(self) -> _Turn:
        question = Message(role="user", content=_QUESTION)
        before = self._text((question,), add_generation_prompt=True)
        whole = self._text((question, Message(role="assistant", content=_ANSWER)), add_generation_prompt=False)
        at = whole.rfind(_ANSWER)
        lead = whole[len(before) : at] if whole.startswith(before) and at >= 0 else ""
        return _Turn(before, lead, whole[at + len(_ANSWER) :] if at >= 0 else whole)

    @cached_property
    def _prompt_thinks(self) -> bool:
        """The generation prompt ends inside a thinking part (DeepSeek-R1)."""
        markers = self.markers
        return markers is not None and self._turn.before.rfind(markers.begin) > self._turn.before.rfind(markers.end)

    @cached_property
    def _written_eos(self) -> frozenset[int]:
        """The control token that the template writes right behind an answer, which Gemma's tokenizer does not name."""
        return frozenset(token for token in self._control_ids(self._turn.closing)[:1] if token in self.control_ids)

    @cached_property
    def _begins_with_space(self) -> bool:
        """The tokenizer puts a space before a text (sentencepiece), which in a conversation nobody wrote."""
        before, *alone, one, two = self._encoded([_NEUTRAL[0], "a", "1", "\na", "\n1"], split_special_tokens=True)
        return [before + ids for ids in alone] != [one, two]

    @cached_property
    def _anchor(self) -> tuple[int, ...]:
        """What stands before tokens while they are decoded, where a decoder takes off a space at the beginning."""
        return self._encoded([_NEUTRAL[0]], split_special_tokens=True)[0] if self._begins_with_space else ()

    def _pieces(self, thinking: str, text: str) -> list["_Piece"]:
        """What is written after the generation prompt, piece by piece, so that control tokens stay apart from texts."""
        lead, markers = self._turn.lead, self.markers
        if thinking and markers is None:
            begin, end = MARKERS[0]
            thought = f"{lead if lead.isspace() else ''}{begin}\n{thinking}\n{end}"
            return [_Piece(thought, is_thinking=True), _Piece(f"\n\n{text}")]
        if thinking:
            assert markers is not None
            beginning = [] if self._prompt_thinks else [_Piece(markers.begin, is_spoken=False, is_thinking=True)]
            thought = f"{thinking}\n" if self._prompt_thinks else f"\n{thinking}\n"
            end = _Piece(markers.end, is_spoken=False, is_thinking=True)
            return [*beginning, _Piece(thought, is_thinking=True), end, _Piece(f"\n\n{text}")]
        if self._prompt_thinks:
            assert markers is not None
            return [_Piece(f"\n{markers.end}\n\n", is_spoken=False, is_template=True), _Piece(text)]
        if lead and not lead.isspace():
            return [_Piece(lead, is_spoken=False, is_template=True), _Piece(text)]
        return [_Piece(lead + text)]

    def _ids_of(self, texts: Sequence[Sequence["_Piece"]]) -> list[list[tuple[int, ...]]]:
        """Token ids of every piece of some texts."""
        spoken = [piece.text for pieces in texts for piece in pieces if piece.is_spoken]
        control = dict.fromkeys(piece.text for pieces in texts for piece in pieces if not piece.is_spoken)
        ids_of_spoken = iter(self._in_the_middle(spoken))
        ids_of_control = dict(zip(control, self.ids_of_rendered(list(control)), strict=True))
        return [
            [next(ids_of_spoken) if piece.is_spoken else ids_of_control[piece.text] for piece in pieces]
            for pieces in texts
        ]

    def _mark(self, text: str) -> str:
        return self.control_tokens.sub(lambda found: _SPELT.join(found[0]), text)

    def _marked(self, prompt: Prompt) -> Prompt:
        """The prompt with marks in the control tokens that its messages spell out."""
        if not any(self.control_tokens.search(message.content) for message in prompt.messages):
            return prompt
        messages = tuple(one.model_copy(update={"content": self._mark(one.content)}) for one in prompt.messages)
        return prompt.model_copy(update={"messages": messages})

    def _told_apart(self, rendered: str) -> list["_Piece"]:
        """A rendered conversation; what stands between two control tokens is a piece of its own where it has marks."""
        if _SPELT not in rendered:
            return [_Piece(rendered, is_spoken=False)]
        parts = re.split(f"({self.control_tokens.pattern})", rendered)
        return [
            _Piece("".join(some).replace(_SPELT, ""), is_spoken=spelt)
            for spelt, some in groupby(parts, lambda part: _SPELT in part)
        ]

    def _in_the_middle(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Texts as tokens, without a space before them that nobody wrote."""
        if not self._begins_with_space:
            return self._encoded(texts, split_special_tokens=True)
        found: dict[str, tuple[int, ...]] = {}
        for anchor in _NEUTRAL:
            left = [text for text in texts if text not in found]
            ((*before,), *after) = self._encoded([anchor, *(anchor + text for text in left)], split_special_tokens=True)
            for text, ids in zip(left, after, strict=True):
                if ids[: len(before)] == tuple(before):
                    found[text] = ids[len(before) :]
        return [found[text] if text in found else self._encoded([text], split_special_tokens=True)[0] for text in texts]

    def _encoded(self, texts: Sequence[str], *, split_special_tokens: bool) -> list[tuple[int, ...]]:
        if not texts:
            return []
        ids: Any = self.tokenizer(
            list(texts),
            add_special_tokens=False,
            split_special_tokens=split_special_tokens,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )["input_ids"]
        return [tuple(of_text) for of_text in ids]

    def _control_ids(self, text: str) -> tuple[int, ...]:
        (ids,) = self.ids_of_rendered([text])
        return ids

    def _decoded(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        text: Any = self.tokenizer.decode(
            list(token_ids), skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
        )
        return text

    def _end_of(self, prompt: str) -> str:
        """The end of a rendered prompt from its last control token on."""
        last = [found.start() for found in self.control_tokens.finditer(prompt)][-1:]
        return prompt[last[0] :] if last else prompt

    def _text(
        self, messages: Sequence[Message], *, tools: Sequence[JsonValue] = (), add_generation_prompt: bool
    ) -> str:
        # Fields at their defaults are left out: templates ask whether a message has "tool_calls" at all.
        conversation = [message.model_dump(mode="json", exclude_defaults=True) for message in messages]
        settings: dict[str, Any] = {**self.chat_template_kwargs, "tools": list(tools) or None}
        text: Any = self.tokenizer.apply_chat_template(
            conversation, add_generation_prompt=add_generation_prompt, tokenize=False, **settings
        )
        return text

    @cached_property
    def _template_text(self) -> str:
        template = self.tokenizer.chat_template
        return template if isinstance(template, str) else "\n".join(template.values())

    @cached_property
    def _variables(self) -> frozenset[str]:
        environment = Environment(extensions=[_GenerationBlock, loopcontrols], autoescape=False)
        return frozenset(find_undeclared_variables(environment.parse(self._template_text))) - set(environment.globals)

    def _require_known_kwargs(self, directory: Path) -> None:
        known = self._variables - _FILLED_IN - set(self.tokenizer.special_tokens_map)
        for key in self.chat_template_kwargs:
            if key not in known:
                raise ModelError(
                    f"{directory}: chat_template_kwargs.{key} has no effect: the chat template never reads it. "
                    f"{_listed(known)}"
                )


@dataclass(frozen=True)
class _Piece:
    """A part of an answer that is tokenised by itself."""

    text: str
    is_spoken: bool = True
    """Words of the answer; otherwise control tokens in it are read as such."""
    is_thinking: bool = False
    is_template: bool = False


def _joined(pieces: Sequence[_Piece], ids: Sequence[tuple[int, ...]]) -> WrittenAnswer:
    if len(pieces) == 1:
        return WrittenAnswer(ids[0])
    parts = list(zip(pieces, ids, strict=True))
    return WrittenAnswer(
        token_ids=tuple(token for _, of_piece in parts for token in of_piece),
        num_template=sum(len(of_piece) for piece, of_piece in parts if piece.is_template),
        num_thinking=sum(len(of_piece) for piece, of_piece in parts if piece.is_thinking),
    )


def _listed(known: Collection[str]) -> str:
    return f"It reads {', '.join(sorted(known))}." if known else "It reads no settings; remove the line."


def _eos_ids(directory: Path, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    file = directory / "generation_config.json"
    named = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id") if file.is_file() else None
    generation = named if isinstance(named, list) else [named]
    return frozenset(token for token in generation if token is not None) | _own_eos(tokenizer)


def _own_eos(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    own: Any = tokenizer.eos_token_id
    return frozenset() if own is None else frozenset({own})


class _GenerationBlock(Extension):
    """Reads transformers' `{% generation %}` block (it marks the assistant's words) as if its tags were not there."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)
