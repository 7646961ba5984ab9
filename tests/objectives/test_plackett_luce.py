"""Plackett-Luce DPO against enumeration."""

import math
from itertools import permutations

import pytest
import torch
from torch import Tensor

from prefloop.objectives import plackett_luce_dpo
from prefloop.worlds import Bandit, minimise


def every(ranks: int) -> Tensor:
    return torch.ones(1, ranks, dtype=torch.bool)


@pytest.mark.parametrize("ranks", [2, 3, 6])
def test_at_the_reference_every_ranking_is_as_likely(ranks: int) -> None:
    logps = -torch.arange(1.0, ranks + 1).double()[None]
    loss = plackett_luce_dpo(logps, logps, every(ranks))
    assert loss.item() == pytest.approx(math.log(math.factorial(ranks)))


def test_the_likelihoods_of_all_rankings_sum_to_1() -> None:
    policy, ref = (-20 * torch.rand(4, generator=torch.Generator().manual_seed(seed)).double() for seed in (0, 1))
    orders = torch.tensor(list(permutations(range(4))))
    losses = plackett_luce_dpo(policy[orders], ref[orders], every(4).expand(24, 4), beta=0.3)
    assert losses.neg().exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_ranks_that_an_example_lacks_add_nothing() -> None:
    policy, ref = torch.tensor([[-3.0, -5.0, -4.0]]).double(), torch.tensor([[-2.0, -7.0, -1.0]]).double()
    padded = [torch.cat([side, torch.tensor([[99.0, -99.0]])], 1).requires_grad_() for side in (policy, ref)]
    mask = torch.tensor([[True, True, True, False, False]])
    loss = plackett_luce_dpo(padded[0], padded[1], mask)
    loss.sum().backward()
    assert loss.item() == pytest.approx(plackett_luce_dpo(policy, ref, every(3)).item(), rel=1e-14)
    assert padded[0].grad is not None
    assert padded[0].grad[0, 3:].tolist() == [0.0, 0.0]
    assert bool((padded[0].grad[0, :3] != 0).all())


def test_the_last_rank_is_no_choice() -> None:
    policy = torch.tensor([[-3.0]], requires_grad=True)
    loss = plackett_luce_dpo(policy, torch.tensor([[-1.0]]), every(1))
    loss.sum().backward()
    assert loss.item() == 0
    assert policy.grad is not None
    assert policy.grad.item() == 0


def test_equal_answers_may_change_places() -> None:
    ref = torch.zeros(1, 4).double()
    one, other = torch.tensor([[-1.0, -4.0, -4.0, -2.0]]).double(), torch.tensor([[-1.0, -4.0, -4.0, -2.0]]).double()
    assert (
        plackett_luce_dpo(one, ref, every(4)).item() == plackett_luce_dpo(other[:, [0, 2, 1, 3]], ref, every(4)).item()
    )


def test_the_population_optimum_is_the_tilted_reference() -> None:
    """All rankings of four answers, as often as Plackett-Luce on the reward gives them."""
    world, beta = Bandit.of(4, seed=0), 0.5
    orders = torch.tensor(list(permutations(range(4))))
    mask = every(4).expand(24, 4)
    often = plackett_luce_dpo(world.reward[orders], torch.zeros(24, 4).double(), mask, beta=1.0).neg().exp()

    def expected_loss(theta: Tensor) -> Tensor:
        policy = theta.log_softmax(0)
        return (often * plackett_luce_dpo(policy[orders], world.ref[orders], mask, beta=beta)).sum()

    found = minimise(expected_loss, start=torch.zeros(4).double()).log_softmax(0)
    torch.testing.assert_close(found, world.tilted(world.reward / beta), rtol=0, atol=1e-9)
