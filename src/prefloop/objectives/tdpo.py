"""Token-level DPO: the answers' sequential forward KL divergences stand beside their log-ratios."""

import math
from typing import Annotated

from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefloop.objectives.pieces import masked_sum
from prefloop.objectives.registry import Elsewhere, objective

AUTHORS = "Vance0124/Token-level-Direct-Preference-Optimization"


def sequential_kl(
    policy_logits: Float[Tensor, "pairs tokens vocab"],
    ref_logits: Float[Tensor, "pairs tokens vocab"],
    token_mask: Bool[Tensor, "pairs tokens"],
) -> Float[Tensor, " pairs"]:
    r"""Forward KL divergence of the next token, summed over an answer's positions: the `seq_kl` of TDPO.

        D(y) = sum_t sum_v q_tv * (log q_tv - log p_tv),  q = softmax(ref_logits), p = softmax(policy_logits)

    Its gradient with respect to the policy's logits at a counted position is p - q. Tokens that the reference
    excludes (a logit of -inf, as for padding of the vocabulary) add nothing.

    Args:
        policy_logits: at the position that predicts each token of the answer; gradient flows.
        ref_logits: the same under the frozen reference; no gradient.
        token_mask: which tokens are counted, EOS included.

    Returns:
        KL divergence of each answer, in nats, >= 0.
    """
    log_q, log_p = ref_logits.log_softmax(2), policy_logits.log_softmax(2)
    gaps = (log_q - log_p).masked_fill(log_q.isneginf(), 0.0)
    return masked_sum((log_q.exp() * gaps).sum(2), token_mask)


@objective(
    source="arXiv:2404.11999, TDPO1",
    elsewhere=(Elsewhere(AUTHORS, "loss=tdpo loss.if_tdpo2=false", {"beta": "loss.beta"}, "its configured default"),),
    at_reference=lambda _: math.log(2),
)
def tdpo1(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    policy_chosen_seq_kl: Float[Tensor, " pairs"],
    policy_rejected_seq_kl: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
) -> Float[Tensor, " pairs"]:
    r"""DPO whose margin also counts how much further the rejected answer's distributions have moved.

    With rho(y) = log pi(y|x) - log pi_ref(y|x) and D(y) = sum_t KL(pi_ref || pi) over the answer's positions, in nats:

        loss = -log sigmoid(beta * (rho(chosen) - rho(rejected) - (D(rejected) - D(chosen))))

    Limits: D of both answers equal gives `dpo`; so does the first step from the reference, where D and its gradient
    are 0. Its value, not its gradient, is that of `tdpo2` at alpha = 1: here the chosen answer's KL is pushed up.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        policy_chosen_seq_kl: D of the chosen answer; gradient flows.
        policy_rejected_seq_kl: D of the rejected answer; gradient flows.
        beta: KL strength, > 0.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> zero = torch.zeros(1)
        >>> tdpo1(zero, zero, zero, zero, zero, zero + 10)
        tensor([1.3133])
    """
    rho_chosen = policy_chosen_logps - ref_chosen_logps
    rho_rejected = policy_rejected_logps - ref_rejected_logps
    kl_gap = policy_rejected_seq_kl - policy_chosen_seq_kl
    return -logsigmoid(beta * (rho_chosen - rho_rejected - kl_gap))


@objective(
    source="arXiv:2404.11999, TDPO2",
    aliases=("tdpo",),
    elsewhere=(Elsewhere(AUTHORS, "loss=tdpo loss.if_tdpo2=true", {"beta": "loss.beta", "alpha": "loss.alpha"}),),
    at_reference=lambda _: math.log(2),
)
def tdpo2(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    policy_chosen_seq_kl: Float[Tensor, " pairs"],
    policy_rejected_seq_kl: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
    alpha: Annotated[float, Field(ge=0)] = 0.5,
) -> Float[Tensor, " pairs"]:
    r"""TDPO1 with a weight on the difference of KL divergences, and no gradient to the chosen answer's.

    With rho(y) = log pi(y|x) - log pi_ref(y|x) and D(y) = sum_t KL(pi_ref || pi) over the answer's positions, in nats:

        loss = -log sigmoid(beta * (rho(chosen) - rho(rejected) - alpha * (D(rejected) - stop_gradient(D(chosen)))))

    Limits: alpha = 0, or D of both answers equal, give `dpo`; so does the first step from the reference, where D and
    its gradient are 0. At alpha = 1 its value is that of `tdpo1`; only the rejected
    answer's KL takes gradient, and is pulled down.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        policy_chosen_seq_kl: D of the chosen answer; its gradient is stopped here.
        policy_rejected_seq_kl: D of the rejected answer; gradient flows.
        beta: KL strength, > 0.
        alpha: weight of the difference, >= 0.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> zero = torch.zeros(1)
        >>> tdpo2(zero, zero, zero, zero, zero, zero + 10)
        tensor([0.9741])
    """
    rho_chosen = policy_chosen_logps - ref_chosen_logps
    rho_rejected = policy_rejected_logps - ref_rejected_logps
    kl_gap = policy_rejected_seq_kl - policy_chosen_seq_kl.detach()
    return -logsigmoid(beta * (rho_chosen - rho_rejected - alpha * kl_gap))
