"""Attention in which a token sees its own path alone, put under the models of transformers while a forest passes.

Models that ask `AttentionInterface` for their attention take it without being changed: positions, soft-capping, windows
and grouped heads stay the model's own.
"""

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from transformers import AttentionInterface, PreTrainedModel

from prefloop.policy.trees import Forest, Standing, may_see

NAME = "prefloop_trees"
BY_BLOCKS = frozenset({"cuda"})
"""Devices that attend to the whole sequence at once, by FlexAttention (arXiv:2412.05496); others segment by segment."""
BLOCK = 128
"""Tokens a side of FlexAttention's blocks. Sequences are padded to whole ones; shorter ones have another kernel."""
KERNELS = 64
"""That a process may compile."""
NARROWEST = 16
"""Width of a head below which FlexAttention has no kernel."""
KNOWN = frozenset({"dropout", "position_ids", "use_cache", "output_attentions", "is_causal"})
"""Arguments that change nothing here where they are at rest: without dropout, in a causal model."""


@dataclass
class _Passing:
    """A forest on its way through a model, with the masks and paths that its layers share."""

    forest: Forest
    device: torch.device
    kept: list[tuple[Tensor, Tensor]] | None = None
    masks: dict[tuple[int, int | None], Tensor] = field(default_factory=dict[tuple[int, int | None], Tensor])
    paths: dict[int, Tensor] = field(default_factory=dict[int, Tensor])
    standings: dict[int | None, Standing] = field(default_factory=dict[int | None, Standing])
    blocks: dict[int | None, BlockMask] = field(default_factory=dict[int | None, BlockMask])

    def path(self, number: int) -> Tensor:
        """Places of the tokens on the path that ends with a segment."""
        if number not in self.paths:
            self.paths[number] = self.forest.path(number).to(self.device)
        return self.paths[number]

    def standing(self, window: int | None) -> Standing:
        """Where every token stands."""
        if window not in self.standings:
            self.standings[window] = self.forest.standing(window).to(self.device)
        return self.standings[window]

    def mask(self, number: int, window: int | None) -> Tensor:
        """What the tokens of a segment see of its path."""
        segment = self.forest.segments[number]
        if window is not None and window >= segment.seen:
            window = None
        if (number, window) not in self.masks:
            own = torch.arange(segment.start, segment.end, device=self.device)
            standing = self.standing(window)
            self.masks[number, window] = may_see(standing.at(own[:, None]), standing.at(self.path(number)[None, :]))
        return self.masks[number, window]

    def block_mask(self, window: int | None) -> BlockMask:
        """What is seen between the blocks of the padded sequence, as FlexAttention takes it.

        While it is made, a truth value for every two tokens stands in memory.
        """
        if window not in self.blocks:
            self.blocks[window] = block_mask(padded(self.standing(window)))
        return self.blocks[window]


def padded(standing: Standing) -> Standing:
    """Tokens that fill the last block stand behind the others; each sees itself, so that no softmax is empty."""
    place, reach, depth, horizon = standing
    filling = torch.arange(len(place), len(place) + filling_of(len(place)), device=place.device)
    none = torch.zeros_like(filling)
    return Standing(
        torch.cat((place, filling)),
        torch.cat((reach, filling + 1)),
        torch.cat((depth, none)),
        None if horizon is None else torch.cat((horizon, none)),
    )


def filling_of(tokens: int) -> int:
    """Tokens that the last block lacks."""
    return -tokens % BLOCK


def block_mask(standing: Standing) -> BlockMask:
    """Who sees whom among tokens that fill blocks."""
    tokens = len(standing.place)
    return create_block_mask(
        lambda _batch, _head, query, key: may_see(standing.at(query), standing.at(key)),
        B=None,
        H=None,
        Q_LEN=tokens,
        KV_LEN=tokens,
        device=standing.place.device,
        BLOCK_SIZE=BLOCK,
    )


@cache
def compiled_flex_attention() -> Callable[..., Tensor]:
    """FlexAttention, compiled for the first sequence and once more for all other lengths.

    So it is for each precision, with gradient and without, with a window and without, and for each soft cap and each
    number of grouped heads: a model with windows in some layers has more kernels than PyTorch makes of its own accord.
    """
    settings = torch._dynamo.config  # pyright: ignore[reportPrivateUsage]
    settings.recompile_limit = max(settings.recompile_limit, KERNELS)
    return torch.compile(flex_attention, dynamic=True, fullgraph=True)


_PASSING: ContextVar[_Passing] = ContextVar("forest on its way through a model")


