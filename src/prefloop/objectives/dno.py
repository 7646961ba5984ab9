"""Direct Nash optimisation: regression of the policy's own log-ratio on win rates."""

from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefloop.objectives.registry import objective


@objective(
    source="arXiv:2404.03715 eq. 8",
    swap="it reads both answers' win rates: exchanging the answers with them leaves the loss as it is",
)
def dno(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    chosen_win_probs: Float[Tensor, " pairs"],
    rejected_win_probs: Float[Tensor, " pairs"],
    *,
    eta: Annotated[float, Field(gt=0)] = 0.1,
    reward_scale: Annotated[float, Field(ge=0)] = 1.0,
) -> Float[Tensor, " pairs"]:
    r"""Cross-entropy between the odds that two win rates give and those of the implicit reward.

    With rho(y) = log pi(y|x) - log pi_t(y|x), in nats, and r(y) the chance that y beats an answer of pi_t:

        gap    = eta * (rho(chosen) - rho(rejected))
        target = reward_scale * (r(chosen) - r(rejected))
        loss   = -sigmoid(target) * log sigmoid(gap) - sigmoid(-target) * log sigmoid(-gap)

    The least loss stands at gap = target. Over all pairs the minimiser is pi_t * exp(reward_scale * r / eta) / Z, one
    step towards the equilibrium of the game in which two policies' answers are compared.

    Limits: a target of infinity gives `dpo` with beta = eta, the practical form (DNO-Prct). It is `conservative_dpo`
    whose smoothing is sigmoid(-target), pair by pair. Which of the two answers is called chosen does not matter.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under pi_t, the policy from which the round starts; no gradient.
        ref_rejected_logps: the same under pi_t, the policy from which the round starts; no gradient.
        chosen_win_probs: r(chosen), in [0, 1].
        rejected_win_probs: r(rejected), in [0, 1].
        eta: multiplies the log-ratios, as beta does in `dpo`, > 0.
        reward_scale: nats for a difference of 1 in win rate; the paper's equation has 1.

    Returns:
        Loss of each pair, in nats; at its least the entropy of sigmoid(target), not 0.

    Example:
        >>> import torch
        >>> zero, half = torch.zeros(1), torch.full((1,), 0.5)
        >>> dno(zero, zero, zero, zero, half, half)  # nothing to choose between: log 2, at the optimum
        tensor([0.6931])
    """
    rho_chosen = policy_chosen_logps - ref_chosen_logps
    rho_rejected = policy_rejected_logps - ref_rejected_logps
    gap = eta * (rho_chosen - rho_rejected)
    target = reward_scale * (chosen_win_probs - rejected_win_probs)
    return -target.sigmoid() * logsigmoid(gap) - (-target).sigmoid() * logsigmoid(-gap)
