"""Length-regularised DPO: its properties on paper, and the alpha that is fitted on a round."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from prefloop.objectives import Fit, dpo, find_objective, length_regularized_dpo
from prefloop.worlds import Bandit

OBJECTIVE = find_objective("ilr_dpo", "here")
LENGTHS = (2, 7, 12, 25, 39)


def scores(pairs: int = 6, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [-60 * torch.rand(pairs, generator=generator, dtype=torch.float64) for _ in range(4)]


def lengths(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


LONG, SHORT = lengths(30, 12, 9, 1, 40, 7), lengths(11, 30, 9, 25, 1, 6)


def test_without_alpha_it_is_dpo() -> None:
    for beta in (0.05, 0.3):
        found = length_regularized_dpo(*scores(), LONG, SHORT, beta=beta, alpha=0.0)
        assert found.tolist() == dpo(*scores(), beta=beta).tolist()


def test_with_equal_lengths_it_is_dpo_in_loss_and_gradient() -> None:
    values = [value.requires_grad_() for value in scores()]
    with_lengths = length_regularized_dpo(*values, LONG, LONG, alpha=0.7)
    plain = dpo(*values)
    assert with_lengths.tolist() == plain.tolist()
    found, expected = (torch.autograd.grad(losses.sum(), values[:2]) for losses in (with_lengths, plain))
    assert [grad.tolist() for grad in found] == [grad.tolist() for grad in expected]


def test_the_gradient_is_beta_times_sigmoid_of_minus_z_with_opposite_signs() -> None:
    chosen, rejected, ref_chosen, ref_rejected = scores()
    chosen.requires_grad_(), rejected.requires_grad_()
    losses = length_regularized_dpo(chosen, rejected, ref_chosen, ref_rejected, LONG, SHORT, beta=0.2, alpha=0.03)
    up, down = torch.autograd.grad(losses.sum(), [chosen, rejected])
    z = 0.2 * ((chosen - ref_chosen) - (rejected - ref_rejected)) + 0.03 * (LONG - SHORT)
    torch.testing.assert_close(up, -0.2 * (-z.detach()).sigmoid(), rtol=0, atol=1e-14)
    assert (up + down).tolist() == [0.0] * 6


def test_a_longer_winner_is_pushed_less() -> None:
    zero = torch.zeros(5, dtype=torch.float64)
    chosen = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    winner = lengths(1, 10, 20, 30, 200)
    losses = length_regularized_dpo(chosen, zero, zero, zero, winner, torch.full_like(winner, 20), alpha=0.05)
    (grad,) = torch.autograd.grad(losses.sum(), [chosen])
    assert (-grad).diff().max() < 0


def test_alpha_outside_beta_equals_alpha_over_beta_inside() -> None:
    chosen, rejected, ref_chosen, ref_rejected = scores()
    alpha, beta = 0.02, 0.05
    inside = dpo(chosen + alpha / beta * LONG, rejected + alpha / beta * SHORT, ref_chosen, ref_rejected, beta=beta)
    outside = length_regularized_dpo(chosen, rejected, ref_chosen, ref_rejected, LONG, SHORT, beta=beta, alpha=alpha)
    torch.testing.assert_close(outside, inside, rtol=0, atol=1e-13)


def test_scaling_alpha_and_beta_together_scales_z() -> None:
    """softplus(-z) at twice the strength, undone: log(expm1(loss)) = -z."""
    once, twice = (
        length_regularized_dpo(*scores(), LONG, SHORT, beta=factor * 0.05, alpha=factor * 0.02) for factor in (1, 2)
    )
    torch.testing.assert_close(twice.expm1().log(), 2 * once.expm1().log(), rtol=0, atol=1e-12)


def test_swapping_the_pair_turns_z_around() -> None:
    """softplus(-z) - softplus(z) = -z."""
    chosen, rejected, ref_chosen, ref_rejected = scores()
    one = length_regularized_dpo(chosen, rejected, ref_chosen, ref_rejected, LONG, SHORT, beta=0.1, alpha=0.04)
    other = length_regularized_dpo(rejected, chosen, ref_rejected, ref_chosen, SHORT, LONG, beta=0.1, alpha=0.04)
    z = 0.1 * ((chosen - ref_chosen) - (rejected - ref_rejected)) + 0.04 * (LONG - SHORT)
    torch.testing.assert_close(one - other, -z, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("beta", "alpha"), [(0.1, 0.0), (0.1, 0.01), (0.5, 0.1), (1.0, -0.05)])
def test_population_optimum_is_the_tilted_reference_with_length_taken_off(beta: float, alpha: float) -> None:
    world = Bandit.of(5, seed=1, lengths=LENGTHS)
    found = world.optimum("ilr_dpo", beta=beta, alpha=alpha)
    expected = world.tilted((world.reward - alpha * world.lengths) / beta)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_the_optimal_policys_expected_length_falls_with_alpha() -> None:
    world = Bandit.of(5, seed=1, lengths=LENGTHS)
    mean_lengths = [
        float(world.optimum("ilr_dpo", beta=0.5, alpha=alpha).exp() @ world.lengths)
        for alpha in (-0.02, 0.0, 0.01, 0.02, 0.05)
    ]
    assert np.diff(mean_lengths).max() < 0


def test_a_reward_that_pays_for_length_is_undone_by_its_own_alpha() -> None:
    """With reward = quality + c * length and alpha = c the optimum is that of quality alone."""
    fair = Bandit.of(5, seed=2, lengths=LENGTHS)
    biased = Bandit(fair.answers, fair.reward + 0.03 * fair.lengths, fair.ref)
    found = biased.optimum("ilr_dpo", beta=0.2, alpha=0.03)
    torch.testing.assert_close(found, fair.optimum("dpo", beta=0.2), rtol=0, atol=1e-9)


# ------------------------------------------------------------------------------------------------ the fitted alpha


def fit(chosen: Tensor, rejected: Tensor, weights: Tensor) -> Fit:
    data = {"chosen_lengths": chosen.numpy(), "rejected_lengths": rejected.numpy(), "weights": weights.numpy()}
    return OBJECTIVE.fit_on("alpha", data)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("weighted", [False, True])
def test_at_the_fitted_alpha_the_loss_has_no_slope_along_length(seed: int, weighted: bool) -> None:
    """The policy moves from its reference by s * length; the mean loss must not change at first order."""
    generator = torch.Generator().manual_seed(seed)
    chosen, rejected = (torch.randint(1, 60, (40,), generator=generator).double() for _ in range(2))
    weights = torch.rand(40, generator=generator).double() if weighted else torch.ones(40).double()
    ref_chosen, ref_rejected = scores(40)[:2]
    fitted = fit(chosen, rejected, weights)
    s = torch.zeros((), dtype=torch.float64, requires_grad=True)
    losses = length_regularized_dpo(
        ref_chosen + s * chosen,
        ref_rejected + s * rejected,
        ref_chosen,
        ref_rejected,
        chosen,
        rejected,
        beta=0.1,
        alpha=fitted.value,
    )
    (slope,) = torch.autograd.grad((weights * losses).mean(), [s])
    assert fitted.warning is None
    assert fitted.value != 0
    assert abs(slope.item()) < 1e-9


@pytest.mark.parametrize("bias", [0.0, 0.005, 0.02, 0.1, -0.03])
def test_on_exact_pair_masses_the_planted_bias_comes_back(bias: float) -> None:
    """Every ordered pair of six answers, weighted by how often it wins when only length is rewarded."""
    answers = (3.0, 8.0, 15.0, 21.0, 34.0, 55.0)
    chosen, rejected = (
        torch.tensor(side, dtype=torch.float64) for side in zip(*product(answers, repeat=2), strict=True)
    )
    weights = (bias * (chosen - rejected)).sigmoid()
    assert fit(chosen, rejected, weights).value == pytest.approx(bias, abs=1e-6)


@pytest.mark.parametrize(("sign", "said"), [(1, "+1"), (-1, "-1")])
def test_separable_pairs_give_the_cap_and_a_warning(sign: int, said: str) -> None:
    gaps = sign * lengths(3, 8, 20)
    found = fit(30 + gaps, torch.full_like(gaps, 30), torch.ones_like(gaps))
    assert found == Fit(
        value=float(sign),
        warning=f"alpha is capped at {said}: length alone separates winners from losers in 3 pairs, so that no finite "
        "slope fits. More pairs, or a judge less bound to length, would help.",
        limit=1.0,
    )


def test_a_pair_of_equal_lengths_says_nothing_of_alpha() -> None:
    equal = lengths(9, 9)
    assert fit(equal, equal, torch.ones(2).double()) == Fit(value=0.0, warning=None, limit=1.0)


@pytest.mark.parametrize("wanted", [2.0, -2.0])
def test_a_fit_that_is_scaled_or_corrected_stays_within_the_range_of_alpha(wanted: float) -> None:
    gaps = lengths(3, 8, 20)
    moved = fit(30 + gaps, torch.full_like(gaps, 30), torch.ones_like(gaps)).moved("alpha", wanted)

    assert moved.value == wanted / 2
    assert moved.warning == f"alpha would be {wanted:+.0f}, but {wanted / 2:+.0f} is as far as it goes."


def test_a_fit_that_stays_within_the_range_keeps_its_warning() -> None:
    assert Fit(0.1, "few pairs", limit=1.0).moved("alpha", -0.5) == Fit(-0.5, "few pairs", limit=1.0)


def test_a_capped_alpha_may_be_used() -> None:
    zero = torch.zeros(1)
    loss = length_regularized_dpo(zero, zero, zero, zero, zero + 50, zero, alpha=1.0)
    assert loss.item() == pytest.approx(math.exp(-50), rel=1e-6)
