"""Small functions that objectives share: log-ratio sums, links, length terms, negative log-likelihoods."""

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import logsigmoid

Numbers = Float[Tensor, "*shape"]

NllReduction = Literal["token_mean", "sequence_mean", "sequence_sum"]
"""Over a step's tokens (TRL), over its examples' own means (OpenRLHF, LLaMA-Factory), or over whole answers."""


def log1mexp(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """log(1 - exp(x)) for x < 0, without loss of digits on either side of -log 2."""
    small = x > -math.log(2)
    near_zero = torch.where(small, x, -1.0)
    far_away = torch.where(small, -1.0, x)
    return torch.where(small, torch.log(-torch.expm1(near_zero)), torch.log1p(-torch.exp(far_away)))


def smoothed_logistic(
    x: Float[Tensor, "*shape"], smoothing: float | Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """-(1 - e) log sigmoid(x) - e log sigmoid(-x): cross-entropy of labels that are wrong with probability e."""
    return -(1 - smoothing) * logsigmoid(x) - smoothing * logsigmoid(-x)


def masked_sum(values: Float[Tensor, "pairs tokens"], mask: Bool[Tensor, "pairs tokens"]) -> Float[Tensor, " pairs"]:
    """Sum over the counted tokens."""
    return values.masked_fill(~mask, 0.0).sum(1)


def negative_log_likelihood(
    logps: Float[Tensor, " pairs"],
    lengths: Float[Tensor, " pairs"],
    mean_length: Float[Tensor, ""],
    reduction: NllReduction,
) -> Float[Tensor, " pairs"]:
    """-log pi(y|x) of each example, scaled so that the mean over the optimiser step is the named reduction.

    `mean_length` is the mean of `lengths` over the step, so that nll / mean_length has the mean over all its tokens.
    """
    match reduction:
        case "token_mean":
            return -logps / mean_length
        case "sequence_mean":
            return -logps / lengths
        case "sequence_sum":
            return -logps


def log_odds(average_logps: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
    """log(p / (1 - p)) of the probability p = exp(average log-probability) of a token.

    p is held below 1 by the smallest step of its dtype (1.2e-7 in float32): at 1 itself the odds are infinite.
    """
    below_zero = average_logps.clamp(max=-torch.finfo(average_logps.dtype).eps)
    return below_zero - log1mexp(below_zero)


def plackett_luce(scores: Float[Tensor, "pairs ranks"], mask: Bool[Tensor, "pairs ranks"]) -> Float[Tensor, " pairs"]:
    """sum_{k<K} (logsumexp_{j>=k} s_j - s_k): each place is a choice among what is left, best first."""
    ranks = scores.shape[1]
    own = torch.eye(ranks, dtype=torch.bool, device=scores.device)
    left = own.new_ones(ranks, ranks).triu() & mask[:, None, :] | own
    of_the_left = scores[:, None, :].masked_fill(~left, -torch.inf).logsumexp(2)
    return (of_the_left - scores).masked_fill(~mask, 0.0).sum(1)
