"""One token for each row, from logits and a uniform number and nothing else."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from prefloop.errors import ModelError
from prefloop.sampling.protocol import SamplingSettings

_WEIGHTS_AT_ONCE = 2**19
"""Float64 weights that are worked on together: 4 MB stay in the processor's cache."""

_LIKELY_TOKENS = 512
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
    rows = max(1, _WEIGHTS_AT_ONCE // logits.shape[-1])
    parts = zip(logits.split(rows), peak.split(rows), uniforms.split(rows), strict=True)
    choices = [_chosen(*part, settings) for part in parts]
    return Choice(
        tokens=torch.cat([choice.tokens for choice in choices]),
        logps=torch.cat([choice.logps for choice in choices]),
    )


def _chosen(
    logits: Float[Tensor, "rows vocab"],
    peak: Float[Tensor, " rows"],
    uniforms: Float[Tensor, " rows"],
    settings: SamplingSettings,
) -> Choice:
    weights = (logits - peak[:, None].to(uniforms.dtype)).div_(settings.temperature).exp_()
    if settings.top_k is not None and settings.top_k < weights.shape[-1]:
        weights.mul_(_likeliest(weights, settings.top_k))
    if settings.top_p < 1:
        weights.mul_(_nucleus(weights, settings.top_p))
    if settings.min_p > 0:
        weights.mul_(weights >= settings.min_p)  # the largest weight is 1
    cumulative = weights.cumsum(dim=-1)
    total = cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, uniforms[:, None] * total, right=True)
    logps = (weights.gather(-1, tokens) / total).log()
    return Choice(tokens=tokens[:, 0], logps=logps[:, 0])


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


def _likeliest(weights: Float[Tensor, "rows vocab"], top_k: int) -> Bool[Tensor, "rows vocab"]:
    """The largest weights, top_k of them; of equal weights the lower id first."""
    smallest = weights.topk(top_k, dim=-1).values[:, -1:]
    return _down_to(weights, smallest, torch.full_like(smallest, top_k, dtype=torch.long))


def _nucleus(weights: Float[Tensor, "rows vocab"], top_p: float) -> Bool[Tensor, "rows vocab"]:
    """The smallest set of largest weights whose share reaches top_p; of equal weights the lower id first."""
    wanted = top_p * weights.sum(dim=-1, keepdim=True)
    largest = weights.topk(min(_LIKELY_TOKENS, weights.shape[-1]), dim=-1).values
    kept, smallest = _edge(largest, wanted)
    wide = (largest.sum(dim=-1, keepdim=True) < wanted)[:, 0]
    if bool(wide.any()):
        kept[wide], smallest[wide] = _edge(weights[wide].sort(dim=-1, descending=True).values, wanted[wide])
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
    before = largest.cumsum(dim=-1) - largest
    kept = (before < wanted).sum(dim=-1, keepdim=True)
    return kept, largest.gather(-1, kept - 1)
