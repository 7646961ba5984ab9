"""Games over a few items in closed form."""

from math import exp, log

import pytest

from prefloop.worlds import prompted_optimum, self_play_optimum, soft_policy_iteration
from prefloop.worlds.games import normalised, tilted

ROCK_PAPER_SCISSORS = [[0.5, 0.1, 0.9], [0.9, 0.5, 0.1], [0.1, 0.9, 0.5]]


def test_soft_policy_iteration_by_hand() -> None:
    start = [0.6, 0.3, 0.1]
    rewards = [0.5 * 0.6 + 0.1 * 0.3 + 0.9 * 0.1, 0.9 * 0.6 + 0.5 * 0.3 + 0.1 * 0.1, 0.1 * 0.6 + 0.9 * 0.3 + 0.5 * 0.1]
    weights = [p * exp(r / 0.5) for p, r in zip(start, rewards, strict=True)]
    after = [weight / sum(weights) for weight in weights]
    found = soft_policy_iteration(ROCK_PAPER_SCISSORS, start, eta=0.5, iterations=1)
    assert found.rewards[0] == pytest.approx(rewards)
    assert found.policies[0] == start
    assert found.policies[1] == pytest.approx(after)
    assert found.win_rate_of_next_over_current == [
        pytest.approx(sum(p * r for p, r in zip(after, rewards, strict=True)))
    ]
    assert found.kl_next_current == [pytest.approx(sum(p * log(p / q) for p, q in zip(after, start, strict=True)))]
    assert found.average_policy == pytest.approx(start)
    assert found.exploitability_of_average == pytest.approx(max(rewards) - 0.5)
    twice = soft_policy_iteration(ROCK_PAPER_SCISSORS, start, eta=0.5, iterations=2)
    assert twice.average_policy == pytest.approx([(p + q) / 2 for p, q in zip(start, after, strict=True)])


def test_an_item_without_probability_stays_without_and_large_rewards_do_not_overflow() -> None:
    assert tilted([0.5, 0.5, 0.0], [0.0, log(3), 5.0], 1.0) == pytest.approx([0.25, 0.75, 0.0])
    assert normalised([2000.0, 2000.0, -2000.0]) == [0.5, 0.5, 0.0]
    assert self_play_optimum([0.5, 0.25, 0.25], [0.0, 0.5, 0.5], [0.2, 0.4, 0.4], 0.5) == pytest.approx([0, 0.5, 0.5])
    iterated = soft_policy_iteration(ROCK_PAPER_SCISSORS, [0.5, 0.5, 0.0], eta=0.5, iterations=2)
    assert iterated.policies[-1][2] == 0
    assert iterated.kl_next_current[0] > 0


def test_the_optima_of_self_play_and_of_prompting_by_hand() -> None:
    weights = [0.5 * (0.6 / 0.2) ** 2, 0.5 * (0.4 / 0.8) ** 2]
    expected = [weight / sum(weights) for weight in weights]
    assert self_play_optimum([0.5, 0.5], [0.6, 0.4], [0.2, 0.8], 0.5) == pytest.approx(expected)
    assert prompted_optimum([0.5, 0.5], [0.6, 0.4], [0.2, 0.8], gap=0.5, beta=0.25) == pytest.approx(expected)
