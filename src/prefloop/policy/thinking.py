"""The thinking part of an answer: which tokens begin and end it, and what an answer says apart from it."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

MARKERS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"))
"""What tokenizers call the beginning and the end of a thinking part (Qwen3 and DeepSeek-R1, Magistral)."""


@dataclass(frozen=True)
class ThinkingMarkers:
    """The two tokens of a tokenizer between which its model thinks."""

    begin: str
    end: str
    begin_id: int
    end_id: int


@dataclass(frozen=True)
class Said:
    """What an answer's tokens say."""

    text: str
    """Without the thinking part, EOS and other control tokens."""
    thinking: str = ""
    num_thinking: int = 0
    """Tokens of the thinking part, its markers included; they begin the answer."""
    is_cut: bool = False
    """It began to think and did not end: nothing was answered, whatever stopped it."""


def thinking_markers(tokenizer: PreTrainedTokenizerBase) -> ThinkingMarkers | None:
    """The markers that a tokenizer has as tokens of their own; None where it has none."""
    known: dict[str, int] = tokenizer.get_added_vocab()  # pyright: ignore[reportCallIssue, reportOptionalCall]
    for begin, end in MARKERS:
        if begin in known and end in known:
            return ThinkingMarkers(begin, end, known[begin], known[end])
    return None


def num_thinking(token_ids: Sequence[int], markers: ThinkingMarkers | None, *, is_begun: bool) -> tuple[int, bool]:
    """How many tokens at the beginning of an answer belong to its thinking part, and whether that part has no end.

    Args:
        token_ids: the answer.
        markers: of its tokenizer.
        is_begun: the prompt ends inside a thinking part (DeepSeek-R1), so that the answer lacks the first marker.
    """
    if markers is None or not (is_begun or markers.begin_id in token_ids[:1]):
        return 0, False
    if markers.end_id not in token_ids:
        return len(token_ids), True
    return token_ids.index(markers.end_id) + 1, False
