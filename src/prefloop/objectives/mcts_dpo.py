"""Steps of a tree search as pairs: DPO on the tokens after two steps part, softened by visit counts."""

import math
from typing import Annotated

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid, pad

from prefloop.objectives.pieces import masked_sum, smoothed_logistic
from prefloop.objectives.registry import Elsewhere, objective


def first_difference(
    chosen_token_ids: Int[Tensor, "pairs chosen_tokens"],
    rejected_token_ids: Int[Tensor, "pairs rejected_tokens"],
    chosen_token_mask: Bool[Tensor, "pairs chosen_tokens"],
    rejected_token_mask: Bool[Tensor, "pairs rejected_tokens"],
) -> Int[Tensor, " pairs"]:
    """Position of the first token at which two answers differ; their length where they do not.

    Where one answer is the beginning of the other, it is the position at which the shorter one has ended.
    """
    width = max(chosen_token_ids.shape[1], rejected_token_ids.shape[1])
    chosen, rejected = (
        pad(ids.masked_fill(~mask, -1), (0, width - ids.shape[1]), value=-1)
        for ids, mask in ((chosen_token_ids, chosen_token_mask), (rejected_token_ids, rejected_token_mask))
    )
    shared = (chosen == rejected).long().cumprod(1).sum(1)
    return shared.minimum((chosen >= 0).sum(1))


def visit_smoothing(
    chosen_visits: Float[Tensor, " pairs"], rejected_visits: Float[Tensor, " pairs"]
) -> Float[Tensor, " pairs"]:
    """The chance that a label is wrong, from how often a search went either way; 1/2 at most."""
    return (rejected_visits / (rejected_visits + chosen_visits.clamp_min(1.0))).clamp_max(0.5)


def tail_gap(
    policy_chosen_token_logps: Float[Tensor, "pairs chosen_tokens"],
    policy_rejected_token_logps: Float[Tensor, "pairs rejected_tokens"],
    ref_chosen_token_logps: Float[Tensor, "pairs chosen_tokens"],
    ref_rejected_token_logps: Float[Tensor, "pairs rejected_tokens"],
    chosen_token_ids: Int[Tensor, "pairs chosen_tokens"],
    rejected_token_ids: Int[Tensor, "pairs rejected_tokens"],
    chosen_token_mask: Bool[Tensor, "pairs chosen_tokens"],
    rejected_token_mask: Bool[Tensor, "pairs rejected_tokens"],
    *,
    length_power: float,
) -> Float[Tensor, " pairs"]:
    """Difference of the log-ratios of both tails, from where they part, each over its length^power, in nats."""
    start = first_difference(chosen_token_ids, rejected_token_ids, chosen_token_mask, rejected_token_mask)

    def tail(log_ratios: Float[Tensor, "pairs tokens"], mask: Bool[Tensor, "pairs tokens"]) -> Float[Tensor, " pairs"]:
        counted = mask & (torch.arange(mask.shape[1], device=mask.device) >= start[:, None])
        lengths = counted.sum(1).clamp_min(1).to(log_ratios.dtype)
        return masked_sum(log_ratios, counted) / lengths**length_power

    chosen = tail(policy_chosen_token_logps - ref_chosen_token_logps, chosen_token_mask)
    rejected = tail(policy_rejected_token_logps - ref_rejected_token_logps, rejected_token_mask)
    return chosen - rejected


