"""f-divergence DPO: its optimum, and its scores far away."""

import math
from typing import get_args

import pytest
import torch

from prefloop.objectives import f_divergence_dpo
from prefloop.objectives.f_divergence import Divergence, f_prime
from prefloop.worlds import Bandit

DIVERGENCES = get_args(Divergence)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_at_the_optimum_the_derivative_of_f_is_the_reward_over_beta_up_to_a_constant(divergence: Divergence) -> None:
    world = Bandit.of(5, seed=3)
    found = world.optimum("f_divergence_dpo", beta=2.0, divergence=divergence, alpha=0.6)
    rest = f_prime(found - world.ref, divergence, 0.6) - world.reward / 2.0
    torch.testing.assert_close(rest, rest.mean().expand(5), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("divergence", "expected"),
    [
        ("reverse_kl", math.log),
        ("forward_kl", lambda u: 1 - 1 / u),
        ("js_divergence", lambda u: math.log(2 * u / (1 + u))),
        ("alpha_divergence", lambda u: (u ** (0.3 - 1) - 1) / (0.3 - 1)),
    ],
)
def test_scores_are_the_published_derivatives_and_0_at_the_reference(divergence: Divergence, expected: object) -> None:
    ratios = [0.05, 0.7, 1.0, 3.0, 40.0]
    found = f_prime(torch.tensor(ratios, dtype=torch.float64).log(), divergence, 0.3)
    assert found.tolist() == pytest.approx([expected(u) for u in ratios], rel=1e-12, abs=1e-12)
    assert found[2].item() == 0.0


@pytest.mark.parametrize("alpha", [1 - 1e-6, 1 + 1e-6, 1 - 1e-12])
def test_near_alpha_1_no_digits_are_lost(alpha: float) -> None:
    log_ratio = torch.tensor([-40.0, -0.3, 0.0, 5.0, 60.0], dtype=torch.float64)
    found = f_prime(log_ratio, "alpha_divergence", alpha)
    second_order = log_ratio * (1 + (alpha - 1) * log_ratio / 2)
    torch.testing.assert_close(found, second_order, rtol=1e-8, atol=0)


@pytest.mark.parametrize("divergence", ["forward_kl", "js_divergence", "alpha_divergence"])
def test_a_score_is_bounded_above_so_only_the_rejected_answer_makes_a_large_margin(divergence: Divergence) -> None:
    highest = {"forward_kl": 1.0, "js_divergence": math.log(2), "alpha_divergence": 2.0}[divergence]
    assert f_prime(torch.tensor([700.0], dtype=torch.float64), divergence, 0.5).item() == pytest.approx(highest)
    assert f_prime(torch.tensor([-700.0], dtype=torch.float64), divergence, 0.5).item() < -100


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_an_exponential_that_would_overflow_is_held(dtype: torch.dtype) -> None:
    scores = f_prime(torch.tensor([-5.0, -1e4], dtype=dtype), "forward_kl", 0.5)
    assert bool(scores.isfinite().all())
    assert scores[1] < 100 * scores[0]


def test_at_the_cap_the_loss_is_finite_on_both_sides() -> None:
    zero = torch.zeros(2)
    losses = f_divergence_dpo(torch.tensor([-1e4, 1e4]), zero, zero, zero, divergence="forward_kl")
    assert bool(losses.isfinite().all())
    assert losses[0] > 1e30
