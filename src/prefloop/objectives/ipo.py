"""Identity preference optimisation, on sums as in the paper and on averages as most tools run it."""

from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from prefloop.objectives.registry import Elsewhere, objective


@objective(
    source="arXiv:2310.12036 eq. 17",
    elsewhere=(
        Elsewhere("eric-mitchell/direct-preference-optimization", "loss=ipo", {"beta": "loss.beta"}),
        Elsewhere("OpenRLHF", "train_dpo --ipo", {"beta": "beta"}, "sums too; TRL's loss_type=ipo is ipo_per_token"),
    ),
    at_reference=lambda hyper: 1 / (4 * hyper["beta"] ** 2),
)
def ipo(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
) -> Float[Tensor, " pairs"]:
    r"""Squared distance of the log-ratio gap from a finite target, so that sure labels do not drive it to infinity.

    With rho(y) = log pi(y|x) - log pi_ref(y|x), in nats:

        loss = (rho(chosen) - rho(rejected) - 1 / (2 * beta))^2

    beta is the paper's tau.

    Limits: on answers of one length n it is `ipo_per_token` at n * beta, times n^2. The target does not grow with
    length, so that long answers, whose sums move far, are held back most.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        beta: KL strength, > 0; the target is 1 / (2 * beta) nats.

    Returns:
        Loss of each pair, in nats squared.

    Example:
        >>> import torch
        >>> zero = torch.zeros(1)
        >>> ipo(zero + 5, zero, zero, zero)  # at its target
        tensor([0.])
    """
    rho_chosen = policy_chosen_logps - ref_chosen_logps
    rho_rejected = policy_rejected_logps - ref_rejected_logps
    return (rho_chosen - rho_rejected - 1 / (2 * beta)) ** 2


@objective(
    source="arXiv:2310.12036 eq. 17, on averages over tokens",
    aliases=("ipo_norm",),
    elsewhere=(
        Elsewhere("TRL", "loss_type=ipo", {"beta": "beta"}),
        Elsewhere("HALOs", "loss=ipo", {"beta": "tau"}),
        Elsewhere("LLaMA-Factory", "pref_loss=ipo", {"beta": "pref_beta"}),
    ),
    at_reference=lambda hyper: 1 / (4 * hyper["beta"] ** 2),
)
def ipo_per_token(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    chosen_lengths: Float[Tensor, " pairs"],
    rejected_lengths: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
) -> Float[Tensor, " pairs"]:
    r"""IPO on averages over tokens, as TRL, HALOs and LLaMA-Factory run it.

    With rho(y) = log pi(y|x) - log pi_ref(y|x), in nats, and |y| the length in tokens:

        loss = (rho(chosen) / |chosen| - rho(rejected) / |rejected| - 1 / (2 * beta))^2

    Limits: answers of one token give `ipo`; on answers of one length n it is `ipo` at beta / n, over n^2.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        chosen_lengths: tokens of the chosen answer, EOS included.
        rejected_lengths: tokens of the rejected answer, EOS included.
        beta: KL strength, > 0; the target is 1 / (2 * beta) nats a token.

    Returns:
        Loss of each pair, in (nats a token) squared.

    Example:
        >>> import torch
        >>> zero, length = torch.zeros(1), torch.full((1,), 4.0)
        >>> ipo_per_token(zero + 20, zero, zero, zero, length, length)  # at its target, 5 nats a token
        tensor([0.])
    """
    rho_chosen = (policy_chosen_logps - ref_chosen_logps) / chosen_lengths
    rho_rejected = (policy_rejected_logps - ref_rejected_logps) / rejected_lengths
    return (rho_chosen - rho_rejected - 1 / (2 * beta)) ** 2
