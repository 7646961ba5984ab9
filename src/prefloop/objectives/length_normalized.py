"""Objectives on averages over tokens: an answer gains nothing by being long."""

import math
from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefloop.objectives.pieces import smoothed_logistic
from prefloop.objectives.registry import Elsewhere, objective


@objective(
    source="arXiv:2411.15124 (Tulu 3)",
    aliases=("sigmoid_norm",),
    elsewhere=(Elsewhere("TRL", "loss_type=sigmoid_norm", {"beta": "beta"}),),
    at_reference=lambda _: math.log(2),
)
def length_normalized_dpo(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    chosen_lengths: Float[Tensor, " pairs"],
    rejected_lengths: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 5.0,
) -> Float[Tensor, " pairs"]:
    r"""DPO on log-ratios averaged over tokens.

    With rho(y) = log pi(y|x) - log pi_ref(y|x), in nats, and |y| the length in tokens:

        loss = -log sigmoid(beta * (rho(chosen) / |chosen| - rho(rejected) / |rejected|))

    Limits: on answers of one length n it is `dpo` at beta / n. Repeating an answer's tokens changes nothing.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        chosen_lengths: tokens of the chosen answer, EOS included.
        rejected_lengths: tokens of the rejected answer, EOS included.
        beta: KL strength, > 0; far above that of `dpo`, since averages are small.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> zero, short, long = torch.zeros(1), torch.tensor([5.0]), torch.tensor([50.0])
        >>> length_normalized_dpo(zero - 1, zero - 10, zero, zero, short, long)  # both lost 0.2 nats a token
        tensor([0.6931])
    """
    rho_chosen = (policy_chosen_logps - ref_chosen_logps) / chosen_lengths
    rho_rejected = (policy_rejected_logps - ref_rejected_logps) / rejected_lengths
    return -logsigmoid(beta * (rho_chosen - rho_rejected))


@objective(
    source="arXiv:2405.14734 eq. 6",
    elsewhere=(
        Elsewhere(
            "TRL",
            "CPOTrainer loss_type=simpo cpo_alpha=0",
            {"beta": "beta", "gamma": "simpo_gamma", "label_smoothing": "label_smoothing"},
        ),
        Elsewhere(
            "princeton-nlp/SimPO",
            "simpo",
            {"beta": "beta", "gamma": "gamma = gamma_beta_ratio * beta", "label_smoothing": "label_smoothing"},
        ),
        Elsewhere("HALOs", "loss=simpo", {"beta": "beta", "gamma": "gamma = gamma_beta_ratio * beta"}),
        Elsewhere("LLaMA-Factory", "pref_loss=simpo", {"beta": "pref_beta", "gamma": "simpo_gamma"}),
    ),
)
def simpo(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    chosen_lengths: Float[Tensor, " pairs"],
    rejected_lengths: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 2.0,
    gamma: Annotated[float, Field(ge=0)] = 1.0,
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0,
) -> Float[Tensor, " pairs"]:
    r"""Average log-probabilities as rewards, without a reference, and a margin that the chosen answer has to reach.

    With |y| the length in tokens, a(y) = log pi(y|x) / |y| and m = beta * (a(chosen) - a(rejected)) - gamma:

        loss = -(1 - e) * log sigmoid(m) - e * log sigmoid(-m)

    gamma is the margin in units of reward; the paper's tables give gamma / beta.

    Limits: on answers of one length n, at gamma = 0, it is `reference_free_dpo` at beta / n. Repeating an answer's
    tokens changes nothing. Only the learning rate holds the policy near its start.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        chosen_lengths: tokens of the chosen answer, EOS included.
        rejected_lengths: tokens of the rejected answer, EOS included.
        beta: scale of the reward, > 0; 2 to 10, far above that of `dpo`.
        gamma: margin of the chosen answer in units of reward, >= 0.
        label_smoothing: e, the probability that a label is wrong, in [0, 0.5).

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> zero, short, long = torch.zeros(1), torch.tensor([5.0]), torch.tensor([50.0])
        >>> simpo(zero - 10, zero - 100, short, long)  # equal averages, so the margin is missed by gamma
        tensor([1.3133])
    """
    average_chosen = policy_chosen_logps / chosen_lengths
    average_rejected = policy_rejected_logps / rejected_lengths
    return smoothed_logistic(beta * (average_chosen - average_rejected) - gamma, label_smoothing)
