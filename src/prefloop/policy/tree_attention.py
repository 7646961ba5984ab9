"""Attention in which a token sees its own path alone, put under the models of transformers while a forest passes.

Models that ask `AttentionInterface` for their attention take it without being changed: positions, soft-capping, windows
and grouped heads stay the model's own.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from transformers import AttentionInterface, PreTrainedModel

from prefloop.policy.trees import Forest, Standing, may_see

NAME = "prefloop_trees"
BY_BLOCKS = frozenset({"cuda"})
"""Devices that attend to the whole sequence at once, by FlexAttention (arXiv:2412.05496); others segment by segment."""
PIECE = 128
"""Tokens that attend at once there, so that their scores stay few however long a segment is."""
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
    paths: "dict[_Piece, _Path]" = field(default_factory=lambda: {})
    biases: "dict[tuple[_Piece, int | None], Tensor]" = field(default_factory=lambda: {})
    standings: dict[int | None, Standing] = field(default_factory=dict[int | None, Standing])
    blocks: dict[int | None, BlockMask] = field(default_factory=dict[int | None, BlockMask])

    def standing(self, window: int | None) -> Standing:
        """Where every token stands."""
        if window not in self.standings:
            self.standings[window] = self.forest.standing(window).to(self.device)
        return self.standings[window]

    @cached_property
    def pieces(self) -> "list[_Piece]":
        """All tokens in pieces: parts of a segment, or short segments that grow side by side from the same one."""
        found: list[_Piece] = []
        for number, segment in enumerate(self.forest.segments):
            last = found[-1] if found else None
            beside = last is not None and segment.ancestors == self.forest.segments[last.segment].ancestors
            if last is not None and beside and last.whole and segment.end - last.start <= PIECE:
                found[-1] = replace(last, end=segment.end)
                continue
            whole = segment.length <= PIECE
            for start in range(segment.start, segment.end, PIECE):
                found.append(_Piece(start, min(start + PIECE, segment.end), number, whole))
        return found

    def path_of(self, piece: "_Piece") -> "_Path":
        """Where the tokens stand up to the last one of a piece."""
        if piece not in self.paths:
            *before, segment = self.forest.passed(piece.segment)
            self.paths[piece] = _Path.of([*((one.start, one.end) for one in before), (segment.start, piece.end)])
        return self.paths[piece]

    def bias(self, piece: "_Piece", window: int | None, dtype: torch.dtype) -> Float[Tensor, "asking 1 end"]:
        """What is added to the scores of a piece with the end of its path; with what is before, nothing is."""
        path = self.path_of(piece)
        if window is not None and window >= len(path):
            window = None
        if (piece, window) not in self.biases:
            standing, places = self.standing(window), path.places().to(self.device)
            asking = places[piece.start - piece.end :]
            end = asking if window is None else places
            hidden = ~may_see(standing.at(asking[:, None]), standing.at(end))
            bias = torch.zeros(hidden.shape, dtype=dtype, device=self.device).masked_fill_(hidden, -torch.inf)
            self.biases[piece, window] = bias[:, None]
        return self.biases[piece, window]

    def block_mask(self, window: int | None) -> BlockMask:
        """What is seen between the blocks of the padded sequence, as FlexAttention takes it.

        While it is made, a truth value for every two tokens stands in memory.
        """
        if window not in self.blocks:
            self.blocks[window] = block_mask(padded(self.standing(window)))
        return self.blocks[window]


@dataclass(frozen=True)
class _Piece:
    """Tokens of a segment, or of several side by side, that attend at once."""

    start: int
    end: int
    """Behind the last one."""
    segment: int
    """Its first one."""
    whole: bool
    """Nothing of it is in another piece."""

    @property
    def own(self) -> slice:
        """Where they stand."""
        return slice(self.start, self.end)


@dataclass(frozen=True)
class _Path:
    """The tokens that lead to one, in parts that stand in a row."""

    parts: tuple[tuple[slice, slice], ...]
    """Of each part where it stands in the sequence, and where on the path."""

    @classmethod
    def of(cls, ranges: Sequence[tuple[int, int]]) -> "_Path":
        """A path through ranges of places; those that follow one another are one part."""
        merged: list[tuple[int, int]] = []
        for start, end in ranges:
            begun = merged.pop()[0] if merged and merged[-1][1] == start else start
            merged.append((begun, end))
        ends = list(accumulate(end - start for start, end in merged))
        parts = ((slice(*one), slice(end - one[1] + one[0], end)) for one, end in zip(merged, ends, strict=True))
        return cls(tuple(parts))

    def __len__(self) -> int:
        return self.parts[-1][1].stop

    def places(self) -> Int[Tensor, " path"]:
        """Of its tokens in the sequence."""
        return torch.cat([torch.arange(where.start, where.stop) for where, _ in self.parts])

    def seen(self, states: Float[Tensor, "heads tokens width"]) -> Float[Tensor, "heads path width"]:
        """What belongs to its tokens."""
        found = [states[:, where] for where, _ in self.parts]
        return found[0] if len(found) == 1 else torch.cat(found, dim=1)

    def add(
        self,
        total: Float[Tensor, "heads tokens width"],
        shares: Float[Tensor, "heads asking path"],
        of_each: Float[Tensor, "heads asking width"],
    ) -> None:
        """Adds to each of its tokens its shares of what there is of those that ask."""
        for where, own in self.parts:
            total[:, where].baddbmm_(shares[:, :, own].mT, of_each)


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
    attended = (
        _by_blocks(query, key, value, rule) if _has_kernel(query, value) else _along_paths(query, key, value, rule)
    )
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

    def scale(self, query: Tensor) -> float:
        """Of scores."""
        return query.shape[3] ** -0.5 if self.scaling is None else self.scaling


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


def _along_paths(query: Tensor, key: Tensor, value: Tensor, rule: _Rule) -> Tensor:
    with torch.autocast(query.device.type, enabled=False):
        return _AlongPaths.apply(query, key, value, rule)


class _AlongPaths(torch.autograd.Function):
    """Attention piece by piece, in float32 at least. Queries, keys and values are kept; going backward attends again.

    Kept instead, keys and values of every path would be several times as large, in pieces between which the memory of
    a process cannot be used again.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, rule: _Rule) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(query, key, value)
        ctx.rule = rule
        states = _States.of(query, key, value, rule)
        out = states.queries.new_empty(*states.queries.shape[:3], value.shape[3])
        for piece in rule.passing.pieces:
            weights, _ = states.attended(piece, rule)
            torch.bmm(weights, rule.passing.path_of(piece).seen(states.values), out=_rows(out, piece))
        return _by_head(out, query.dtype)

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        query, key, value = ctx.saved_tensors
        states, passing = _States.of(query, key, value, ctx.rule), ctx.rule.passing
        outs, by_query = _by_key(grad_out, key.shape[1]), torch.empty_like(states.queries)
        by_key, by_value = (torch.zeros_like(one) for one in (states.keys, states.values))
        for piece in passing.pieces:
            path, of_out = passing.path_of(piece), _rows(outs, piece)
            weights, slope = states.attended(piece, ctx.rule)
            of_weights = of_out @ path.seen(states.values).mT
            of_scores = of_weights.sub_((of_weights * weights).sum(-1, keepdim=True)).mul_(weights)
            if slope is not None:
                of_scores *= slope
            torch.bmm(of_scores, path.seen(states.keys), out=_rows(by_query, piece))
            path.add(by_key, of_scores, _rows(states.queries, piece))
            path.add(by_value, weights, of_out)
        of_query = _by_head(by_query.mul_(ctx.rule.scale(query)), query.dtype)
        return of_query, by_key[None].to(key.dtype), by_value[None].to(value.dtype), None


