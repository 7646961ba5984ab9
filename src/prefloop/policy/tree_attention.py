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
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from transformers import AttentionInterface, PreTrainedModel

from prefloop.policy.trees import Forest, Standing, may_see

NAME = "prefloop_trees"
BY_BLOCKS = frozenset({"cuda"})
"""Devices that attend to the whole sequence at once, by FlexAttention (arXiv:2412.05496); others segment by segment."""
PIECE = 128
"""Tokens of a segment that attend at once there, so that their scores stay few however long it is."""
BLOCK = 128
"""Tokens a side of FlexAttention's blocks. Sequences are padded to whole ones; shorter ones have another kernel."""
BEHIND = 2048
"""Tokens behind a segment there, from which on it is copied (`Forest.of`): going backward one program gathers what all
of them say of a block of keys, and the layer ends when the last program does."""
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

    def pieces(self) -> Iterator[tuple[slice, Tensor]]:
        """Every segment in pieces: where a piece's tokens stand, and the places of all tokens up to its last one."""
        for number, segment in enumerate(self.forest.segments):
            for start in range(segment.start, segment.end, PIECE):
                end = min(start + PIECE, segment.end)
                yield slice(start, end), self.path(number)[: segment.depth + end - segment.start]

    def hidden(self, own: slice, path: Tensor, window: int | None) -> Tensor:
        """What the tokens of a piece do not see of the end of its path; before that, each sees everything."""
        if window is not None and window >= len(path):
            window = None
        if (own.start, window) not in self.masks:
            standing, asking = self.standing(window), path[own.start - own.stop :]
            end = asking if window is None else path
            self.masks[own.start, window] = ~may_see(standing.at(asking[:, None]), standing.at(end))
        return self.masks[own.start, window]

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
    """Attention piece by piece, in float32 at least. Queries, keys and values are kept; going backward attends again.

    Kept instead, keys and values of every path would be several times as large, in pieces between which the memory of
    a process cannot be used again.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, rule: _Rule) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(query, key, value)
        ctx.rule = rule
        out = query.new_empty(*query.shape[:3], value.shape[3])
        for own, path in rule.passing.pieces():
            piece = _Piece.of(query, key, value, own, path, rule)
            out[0, :, own] = (piece.weights @ piece.values).view(-1, *out[0, 0, own].shape)
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        query, key, value = ctx.saved_tensors
        grads = [torch.zeros_like(states, dtype=_at_least_float32(states)) for states in (query, key, value)]
        for own, path in ctx.rule.passing.pieces():
            piece = _Piece.of(query, key, value, own, path, ctx.rule)
            of_out = _grouped(grad_out, own, len(piece.keys))
            of_weights = of_out @ piece.values.mT
            of_scores = of_weights.sub_((of_weights * piece.weights).sum(-1, keepdim=True)).mul_(piece.weights)
            if piece.slope is not None:
                of_scores *= piece.slope
            grads[0][0, :, own] = (of_scores @ piece.keys * piece.scaling).view(grads[0][0, :, own].shape)
            grads[1][0].index_add_(1, path, of_scores.mT @ piece.queries)
            grads[2][0].index_add_(1, path, piece.weights.mT @ of_out)
        of_query, of_key, of_value = (grad.to(query.dtype) for grad in grads)
        return of_query, of_key, of_value, None


@dataclass(frozen=True)
class _Piece:
    """What a few tokens of a segment see of their path and take of it; heads that share keys are one."""

    queries: Float[Tensor, "key_heads asking width"]
    """Scaled."""
    keys: Float[Tensor, "key_heads path width"]
    values: Float[Tensor, "key_heads path value_width"]
    weights: Float[Tensor, "key_heads asking path"]
    slope: Float[Tensor, "key_heads asking path"] | None
    """Of the soft cap, at each score."""
    scaling: float

    @classmethod
    def of(cls, query: Tensor, key: Tensor, value: Tensor, own: slice, path: Tensor, rule: _Rule) -> "_Piece":
        """The tokens `own` and their path."""
        scaling = query.shape[3] ** -0.5 if rule.scaling is None else rule.scaling
        keys, values = (in_float32(states[0].index_select(1, path)) for states in (key, value))
        queries = _grouped(query, own, len(keys)) * scaling
        scores, slope = queries @ keys.mT, None
        if rule.softcap is not None:
            capped = torch.tanh(scores / rule.softcap)
            scores, slope = rule.softcap * capped, 1 - capped * capped
        hidden = rule.passing.hidden(own, path, rule.window)
        by_head = scores.unflatten(1, (-1, len(hidden)))
        by_head[..., -hidden.shape[1] :].masked_fill_(hidden, -torch.inf)
        return cls(queries, keys, values, scores.softmax(-1), slope, scaling)


def _grouped(states: Tensor, own: slice, key_heads: int) -> Tensor:
    """Of (1, heads, tokens, width) some tokens, as (key_heads, heads that share keys x tokens, width)."""
    return in_float32(states[0, :, own].reshape(key_heads, -1, states.shape[3]))


def in_float32(states: Tensor) -> Tensor:
    """At least: layers may pass in bfloat16."""
    return states.to(_at_least_float32(states))


def _at_least_float32(states: Tensor) -> torch.dtype:
    return torch.promote_types(states.dtype, torch.float32)


AttentionInterface.register(NAME, _attend)
