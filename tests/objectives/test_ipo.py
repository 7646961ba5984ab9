"""IPO: a parabola about its target, in sums and in averages."""

import pytest
import torch

from prefloop.objectives import ipo, ipo_per_token


@pytest.mark.parametrize("beta", [0.01, 0.1, 2.0])
def test_it_is_zero_at_its_target_and_symmetric_about_it(beta: float) -> None:
    target = 1 / (2 * beta)
    gaps = target + torch.tensor([0.0, -3.0, 3.0], dtype=torch.float64)
    zero = torch.zeros_like(gaps)
    assert ipo(gaps, zero, zero, zero, beta=beta).tolist() == pytest.approx([0.0, 9.0, 9.0], abs=1e-9)


def test_per_token_each_answer_is_divided_by_its_own_length() -> None:
    zero = torch.zeros(1, dtype=torch.float64)
    chosen, rejected = zero + 8, zero - 6
    found = ipo_per_token(chosen, rejected, zero, zero, zero + 4, zero + 2, beta=0.25)
    assert found.item() == pytest.approx((2 + 3 - 2) ** 2)


def test_repeating_an_answer_changes_the_sum_but_not_the_average() -> None:
    one = torch.ones(1, dtype=torch.float64)
    once, twice = (ipo_per_token(-3 * k * one, -one, -2 * k * one, -one, k * one, one) for k in (1, 2))
    assert once.item() == twice.item()
    assert ipo(-6 * one, -one, -4 * one, -one).item() != ipo(-3 * one, -one, -2 * one, -one).item()
