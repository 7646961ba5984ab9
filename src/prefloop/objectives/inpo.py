"""Iterative Nash policy optimisation: mirror descent in the preference game, regularised to a base model."""

from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from prefloop.objectives.registry import objective


def inpo_gap(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    prev_chosen_logps: Float[Tensor, " pairs"],
    prev_rejected_logps: Float[Tensor, " pairs"],
    *,
    eta: float,
    tau: float,
) -> Float[Tensor, " pairs"]:
    """h: the gap of the policy above that of the geometric mixture ref^(tau/eta) * pi_t^(1 - tau/eta), in nats."""
    policy_gap = policy_chosen_logps - policy_rejected_logps
    ref_gap = ref_chosen_logps - ref_rejected_logps
    prev_gap = prev_chosen_logps - prev_rejected_logps
    return policy_gap - tau / eta * ref_gap - (1 - tau / eta) * prev_gap


@objective(
    source="arXiv:2407.00617 eq. 9",
    at_reference=lambda hyper: 1 / (4 * hyper["eta"] ** 2),
)
def inpo(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    prev_chosen_logps: Float[Tensor, " pairs"],
    prev_rejected_logps: Float[Tensor, " pairs"],
    *,
    eta: Annotated[float, Field(gt=0)] = 0.005,
    tau: Annotated[float, Field(ge=0)] = 0.005 / 3,
) -> Float[Tensor, " pairs"]:
    r"""Squared distance of the gap over base model and previous policy from a target that binary labels make right.

    With gap_m = log m(chosen|x) - log m(rejected|x) of a model m, in nats:

        h    = gap_pi - tau / eta * gap_ref - (1 - tau / eta) * gap_prev
        loss = (h - 1 / (2 * eta))^2

    On pairs of two own samples with binary labels its minimiser is pi_t^(1 - tau/eta) * ref^(tau/eta) *
    exp(P(y > pi_t) / eta) / Z, though no win rate is ever estimated. Pairs of the best and the worst of many samples
    break that equality: the order stays, the size does not.

    Limits: tau = eta, or a previous policy that is the base model, gives `ipo` with beta = eta; tau = 0 is self-play
    without a base model. Only differences enter: adding a constant to both log-probabilities changes nothing.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the base model, the same in all rounds; no gradient.
        ref_rejected_logps: the same under the base model, the same in all rounds; no gradient.
        prev_chosen_logps: the same under pi_t, the policy that sampled the answers; no gradient.
        prev_rejected_logps: the same under pi_t; no gradient.
        eta: inverse size of the step, > 0.
        tau: how strongly the game is regularised to the base model, from 0 to eta; the paper takes eta / 3.

    Returns:
        Loss of each pair, in nats squared.

    Example:
        >>> import torch
        >>> zero = torch.zeros(1)
        >>> inpo(zero + 5, zero, zero, zero, zero, zero, eta=0.1, tau=0.05)  # at its target
        tensor([0.])
    """
    h = inpo_gap(
        policy_chosen_logps,
        policy_rejected_logps,
        ref_chosen_logps,
        ref_rejected_logps,
        prev_chosen_logps,
        prev_rejected_logps,
        eta=eta,
        tau=tau,
    )
    return (h - 1 / (2 * eta)) ** 2


@objective(
    source="arXiv:2407.00617 eq. 6, before win rates are replaced by labels",
    swap="it reads both answers' win rates: exchanging the answers with them leaves the loss as it is",
)
def inpo_win_rates(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    prev_chosen_logps: Float[Tensor, " pairs"],
    prev_rejected_logps: Float[Tensor, " pairs"],
    chosen_win_probs: Float[Tensor, " pairs"],
    rejected_win_probs: Float[Tensor, " pairs"],
    *,
    eta: Annotated[float, Field(gt=0)] = 0.005,
    tau: Annotated[float, Field(ge=0)] = 0.005 / 3,
) -> Float[Tensor, " pairs"]:
    r"""INPO where the win rates are known, for any pairs of answers.

    With h as in `inpo` and win(y) the chance that y beats an answer of pi_t:

        loss = (h - (win(chosen) - win(rejected)) / eta)^2

    Limits: on pairs of two own samples it has the minimiser of `inpo`; win rates half apart give `inpo` itself.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the base model, the same in all rounds; no gradient.
        ref_rejected_logps: the same under the base model, the same in all rounds; no gradient.
        prev_chosen_logps: the same under pi_t, the policy that sampled the answers; no gradient.
        prev_rejected_logps: the same under pi_t; no gradient.
        chosen_win_probs: win(chosen), in [0, 1].
        rejected_win_probs: win(rejected), in [0, 1].
        eta: inverse size of the step, > 0.
        tau: how strongly the game is regularised to the base model, from 0 to eta.

    Returns:
        Loss of each pair, in nats squared.

    Example:
        >>> import torch
        >>> zero = torch.zeros(1)
        >>> inpo_win_rates(zero, zero, zero, zero, zero, zero, zero + 0.75, zero + 0.25, eta=0.5, tau=0.0)
        tensor([1.])
    """
    h = inpo_gap(
        policy_chosen_logps,
        policy_rejected_logps,
        ref_chosen_logps,
        ref_rejected_logps,
        prev_chosen_logps,
        prev_rejected_logps,
        eta=eta,
        tau=tau,
    )
    return (h - (chosen_win_probs - rejected_win_probs) / eta) ** 2
