"""Losses that ask something of each answer of a pair by itself: the height of a reward, not only a difference."""

import math
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefloop.objectives.registry import Elsewhere, objective


@objective(
    source="arXiv:2402.05369 (InfoNCA and NCA for two answers)",
    elsewhere=(Elsewhere("TRL", "loss_type=nca_pair", {"beta": "beta"}),),
    at_reference=lambda _: 2 * math.log(2),
)
def nca_pair(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.01,
) -> Float[Tensor, " pairs"]:
    r"""Noise-contrastive alignment of a pair: the chosen answer's own likelihood ratio is held up.

    With r(y) = beta * (log pi(y|x) - log pi_ref(y|x)), in nats:

        loss = -log sigmoid(r(chosen)) - 0.5 * log sigmoid(-r(chosen)) - 0.5 * log sigmoid(-r(rejected))

    Limits: the best r(chosen) is log 2; r(rejected) has no finite best value. At the reference the gradient in r is
    (-1/4, +1/4), half of `bco_pair`'s. Adding a constant to both rewards changes the loss, unlike in `dpo`.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        beta: KL strength, > 0.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> zero = torch.zeros(1)
        >>> nca_pair(zero, zero, zero, zero)  # 2 log 2
        tensor([1.3863])
    """
    reward_chosen = beta * (policy_chosen_logps - ref_chosen_logps)
    reward_rejected = beta * (policy_rejected_logps - ref_rejected_logps)
    return -logsigmoid(reward_chosen) - 0.5 * logsigmoid(-reward_chosen) - 0.5 * logsigmoid(-reward_rejected)


@objective(
    source="arXiv:2404.04656 (without the shift)",
    elsewhere=(
        Elsewhere(
            "TRL", "loss_type=bco_pair", {"beta": "beta"}, "the paper index prints DPO's formula; the code is this one"
        ),
        Elsewhere(
            "LLaMA-Factory",
            "pref_bco_weight",
            {"beta": "pref_beta"},
            "added to DPO as (DPO + g * BCO) / (1 + g), with a running shift that counts each batch once",
        ),
    ),
    at_reference=lambda _: 2 * math.log(2),
)
def bco_pair(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.01,
) -> Float[Tensor, " pairs"]:
    r"""Binary classification of both answers of a pair by their implicit rewards.

    With r(y) = beta * (log pi(y|x) - log pi_ref(y|x)), in nats:

        loss = -log sigmoid(r(chosen)) - log sigmoid(-r(rejected))

    Limits: `bco` on the two answers with a shift of 0, summed. Never below `dpo` at the same beta.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        beta: KL strength, > 0.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> zero = torch.zeros(1)
        >>> bco_pair(zero, zero, zero, zero)  # 2 log 2
        tensor([1.3863])
    """
    reward_chosen = beta * (policy_chosen_logps - ref_chosen_logps)
    reward_rejected = beta * (policy_rejected_logps - ref_rejected_logps)
    return -logsigmoid(reward_chosen) - logsigmoid(-reward_rejected)


@objective(
    source="arXiv:2405.00675 (with win probabilities 1 and 0)",
    elsewhere=(
        Elsewhere("TRL", "loss_type=sppo_hard", {"beta": "beta"}, "scale: sum; no factor 1/2"),
        Elsewhere("uclaml/SPPO", "loss_type=sppo", {"beta": "beta"}, "scale: half"),
    ),
    at_reference=lambda hyper: {"sum": 0.5, "half": 0.25}[hyper["scale"]] / hyper["beta"] ** 2,
)
def sppo_hard(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.001,
    scale: Literal["sum", "half"] = "sum",
) -> Float[Tensor, " pairs"]:
    r"""Self-play with hard labels: the log-ratios of the two answers are regressed on +-1 / (2 beta).

    With rho(y) = log pi(y|x) - log pi_ref(y|x), in nats:

        loss = (rho(chosen) - 1 / (2 beta))^2 + (rho(rejected) + 1 / (2 beta))^2        halved where scale is half

    Limits: `sppo` with win probabilities 1 and 0; the squares of `cal_dpo`. The best log-ratios are +-1 / (2 beta);
    at the reference the gradient in them is (-1, +1) / beta.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        beta: 1 / eta of the paper, > 0; small beta asks for large log-ratios.
        scale: `sum` of the squares, as TRL has it, or `half` of it, as the authors do.

    Returns:
        Loss of each pair, in squared nats.

    Example:
        >>> import torch
        >>> zero = torch.zeros(1)
        >>> sppo_hard(zero, zero, zero, zero, beta=0.5)  # each log-ratio is 1 away from its target
        tensor([2.])
    """
    target = 1 / (2 * beta)
    rho_chosen = policy_chosen_logps - ref_chosen_logps
    rho_rejected = policy_rejected_logps - ref_rejected_logps
    squares = (rho_chosen - target) ** 2 + (rho_rejected + target) ** 2
    return squares if scale == "sum" else squares / 2


