"""Losses of reward models: comparisons, margins, centring, rankings."""

import math
from collections.abc import Callable
from itertools import permutations

import pytest
import torch
from torch import Tensor

from prefloop.objectives import bradley_terry, bradley_terry_margin, ranked_rewards, ranked_rewards_by_pairs
from prefloop.worlds import minimise


def rewards(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_without_centring_a_constant_on_both_rewards_changes_nothing() -> None:
    chosen, rejected = rewards(5), rewards(5, seed=1)
    one, other = (bradley_terry(chosen + c, rejected + c, center_coef=0.0) for c in (0.0, 7.0))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-13)
    assert bradley_terry(chosen, chosen, center_coef=0.0).tolist() == pytest.approx([math.log(2)] * 5, rel=1e-15)


def test_without_a_margin_the_two_comparisons_are_one_and_a_margin_moves_the_point_of_indifference() -> None:
    chosen, rejected = rewards(5), rewards(5, seed=1)
    zero = torch.zeros(5, dtype=torch.float64)
    assert bradley_terry_margin(chosen, rejected, zero).tolist() == bradley_terry(chosen, rejected).tolist()
    just_there = bradley_terry_margin(rejected + 2, rejected, zero + 2, center_coef=0.0)
    assert just_there.tolist() == pytest.approx([math.log(2)] * 5, rel=1e-12)


@pytest.mark.parametrize("center_coef", [0.0, 0.01])
def test_a_table_of_rewards_is_found_again_up_to_a_constant_and_centring_makes_the_constant_zero(
    center_coef: float,
) -> None:
    true = torch.tensor([1.0, 0.2, -0.5, -0.7], dtype=torch.float64)
    chosen, rejected = (1 - torch.eye(4)).nonzero(as_tuple=True)
    mass = (true[chosen] - true[rejected]).sigmoid()
    start = torch.full((4,), 3.0, dtype=torch.float64)

    def loss(r: Tensor) -> Tensor:
        return (mass * bradley_terry(r[chosen], r[rejected], center_coef=center_coef)).sum()

    found = minimise(loss, start=start)
    if center_coef:
        assert found.mean().item() == pytest.approx(0, abs=1e-6)
    else:
        torch.testing.assert_close(found - found.mean(), true - true.mean(), rtol=0, atol=1e-6)
        assert found.mean().item() == pytest.approx(3, abs=1e-6)


@pytest.mark.parametrize("objective", [ranked_rewards, ranked_rewards_by_pairs])
def test_a_ranking_of_two_is_a_comparison(objective: Callable[..., Tensor]) -> None:
    both = rewards(5, 2)
    mask = torch.ones(5, 2, dtype=torch.bool)
    expected = bradley_terry(both[:, 0], both[:, 1], center_coef=0.0)
    torch.testing.assert_close(objective(both, mask), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_equal_rewards_cost_the_log_of_the_number_of_orders_or_of_two(ranks: int) -> None:
    equal, mask = torch.full((1, ranks), 4.0, dtype=torch.float64), torch.ones(1, ranks, dtype=torch.bool)
    assert ranked_rewards(equal, mask).item() == pytest.approx(math.lgamma(ranks + 1))
    assert ranked_rewards_by_pairs(equal, mask).item() == pytest.approx(math.log(2))


def test_the_probabilities_of_all_orders_sum_to_one() -> None:
    values = rewards(4)
    orders = torch.tensor(list(permutations(range(4))))
    losses = ranked_rewards(values[orders], torch.ones(24, 4, dtype=torch.bool))
    assert (-losses).exp().sum().item() == pytest.approx(1, rel=1e-12)


def test_ranks_that_an_example_lacks_do_not_count_and_have_no_gradient() -> None:
    values, mask = rewards(2, 4), torch.tensor([[True] * 4, [True, True, False, False]])
    for objective in (ranked_rewards, ranked_rewards_by_pairs):
        padded = values.clone().requires_grad_()
        losses = objective(padded, mask)
        (grad,) = torch.autograd.grad(losses.sum(), [padded])
        short = objective(values[1:, :2], mask[1:, :2])
        torch.testing.assert_close(losses[1:], short, rtol=1e-14, atol=0)
        assert grad[1, 2:].tolist() == [0, 0]


def test_pairs_of_a_long_ranking_count_as_one_prompt() -> None:
    values, mask = rewards(1, 4), torch.ones(1, 4, dtype=torch.bool)
    pairs = [(j, k) for j in range(4) for k in range(j + 1, 4)]
    each = [bradley_terry(values[:, j], values[:, k], center_coef=0.0).item() for j, k in pairs]
    assert ranked_rewards_by_pairs(values, mask).item() == pytest.approx(sum(each) / 6, rel=1e-12)
