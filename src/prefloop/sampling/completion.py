"""A choice of an OpenAI-compatible completion, whichever server wrote it: text, tokens, log-probabilities, its end."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from prefloop.sampling.endpoints import BadAnswerError

_ROUNDING = 1e-3
"""Nats: log-probabilities above it are none."""
_AS_ID = "token_id:"
"""How vLLM writes a token where it is asked for ids."""


@dataclass(frozen=True)
class Completion:
    """One choice."""

    text: str
    is_cut: bool
    """It reached the limit of tokens."""
    stop_text: str | None
    """The stop text that ended it, where the server says so."""
    says_stop: bool
    """Whether the server says at all what ended it."""
    token_ids: tuple[int, ...] | None
    logps: tuple[float, ...] | None
    """Nats, one a token; None where the server gives none, or numbers that are none."""
    model: str | None
    """What the server says that answered."""
    top_probabilities: tuple[float, ...] = ()
    """At each position, the sum of the probabilities of the tokens that it lists."""


def completions(answer: Any, count: int) -> tuple[Completion, ...]:
    """The choices of an answer, by their index.

    Args:
        answer: the JSON of `/completions`.
        count: choices that were asked for.

    Raises:
        BadAnswerError: there are others, or one is no choice.
    """
    try:
        choices = sorted(answer["choices"], key=lambda choice: choice["index"])
        if [choice["index"] for choice in choices] != list(range(count)):
            raise BadAnswerError(f"answered with {len(choices)} choices, expected {count}")
        named = answer.get("model")
        return tuple(_completion(choice, named if isinstance(named, str) else None) for choice in choices)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        said = answer.get("error", answer) if isinstance(answer, dict) else answer
        raise BadAnswerError(f"answered with no completion: {said}") from error


def token_count(answer: Any, kind: Literal["prompt_tokens", "completion_tokens"]) -> int | None:
    """Tokens that the server read, or wrote in all choices; None where it does not say."""
    usage = answer.get("usage") if isinstance(answer, dict) else None
    count = usage.get(kind) if isinstance(usage, dict) else None
    return count if isinstance(count, int) else None


def _completion(choice: Mapping[str, Any], model: str | None) -> Completion:
    text, ended = choice["text"], choice["finish_reason"]
    if not isinstance(text, str) or ended not in {"stop", "length"}:
        raise ValueError(choice)
    told = choice.get("logprobs") or {}
    entries: Sequence[Mapping[str, Any]] | None = told.get("content")
    if entries is not None:  # as chat completions and llama.cpp write them
        logps = tuple(float(entry["logprob"]) for entry in entries)
        tops = [[float(top["logprob"]) for top in entry.get("top_logprobs") or ()] for entry in entries]
        ids = [entry.get("id") for entry in entries]
    else:
        given = told.get("token_logprobs")
        logps = None if given is None else tuple(float(logp) for logp in given)
        tops = [[float(logp) for logp in (top or {}).values()] for top in told.get("top_logprobs") or ()]
        written = [str(token) for token in told.get("tokens") or ()]
        ids = [int(token.removeprefix(_AS_ID)) if token.startswith(_AS_ID) else None for token in written]
    if not all(math.isfinite(logp) and logp <= _ROUNDING for logp in logps or ()):
        logps = None
    if not isinstance(given := choice.get("token_ids"), list):
        given = None if entries is None and told.get("token_logprobs") is None else ids
    known = [token for token in given or () if isinstance(token, int)]
    reason = choice.get("stop_reason", choice.get("matched_stop"))
    return Completion(
        text=text,
        is_cut=ended == "length",
        stop_text=reason if isinstance(reason, str) else None,
        says_stop="stop_reason" in choice or "matched_stop" in choice,
        token_ids=tuple(known) if given is not None and len(known) == len(given) else None,
        logps=logps,
        model=model,
        top_probabilities=tuple(sum(math.exp(min(logp, 1.0)) for logp in top) for top in tops),
    )
