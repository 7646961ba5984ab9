"""DPO where a part of the labels is known to be wrong: conservative and robust."""

import math
from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefloop.objectives.pieces import smoothed_logistic
from prefloop.objectives.registry import Elsewhere, objective


@objective(
    source="arXiv:2305.18290 eq. 7 with smoothed labels (Mitchell's note on conservative DPO, eq. 3)",
    aliases=("cdpo",),
    elsewhere=(
        Elsewhere(
            "eric-mitchell/direct-preference-optimization",
            "loss=dpo",
            {"beta": "loss.beta", "label_smoothing": "loss.label_smoothing"},
        ),
        Elsewhere("HALOs", "loss=cdpo", {"beta": "beta", "label_smoothing": "epsilon"}, "epsilon is 0.2 there"),
        Elsewhere("OpenRLHF", "train_dpo --label_smoothing", {"beta": "beta", "label_smoothing": "label_smoothing"}),
        Elsewhere(
            "LLaMA-Factory",
            "pref_loss=sigmoid",
            {"beta": "pref_beta", "label_smoothing": "dpo_label_smoothing"},
        ),
    ),
    at_reference=lambda _: math.log(2),
)
def conservative_dpo(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.1,
) -> Float[Tensor, " pairs"]:
    r"""DPO against labels that are wrong with a known probability, so that no margin is pushed to infinity.

    With rho(y) = log pi(y|x) - log pi_ref(y|x) and m = beta * (rho(chosen) - rho(rejected)):

        loss = -(1 - e) * log sigmoid(m) - e * log sigmoid(-m)

    The minimum lies at m = log((1 - e) / e); beyond it the gradient turns around.

    Limits: e = 0 gives `dpo`. It is `dpo` with soft labels of 1 - e. TRL does not have it: its
    loss_type=sigmoid ignores label_smoothing.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        beta: KL strength, > 0.
        label_smoothing: e, the probability that a label is wrong, in [0, 0.5).

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> zero = torch.zeros(1)
        >>> conservative_dpo(zero, zero, zero, zero)
        tensor([0.6931])
    """
    rho_chosen = policy_chosen_logps - ref_chosen_logps
    rho_rejected = policy_rejected_logps - ref_rejected_logps
    margin = beta * (rho_chosen - rho_rejected)
    return smoothed_logistic(margin, label_smoothing)


@objective(
    source="arXiv:2403.00409",
    aliases=("robust",),
    elsewhere=(Elsewhere("TRL", "loss_type=robust", {"beta": "beta", "label_smoothing": "label_smoothing"}),),
    at_reference=lambda _: math.log(2),
)
def robust_dpo(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.1,
) -> Float[Tensor, " pairs"]:
    r"""DPO's loss on clean labels, estimated without bias from labels that are flipped with a known probability.

    With rho(y) = log pi(y|x) - log pi_ref(y|x) and m = beta * (rho(chosen) - rho(rejected)):

        loss = (-(1 - e) * log sigmoid(m) + e * log sigmoid(-m)) / (1 - 2 e)

    Averaged over flips with probability e, this is DPO's loss on the clean label, exactly.

    Limits: e = 0 gives `dpo`. For e > 0 it has no lower bound: where m grows, it falls as -e * m / (1 - 2 e) and
    never stops, so that separable data have to be stopped early.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        beta: KL strength, > 0.
        label_smoothing: e, the probability that a label was flipped, in [0, 0.5).

    Returns:
        Loss of each pair, in nats; below 0 for large margins.

    Example:
        >>> import torch
        >>> zero = torch.zeros(1)
        >>> robust_dpo(zero, zero, zero, zero)
        tensor([0.6931])
    """
    rho_chosen = policy_chosen_logps - ref_chosen_logps
    rho_rejected = policy_rejected_logps - ref_rejected_logps
    margin = beta * (rho_chosen - rho_rejected)
    clean = -(1 - label_smoothing) * logsigmoid(margin) + label_smoothing * logsigmoid(-margin)
    return clean / (1 - 2 * label_smoothing)
