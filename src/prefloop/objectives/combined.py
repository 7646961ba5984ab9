"""DPO with three remedies at once: an offset by score, a token-level divergence, and a margin by length."""

from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefloop.objectives.length_regularized import ALPHA_CAP, fitted_alpha
from prefloop.objectives.odpo import ORDERED, log_offset
from prefloop.objectives.registry import objective


@objective(
    source="arXiv:2406.11817 with the terms of arXiv:2402.10571 and arXiv:2404.11999, put together here",
    fit={"alpha": fitted_alpha},
    swap=ORDERED,
)
def length_regularized_token_odpo(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    policy_chosen_seq_kl: Float[Tensor, " pairs"],
    policy_rejected_seq_kl: Float[Tensor, " pairs"],
    chosen_scores: Float[Tensor, " pairs"],
    rejected_scores: Float[Tensor, " pairs"],
    chosen_lengths: Float[Tensor, " pairs"],
    rejected_lengths: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
    alpha: Annotated[float, Field(ge=-ALPHA_CAP, le=ALPHA_CAP)] = 0.01,
    offset: Annotated[float, Field(ge=0)] = 0.5,
    kl_weight: Annotated[float, Field(ge=0)] = 0.5,
) -> Float[Tensor, " pairs"]:
    r"""Length-regularised DPO that asks more of clear pairs and holds the rejected answer's distributions.

    With rho(y) = log pi(y|x) - log pi_ref(y|x) and D(y) = sum_t KL(pi_ref || pi) over the answer's positions, in nats,
    |y| the length in tokens, scores s(y) and g = s(chosen) - s(rejected):

        margin = beta * (rho(chosen) - rho(rejected) - kl_weight * (D(rejected) - stop_gradient(D(chosen))))
        loss = -log sigmoid(margin + alpha * (|chosen| - |rejected|) - offset * log(g))

    Limits: kl_weight = 0 and offset = 0 give `length_regularized_dpo`; alpha = 0 and offset = 0 give `tdpo2`;
    alpha = 0 and kl_weight = 0 give `odpo`; all of them 0 give `dpo`. Equal scores have loss 0 and teach nothing: leave
    such pairs out.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        policy_chosen_seq_kl: D of the chosen answer; its gradient is stopped here.
        policy_rejected_seq_kl: D of the rejected answer; gradient flows.
        chosen_scores: score of the chosen answer, at least as high as the rejected one's.
        rejected_scores: score of the rejected answer.
        chosen_lengths: tokens of the chosen answer, EOS included.
        rejected_lengths: tokens of the rejected answer, EOS included.
        beta: KL strength, > 0.
        alpha: reward a token that is taken for bias, nats. `fitted` is the slope of winning on length.
        offset: nats of margin that are asked for at a gap of e in score.
        kl_weight: weight of the difference of divergences, >= 0.

    Returns:
        Loss of each pair, in nats.

    Raises:
        DataError: scores contradict the order of a pair.

    Example:
        >>> import torch
        >>> zero, ten, one, two = (torch.full((1,), number) for number in (0.0, 10.0, 1.0, 2.0))
        >>> length_regularized_token_odpo(zero, zero, zero, zero, zero, zero, two, one, ten, ten)  # a gap of 1: log 2
        tensor([0.6931])
    """
    rho_chosen = policy_chosen_logps - ref_chosen_logps
    rho_rejected = policy_rejected_logps - ref_rejected_logps
    kl_gap = policy_rejected_seq_kl - policy_chosen_seq_kl.detach()
    margin = beta * (rho_chosen - rho_rejected - kl_weight * kl_gap)
    length = alpha * (chosen_lengths - rejected_lengths)
    return -logsigmoid(margin + length - log_offset(chosen_scores, rejected_scores, offset))
