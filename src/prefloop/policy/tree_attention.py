"""Attention in which a token sees its own path alone, put under the models of transformers while a forest passes.

Models that ask `AttentionInterface` for their attention take it without being changed: positions, soft-capping, windows
and grouped heads stay the model's own.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from prefloop.policy.trees import Forest

NAME = "prefloop_trees"
KNOWN = frozenset({"dropout", "position_ids", "position_bias", "use_cache", "output_attentions", "is_causal"})
"""Arguments that change nothing here where they are at rest: without dropout, in a causal model."""


@dataclass
class _Passing:
    """A forest on its way through a model, and the masks that its layers share."""

    forest: Forest
    device: torch.device
    masks: dict[tuple[int, int | None], Tensor] = field(default_factory=dict[tuple[int, int | None], Tensor])

    def mask(self, number: int, window: int | None) -> Tensor:
        """What the tokens of a segment see of its path."""
        if window is not None and window >= self.forest.segments[number].seen:
            window = None
        if (number, window) not in self.masks:
            self.masks[number, window] = self.forest.sees(number, window).to(self.device)
        return self.masks[number, window]


_PASSING: ContextVar[_Passing] = ContextVar("forest on its way through a model")


@contextmanager
def tree_attention(model: PreTrainedModel, forest: Forest) -> Generator[None]:
    """The model attends along the paths of a forest while this lasts."""
    configs = {id(config): config for config in (model.config, model.config.get_text_config())}.values()
    before = [config._attn_implementation for config in configs]  # pyright: ignore[reportPrivateUsage]
    token = _PASSING.set(_Passing(forest, model.device))
    try:
        for config in configs:
            config._attn_implementation = NAME  # pyright: ignore[reportPrivateUsage]
        yield
    finally:
        for config, name in zip(configs, before, strict=True):
            config._attn_implementation = name  # pyright: ignore[reportPrivateUsage]
        _PASSING.reset(token)


def _attend(
    _module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention of one layer: (1, heads, tokens, width) each, keys and values with fewer heads where heads are grouped.

    Returns (1, tokens, heads, width), as every attention function of transformers does.
    """
    unknown = [name for name, given in others.items() if given is not None and name not in KNOWN]
    if attention_mask is not None or unknown:
        raise NotImplementedError(f"attention with {', '.join(unknown) or 'a mask of its own'}")
    passing = _PASSING.get()
    segments = passing.forest.segments
    groups = query.shape[1] // key.shape[1]
    keys, values = (_parts(states, passing.forest, groups) for states in (key, value))
    attended: list[Tensor] = []
    for number, own in enumerate(query.split([one.length for one in segments], dim=2)):
        path = (*segments[number].ancestors, number)
        seen = torch.cat([keys[one] for one in path], 2), torch.cat([values[one] for one in path], 2)
        attended.append(_softmax_of(own, *seen, passing.mask(number, sliding_window), scaling, softcap))
    return torch.cat(attended, 2).transpose(1, 2), None


def _parts(states: Tensor, forest: Forest, groups: int) -> Sequence[Tensor]:
    """Keys or values of each segment, repeated for every head that reads them."""
    repeated = states.repeat_interleave(groups, dim=1) if groups > 1 else states
    return repeated.split([one.length for one in forest.segments], dim=2)


def _softmax_of(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float | None, softcap: float | None
) -> Tensor:
    if softcap is None:
        return nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = (softcap * torch.tanh(scores / softcap)).masked_fill(~mask, -torch.inf)
    return scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(value.dtype) @ value


AttentionInterface.register(NAME, _attend)
