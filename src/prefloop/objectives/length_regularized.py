"""Length-regularised DPO: the loss of R-DPO and of iterative length-regularised DPO."""

from typing import Annotated

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefloop.objectives.registry import Elsewhere, Fit, objective

ALPHA_CAP = 1.0
"""Nats a token: beyond this a gap of ten tokens decides a pair at odds of 22,000 to 1, and no pair teaches anything."""


def fitted_alpha(
    chosen_lengths: NDArray[np.float64],
    rejected_lengths: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> Fit:
    """The slope of winning on length: maximum likelihood of sigmoid(alpha * (|w| - |l|)) on a round's pairs.

    At this alpha, and while the policy equals its reference, the mean gradient of the loss along length is zero:
    what the labels say of length alone is explained away and teaches the policy nothing.
    """
    from prefloop.statistics import length_slope  # noqa: PLC0415  brings scipy, which only a fit needs

    gaps = chosen_lengths - rejected_lengths
    fit = length_slope(gaps, cap=ALPHA_CAP, weights=weights)
    warning = None
    if fit.capped:
        warning = (
            f"alpha is capped at {fit.slope:+.3g}: length alone separates winners from losers in {fit.pairs} pairs, "
            "so that no finite slope fits. More pairs, or a judge less bound to length, would help."
        )
    return Fit(value=fit.slope, warning=warning, limit=ALPHA_CAP)


def length_correction(
    chosen_lengths: NDArray[np.float64],
    rejected_lengths: NDArray[np.float64],
    weights: NDArray[np.float64],
    *,
    deviation: float,
    gain: float,
) -> float:
    r"""What a deviation of the policy's length adds to alpha: one step of dual ascent on a length constraint.

    With d = log(mean length / wanted length) and g = |chosen| - |rejected| over the pairs:

        correction = gain * d / sqrt(mean g^2)

    so that a typical gap gets gain * d nats of margin, whatever the unit of length. Where the reference is the policy
    from which a round starts, the tilts of the rounds add up in the policy, and with them the corrections: each round
    adds its own. Where the reference stays, they are added up here (`loop.steps.train`).

    Args:
        chosen_lengths: tokens of the chosen answers.
        rejected_lengths: tokens of the rejected answers.
        weights: of the pairs, >= 0.
        deviation: d, positive where the answers are too long.
        gain: nats for a typical gap at d = 1.
    """
    gaps = chosen_lengths - rejected_lengths
    typical = np.sqrt(np.average(gaps**2, weights=weights))
    return float(gain * deviation / typical) if typical > 0 else 0.0


@objective(
    source="arXiv:2403.19159 eq. 9; arXiv:2406.11817",
    aliases=("ilr_dpo", "r_dpo"),
    fit={"alpha": fitted_alpha},
    hold={"alpha": length_correction},
    elsewhere=(
        Elsewhere(
            "oat",
            "dap_algo=DPO len_reg_alpha=...",
            {"beta": "beta", "alpha": "len_reg_alpha"},
            "its dap_algo=LR_DPO averages over tokens first, which is another loss",
        ),
    ),
)
def length_regularized_dpo(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    chosen_lengths: Float[Tensor, " pairs"],
    rejected_lengths: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
    alpha: Annotated[float, Field(ge=-ALPHA_CAP, le=ALPHA_CAP)] = 0.01,
) -> Float[Tensor, " pairs"]:
    r"""DPO in which a longer winner already has part of its margin, so that length is not what is learnt.

    With rho(y) = log pi(y|x) - log pi_ref(y|x), in nats, and |y| the length in tokens:

        loss = -log sigmoid(beta * (rho(chosen) - rho(rejected)) + alpha * (|chosen| - |rejected|))

    Limits: alpha = 0, or answers of equal length, give `dpo`.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        chosen_lengths: tokens of the chosen answer, EOS included.
        rejected_lengths: tokens of the rejected answer, EOS included.
        beta: KL strength, > 0.
        alpha: reward a token that is taken for bias, nats; outside beta. `fitted` is the slope of winning on length;
            `{length_ratio: 1.0}` corrects it every round by the measured length of the policy's own answers.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> zero, long, short = torch.zeros(1), torch.tensor([30.0]), torch.tensor([10.0])
        >>> length_regularized_dpo(zero, zero, zero, zero, long, short, alpha=0.01)  # less than log 2
        tensor([0.5981])
    """
    rho_chosen = policy_chosen_logps - ref_chosen_logps
    rho_rejected = policy_rejected_logps - ref_rejected_logps
    return -logsigmoid(beta * (rho_chosen - rho_rejected) + alpha * (chosen_lengths - rejected_lengths))