@dataclass(frozen=True)
class _States:
    """What a layer's tokens ask and what they hold; heads that share keys stand together."""

    queries: Float[Tensor, "key_heads tokens sharing width"]
    """Scaled."""
    keys: Float[Tensor, "key_heads tokens width"]
    values: Float[Tensor, "key_heads tokens value_width"]

    @classmethod
    def of(cls, query: Tensor, key: Tensor, value: Tensor, rule: _Rule) -> "_States":
        """Of a layer, as transformers has them."""
        queries = _by_key(query, key.shape[1]) * rule.scale(query)
        return cls(queries.contiguous(), in_float32(key[0]), in_float32(value[0]))

    def attended(self, piece: _Piece, rule: _Rule) -> tuple[Tensor, Tensor | None]:
        """How much a piece takes of each token of its path, and the slope of the soft cap at each score."""
        scores = _rows(self.queries, piece) @ rule.passing.path_of(piece).seen(self.keys).mT
        slope = None
        if rule.softcap is not None:
            capped = torch.tanh(scores / rule.softcap)
            scores, slope = rule.softcap * capped, 1 - capped * capped
        bias = rule.passing.bias(piece, rule.window, scores.dtype)
        scores.unflatten(1, (len(bias), -1))[..., -bias.shape[2] :].add_(bias)
        return scores.softmax(-1), slope


def _rows(
    states: Float[Tensor, "key_heads tokens sharing width"], piece: _Piece
) -> Float[Tensor, "key_heads rows width"]:
    """Those of a piece, a token's heads one behind the other."""
    return states[:, piece.own].flatten(1, 2)


def _by_key(
    states: Float[Tensor, "1 heads tokens width"], heads: int
) -> Float[Tensor, "key_heads tokens sharing width"]:
    """Heads by the keys that they share, behind the tokens."""
    return in_float32(states[0].unflatten(0, (heads, -1)).transpose(1, 2))


def _by_head(
    states: Float[Tensor, "key_heads tokens sharing width"], dtype: torch.dtype
) -> Float[Tensor, "1 heads tokens width"]:
    """As transformers has them."""
    return states.transpose(0, 1).flatten(1, 2).transpose(0, 1)[None].to(dtype)


def in_float32(states: Tensor) -> Tensor:
    """At least: layers may pass in bfloat16."""
    return states.to(_at_least_float32(states))


def _at_least_float32(states: Tensor) -> torch.dtype:
    return torch.promote_types(states.dtype, torch.float32)


AttentionInterface.register(NAME, _attend)
