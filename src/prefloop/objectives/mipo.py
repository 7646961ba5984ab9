"""MIPO: a reference that holds the policy back only where it is right already."""

from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefloop.objectives.registry import objective


def mipo_margin(
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    chosen_lengths: Float[Tensor, " pairs"],
    rejected_lengths: Float[Tensor, " pairs"],
) -> Float[Tensor, " pairs"]:
    """K: by how much the reference ranks a pair rightly, in nats a token."""
    return ref_chosen_logps / chosen_lengths - ref_rejected_logps / rejected_lengths


def mipo_offset(margin: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
    """log(1 + exp(K)), what the policy's margin has to exceed; exact at both ends."""
    return -logsigmoid(-margin)


@objective(source="arXiv:2409.17545")
def mipo(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    chosen_lengths: Float[Tensor, " pairs"],
    rejected_lengths: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 10.0,
) -> Float[Tensor, " pairs"]:
    r"""Modulated intervention: pairs that the reference ranks rightly need a larger margin, the others a margin of 0.

    With a(y) = log pi(y|x) / |y|, aref(y) = log pi_ref(y|x) / |y|, in nats a token, and K = aref(chosen) -
    aref(rejected):

        loss = -log sigmoid(beta * (a(chosen) - a(rejected) - log(1 + exp(K))))

    Limits: K -> -inf is `simpo` with gamma = 0; K -> inf is `length_normalized_dpo`. The margin that is asked for is
    above that of both, by log 2 at K = 0.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        chosen_lengths: tokens of the chosen answer, EOS included.
        rejected_lengths: tokens of the rejected answer, EOS included.
        beta: inverse temperature on averaged log-probabilities, > 0; good in 5..25.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> zero, tokens = torch.zeros(1), torch.tensor([20.0])
        >>> mipo(zero, zero, zero, zero, tokens, tokens, beta=1.0)  # log 3
        tensor([1.0986])
    """
    margin = policy_chosen_logps / chosen_lengths - policy_rejected_logps / rejected_lengths
    offset = mipo_offset(mipo_margin(ref_chosen_logps, ref_rejected_logps, chosen_lengths, rejected_lengths))
    return -logsigmoid(beta * (margin - offset))
