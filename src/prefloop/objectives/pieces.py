"""Small functions that objectives share: log-ratio sums, links, length terms, negative log-likelihoods."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import logsigmoid

Numbers = Float[Tensor, "*shape"]


def log1mexp(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """log(1 - exp(x)) for x < 0, without loss of digits on either side of -log 2."""
    small = x > -math.log(2)
    near_zero = torch.where(small, x, -1.0)
    far_away = torch.where(small, -1.0, x)
    return torch.where(small, torch.log(-torch.expm1(near_zero)), torch.log1p(-torch.exp(far_away)))


def smoothed_logistic(x: Float[Tensor, "*shape"], smoothing: float) -> Float[Tensor, "*shape"]:
    """-(1 - e) log sigmoid(x) - e log sigmoid(-x): cross-entropy of labels that are wrong with probability e."""
    return -(1 - smoothing) * logsigmoid(x) - smoothing * logsigmoid(-x)


def masked_sum(values: Float[Tensor, "pairs tokens"], mask: Bool[Tensor, "pairs tokens"]) -> Float[Tensor, " pairs"]:
    """Sum over the counted tokens."""
    return values.masked_fill(~mask, 0.0).sum(1)
