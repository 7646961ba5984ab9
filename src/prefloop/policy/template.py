"""Conversations as token ids, by the model's own chat template; and answers, to ids and back."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
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
from prefloop.records import Message, Prompt

_FILLED_IN = frozenset({"messages", "tools", "add_generation_prompt", "raise_exception", "strftime_now"})
"""Template variables that are ours or transformers' to set."""


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
            assert codec.eos_id in eos_ids
        except TemplateError as error:
            raise ModelError(f"{directory}: its chat template fails on two plain turns: {error}. Repair it.") from error
        return codec

    @cached_property
    def eos_id(self) -> int:
        """The EOS that the template writes after an answer; a tokenizer's own may be another one (Phi-3)."""
        turns = (Message(role="user", content="Hi"), Message(role="assistant", content="Hello"))
        closing = [token for token in self._rendered(turns, add_generation_prompt=False) if token in self.eos_ids]
        own = _own_eos(self.tokenizer)
        return closing[-1] if closing else min(own or self.eos_ids)

    def prompt_ids(self, prompt: Prompt) -> tuple[int, ...]:
        """The conversation with the generation prompt, then the given beginning of the answer.

        Raises:
            DataError: the template refuses the conversation, or would drop a part of it unsaid.
        """
        where = prompt.source or f"prompt {prompt.prompt_id}"
        if prompt.tools and "tools" not in self._variables:
            raise DataError(f"{where}: has tools, which the model's chat template never reads. Take another model.")
        if any(message.tool_calls for message in prompt.messages) and "tool_calls" not in self._template_text:
            raise DataError(f"{where}: has tool_calls, which the model's chat template drops. Take another model.")
        try:
            ids = self._rendered(prompt.messages, tools=prompt.tools, add_generation_prompt=True)
        except TemplateError as error:
            raise DataError(f"{where}: the model's chat template refuses this conversation: {error}") from error
        return ids + prompt.prefix_ids

    def response_ids(self, text: str, *, finished: bool) -> tuple[int, ...]:
        """An answer's own tokens, and EOS if it ended by itself.

        Tokenised apart from the prompt, so that it never begins inside a merged token; a control token spelt out in the
        text stays text.
        """
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return (*ids, self.eos_id) if finished else tuple(ids)

    def text_of(self, token_ids: Sequence[int]) -> str:
        """What an answer says, EOS and other control tokens left out."""
        spoken = [token for token in token_ids if token not in self.eos_ids]
        text: Any = self.tokenizer.decode(spoken, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _rendered(
        self, messages: Sequence[Message], *, tools: Sequence[JsonValue] = (), add_generation_prompt: bool
    ) -> tuple[int, ...]:
        # Fields at their defaults are left out: templates ask whether a message has "tool_calls" at all.
        conversation = [message.model_dump(mode="json", exclude_defaults=True) for message in messages]
        settings: dict[str, Any] = {**self.chat_template_kwargs, "tools": list(tools) or None}
        ids: Any = self.tokenizer.apply_chat_template(
            conversation, add_generation_prompt=add_generation_prompt, return_dict=False, **settings
        )
        return tuple(ids)

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