@objective(
    source="arXiv:2405.00451 eq. 6",
    elsewhere=(
        Elsewhere(
            "YuxiXie/MCTS-DPO",
            "use_conservative",
            {"beta": "scale_coeff", "length_power": "0, or 1 with length averaging there"},
        ),
    ),
    swap="its labels are softened by visit counts",
)
def mcts_dpo(
    policy_chosen_token_logps: Float[Tensor, "pairs chosen_tokens"],
    policy_rejected_token_logps: Float[Tensor, "pairs rejected_tokens"],
    ref_chosen_token_logps: Float[Tensor, "pairs chosen_tokens"],
    ref_rejected_token_logps: Float[Tensor, "pairs rejected_tokens"],
    chosen_token_ids: Int[Tensor, "pairs chosen_tokens"],
    rejected_token_ids: Int[Tensor, "pairs rejected_tokens"],
    chosen_token_mask: Bool[Tensor, "pairs chosen_tokens"],
    rejected_token_mask: Bool[Tensor, "pairs rejected_tokens"],
    chosen_visits: Float[Tensor, " pairs"],
    rejected_visits: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
    length_power: Annotated[float, Field(ge=0)] = 0.0,
) -> Float[Tensor, " pairs"]:
    r"""Conservative DPO between two next steps of a solution, as sure of a label as the search was.

    With z the difference of the two log-ratios to the reference, summed over the tokens from the first one that
    differs, and N how often the search visited a step:

        e    = min(N(rejected) / (N(rejected) + max(1, N(chosen))), 1/2)
        loss = -(1 - e) * log sigmoid(beta * z) - e * log sigmoid(-beta * z)

    Over all pairs of one node the minimiser is pi_ref * N^(1 / beta): the visits are the target.

    Limits: N(rejected) = 0 gives `mcts_dpo_plain`; equal visits pull z to 0.

    Args:
        policy_chosen_token_logps: log pi of each token of the chosen step; gradient flows.
        policy_rejected_token_logps: log pi of each token of the rejected step; gradient flows.
        ref_chosen_token_logps: the same under the frozen reference; no gradient.
        ref_rejected_token_logps: the same under the frozen reference; no gradient.
        chosen_token_ids: the tokens.
        rejected_token_ids: the tokens.
        chosen_token_mask: which tokens are counted.
        rejected_token_mask: which tokens are counted.
        chosen_visits: N(chosen).
        rejected_visits: N(rejected).
        beta: KL strength, > 0.
        length_power: each tail's log-ratio is divided by its number of tokens to this power.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> zero, ids, mask = torch.zeros(1, 3), torch.tensor([[1, 2, 3]]), torch.ones(1, 3, dtype=torch.bool)
        >>> mcts_dpo(zero, zero, zero, zero, ids, ids + 1, mask, mask, torch.ones(1), torch.ones(1))
        tensor([0.6931])
    """
    gap = tail_gap(
        policy_chosen_token_logps,
        policy_rejected_token_logps,
        ref_chosen_token_logps,
        ref_rejected_token_logps,
        chosen_token_ids,
        rejected_token_ids,
        chosen_token_mask,
        rejected_token_mask,
        length_power=length_power,
    )
    return smoothed_logistic(beta * gap, visit_smoothing(chosen_visits, rejected_visits))


