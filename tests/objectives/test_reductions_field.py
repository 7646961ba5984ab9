"""Where anchored, reference-free, ranked, weighted and adaptive objectives become others: in loss and gradient."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from prefloop.objectives import (
    AveragedGapMoments,
    GapMoments,
    RewardMean,
    alpha_dpo,
    alphapo,
    aot,
    aot_unpaired,
    apo_zero,
    apo_zero_unpaired,
    asft,
    asft_align,
    bco,
    bco_pair,
    beta_dpo,
    bmc,
    bmc_own_weights,
    cal_dpo,
    conservative_dpo,
    cpo,
    cpo_simpo,
    davir_dpo,
    dpo,
    ipo,
    kto,
    length_normalized_dpo,
    mipo,
    mpo,
    odpo,
    odpo_constant,
    odpo_identity,
    odpo_log_ratio,
    orpo,
    orpo_with_prompt,
    rebel,
    reference_free_dpo,
    sft,
    simpo,
    sppo_hard,
    step_dpo,
    tpo,
    tpo_length_normalised,
    wpo,
    wpo_uncapped,
)

PAIRS, TOKENS = 5, 6


@dataclass(frozen=True)
class Drawn:
    """Pairs that are known token by token, as the objectives want them, and hyper-parameters."""

    tokens: tuple[Tensor, Tensor, Tensor, Tensor]
    """Of policy and reference; those of the policy take gradient."""
    lengths: tuple[Tensor, Tensor]
    scores: tuple[Tensor, Tensor]
    beta: float
    weight: float

    @property
    def free(self) -> tuple[Tensor, Tensor]:
        return self.tokens[0].sum(1), self.tokens[1].sum(1)

    @property
    def pair(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return (*self.free, self.tokens[2].sum(1), self.tokens[3].sum(1))

    @property
    def chosen(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.pair[0], self.pair[2], torch.ones(PAIRS, dtype=torch.bool)

    @property
    def rejected(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.pair[1], self.pair[3], torch.zeros(PAIRS, dtype=torch.bool)

    @property
    def nowhere(self) -> tuple[Tensor, Tensor]:
        """Prefixes of no tokens."""
        return (torch.zeros(PAIRS, dtype=torch.long),) * 2

    def marked(self, *, everything: bool) -> tuple[Tensor, Tensor]:
        return (torch.full((PAIRS, TOKENS), fill_value=everything),) * 2

    def alone(self, function: Callable[..., Tensor]) -> Tensor:
        """Each pair as an optimiser step of its own."""
        return torch.cat([function(*(of_all[i : i + 1] for of_all in self.pair)) for i in range(PAIRS)])


def draw(seed: int, beta: float, weight: float) -> Drawn:
    generator = torch.Generator().manual_seed(seed)
    lengths = [torch.randint(1, TOKENS + 1, (PAIRS, 1), generator=generator) for _ in range(2)]
    tokens = [
        (-3 * torch.rand(PAIRS, TOKENS, generator=generator, dtype=torch.float64) - 0.01).masked_fill(
            torch.arange(TOKENS) >= lengths[number % 2], 0.0
        )
        for number in range(4)
    ]
    scores = torch.rand(2, PAIRS, generator=generator, dtype=torch.float64)
    counted = lengths[0].squeeze(1).double(), lengths[1].squeeze(1).double()
    policy = tokens[0].requires_grad_(), tokens[1].requires_grad_()
    return Drawn((*policy, tokens[2], tokens[3]), counted, (scores[0] + 1.1, scores[1] + 0.1), beta, weight)


ZERO = torch.zeros(PAIRS, dtype=torch.float64)
STILL = AveragedGapMoments(mean=0.3, std=2.0)
Losses = tuple[Tensor, Tensor]
REDUCTIONS: dict[str, Callable[[Drawn], Losses]] = {
    "both answers under BCO with a shift of 0 are BCO on the pair": lambda d: (
        bco(*d.chosen, RewardMean(0.0, 3.0), beta=d.beta) + bco(*d.rejected, RewardMean(0.0, 3.0), beta=d.beta),
        bco_pair(*d.pair, beta=d.beta),
    ),
    "MPO of quality alone is BCO on the pair": lambda d: (
        mpo(
            *d.pair,
            d.lengths[0],
            d.lengths[0].mean(),
            beta=d.beta,
            preference_weight=0.0,
            quality_weight=1.0,
            generation_weight=0.0,
        ),
        bco_pair(*d.pair, beta=d.beta),
    ),
    "both answers under unpaired APO-zero are APO-zero": lambda d: (
        apo_zero_unpaired(*d.chosen, beta=d.beta) + apo_zero_unpaired(*d.rejected, beta=d.beta),
        apo_zero(*d.pair, beta=d.beta),
    ),
    "KTO with its reference point at 0 is unpaired APO-zero": lambda d: (
        kto(*d.chosen, ZERO - 1, ZERO, beta=d.beta, desirable_weight=d.weight),
        apo_zero_unpaired(*d.chosen, beta=d.beta, desirable_weight=d.weight),
    ),
    "half of SPPO is half of its sum": lambda d: (
        sppo_hard(*d.pair, beta=d.beta, scale="half"),
        sppo_hard(*d.pair, beta=d.beta, scale="sum") / 2,
    ),
    "Cal-DPO is SPPO and a DPO without strength": lambda d: (
        cal_dpo(*d.pair, beta=d.beta),
        sppo_hard(*d.pair, beta=d.beta) + dpo(*d.pair, beta=1.0),
    ),
    "AOT on one pair is conservative DPO": lambda d: (
        d.alone(lambda *pair: aot(*pair, beta=d.beta, label_smoothing=0.2)),
        conservative_dpo(*d.pair, beta=d.beta, label_smoothing=0.2),
    ),
    "unpaired AOT on one pair is conservative DPO": lambda d: (
        d.alone(lambda *pair: aot_unpaired(*pair, beta=d.beta, label_smoothing=0.2)),
        conservative_dpo(*d.pair, beta=d.beta, label_smoothing=0.2),
    ),
    "CPO without imitation is reference-free DPO": lambda d: (
        cpo(*d.free, d.lengths[0], d.lengths[0].mean(), beta=d.beta, nll_weight=0.0, label_smoothing=0.1),
        reference_free_dpo(*d.free, beta=d.beta, label_smoothing=0.1),
    ),
    "CPO-SimPO without imitation is SimPO": lambda d: (
        cpo_simpo(*d.free, *d.lengths, d.lengths[0].mean(), beta=d.beta, gamma=d.weight, nll_weight=0.0),
        simpo(*d.free, *d.lengths, beta=d.beta, gamma=d.weight),
    ),
    "TPO whose gold answer is the chosen one is CPO": lambda d: (
        tpo(*d.free, d.free[0], d.lengths[0], d.lengths[0].mean(), beta=d.beta, nll_weight=d.weight),
        cpo(*d.free, d.lengths[0], d.lengths[0].mean(), beta=d.beta, nll_weight=d.weight),
    ),
    "length-normalised TPO whose gold answer is the chosen one is CPO-SimPO": lambda d: (
        tpo_length_normalised(
            *d.free, *d.lengths, d.free[0], d.lengths[0], d.lengths[0].mean(), beta=d.beta, nll_weight=d.weight
        ),
        cpo_simpo(*d.free, *d.lengths, d.lengths[0].mean(), beta=d.beta, nll_weight=d.weight),
    ),
    "AlphaPO at alpha 0 is SimPO": lambda d: (
        alphapo(*d.free, *d.lengths, beta=d.beta, gamma=d.weight, alpha=0.0),
        simpo(*d.free, *d.lengths, beta=d.beta, gamma=d.weight),
    ),
    "ORPO without odds is SFT": lambda d: (
        orpo(*d.free, *d.lengths, d.lengths[0].mean(), lam=0.0),
        sft(d.free[0], d.lengths[0], d.lengths[0].mean()),
    ),
    "ORPO of sure prompts is ORPO of answers": lambda d: (
        orpo_with_prompt(
            *d.free, ZERO, *d.lengths, ZERO + 3, *(d.lengths[0].mean(),) * 2, lam=d.weight, nll_reduction="sequence_sum"
        ),
        orpo(*d.free, *d.lengths, d.lengths[0].mean(), lam=d.weight, nll_reduction="sequence_sum"),
    ),
    "ASFT without alignment is SFT with the mean of each answer": lambda d: (
        asft(*d.free, *d.lengths, lam=0.0),
        sft(d.free[0], d.lengths[0], d.lengths[0].mean(), nll_reduction="sequence_mean"),
    ),
    "ASFT is SFT and its alignment at beta 1": lambda d: (
        asft(*d.free, *d.lengths, lam=d.weight),
        asft(*d.free, *d.lengths, lam=0.0) + d.weight * asft_align(*d.free, *d.lengths, beta=1.0),
    ),
    "ORPO's odds are ASFT's and a term of both answers": lambda d: (
        orpo(*d.free, *d.lengths, d.lengths[0].mean(), lam=1.0)
        - orpo(*d.free, *d.lengths, d.lengths[0].mean(), lam=0.0),
        asft_align(*d.free, *d.lengths, beta=1.0) + one_of_two(*d.free, *d.lengths),
    ),
    "ODPO without an offset is DPO": lambda d: (
        odpo(*d.pair, *d.scores, beta=d.beta, alpha=0.0),
        dpo(*d.pair, beta=d.beta),
    ),
    "ODPO on gaps of 1 is DPO": lambda d: (
        odpo(*d.pair, ZERO + 3, ZERO + 2, beta=d.beta, alpha=d.weight),
        dpo(*d.pair, beta=d.beta),
    ),
    "ODPO of ratios on equal scores is DPO": lambda d: (
        odpo_log_ratio(*d.pair, ZERO + 3, ZERO + 3, beta=d.beta, alpha=d.weight),
        dpo(*d.pair, beta=d.beta),
    ),
    "ODPO of gaps of 1 is ODPO with a constant": lambda d: (
        odpo_identity(*d.pair, ZERO + 3, ZERO + 2, beta=d.beta, alpha=d.weight),
        odpo_constant(*d.pair, beta=d.beta, alpha=d.weight),
    ),
    "ODPO does not see the unit of ratios": lambda d: (
        odpo_log_ratio(*d.pair, *d.scores, beta=d.beta, alpha=d.weight),
        odpo_log_ratio(*d.pair, 7 * d.scores[0], 7 * d.scores[1], beta=d.beta, alpha=d.weight),
    ),
    "ODPO does not see the zero of scores": lambda d: (
        odpo(*d.pair, *d.scores, beta=d.beta, alpha=d.weight),
        odpo(*d.pair, d.scores[0] - 5, d.scores[1] - 5, beta=d.beta, alpha=d.weight),
    ),
    "MIPO under a reference that is certainly wrong is SimPO without a margin": lambda d: (
        mipo(*d.free, d.pair[2] - 60 * d.lengths[0], d.pair[3], *d.lengths, beta=d.beta),
        simpo(*d.free, *d.lengths, beta=d.beta, gamma=0.0),
    ),
    "MIPO under a reference that is certainly right is length-normalised DPO": lambda d: (
        mipo(*d.free, d.pair[2], d.pair[3] - 60 * d.lengths[1], *d.lengths, beta=d.beta),
        length_normalized_dpo(*d.free, d.pair[2], d.pair[3] - 60 * d.lengths[1], *d.lengths, beta=d.beta),
    ),
    "DavIR-DPO on equally likely answers is DPO": lambda d: (
        davir_dpo(*d.free, ZERO - 8, ZERO - 8, beta=d.beta),
        dpo(*d.free, ZERO - 8, ZERO - 8, beta=d.beta / 8),
    ),
    "DavIR-DPO does not see that both answers are repeated": lambda d: (
        davir_dpo(*d.pair, beta=d.beta),
        davir_dpo(*(2 * sums for sums in d.pair), beta=d.beta),
    ),
    "Step-DPO without a prefix is DPO": lambda d: (
        step_dpo(*d.tokens, *d.nowhere, beta=d.beta),
        dpo(*d.pair, beta=d.beta),
    ),
    "BMC without marked tokens is DPO": lambda d: (
        bmc(*d.tokens, *d.marked(everything=False), beta=d.beta, delta=d.weight),
        dpo(*d.pair, beta=d.beta),
    ),
    "BMC that adds nothing is DPO": lambda d: (
        bmc(*d.tokens, *d.marked(everything=True), beta=d.beta, delta=0.0),
        dpo(*d.pair, beta=d.beta),
    ),
    "BMC that adds 1 to all tokens is DPO with twice the strength": lambda d: (
        bmc(*d.tokens, *d.marked(everything=True), beta=d.beta, delta=1.0),
        dpo(*d.pair, beta=2 * d.beta),
    ),
    "BMC with own weights without marked tokens is DPO": lambda d: (
        bmc_own_weights(*d.tokens, *d.marked(everything=False), beta=d.beta, delta=d.weight),
        dpo(*d.pair, beta=d.beta),
    ),
    "the two sides of BMC agree at the reference": lambda d: (
        bmc_own_weights(*d.tokens[:2], *at_policy(d), *d.marked(everything=True), beta=d.beta, delta=d.weight),
        bmc(*d.tokens[:2], *at_policy(d), *d.marked(everything=True), beta=d.beta, delta=d.weight),
    ),
    "WPO of certain tokens is conservative DPO": lambda d: (
        wpo(*d.tokens, *at_policy(d), *d.lengths, beta=d.beta, label_smoothing=0.3),
        conservative_dpo(*d.pair, beta=d.beta, label_smoothing=0.3),
    ),
    "WPO whose weights are below 1 needs no cap": lambda d: (
        wpo(*d.tokens, *(0.5 * tokens for tokens in at_policy(d)), *d.lengths, beta=d.beta),
        wpo_uncapped(*d.tokens, *(0.5 * tokens for tokens in at_policy(d)), *d.lengths, beta=d.beta),
    ),
    "alpha-DPO at alpha 0 is SimPO": lambda d: (
        alpha_dpo(*d.pair, *d.lengths, STILL, beta=d.beta, gamma_beta_ratio=d.weight, alpha=0.0),
        simpo(*d.free, *d.lengths, beta=d.beta, gamma=d.weight * d.beta),
    ),
    "beta-DPO that neither adapts nor drops is DPO": lambda d: (
        beta_dpo(*d.pair, ZERO + 0.5, GapMoments(0.3, 2.0), beta=d.beta, a=0.0, drop=0.0),
        dpo(*d.pair, beta=d.beta),
    ),
    "REBEL does not see which answer is called chosen": lambda d: (
        rebel(*d.pair, *d.scores, eta=d.beta),
        rebel(d.pair[1], d.pair[0], d.pair[3], d.pair[2], d.scores[1], d.scores[0], eta=d.beta),
    ),
    "REBEL on gaps of one half is IPO": lambda d: (
        rebel(*d.pair, ZERO + 1.5, ZERO + 1, eta=d.beta),
        ipo(*d.pair, beta=1 / d.beta) / d.beta**2,
    ),
}


def one_of_two(chosen: Tensor, rejected: Tensor, chosen_lengths: Tensor, rejected_lengths: Tensor) -> Tensor:
    """log of the chance that exactly one of two mean tokens comes."""
    p, q = (chosen / chosen_lengths).exp(), (rejected / rejected_lengths).exp()
    return (p * (1 - q) + q * (1 - p)).log()


def at_policy(drawn: Drawn) -> tuple[Tensor, Tensor]:
    """The policy's own numbers without gradient."""
    return drawn.tokens[0].detach(), drawn.tokens[1].detach()


@pytest.mark.parametrize("reduction", REDUCTIONS.values(), ids=REDUCTIONS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), beta=st.floats(0.01, 5.0), weight=st.floats(0.0, 4.0))
def test_it_becomes_the_other(reduction: Callable[[Drawn], Losses], seed: int, beta: float, weight: float) -> None:
    """Rounding of numbers up to 1 / beta^2 = 1e4."""
    drawn = draw(seed, beta, weight)
    found, expected = reduction(drawn)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    slopes = [
        torch.autograd.grad(
            losses.sum(), drawn.tokens[:2], allow_unused=True, materialize_grads=True, retain_graph=True
        )
        for losses in (found, expected)
    ]
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("alpha", [1e-5, -1e-5])
def test_alphapo_comes_to_simpo_as_alpha_comes_to_0(alpha: float) -> None:
    """The difference is alpha * a^2 / 2, a at most 3 nats."""
    drawn = draw(0, 1.0, 0.0)
    near, there = (alphapo(*drawn.free, *drawn.lengths, beta=1.0, gamma=0.2, alpha=each) for each in (alpha, 0.0))
    torch.testing.assert_close(near, there, rtol=0, atol=4.5e-5)
