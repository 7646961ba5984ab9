"""Where an objective on pairs becomes another one, it does so in loss and gradient, for any numbers."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given as all_of
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from prefloop.objectives import (
    conservative_dpo,
    dpo,
    dpop,
    dpop_outside_beta,
    f_divergence_dpo,
    hinge,
    ipo,
    ipo_per_token,
    ld_dpo,
    ld_dpo_policy_only,
    length_normalized_dpo,
    mpo,
    plackett_luce_dpo,
    reference_free_dpo,
    robust_dpo,
    rpo,
    sft,
    simpo,
    slic,
    tdpo1,
    tdpo2,
)

PAIRS, TOKENS = 5, 6


@dataclass(frozen=True)
class World:
    """Pairs whose answers are known token by token, a strength, and a probability of wrong labels."""

    policy: tuple[Tensor, Tensor]
    """Token log-probabilities of the chosen and the rejected answers; what gradients are compared of."""
    ref: tuple[Tensor, Tensor]
    masks: tuple[Tensor, Tensor]
    kl: tuple[Tensor, Tensor]
    beta: float
    wrong: float

    @property
    def sums(self) -> tuple[Tensor, Tensor]:
        both = zip(self.policy, self.masks, strict=True)
        chosen, rejected = (tokens.masked_fill(~mask, 0.0).sum(1) for tokens, mask in both)
        return chosen, rejected

    @property
    def pair(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return (*self.sums, self.ref[0].sum(1), self.ref[1].sum(1))

    @property
    def turned(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        chosen, rejected, ref_chosen, ref_rejected = self.pair
        return rejected, chosen, ref_rejected, ref_chosen

    @property
    def lengths(self) -> tuple[Tensor, Tensor]:
        chosen, rejected = (mask.sum(1).double() for mask in self.masks)
        return chosen, rejected

    @property
    def tokens(self) -> tuple[Tensor, ...]:
        return (*self.policy, *self.ref, *self.masks)

    @property
    def likelihood(self) -> tuple[Tensor, Tensor]:
        return self.lengths[0], self.lengths[0].mean()


def world(seed: int, beta: float, wrong: float, *, length: int | None = None) -> World:
    generator = torch.Generator().manual_seed(seed)

    def draw() -> Tensor:
        return -3 * torch.rand(PAIRS, TOKENS, generator=generator, dtype=torch.float64)

    def mask() -> Tensor:
        lengths = torch.randint(1, TOKENS + 1, (PAIRS, 1), generator=generator)
        return torch.arange(TOKENS) < (lengths if length is None else torch.full_like(lengths, length))

    masks = mask(), mask()
    policy, ref = ([draw().masked_fill(~each, 0.0) for each in masks] for _ in range(2))
    kl = [torch.rand(PAIRS, generator=generator, dtype=torch.float64) for _ in range(2)]
    learnt = [tokens.requires_grad_() for tokens in policy]
    return World((learnt[0], learnt[1]), (ref[0], ref[1]), masks, (kl[0], kl[1]), beta, wrong)


Losses = tuple[Tensor, Tensor]
REDUCTIONS: dict[str, Callable[[World], Losses]] = {
    "conservative DPO with no wrong labels is DPO": lambda w: (
        conservative_dpo(*w.pair, beta=w.beta, label_smoothing=0.0),
        dpo(*w.pair, beta=w.beta),
    ),
    "conservative DPO is DPO on labels that are right with probability 1 - e": lambda w: (
        conservative_dpo(*w.pair, beta=w.beta, label_smoothing=w.wrong),
        (1 - w.wrong) * dpo(*w.pair, beta=w.beta) + w.wrong * dpo(*w.turned, beta=w.beta),
    ),
    "robust DPO with no flips is DPO": lambda w: (
        robust_dpo(*w.pair, beta=w.beta, label_smoothing=0.0),
        dpo(*w.pair, beta=w.beta),
    ),
    "robust DPO averaged over flips is DPO on the clean label": lambda w: (
        (1 - w.wrong) * robust_dpo(*w.pair, beta=w.beta, label_smoothing=w.wrong)
        + w.wrong * robust_dpo(*w.turned, beta=w.beta, label_smoothing=w.wrong),
        dpo(*w.pair, beta=w.beta),
    ),
    "reference-free DPO is conservative DPO under a uniform reference": lambda w: (
        reference_free_dpo(*w.sums, beta=w.beta, label_smoothing=w.wrong),
        conservative_dpo(*w.sums, *(0 * w.sums[0].detach(),) * 2, beta=w.beta, label_smoothing=w.wrong),
    ),
    "f-divergence DPO under the reverse KL is DPO": lambda w: (
        f_divergence_dpo(*w.pair, beta=w.beta, divergence="reverse_kl"),
        dpo(*w.pair, beta=w.beta),
    ),
    "f-divergence DPO at alpha 1 is DPO": lambda w: (
        f_divergence_dpo(*w.pair, beta=w.beta, divergence="alpha_divergence", alpha=1.0),
        dpo(*w.pair, beta=w.beta),
    ),
    "f-divergence DPO at alpha 0 is the one of the forward KL": lambda w: (
        f_divergence_dpo(*w.pair, beta=w.beta, divergence="alpha_divergence", alpha=0.0),
        f_divergence_dpo(*w.pair, beta=w.beta, divergence="forward_kl"),
    ),
    "rankings of two are pairs": lambda w: (
        plackett_luce_dpo(
            torch.stack(w.pair[:2], 1),
            torch.stack(w.pair[2:], 1),
            torch.ones(PAIRS, 2, dtype=torch.bool),
            beta=w.beta,
        ),
        dpo(*w.pair, beta=w.beta),
    ),
    "DPOP without its penalty is DPO": lambda w: (dpop(*w.pair, beta=w.beta, lam=0.0), dpo(*w.pair, beta=w.beta)),
    "DPOP with its weight outside beta is the one inside at lambda over beta": lambda w: (
        dpop_outside_beta(*w.pair, beta=w.beta, lam=w.beta * 5.0),
        dpop(*w.pair, beta=w.beta, lam=5.0),
    ),
    "DPOP is DPO where the chosen answer is not below its reference": lambda w: (
        dpop(*w.pair[:2], w.pair[0].detach() - 1, w.pair[3], beta=w.beta),
        dpo(*w.pair[:2], w.pair[0].detach() - 1, w.pair[3], beta=w.beta),
    ),
    "TDPO2 at alpha 0 is DPO": lambda w: (
        tdpo2(*w.pair, *w.kl, beta=w.beta, alpha=0.0),
        dpo(*w.pair, beta=w.beta),
    ),
    "TDPO1 with equal divergences is DPO": lambda w: (
        tdpo1(*w.pair, w.kl[0], w.kl[0], beta=w.beta),
        dpo(*w.pair, beta=w.beta),
    ),
    "LD-DPO with its tail counted in full is DPO": lambda w: (
        ld_dpo(*w.tokens, beta=w.beta, ld_alpha=1.0),
        dpo(*w.pair, beta=w.beta),
    ),
    "LD-DPO of the policy only, with its tail counted in full, is DPO": lambda w: (
        ld_dpo_policy_only(*w.tokens, beta=w.beta, ld_alpha=1.0),
        dpo(*w.pair, beta=w.beta),
    ),
    "SLiC without likelihood is the hinge under a uniform reference": lambda w: (
        w.beta * slic(*w.sums, *w.likelihood, delta=1 / w.beta, lam=0.0),
        hinge(*w.sums, *(0 * w.sums[0].detach(),) * 2, beta=w.beta),
    ),
    "RPO without likelihood is DPO": lambda w: (
        rpo(*w.pair, *w.likelihood, beta=w.beta, nll_weight=0.0),
        dpo(*w.pair, beta=w.beta),
    ),
    "RPO is DPO and SFT": lambda w: (
        rpo(*w.pair, *w.likelihood, beta=w.beta, nll_weight=0.3, nll_reduction="sequence_mean"),
        dpo(*w.pair, beta=w.beta) + 0.3 * sft(w.sums[0], *w.likelihood, nll_reduction="sequence_mean"),
    ),
    "MPO of the preference alone is DPO": lambda w: (
        mpo(*w.pair, *w.likelihood, beta=w.beta, preference_weight=1.0, quality_weight=0.0, generation_weight=0.0),
        dpo(*w.pair, beta=w.beta),
    ),
    "MPO of generation alone is SFT": lambda w: (
        mpo(*w.pair, *w.likelihood, beta=w.beta, preference_weight=0.0, quality_weight=0.0, generation_weight=1.0),
        sft(w.sums[0], *w.likelihood),
    ),
    "MPO without quality is RPO": lambda w: (
        mpo(*w.pair, *w.likelihood, beta=w.beta, preference_weight=1.0, quality_weight=0.0, generation_weight=0.7),
        rpo(*w.pair, *w.likelihood, beta=w.beta, nll_weight=0.7),
    ),
}

LENGTH = 4
ON_EQUAL_LENGTHS: dict[str, Callable[[World], Losses]] = {
    "length-normalised DPO is DPO at beta over the length": lambda w: (
        length_normalized_dpo(*w.pair, *w.lengths, beta=w.beta),
        dpo(*w.pair, beta=w.beta / LENGTH),
    ),
    "SimPO without a margin is reference-free DPO at beta over the length": lambda w: (
        simpo(*w.sums, *w.lengths, beta=w.beta, gamma=0.0, label_smoothing=w.wrong),
        reference_free_dpo(*w.sums, beta=w.beta / LENGTH, label_smoothing=w.wrong),
    ),
    "IPO per token is IPO at beta over the length, over its square": lambda w: (
        LENGTH**2 * ipo_per_token(*w.pair, *w.lengths, beta=w.beta),
        ipo(*w.pair, beta=w.beta / LENGTH),
    ),
    "LD-DPO is DPO": lambda w: (ld_dpo(*w.tokens, beta=w.beta, ld_alpha=0.2), dpo(*w.pair, beta=w.beta)),
    "LD-DPO of the policy only is DPO": lambda w: (
        ld_dpo_policy_only(*w.tokens, beta=w.beta, ld_alpha=0.2),
        dpo(*w.pair, beta=w.beta),
    ),
    "a token mean is a sequence mean": lambda w: (
        sft(w.sums[0], *w.likelihood, nll_reduction="token_mean"),
        sft(w.sums[0], *w.likelihood, nll_reduction="sequence_mean"),
    ),
}

SEEDS = st.integers(0, 2**31)
BETAS = st.floats(0.005, 5.0)
WRONG = st.floats(0.0, 0.45)
FEW = settings(max_examples=15, deadline=None)


def must_agree(drawn: World, reduction: Callable[[World], Losses]) -> None:
    """Rounding of numbers up to (1 / beta)^2 = 4e4."""
    found, expected = reduction(drawn)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    slopes = [
        torch.autograd.grad(losses.sum(), drawn.policy, allow_unused=True, materialize_grads=True, retain_graph=True)
        for losses in (found, expected)
    ]
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("reduction", REDUCTIONS.values(), ids=REDUCTIONS)
@FEW
@all_of(seed=SEEDS, beta=BETAS, wrong=WRONG)
def test_it_becomes_the_other(reduction: Callable[[World], Losses], seed: int, beta: float, wrong: float) -> None:
    must_agree(world(seed, beta, wrong), reduction)


@pytest.mark.parametrize("reduction", ON_EQUAL_LENGTHS.values(), ids=ON_EQUAL_LENGTHS)
@FEW
@all_of(seed=SEEDS, beta=BETAS, wrong=WRONG)
def test_on_answers_of_one_length_it_becomes_the_other(
    reduction: Callable[[World], Losses], seed: int, beta: float, wrong: float
) -> None:
    must_agree(world(seed, beta, wrong, length=LENGTH), reduction)


SHIFT_INVARIANT: dict[str, Callable[..., Tensor]] = {
    "dpo": dpo,
    "conservative_dpo": conservative_dpo,
    "robust_dpo": robust_dpo,
    "ipo": ipo,
    "hinge": hinge,
}


@pytest.mark.parametrize("function", SHIFT_INVARIANT.values(), ids=SHIFT_INVARIANT)
@FEW
@all_of(seed=SEEDS, constant=st.floats(-50.0, 50.0))
def test_a_constant_of_the_prompt_in_the_reference_changes_nothing(
    function: Callable[..., Tensor], seed: int, constant: float
) -> None:
    chosen, rejected, ref_chosen, ref_rejected = world(seed, 0.1, 0.1).pair
    moved = function(chosen, rejected, ref_chosen + constant, ref_rejected + constant)
    torch.testing.assert_close(moved, function(chosen, rejected, ref_chosen, ref_rejected), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("divergence", ["forward_kl", "js_divergence", "alpha_divergence"])
def test_under_other_divergences_a_constant_of_the_prompt_does_matter(divergence: str) -> None:
    chosen, rejected, ref_chosen, ref_rejected = world(0, 0.1, 0.1).pair
    moved = f_divergence_dpo(chosen, rejected, ref_chosen + 2, ref_rejected + 2, divergence=divergence)
    plain = f_divergence_dpo(chosen, rejected, ref_chosen, ref_rejected, divergence=divergence)
    assert (moved - plain).abs().min() > 1e-5
