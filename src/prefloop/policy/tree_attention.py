"""Attention in which a token sees its own path alone, put under the models of transformers while a forest passes.

Models that ask `AttentionInterface` for their attention take it without being changed: positions, soft-capping, windows
and grouped heads stay the model's own.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from prefloop.policy.trees import Forest

NAME = "prefloop_trees"
KNOWN = frozenset({"dropout", "position_ids", "use_cache", "output_attentions", "is_causal"})
"""Arguments that change nothing here where they are at rest: without dropout, in a causal model."""


@dataclass
class _Passing:
    """A forest on its way through a model, with the masks and paths that its layers share."""

    forest: Forest
    device: torch.device
    masks: dict[tuple[int, int | None], Tensor] = field(default_factory=dict[tuple[int, int | None], Tensor])
    paths: dict[int, Tensor] = field(default_factory=dict[int, Tensor])

    def path(self, number: int) -> Tensor:
        """Places of the tokens on the path that ends with a segment."""
        if number not in self.paths:
            self.paths[number] = self.forest.path(number).to(self.device)
        return self.paths[number]

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
    attended: Tensor = _AlongPaths.apply(query, key, value, _Rule(_PASSING.get(), scaling, sliding_window, softcap))
    return attended.transpose(1, 2), None


@dataclass(frozen=True)
class _Rule:
    """How one layer attends along the paths of a forest."""

    passing: _Passing
    scaling: float | None
    window: int | None
    softcap: float | None

    def segment(self, number: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """What a segment's tokens take from their path."""
        groups = query.shape[1] // key.shape[1]
        if groups > 1:
            key, value = (states.repeat_interleave(groups, dim=1) for states in (key, value))
        return _softmax_of(query, key, value, self.passing.mask(number, self.window), self.scaling, self.softcap)


class _AlongPaths(torch.autograd.Function):
    """Attention segment by segment. Only queries, keys and values are kept; going backward attends again.

    Kept instead, keys and values of every path would be several times as large, in pieces between which the memory of
    a process cannot be used again.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, rule: _Rule) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(query, key, value)
        ctx.rule = rule
        out = query.new_empty(*query.shape[:3], value.shape[3])
        for number, own, path in _parts(rule.passing):
            seen = (states.index_select(2, path) for states in (key, value))
            out[:, :, own] = rule.segment(number, query[:, :, own], *seen)
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        query, key, value = ctx.saved_tensors
        grads = [torch.zeros_like(states) for states in (query, key, value)]
        for number, own, path in _parts(ctx.rule.passing):
            used = [query[:, :, own], *(states.index_select(2, path) for states in (key, value))]
            used = [states.detach().requires_grad_(True) for states in used]
            with torch.enable_grad():
                out = ctx.rule.segment(number, *used)
            of_query, of_key, of_value = torch.autograd.grad(out, used, grad_out[:, :, own])
            grads[0][:, :, own] = of_query
            grads[1].index_add_(2, path, of_key)
            grads[2].index_add_(2, path, of_value)
        return grads[0], grads[1], grads[2], None


def _parts(passing: _Passing) -> Iterator[tuple[int, slice, Tensor]]:
    """Each segment: its number, its tokens, and the places of all tokens on its path."""
    for number, segment in enumerate(passing.forest.segments):
        yield number, slice(segment.start, segment.end), passing.path(number)


def _softmax_of(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float | None, softcap: float | None
) -> Tensor:
    if softcap is None:
        return nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = (softcap * torch.tanh(scores / softcap)).masked_fill(~mask, -torch.inf)
    return scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(value.dtype) @ value


AttentionInterface.register(NAME, _attend)