@objective(
    source="arXiv:2408.06266 (APO-zero)",
    elsewhere=(Elsewhere("TRL", "loss_type=apo_zero", {"beta": "beta"}),),
    at_reference=lambda _: 1.0,
)
def apo_zero(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
) -> Float[Tensor, " pairs"]:
    r"""Anchored preference optimisation for chosen answers better than the model's own: they rise, rejected ones fall.

    With r(y) = beta * (log pi(y|x) - log pi_ref(y|x)), in nats, and s = sigmoid:

        loss = s(-r(chosen)) + s(r(rejected))

    Limits: the sum of `apo_zero_unpaired` over the two answers. The gradient at the reference is (-1/4, +1/4) in r and
    fades for large |r| on both sides, so that hopeless answers are given up.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        beta: KL strength, > 0.

    Returns:
        Loss of each pair, in [0, 2].

    Example:
        >>> import torch
        >>> zero = torch.zeros(1)
        >>> apo_zero(zero, zero, zero, zero)
        tensor([1.])
    """
    reward_chosen = beta * (policy_chosen_logps - ref_chosen_logps)
    reward_rejected = beta * (policy_rejected_logps - ref_rejected_logps)
    return torch.sigmoid(-reward_chosen) + torch.sigmoid(reward_rejected)


@objective(
    source="arXiv:2408.06266 (APO-down)",
    elsewhere=(Elsewhere("TRL", "loss_type=apo_down", {"beta": "beta"}),),
    at_reference=lambda _: 1.0,
)
def apo_down(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
) -> Float[Tensor, " pairs"]:
    r"""Anchored preference optimisation for chosen answers worse than the model's own: both fall, rejected ones more.

    With r(y) = beta * (log pi(y|x) - log pi_ref(y|x)), in nats, and s = sigmoid:

        loss = s(r(chosen)) + s(-(r(chosen) - r(rejected)))

    Limits: at the reference the two terms cancel on the chosen answer, the gradient in r is (0, +1/4).

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        beta: KL strength, > 0.

    Returns:
        Loss of each pair, in [0, 2].

    Example:
        >>> import torch
        >>> zero = torch.zeros(1)
        >>> apo_down(zero, zero, zero, zero)
        tensor([1.])
    """
    reward_chosen = beta * (policy_chosen_logps - ref_chosen_logps)
    reward_rejected = beta * (policy_rejected_logps - ref_rejected_logps)
    return torch.sigmoid(reward_chosen) + torch.sigmoid(-(reward_chosen - reward_rejected))


@objective(
    source="arXiv:2412.14516",
    elsewhere=(Elsewhere("Cal-DPO/Cal-DPO", "loss=cal_dpo", {"beta": "beta"}, "with shift = 0.5"),),
    at_reference=lambda hyper: math.log(2) + 0.5 / hyper["beta"] ** 2,
)
def cal_dpo(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
) -> Float[Tensor, " pairs"]:
    r"""Calibrated DPO: a preference on the log-ratios, and a square that puts each of them at its own height.

    With rho(y) = log pi(y|x) - log pi_ref(y|x), in nats:

        loss = -log sigmoid(rho(chosen) - rho(rejected)) + (rho(chosen) - 1/(2 beta))^2 + (rho(rejected) + 1/(2 beta))^2

    The formula, with no beta in the logistic term, is that of the authors' released code (`preference_loss` of
    Cal-DPO/Cal-DPO, with the shift of 0.5 and beta of 0.1 of its `cal_dpo.yaml`); the paper's text was not read.

    Limits: without the logistic term it is `sppo_hard`, whose minimum it nearly has: the logistic term adds to each
    log-ratio less than 1/2.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        beta: KL strength, > 0.

    Returns:
        Loss of each pair, in nats and squared nats.

    Example:
        >>> import torch
        >>> zero = torch.zeros(1)
        >>> cal_dpo(zero, zero, zero, zero, beta=0.5)  # log 2 + 1 + 1
        tensor([2.6931])
    """
    target = 1 / (2 * beta)
    rho_chosen = policy_chosen_logps - ref_chosen_logps
    rho_rejected = policy_rejected_logps - ref_rejected_logps
    return -logsigmoid(rho_chosen - rho_rejected) + (rho_chosen - target) ** 2 + (rho_rejected + target) ** 2
