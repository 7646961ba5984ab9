"""Multi-reference preference optimisation: DPO against a mixture of several frozen models."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefloop.objectives.registry import Elsewhere, objective

Clip = Literal["adaptive", "fixed"]
Weights = Literal["adaptive"] | tuple[Annotated[float, Field(ge=0, le=1)], ...]
Models = Float[Tensor, "pairs models"]
Mixture = Callable[[Models, Models], Float[Tensor, " pairs"]]
"""Takes log-probabilities and weights of the references, the anchor first."""


@dataclass(frozen=True)
class MixedReference:
    """What stands in place of one reference."""

    chosen_logps: Float[Tensor, " pairs"]
    rejected_logps: Float[Tensor, " pairs"]
    weights: Float[Tensor, "pairs models"]
    """alpha, the anchor's first."""


def harmonic_mixture(logps: Models, weights: Models) -> Float[Tensor, " pairs"]:
    """Log of 1 / sum_k (alpha_k / pi_k): the weighted harmonic mean of probabilities."""
    return -(weights.log() - logps).logsumexp(1)


def exchanged_harmonic_mixture(logps: Models, weights: Models) -> Float[Tensor, " pairs"]:
    """The harmonic mean with the weights in reverse: each of two on the other model, as the released code has it."""
    return harmonic_mixture(logps, weights.flip(1))


def geometric_mixture(logps: Models, weights: Models) -> Float[Tensor, " pairs"]:
    """Log of prod_k pi_k^alpha_k: the weighted geometric mean, not normalised over answers."""
    return (weights * logps).sum(1)


def reference_weights(chosen_logps: Models, rejected_logps: Models, *, weights: Weights) -> Models:
    """alpha: as given, or the larger the more strongly a reference tells the two answers apart."""
    if weights != "adaptive":
        if len(weights) != chosen_logps.shape[1]:
            raise ValueError(f"weights has {len(weights)} values for {chosen_logps.shape[1]} references")
        return chosen_logps.new_tensor(weights).expand_as(chosen_logps)
    gaps = (chosen_logps - rejected_logps).abs()
    further = gaps[:, 1:] / (gaps.sum(1, keepdim=True) + 1e-6)
    # Rounding can take the sum of the others beyond 1.
    anchor = (1 - further.sum(1, keepdim=True)).clamp_min(0.0)
    return torch.cat([anchor, further], 1)


def trust_regions(
    chosen_logps: Models, rejected_logps: Models, *, eta: float, clip: Clip
) -> tuple[Float[Tensor, " pairs"], Float[Tensor, " pairs"]]:
    """The eta of the chosen and of the rejected answer; adaptive ones sum to eta, more for the less likely answer."""
    if clip == "fixed":
        whole = torch.full_like(chosen_logps[:, 0], eta)
        return whole, whole
    of_chosen, of_rejected = chosen_logps.mean(1).abs(), rejected_logps.mean(1).abs()
    share = of_chosen / (of_chosen + of_rejected).clamp_min(torch.finfo(of_chosen.dtype).tiny)
    return eta * share, eta * (1 - share)


def clipped_to_anchor(logps: Models, eta: Float[Tensor, " pairs"]) -> Models:
    """The further references within eta of the anchor's log-probability."""
    anchor, further = logps[:, :1], logps[:, 1:]
    inside = further.clamp((1 + eta[:, None]) * anchor, (1 - eta[:, None]) * anchor)
    return torch.cat([anchor, inside], 1)


def mixed_reference(
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    aux_ref_chosen_logps: Models,
    aux_ref_rejected_logps: Models,
    *,
    mixture: Mixture = harmonic_mixture,
    eta: float,
    clip: Clip,
    weights: Weights,
) -> MixedReference:
    """Weights from the models as they are, a mixture of them as clipped to the anchor's trust region."""
    chosen = torch.cat([ref_chosen_logps[:, None], aux_ref_chosen_logps], 1)
    rejected = torch.cat([ref_rejected_logps[:, None], aux_ref_rejected_logps], 1)
    alpha = reference_weights(chosen, rejected, weights=weights)
    eta_chosen, eta_rejected = trust_regions(chosen, rejected, eta=eta, clip=clip)
    return MixedReference(
        mixture(clipped_to_anchor(chosen, eta_chosen), alpha),
        mixture(clipped_to_anchor(rejected, eta_rejected), alpha),
        alpha,
    )


