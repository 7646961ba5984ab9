"""DPO without a reference model."""

from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from prefloop.objectives.pieces import smoothed_logistic
from prefloop.objectives.registry import Elsewhere, objective


@objective(
    source="arXiv:2305.18290 eq. 7 with a uniform reference",
    elsewhere=(
        Elsewhere(
            "eric-mitchell/direct-preference-optimization",
            "loss=dpo loss.reference_free=true",
            {"beta": "loss.beta", "label_smoothing": "loss.label_smoothing"},
            "rewards are logged against the real reference all the same",
        ),
        Elsewhere(
            "TRL",
            "CPOTrainer loss_type=sigmoid cpo_alpha=0",
            {"beta": "beta", "label_smoothing": "label_smoothing"},
        ),
    ),
)
def reference_free_dpo(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0,
) -> Float[Tensor, " pairs"]:
    r"""DPO whose reference is uniform: the policy's own log-probabilities are the rewards.

    With m = beta * (log pi(chosen|x) - log pi(rejected|x)):

        loss = -(1 - e) * log sigmoid(m) - e * log sigmoid(-m)

    Limits: it is `conservative_dpo`, and at e = 0 `dpo`, whose reference gives both answers the same probability.
    Nothing holds the policy near its start, and shorter answers begin with the larger reward.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        beta: inverse temperature of the preferences, > 0.
        label_smoothing: e, the probability that a label is wrong, in [0, 0.5).

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> zero = torch.zeros(1)
        >>> reference_free_dpo(zero, zero)
        tensor([0.6931])
    """
    margin = beta * (policy_chosen_logps - policy_rejected_logps)
    return smoothed_logistic(margin, label_smoothing)