@objective(source="arXiv:2405.00451, without smoothing", at_reference=lambda _: math.log(2))
def mcts_dpo_plain(
    policy_chosen_token_logps: Float[Tensor, "pairs chosen_tokens"],
    policy_rejected_token_logps: Float[Tensor, "pairs rejected_tokens"],
    ref_chosen_token_logps: Float[Tensor, "pairs chosen_tokens"],
    ref_rejected_token_logps: Float[Tensor, "pairs rejected_tokens"],
    chosen_token_ids: Int[Tensor, "pairs chosen_tokens"],
    rejected_token_ids: Int[Tensor, "pairs rejected_tokens"],
    chosen_token_mask: Bool[Tensor, "pairs chosen_tokens"],
    rejected_token_mask: Bool[Tensor, "pairs rejected_tokens"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
    length_power: Annotated[float, Field(ge=0)] = 0.0,
) -> Float[Tensor, " pairs"]:
    r"""DPO on the tokens from the first one at which two answers differ.

    With z as in `mcts_dpo`:

        loss = -log sigmoid(beta * z)

    Limits: on pairs that differ in their first token, with length_power = 0, it is `dpo`. The shared beginning has no
    gradient through its own tokens, as in `step_dpo`, which is told how long it is.

    Args:
        policy_chosen_token_logps: log pi of each token of the chosen step; gradient flows.
        policy_rejected_token_logps: log pi of each token of the rejected step; gradient flows.
        ref_chosen_token_logps: the same under the frozen reference; no gradient.
        ref_rejected_token_logps: the same under the frozen reference; no gradient.
        chosen_token_ids: the tokens.
        rejected_token_ids: the tokens.
        chosen_token_mask: which tokens are counted.
        rejected_token_mask: which tokens are counted.
        beta: KL strength, > 0.
        length_power: each tail's log-ratio is divided by its number of tokens to this power.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> zero, ids, mask = torch.zeros(1, 3), torch.tensor([[1, 2, 3]]), torch.ones(1, 3, dtype=torch.bool)
        >>> mcts_dpo_plain(zero, zero, zero, zero, ids, ids + 1, mask, mask)
        tensor([0.6931])
    """
    gap = tail_gap(
        policy_chosen_token_logps,
        policy_rejected_token_logps,
        ref_chosen_token_logps,
        ref_rejected_token_logps,
        chosen_token_ids,
        rejected_token_ids,
        chosen_token_mask,
        rejected_token_mask,
        length_power=length_power,
    )
    return -logsigmoid(beta * gap)


@objective(
    source="arXiv:2405.00451, with the square of arXiv:2310.12036",
    at_reference=lambda hyper: 1 / (4 * hyper["beta"] ** 2),
)
def mcts_dpo_ipo(
    policy_chosen_token_logps: Float[Tensor, "pairs chosen_tokens"],
    policy_rejected_token_logps: Float[Tensor, "pairs rejected_tokens"],
    ref_chosen_token_logps: Float[Tensor, "pairs chosen_tokens"],
    ref_rejected_token_logps: Float[Tensor, "pairs rejected_tokens"],
    chosen_token_ids: Int[Tensor, "pairs chosen_tokens"],
    rejected_token_ids: Int[Tensor, "pairs rejected_tokens"],
    chosen_token_mask: Bool[Tensor, "pairs chosen_tokens"],
    rejected_token_mask: Bool[Tensor, "pairs rejected_tokens"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
    length_power: Annotated[float, Field(ge=0)] = 0.0,
) -> Float[Tensor, " pairs"]:
    r"""IPO on the tokens from the first one at which two answers differ.

    With z as in `mcts_dpo`:

        loss = (z - 1 / (2 * beta))^2

    Limits: on pairs that differ in their first token, with length_power = 0, it is `ipo`.

    Args:
        policy_chosen_token_logps: log pi of each token of the chosen step; gradient flows.
        policy_rejected_token_logps: log pi of each token of the rejected step; gradient flows.
        ref_chosen_token_logps: the same under the frozen reference; no gradient.
        ref_rejected_token_logps: the same under the frozen reference; no gradient.
        chosen_token_ids: the tokens.
        rejected_token_ids: the tokens.
        chosen_token_mask: which tokens are counted.
        rejected_token_mask: which tokens are counted.
        beta: KL strength, > 0.
        length_power: each tail's log-ratio is divided by its number of tokens to this power.

    Returns:
        Loss of each pair, in nats squared.

    Example:
        >>> import torch
        >>> zero, ids, mask = torch.zeros(1, 3), torch.tensor([[1, 2, 3]]), torch.ones(1, 3, dtype=torch.bool)
        >>> mcts_dpo_ipo(zero, zero, zero, zero, ids, ids + 1, mask, mask, beta=0.5)
        tensor([1.])
    """
    gap = tail_gap(
        policy_chosen_token_logps,
        policy_rejected_token_logps,
        ref_chosen_token_logps,
        ref_rejected_token_logps,
        chosen_token_ids,
        rejected_token_ids,
        chosen_token_mask,
        rejected_token_mask,
        length_power=length_power,
    )
    return (gap - 1 / (2 * beta)) ** 2