@objective(
    source="arXiv:2405.16388",
)
def mrpo(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    aux_ref_chosen_logps: Float[Tensor, "pairs models"],
    aux_ref_rejected_logps: Float[Tensor, "pairs models"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
    eta: Annotated[float, Field(ge=0)] = 0.1,
    clip: Clip = "adaptive",
    weights: Weights = "adaptive",
) -> Float[Tensor, " pairs"]:
    r"""DPO against the weighted harmonic mean of several references, each clipped near the anchor.

    With pi_1 the anchor, pi_2 ... pi_K the further references, g_k = |log pi_k(chosen) - log pi_k(rejected)|:

        alpha_k      = g_k / (sum_j g_j + 1e-6) for k >= 2, alpha_1 = 1 - alpha_2 - ... - alpha_K
        log pi_k(y)  is clipped into (1 +- eta_y) * log pi_1(y) for k >= 2
        log pi~(y)   = -log sum_k exp(log alpha_k - log pi_k(y))
        loss         = -log sigmoid(beta * (log pi - log pi~)(chosen) - beta * (log pi - log pi~)(rejected))

    and with b(y) = |mean_k log pi_k(y)|: eta_chosen = eta * b(chosen) / (b(chosen) + b(rejected)), eta_rejected the
    rest of eta. All of it but the last line is constant in the policy.

    Limits: references equal to the anchor, no further one, or eta = 0 with a fixed clip give `dpo` with the anchor.
    alpha_k = 1 gives `dpo` with reference k, clipped.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the anchor, the policy's initial model; no gradient.
        ref_rejected_logps: the same under the anchor, the policy's initial model; no gradient.
        aux_ref_chosen_logps: the same under each further reference; no gradient.
        aux_ref_rejected_logps: the same under each further reference; no gradient.
        beta: KL strength, > 0.
        eta: size of the trust region, relative to the anchor's log-probability, >= 0.
        clip: `adaptive` shares eta between the two answers, `fixed` gives it to both.
        weights: `adaptive`, or alpha_1 (the anchor), alpha_2, ... that sum to 1.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> anchor, further = torch.full((1,), -10.0), torch.full((1, 1), -12.0)
        >>> mrpo(anchor, anchor, anchor, anchor, further, further)
        tensor([0.6931])
    """
    mixed = mixed_reference(
        ref_chosen_logps,
        ref_rejected_logps,
        aux_ref_chosen_logps,
        aux_ref_rejected_logps,
        mixture=harmonic_mixture,
        eta=eta,
        clip=clip,
        weights=weights,
    )
    rho_chosen = policy_chosen_logps - mixed.chosen_logps
    rho_rejected = policy_rejected_logps - mixed.rejected_logps
    return -logsigmoid(beta * (rho_chosen - rho_rejected))


@objective(
    source="arXiv:2405.16388, as the released code mixes two references",
    elsewhere=(
        Elsewhere(
            "thaihungle/MRPO",
            "run_mrpo.py",
            {
                "beta": "dpo_beta",
                "eta": "|eta|; negative there is clip=fixed",
                "weights": "alpha of reference 2; -1 there",
            },
        ),
    ),
)
def mrpo_official(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    aux_ref_chosen_logps: Float[Tensor, "pairs models"],
    aux_ref_rejected_logps: Float[Tensor, "pairs models"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
    eta: Annotated[float, Field(ge=0)] = 0.1,
    clip: Clip = "adaptive",
    weights: Weights = "adaptive",
) -> Float[Tensor, " pairs"]:
    r"""MRPO as its released code runs it for two references, with each weight on the other model; to reproduce it.

    With the letters of `mrpo` and K = 2:

        log pi~(y) = -log(alpha_2 / pi_1(y) + alpha_1 / pi_2(y))

    A reference that is trusted fully (alpha_2 = 1) leaves the anchor. Use `mrpo` for anything new. The code knows two
    references; of more, the weights are taken in reverse order.

    Limits: equal weights give `mrpo`; equal references give `dpo`.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the anchor, the policy's initial model; no gradient.
        ref_rejected_logps: the same under the anchor, the policy's initial model; no gradient.
        aux_ref_chosen_logps: the same under each further reference; no gradient.
        aux_ref_rejected_logps: the same under each further reference; no gradient.
        beta: KL strength, > 0.
        eta: size of the trust region, relative to the anchor's log-probability, >= 0.
        clip: `adaptive` shares eta between the two answers, `fixed` gives it to both.
        weights: `adaptive`, or alpha_1 (the anchor), alpha_2, ... that sum to 1.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> anchor, further = torch.full((1,), -10.0), torch.full((1, 1), -12.0)
        >>> mrpo_official(anchor, anchor, anchor, anchor, further, further)
        tensor([0.6931])
    """
    mixed = mixed_reference(
        ref_chosen_logps,
        ref_rejected_logps,
        aux_ref_chosen_logps,
        aux_ref_rejected_logps,
        mixture=exchanged_harmonic_mixture,
        eta=eta,
        clip=clip,
        weights=weights,
    )
    rho_chosen = policy_chosen_logps - mixed.chosen_logps
    rho_rejected = policy_rejected_logps - mixed.rejected_logps
    return -logsigmoid(beta * (rho_chosen - rho_rejected))


@objective(
    source="arXiv:2405.16388, the exact minimiser that its harmonic mean stands in for",
)
def mrpo_geometric(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    aux_ref_chosen_logps: Float[Tensor, "pairs models"],
    aux_ref_rejected_logps: Float[Tensor, "pairs models"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
    eta: Annotated[float, Field(ge=0)] = 0.1,
    clip: Clip = "adaptive",
    weights: Weights = "adaptive",
) -> Float[Tensor, " pairs"]:
    r"""MRPO with the geometric mean, which is the exact optimum of reward minus a weighted sum of KL divergences.

    With the letters of `mrpo`:

        log pi~(y) = sum_k alpha_k * log pi_k(y)

    Limits: equal references give `dpo`; alpha_k = 1 gives `dpo` with reference k, clipped. The harmonic mean of `mrpo`
    lies below this one.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the anchor, the policy's initial model; no gradient.
        ref_rejected_logps: the same under the anchor, the policy's initial model; no gradient.
        aux_ref_chosen_logps: the same under each further reference; no gradient.
        aux_ref_rejected_logps: the same under each further reference; no gradient.
        beta: KL strength, > 0.
        eta: size of the trust region, relative to the anchor's log-probability, >= 0.
        clip: `adaptive` shares eta between the two answers, `fixed` gives it to both.
        weights: `adaptive`, or alpha_1 (the anchor), alpha_2, ... that sum to 1.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> anchor, further = torch.full((1,), -10.0), torch.full((1, 1), -12.0)
        >>> mrpo_geometric(anchor, anchor, anchor, anchor, further, further)
        tensor([0.6931])
    """
    mixed = mixed_reference(
        ref_chosen_logps,
        ref_rejected_logps,
        aux_ref_chosen_logps,
        aux_ref_rejected_logps,
        mixture=geometric_mixture,
        eta=eta,
        clip=clip,
        weights=weights,
    )
    rho_chosen = policy_chosen_logps - mixed.chosen_logps
    rho_rejected = policy_rejected_logps - mixed.rejected_logps
    return -logsigmoid(beta * (rho_chosen - rho_rejected))
