"""DPO under other divergences than the reverse KL."""

import math
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefloop.objectives.registry import Elsewhere, objective

Divergence = Literal["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"]
"""What holds the policy near its reference."""


def capped_exponent(exponent: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """An exponent held where its exponential, times a weight, is finite: 79 in float32, 638 in float64."""
    return exponent.clamp(max=0.9 * math.log(torch.finfo(exponent.dtype).max))


def f_prime(log_ratio: Float[Tensor, "*shape"], divergence: Divergence, alpha: float) -> Float[Tensor, "*shape"]:
    """The derivative of f at u = exp(log_ratio), the score of an answer whose policy is u times its reference."""
    match divergence:
        case "reverse_kl":
            return log_ratio
        case "forward_kl":
            return -torch.expm1(capped_exponent(-log_ratio))
        case "js_divergence":
            return math.log(2) + logsigmoid(log_ratio)
        case "alpha_divergence":
            if alpha == 1:
                return log_ratio
            return torch.expm1(capped_exponent((alpha - 1) * log_ratio)) / (alpha - 1)


@objective(
    source="arXiv:2309.16240",
    aliases=("f_dpo",),
    elsewhere=(
        Elsewhere(
            "TRL",
            "loss_type=sigmoid f_divergence_type=...",
            {"beta": "beta", "divergence": "f_divergence_type", "alpha": "f_alpha_divergence_coef"},
            "additive constants, which cancel here, differ between versions; alpha_divergence fails in float64 there",
        ),
        Elsewhere(
            "alecwangcq/f-divergence-dpo",
            "loss=alpha_divergence",
            {"beta": "loss.beta", "alpha": "A = 1 - alpha"},
        ),
    ),
    at_reference=lambda _: math.log(2),
)
def f_divergence_dpo(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
    divergence: Divergence = "js_divergence",
    alpha: Annotated[float, Field(ge=0)] = 0.5,
) -> Float[Tensor, " pairs"]:
    r"""DPO where another divergence than the reverse KL holds the policy near its reference.

    With rho(y) = log pi(y|x) - log pi_ref(y|x), in nats, and f' at u = exp(rho):

        loss = -log sigmoid(beta * (f'(chosen) - f'(rejected)))

        reverse_kl        f' = rho
        forward_kl        f' = 1 - exp(-rho)
        js_divergence     f' = log 2 + log sigmoid(rho)
        alpha_divergence  f' = (exp((alpha - 1) * rho) - 1) / (alpha - 1)

    Exponents are held below 0.9 of what overflows their dtype.

    Limits: reverse_kl, and alpha_divergence as alpha goes to 1, give `dpo`; alpha = 0 gives forward_kl. Scores of
    forward_kl and js_divergence are bounded above, so that a large margin can come only from the rejected answer.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        beta: strength of the divergence, > 0.
        divergence: which one.
        alpha: of alpha_divergence, >= 0; the others do not read it.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> zero = torch.zeros(1)
        >>> f_divergence_dpo(zero, zero, zero, zero, divergence="forward_kl")
        tensor([0.6931])
    """
    rho_chosen = policy_chosen_logps - ref_chosen_logps
    rho_rejected = policy_rejected_logps - ref_rejected_logps
    score_chosen = f_prime(rho_chosen, divergence, alpha)
    score_rejected = f_prime(rho_rejected, divergence, alpha)
    return -logsigmoid(beta * (score_chosen - score_rejected))
