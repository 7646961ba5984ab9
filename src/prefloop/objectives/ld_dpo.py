"""Length-desensitised DPO: tokens beyond the shorter answer's length count less."""

import math
from typing import Annotated

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefloop.objectives.pieces import masked_sum
from prefloop.objectives.registry import Elsewhere, objective


def shared_length(
    chosen_token_mask: Bool[Tensor, "pairs chosen_tokens"], rejected_token_mask: Bool[Tensor, "pairs rejected_tokens"]
) -> Int[Tensor, " pairs"]:
    """Counted tokens of the shorter answer."""
    return torch.minimum(chosen_token_mask.sum(1), rejected_token_mask.sum(1))


def tail_weighted_sum(
    token_logps: Float[Tensor, "pairs tokens"],
    token_mask: Bool[Tensor, "pairs tokens"],
    shared: Int[Tensor, " pairs"],
    tail_weight: float,
) -> Float[Tensor, " pairs"]:
    """Sum over the first `shared` counted tokens, plus `tail_weight` times the sum over the others."""
    in_the_tail = token_mask.cumsum(1) > shared[:, None]
    return masked_sum(torch.where(in_the_tail, tail_weight * token_logps, token_logps), token_mask)


@objective(
    source="arXiv:2409.06411",
    elsewhere=(Elsewhere("TRL", "loss_type=sigmoid ld_alpha=...", {"beta": "beta", "ld_alpha": "ld_alpha"}),),
    at_reference=lambda _: math.log(2),
)
def ld_dpo(
    policy_chosen_token_logps: Float[Tensor, "pairs chosen_tokens"],
    policy_rejected_token_logps: Float[Tensor, "pairs rejected_tokens"],
    ref_chosen_token_logps: Float[Tensor, "pairs chosen_tokens"],
    ref_rejected_token_logps: Float[Tensor, "pairs rejected_tokens"],
    chosen_token_mask: Bool[Tensor, "pairs chosen_tokens"],
    rejected_token_mask: Bool[Tensor, "pairs rejected_tokens"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
    ld_alpha: Annotated[float, Field(ge=0, le=1)] = 0.5,
) -> Float[Tensor, " pairs"]:
    r"""DPO on sums in which tokens beyond the shorter answer's length count less.

    With n = min(|chosen|, |rejected|), s(y) = sum_{t<=n} log p_t + a * sum_{t>n} log p_t, and
    rho(y) = s(y) under the policy less s(y) under the reference, in nats:

        loss = -log sigmoid(beta * (rho(chosen) - rho(rejected)))

    Limits: a = 1, or answers of one length, give `dpo`; a = 0 reads the shared length alone. The shorter answer is
    never rescaled.

    Args:
        policy_chosen_token_logps: log-probability of each token of the chosen answer; gradient flows.
        policy_rejected_token_logps: the same of the rejected answer; gradient flows.
        ref_chosen_token_logps: the chosen answer's under the frozen reference; no gradient.
        ref_rejected_token_logps: the rejected answer's under the frozen reference; no gradient.
        chosen_token_mask: which tokens of the chosen answer are counted.
        rejected_token_mask: which tokens of the rejected answer are counted.
        beta: KL strength, > 0.
        ld_alpha: a, the weight of the longer answer's tail, in [0, 1].

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> chosen, rejected = torch.full((1, 2), -1.0), torch.full((1, 1), -1.0)
        >>> kept, one = torch.ones(1, 2, dtype=torch.bool), torch.ones(1, 1, dtype=torch.bool)
        >>> ld_dpo(chosen, rejected, 0 * chosen, 0 * rejected, kept, one, beta=1.0)  # the second token counts half
        tensor([0.9741])
    """
    shared = shared_length(chosen_token_mask, rejected_token_mask)
    rho_chosen = tail_weighted_sum(
        policy_chosen_token_logps - ref_chosen_token_logps, chosen_token_mask, shared, ld_alpha
    )
    rho_rejected = tail_weighted_sum(
        policy_rejected_token_logps - ref_rejected_token_logps, rejected_token_mask, shared, ld_alpha
    )
    return -logsigmoid(beta * (rho_chosen - rho_rejected))


@objective(
    source="arXiv:2409.06411, as LLaMA-Factory runs it",
    elsewhere=(
        Elsewhere("LLaMA-Factory", "pref_loss=sigmoid ld_alpha=...", {"beta": "pref_beta", "ld_alpha": "ld_alpha"}),
    ),
)
def ld_dpo_policy_only(
    policy_chosen_token_logps: Float[Tensor, "pairs chosen_tokens"],
    policy_rejected_token_logps: Float[Tensor, "pairs rejected_tokens"],
    ref_chosen_token_logps: Float[Tensor, "pairs chosen_tokens"],
    ref_rejected_token_logps: Float[Tensor, "pairs rejected_tokens"],
    chosen_token_mask: Bool[Tensor, "pairs chosen_tokens"],
    rejected_token_mask: Bool[Tensor, "pairs rejected_tokens"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
    ld_alpha: Annotated[float, Field(ge=0, le=1)] = 0.5,
) -> Float[Tensor, " pairs"]:
    r"""LD-DPO that weights the policy's tokens and leaves the reference's sums whole.

    With n = min(|chosen|, |rejected|), s(y) = sum_{t<=n} log p_t + a * sum_{t>n} log p_t under the policy, and
    rho(y) = s(y) - log pi_ref(y|x), in nats:

        loss = -log sigmoid(beta * (rho(chosen) - rho(rejected)))

    Limits: a = 1, or answers of one length, give `dpo`. Where lengths differ, the margin at the reference is not 0:
    the longer answer begins with (1 - a) times its tail's surprise as reward. `ld_dpo` does not do that.

    Args:
        policy_chosen_token_logps: log-probability of each token of the chosen answer; gradient flows.
        policy_rejected_token_logps: the same of the rejected answer; gradient flows.
        ref_chosen_token_logps: the chosen answer's under the frozen reference; no gradient.
        ref_rejected_token_logps: the rejected answer's under the frozen reference; no gradient.
        chosen_token_mask: which tokens of the chosen answer are counted.
        rejected_token_mask: which tokens of the rejected answer are counted.
        beta: KL strength, > 0.
        ld_alpha: a, the weight of the longer answer's tail, in [0, 1].

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> chosen, rejected = torch.full((1, 2), -1.0), torch.full((1, 1), -1.0)
        >>> kept, one = torch.ones(1, 2, dtype=torch.bool), torch.ones(1, 1, dtype=torch.bool)
        >>> ld_dpo_policy_only(chosen, rejected, chosen, rejected, kept, one, beta=1.0)  # at the reference
        tensor([0.4741])
    """
    shared = shared_length(chosen_token_mask, rejected_token_mask)
    sum_chosen = tail_weighted_sum(policy_chosen_token_logps, chosen_token_mask, shared, ld_alpha)
    sum_rejected = tail_weighted_sum(policy_rejected_token_logps, rejected_token_mask, shared, ld_alpha)
    rho_chosen = sum_chosen - masked_sum(ref_chosen_token_logps, chosen_token_mask)
    rho_rejected = sum_rejected - masked_sum(ref_rejected_token_logps, rejected_token_mask)
    return -logsigmoid(beta * (rho_chosen - rho_rejected))
