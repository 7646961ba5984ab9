"""Self-play preference optimisation: each answer's log-ratio is pulled to its own win rate."""

from typing import Annotated, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from prefloop.objectives.registry import Elsewhere, objective

Sides = Literal["mean", "sum"]
"""How the squares of the two answers become one number: the paper halves their sum, TRL does not."""


def _reduced(squares: Float[Tensor, " pairs"], sides: Sides) -> Float[Tensor, " pairs"]:
    return squares / 2 if sides == "mean" else squares


@objective(
    source="arXiv:2405.00675 eq. 4.5",
    elsewhere=(Elsewhere("uclaml/SPPO", "loss_type=sppo", {"eta": "1 / beta"}, "beta 0.001 is eta 1000"),),
    swap="it reads both answers' win rates: exchanging the answers with them leaves the loss as it is",
)
def sppo(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    chosen_win_probs: Float[Tensor, " pairs"],
    rejected_win_probs: Float[Tensor, " pairs"],
    *,
    eta: Annotated[float, Field(ge=0)] = 1000.0,
    sides: Sides = "mean",
) -> Float[Tensor, " pairs"]:
    r"""Squared distance of each answer's log-ratio from eta times its win rate above one half.

    With rho(y) = log pi(y|x) - log pi_t(y|x), in nats, and win(y) the chance that y beats an answer of pi_t:

        loss = 1/2 * ((rho(chosen) - eta * (win(chosen) - 1/2))^2 + (rho(rejected) - eta * (win(rejected) - 1/2))^2)

    The targets are absolute: a good answer's log-probability must rise, not only rise against the other's. The exact
    update that it approximates is pi_t * exp(eta * win) / Z, multiplicative weights in the preference game.

    Limits: eta = 0 pulls the policy back to pi_t. Win rates of 1 and 0 give `sppo_pair` of a sure label, which is TRL's
    sppo_hard with beta = 1 / eta. Which of the two answers is called chosen does not matter.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under pi_t, the policy from which the round starts; no gradient.
        ref_rejected_logps: the same under pi_t, the policy from which the round starts; no gradient.
        chosen_win_probs: win(chosen), in [0, 1].
        rejected_win_probs: win(rejected), in [0, 1].
        eta: size of the step, >= 0; at 1000 the targets are hundreds of nats away, and what counts is the gradient.
        sides: `mean` is the 1/2 in the formula; `sum` is without it.

    Returns:
        Loss of each pair, in nats squared.

    Example:
        >>> import torch
        >>> zero, half = torch.zeros(1), torch.full((1,), 0.5)
        >>> sppo(zero + 1, zero, zero, zero, half + 0.25, half, eta=4.0)  # both at their targets
        tensor([0.])
    """
    rho_chosen = policy_chosen_logps - ref_chosen_logps
    rho_rejected = policy_rejected_logps - ref_rejected_logps
    of_chosen = rho_chosen - eta * (chosen_win_probs - 0.5)
    of_rejected = rho_rejected - eta * (rejected_win_probs - 0.5)
    return _reduced(of_chosen**2 + of_rejected**2, sides)


@objective(source="arXiv:2405.00675 eq. 4.5, with the win rate of one answer over the other")
def sppo_pair(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    prob_chosen_wins: Float[Tensor, " pairs"],
    *,
    eta: Annotated[float, Field(ge=0)] = 1000.0,
    sides: Sides = "mean",
) -> Float[Tensor, " pairs"]:
    r"""SPPO where only the two answers were compared: one probability, and opposite targets.

    With rho(y) = log pi(y|x) - log pi_t(y|x), in nats, and p the chance that the chosen answer beats the rejected one:

        loss = 1/2 * ((rho(chosen) - eta * (p - 1/2))^2 + (rho(rejected) + eta * (p - 1/2))^2)

    Limits: p = 1 is the hard form (TRL's sppo_hard with beta = 1 / eta and the sum of both sides). p = 1/2 pulls both
    answers back to pi_t, as does eta = 0. Exchanging the answers and p for 1 - p leaves the loss as it is.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under pi_t, the policy from which the round starts; no gradient.
        ref_rejected_logps: the same under pi_t, the policy from which the round starts; no gradient.
        prob_chosen_wins: p, in [0, 1].
        eta: size of the step, >= 0.
        sides: `mean` is the 1/2 in the formula; `sum` is without it.

    Returns:
        Loss of each pair, in nats squared.

    Example:
        >>> import torch
        >>> zero = torch.zeros(1)
        >>> sppo_pair(zero + 2, zero - 2, zero, zero, zero + 1, eta=4.0)  # both at their targets
        tensor([0.])
    """
    rho_chosen = policy_chosen_logps - ref_chosen_logps
    rho_rejected = policy_rejected_logps - ref_rejected_logps
    target = eta * (prob_chosen_wins - 0.5)
    return _reduced((rho_chosen - target) ** 2 + (rho_rejected + target) ** 2, sides)
