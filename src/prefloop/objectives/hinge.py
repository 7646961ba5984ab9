"""Losses that are done with a pair once its margin is reached."""

from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import relu

from prefloop.objectives.pieces import NllReduction, negative_log_likelihood
from prefloop.objectives.registry import Elsewhere, objective


@objective(
    source="arXiv:2309.06657 (RSO), after arXiv:2305.10425",
    aliases=("rso",),
    elsewhere=(
        Elsewhere("TRL", "loss_type=hinge", {"beta": "beta"}),
        Elsewhere("LLaMA-Factory", "pref_loss=hinge", {"beta": "pref_beta"}),
        Elsewhere("oat", "dap_algo=SLiC", {"beta": "beta"}, "HALOs' loss=slic is another loss, named slic here"),
    ),
    at_reference=lambda _: 1.0,
)
def hinge(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
) -> Float[Tensor, " pairs"]:
    r"""What the implicit reward's margin lacks to 1.

    With rho(y) = log pi(y|x) - log pi_ref(y|x), in nats:

        loss = max(0, 1 - beta * (rho(chosen) - rho(rejected)))

    Limits: no gradient once the log-ratio gap is 1 / beta nats; below, a constant one.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        beta: KL strength, > 0; 1 / beta is the gap that is asked for.

    Returns:
        Loss of each pair, in units of reward.

    Example:
        >>> import torch
        >>> zero = torch.zeros(2)
        >>> hinge(torch.tensor([0.0, 10.0]), zero, zero, zero)
        tensor([1., 0.])
    """
    rho_chosen = policy_chosen_logps - ref_chosen_logps
    rho_rejected = policy_rejected_logps - ref_rejected_logps
    margin = beta * (rho_chosen - rho_rejected)
    return relu(1 - margin)


@objective(
    source="arXiv:2305.10425",
    aliases=("slic_hf",),
    elsewhere=(Elsewhere("HALOs", "loss=slic", {"delta": "beta", "lam": "lambda_coef"}, "lambda_coef is 0.1 there"),),
)
def slic(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    chosen_lengths: Float[Tensor, " pairs"],
    mean_chosen_length: Float[Tensor, ""],
    *,
    delta: Annotated[float, Field(ge=0)] = 1.0,
    lam: Annotated[float, Field(ge=0)] = 0.1,
    nll_reduction: NllReduction = "sequence_sum",
) -> Float[Tensor, " pairs"]:
    r"""SLiC-HF: a hinge on the policy's own log-probabilities, and the chosen answer's likelihood beside it.

        loss = max(0, delta - log pi(chosen|x) + log pi(rejected|x)) + lambda * NLL(chosen)

    Limits: lambda = 0 and delta = 1 / beta give `hinge` under a uniform reference, over beta. TRL's `hinge` is not
    this loss: it has a reference and no likelihood.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        chosen_lengths: tokens of the chosen answer, EOS included.
        mean_chosen_length: their mean over the optimiser step.
        delta: margin that is asked for, in nats, >= 0.
        lam: lambda, weight of the likelihood, >= 0.
        nll_reduction: over the step's tokens (`token_mean`), over its answers' own means (`sequence_mean`), or whole
            answers (`sequence_sum`).

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> zero, length = torch.zeros(1), torch.tensor([5.0])
        >>> slic(zero - 10, zero - 20, length, length.mean())  # the margin is reached: likelihood alone
        tensor([1.])
    """
    lacking = relu(delta - policy_chosen_logps + policy_rejected_logps)
    nll = negative_log_likelihood(policy_chosen_logps, chosen_lengths, mean_chosen_length, nll_reduction)
    return lacking + lam * nll
