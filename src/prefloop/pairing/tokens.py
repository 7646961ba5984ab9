"""Answers as the policy's tokens, for rules that look inside of them; given answers are texts until a rule asks."""

from collections.abc import Sequence
from typing import Protocol

from prefloop.records import Prompt, Response


class Tokens(Protocol):
    """The policy's tokenizer and chat template. A rule whose second parameter is called `tokens` is handed it."""

    def prompt_ids(self, prompt: Prompt) -> tuple[int, ...]:
        """A conversation with the generation prompt, and the given beginning of the answer."""
        ...

    def response_ids(self, text: str, *, finished: bool) -> tuple[int, ...]:
        """A text as an answer, with EOS if it is finished."""
        ...

    def text_of(self, token_ids: Sequence[int]) -> str:
        """What tokens say, without control tokens."""
        ...


def ids_of(response: Response, tokens: Tokens) -> tuple[int, ...]:
    """An answer's tokens, EOS included: those that were sampled, or those that its text has for the policy."""
    if response.token_ids is not None:
        return response.token_ids
    return tokens.response_ids(response.text, finished=response.finish_reason != "length")
