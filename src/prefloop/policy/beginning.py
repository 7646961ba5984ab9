"""What many rows begin with - a system prompt, a greeting - and whether it may pass through the model once for all."""

from collections.abc import Sequence

from transformers import Cache
from transformers.cache_utils import DynamicLayer

WORTH_SHARING = 64
"""Tokens that a pass over the shared beginning must save."""


def shared_length(sequences: Sequence[tuple[int, ...]]) -> int:
    """Tokens that all sequences begin with, if a pass of its own pays; a token is left to each sequence."""
    first, last = min(sequences), max(sequences)
    longest = min(map(len, sequences)) - 1
    shared = next((n for n in range(longest) if first[n] != last[n]), longest)
    return shared if shared * (len(sequences) - 1) >= WORTH_SHARING else 0


def can_have_gaps(cache: Cache) -> bool:
    """Whether padding may stand between the beginning and the rest; a sliding window would count it."""
    return all(isinstance(layer, DynamicLayer) and not layer.is_sliding for layer in cache.layers)
