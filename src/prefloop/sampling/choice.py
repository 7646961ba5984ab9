"""One token for each row, from logits and a uniform number and nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from prefloop.errors import ModelError
from prefloop.policy import widest
from prefloop.sampling.protocol import SamplingSettings

_BLOCK = 256
"""Tokens whose weights are added up before it is looked into which of them is meant."""

_LIKELY_TOKENS = (64, 1024)
"""Top-p looks among so many tokens first, and sorts the vocabulary only for rows in which they do not reach it."""


@dataclass(frozen=True)
class Choice:
    """The tokens of one position."""

    tokens: Int[Tensor, " rows"]
    logps: Float[Tensor, " rows"]
    """Nats, in the precision of the uniform numbers, under the distribution that was sampled from."""


def choose(logits: Float[Tensor, "rows vocab"], uniforms: Float[Tensor, " rows"], settings: SamplingSettings) -> Choice:
    """Draw a token a row by the inverse of the cumulative distribution, in the order of token ids.

    The distribution is softmax(logits / temperature), restricted to the top_k most likely tokens, then to the smallest
    set of most likely ones whose probability among these reaches top_p (of equally likely ones the lower id first),
    then to those that have at least min_p of the largest probability. The token is the first whose cumulative
    probability is above the uniform number. Temperature 0 takes the most likely token, which then has probability 1.

    Args:
        logits: Of the next token, a repetition penalty applied.
        uniforms: In [0, 1). Not read at temperature 0. Their precision, float64 where the device knows it, is that of
            the sums.
        settings: Temperature, top-k, top-p and min-p.

    Raises:
        ModelError: the logits are NaN or infinite.
    """
    peak, likeliest = logits.max(dim=-1)
    if not bool(peak.isfinite().all()):
        raise ModelError(
            "sampling: the policy gives NaN or infinite logits. Its weights are broken: look at the loss and the "
            "gradient norm of the training that made it, and lower the learning rate."
        )
    if settings.temperature == 0:
        return Choice(tokens=likeliest, logps=torch.zeros_like(uniforms))
    weights = (logits - peak[:, None]).to(torch.promote_types(logits.dtype, torch.float32))
    weights = weights.div_(settings.temperature).exp_()
    if settings.top_k is not None and settings.top_k < weights.shape[-1]:
        weights.mul_(_likeliest(weights, settings.top_k))
    if settings.top_p < 1:
        weights.mul_(_nucleus(weights, settings.top_p))
    if settings.min_p > 0:
        weights.mul_(weights >= settings.min_p)  # the largest weight is 1
    return _drawn(weights, uniforms)


def _drawn(weights: Float[Tensor, "rows vocab"], uniforms: Float[Tensor, " rows"]) -> Choice:
    """The token at a share of all weights: first the block in which it is, then the token.

    Sums are as precise as the uniform numbers. A block is found by a sum that is larger than that of the blocks before
    it, and so is the token in it, so that no token of weight 0 is ever taken.
    """
    missing = -weights.shape[-1] % _BLOCK
    blocks = (nn.functional.pad(weights, (0, missing)) if missing else weights).unflatten(-1, (-1, _BLOCK))
    ends = blocks.sum(dim=-1, dtype=uniforms.dtype).cumsum(dim=-1)
    total = ends[:, -1:]
    share = torch.minimum(uniforms[:, None] * total, total.nextafter(torch.zeros_like(total)))
    block = torch.searchsorted(ends, share, right=True)
    before = nn.functional.pad(ends, (1, 0)).gather(-1, block)
    within = blocks[torch.arange(len(blocks), device=blocks.device), block[:, 0]]
    cumulative = within.cumsum(dim=-1, dtype=uniforms.dtype)
    last = cumulative.argmax(dim=-1, keepdim=True)  # of equal sums the first: the last token that has any weight
    token = torch.searchsorted(cumulative, share - before, right=True).minimum(last)
    logps = (within.gather(-1, token).to(total.dtype) / total).log()
    return Choice(tokens=(block * _BLOCK + token)[:, 0], logps=logps[:, 0])


def penalised(
    logits: Float[Tensor, "rows vocab"], held: Bool[Tensor, "rows vocab"], penalty: float
) -> Float[Tensor, "rows vocab"]:
    """Logits with a repetition penalty on the tokens that each row's prompt or answer holds.

    Args:
        logits: Of the next token, a repetition penalty applied.
        held: Which tokens stand in the row already.
        penalty: Divides positive logits and multiplies negative ones (arXiv:1909.05858 section 4.1).
    """
    return torch.where(held, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def held_by(sequences: Sequence[Sequence[int]], logits: Float[Tensor, "any vocab"]) -> Bool[Tensor, "rows vocab"]:
    """Which tokens of the vocabulary each sequence has."""
    held = torch.zeros(len(sequences), logits.shape[-1], dtype=torch.bool, device=logits.device)
    for row, sequence in enumerate(sequences):
        held[row, torch.tensor(sequence, device=held.device)] = True
    return held


def _likeliest(weights: Float[Tensor, "rows vocab"], top_k: int) -> Bool[Tensor, "rows vocab"]:
    """The largest weights, top_k of them; of equal weights the lower id first."""
    smallest = weights.topk(top_k, dim=-1).values[:, -1:]
    return _down_to(weights, smallest, torch.full_like(smallest, top_k, dtype=torch.long))


def _nucleus(weights: Float[Tensor, "rows vocab"], top_p: float) -> Bool[Tensor, "rows vocab"]:
    """The smallest set of largest weights whose share reaches top_p; of equal weights the lower id first."""
    wide = widest(weights.device)
    wanted = top_p * weights.sum(dim=-1, keepdim=True, dtype=wide)
    kept, smallest = wanted.new_zeros(wanted.shape, dtype=torch.long), torch.zeros_like(weights[:, :1])
    rows = torch.arange(len(weights), device=weights.device)
    for likely in (*_LIKELY_TOKENS, weights.shape[-1]):
        if len(rows):
            largest = weights[rows].topk(min(likely, weights.shape[-1]), dim=-1).values
            kept[rows], smallest[rows] = _edge(largest, wanted[rows])
            rows = rows[largest.sum(dim=-1, dtype=wide) < wanted[rows, 0]]
    return _down_to(weights, smallest, kept)


def _down_to(
    weights: Float[Tensor, "rows vocab"], smallest: Float[Tensor, "rows 1"], kept: Int[Tensor, "rows 1"]
) -> Bool[Tensor, "rows vocab"]:
    """Which weights are the `kept` largest, the last of which is `smallest`; of equal weights the lower id first."""
    reached = weights >= smallest
    if bool((reached.sum(dim=-1, keepdim=True) == kept).all()):
        return reached
    above, equal = weights > smallest, weights == smallest
    return above | (equal & (equal.cumsum(dim=-1) <= kept - above.sum(dim=-1, keepdim=True)))


def _edge(
    largest: Float[Tensor, "rows likely"], wanted: Float[Tensor, "rows 1"]
) -> tuple[Int[Tensor, "rows 1"], Float[Tensor, "rows 1"]]:
    """How many of the falling weights are needed for what is wanted, and the last of them."""
    before = largest.cumsum(dim=-1, dtype=wanted.dtype) - largest
    kept = (before < wanted).sum(dim=-1, keepdim=True)
    return kept, largest.gather(-1, kept - 1)
