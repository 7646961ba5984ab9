"""Nash mirror descent: policy gradient on the chance to beat a mixture of policy and reference."""

from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from prefloop.objectives.registry import Elsewhere, objective


@objective(source="arXiv:2312.00886 section 6")
def nash_md(
    policy_response_logps: Float[Tensor, " pairs"],
    ref_response_logps: Float[Tensor, " pairs"],
    response_win_probs: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(ge=0)] = 0.1,
) -> Float[Tensor, " pairs"]:
    r"""A surrogate whose gradient is REINFORCE on win rate minus KL, for answers that the policy itself sampled.

    With p the chance that y beats a sample of the normalised mixture pi^(1-m) * pi_ref^m, and sg[.] without gradient:

        loss = -(p - 1/2) * log pi(y|x) + beta * sg[log pi(y|x) - log pi_ref(y|x)] * log pi(y|x)

    Only the gradient means something: the value is no distance from an optimum.

    Limits: beta = 0 is REINFORCE on the win rate. At p = 1/2 and pi = pi_ref the expected gradient is zero. On answers
    of one token it is `nash_md_per_token`.

    Args:
        policy_response_logps: log pi(y | prompt), summed over tokens; gradient flows.
        ref_response_logps: the same under the frozen reference; no gradient.
        response_win_probs: p, in [0, 1].
        beta: KL strength, >= 0.

    Returns:
        Surrogate of each answer.

    Example:
        >>> import torch
        >>> logps = torch.tensor([-10.0], requires_grad=True)
        >>> loss = nash_md(logps, torch.tensor([-10.0]), torch.tensor([0.75]))
        >>> torch.autograd.grad(loss.sum(), logps)  # it rises: p is above one half
        (tensor([-0.2500]),)
    """
    log_ratio = (policy_response_logps - ref_response_logps).detach()
    return -(response_win_probs - 0.5) * policy_response_logps + beta * log_ratio * policy_response_logps


@objective(
    source="arXiv:2312.00886 section 6, as a public trainer runs it",
    elsewhere=(Elsewhere("TRL", "experimental.nash_md", {"beta": "beta"}),),
)
def nash_md_per_token(
    policy_response_token_logps: Float[Tensor, "pairs response_tokens"],
    ref_response_token_logps: Float[Tensor, "pairs response_tokens"],
    response_win_probs: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(ge=0)] = 0.1,
) -> Float[Tensor, " pairs"]:
    r"""Nash-MD with the log-ratio multiplied token by token, as TRL does; for comparison with it.

    With sg[.] without gradient and y_t the tokens of y:

        loss = -(p - 1/2) * log pi(y|x) + beta * sum_t sg[log pi(y_t) - log pi_ref(y_t)] * log pi(y_t)

    A token is not charged for the KL of what follows it, so that this is not the gradient of a KL; `nash_md` is.

    Limits: on answers of one token it is `nash_md`; beta = 0 is REINFORCE on the win rate.

    Args:
        policy_response_token_logps: log pi(y_t | prompt, y_<t), 0 behind the end; gradient flows.
        ref_response_token_logps: the same under the frozen reference; no gradient.
        response_win_probs: p, the chance that y beats a sample of the mixture, in [0, 1].
        beta: KL strength, >= 0.

    Returns:
        Surrogate of each answer.

    Example:
        >>> import torch
        >>> nash_md_per_token(torch.tensor([[-1.0, -2.0]]), torch.tensor([[-1.0, -1.0]]), torch.tensor([0.5]))
        tensor([0.2000])
    """
    log_ratio = (policy_response_token_logps - ref_response_token_logps).detach()
    charged = (log_ratio * policy_response_token_logps).sum(1)
    return -(response_win_probs - 0.5) * policy_response_token_logps.sum(1) + beta * charged
