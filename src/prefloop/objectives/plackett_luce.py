"""DPO on rankings."""

from typing import Annotated

from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from prefloop.objectives.pieces import plackett_luce
from prefloop.objectives.registry import objective


@objective(source="arXiv:2305.18290 appendix A.3")
def plackett_luce_dpo(
    policy_ranked_logps: Float[Tensor, "pairs ranks"],
    ref_ranked_logps: Float[Tensor, "pairs ranks"],
    ranked_mask: Bool[Tensor, "pairs ranks"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
) -> Float[Tensor, " pairs"]:
    r"""Negative log-likelihood of a whole ranking, best first, under the implicit reward.

    With rho(y) = log pi(y|x) - log pi_ref(y|x), in nats, of answers y_1 (best) to y_K:

        loss = sum_{k<K} (logsumexp_{j>=k} beta * rho(y_j) - beta * rho(y_k))

    Each place is a choice among the answers that are left.

    Limits: K = 2 gives `dpo`. At the reference the loss is log K!.

    Args:
        policy_ranked_logps: log pi(y_k | prompt), summed over tokens, best first; gradient flows.
        ref_ranked_logps: the same under the frozen reference; no gradient.
        ranked_mask: which ranks an example has; the others stand behind them.
        beta: KL strength, > 0.

    Returns:
        Loss of each ranking, in nats.

    Example:
        >>> import torch
        >>> zero = torch.zeros(1, 3)
        >>> plackett_luce_dpo(zero, zero, torch.ones(1, 3, dtype=torch.bool))  # log 3!
        tensor([1.7918])
    """
    rho = policy_ranked_logps - ref_ranked_logps
    return plackett_luce(beta * rho, ranked_mask)