@contextmanager
def tree_attention(
    model: PreTrainedModel, forest: Forest, kept: list[tuple[Tensor, Tensor]] | None = None
) -> Generator[None]:
    """The model attends along the paths of a forest while this lasts.

    Args:
        model: that attends.
        forest: that passes.
        kept: gets the keys and the values of each layer, as (heads, tokens, width).
    """
    with _under(model, _Passing(forest, model.device, kept)):
        yield


def as_now(model: PreTrainedModel) -> AbstractContextManager[None]:
    """A way to have the model attend once more as it does now: its layers are computed again when this is over."""
    passing = _PASSING.get(None)
    return nullcontext() if passing is None else _under(model, passing)


@contextmanager
def _under(model: PreTrainedModel, passing: _Passing) -> Generator[None]:
    token = _PASSING.set(passing)
    try:
        with attention_called(NAME, model):
            yield
    finally:
        _PASSING.reset(token)


@contextmanager
def attention_called(name: str, model: PreTrainedModel) -> Generator[None]:
    """The model asks for a registered attention while this lasts."""
    configs = {id(config): config for config in (model.config, model.config.get_text_config())}.values()
    before = [config._attn_implementation for config in configs]  # pyright: ignore[reportPrivateUsage]
    try:
        for config in configs:
            config._attn_implementation = name  # pyright: ignore[reportPrivateUsage]
        yield
    finally:
        for config, own in zip(configs, before, strict=True):
            config._attn_implementation = own  # pyright: ignore[reportPrivateUsage]


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
    require_known(attention_mask, others)
    passing = _PASSING.get()
    rule = _Rule(passing, scaling, sliding_window, softcap)
    query, key, value = _alike(query, key, value)
    if passing.kept is not None:
        passing.kept.append((key[0], value[0]))
    attend = _by_blocks if _has_kernel(query, value) else _AlongPaths.apply
    attended: Tensor = attend(query, key, value, rule)
    return attended.transpose(1, 2), None


def require_known(attention_mask: Tensor | None, others: Mapping[str, Any]) -> None:
    """Nothing is asked of attention that would be ignored (NotImplementedError where it is)."""
    unknown = [name for name, given in others.items() if given is not None and name not in KNOWN]
    if attention_mask is not None or unknown:
        raise NotImplementedError(f"attention with {', '.join(unknown) or 'a mask of its own'}")


def _alike(*states: Tensor) -> list[Tensor]:
    """Queries, keys and values in one precision: that of autocast, which a norm of one of them may have left."""
    device = states[0].device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else states[0].dtype
    return [one.to(dtype) for one in states]


def _has_kernel(query: Tensor, value: Tensor) -> bool:
    narrowest = min(query.shape[-1], value.shape[-1])
    return query.device.type in BY_BLOCKS and narrowest >= NARROWEST and query.dtype != torch.float64


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


def _by_blocks(query: Tensor, key: Tensor, value: Tensor, rule: _Rule) -> Tensor:
    """Attention of the whole sequence by FlexAttention; what pads it is cut off again."""
    cap = torch.tensor(rule.softcap or 0.0, dtype=_at_least_float32(query), device=query.device)
    capped = None if rule.softcap is None else lambda score, *_where: cap * torch.tanh(score / cap)
    filled = (nn.functional.pad(states, (0, 0, 0, filling_of(states.shape[2]))) for states in (query, key, value))
    attended = compiled_flex_attention()(
        *filled,
        score_mod=capped,
        block_mask=rule.passing.block_mask(rule.window),
        scale=rule.scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return attended[:, :, : query.shape[2]]


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
        grads = [torch.zeros_like(states, dtype=_at_least_float32(states)) for states in (query, key, value)]
        for number, own, path in _parts(ctx.rule.passing):
            used = [query[:, :, own], *(states.index_select(2, path) for states in (key, value))]
            used = [states.detach().requires_grad_(True) for states in used]
            with torch.enable_grad():
                out = ctx.rule.segment(number, *used)
            of_query, of_key, of_value = torch.autograd.grad(out, used, grad_out[:, :, own])
            grads[0][:, :, own] = of_query
            grads[1].index_add_(2, path, of_key.to(grads[1].dtype))
            grads[2].index_add_(2, path, of_value.to(grads[2].dtype))
        of_query, of_key, of_value = (grad.to(query.dtype) for grad in grads)
        return of_query, of_key, of_value, None


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
    return scores.softmax(-1, dtype=_at_least_float32(scores)).to(value.dtype) @ value


def _at_least_float32(states: Tensor) -> torch.dtype:
    return torch.promote_types(states.dtype, torch.float32)


AttentionInterface.register(NAME, _attend)
