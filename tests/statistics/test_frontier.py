"""Reward against KL: the envelope by hand, closed forms of tilted policies, best-of-n against enumeration."""

import math
from itertools import combinations, product

import numpy as np
import pytest

from prefloop.statistics import (
    area_under_envelope,
    best_of_n_distribution,
    best_of_n_kl,
    best_of_n_mean,
    envelope,
    exact_kl,
    frontier_band,
    k1,
    k3,
    reward_at_kl,
)

KL = np.array([1.0, 0.0, 2.0, 1.0, 3.0])
REWARD = np.array([2.0, 1.0, 1.5, 2.0, 4.0])


def _tilted(beta: float, rewards: np.ndarray, reference: np.ndarray) -> np.ndarray:
    weights = reference * np.exp(rewards / beta)
    return weights / weights.sum()


def test_the_envelope_by_hand() -> None:
    np.testing.assert_array_equal(envelope(KL, REWARD), [1, 0, 4])
    np.testing.assert_allclose(reward_at_kl(KL, REWARD, [0.5, 2.0, 3.0, 3.1, -0.1]), [1.5, 3.0, 4.0, np.nan, np.nan])


def test_the_area_by_hand() -> None:
    assert area_under_envelope(KL, REWARD, up_to=2.0) == pytest.approx(1.5 + 2.5, abs=1e-12)
    assert area_under_envelope(KL, REWARD, up_to=5.0) == pytest.approx(1.5 + 6.0 + 8.0, abs=1e-12)
    with pytest.raises(ValueError, match="up_to is -1"):
        area_under_envelope(KL, REWARD, up_to=-1.0)
    with pytest.raises(ValueError, match="at least one"):
        envelope(np.array([np.nan]), np.array([1.0]))


def test_the_frontier_of_exact_optima_has_slope_beta_and_nothing_above_it() -> None:
    """dR/dKL = beta at pi_ref * exp(r / beta); for every policy R - beta KL <= beta log Z."""
    generator = np.random.default_rng(0)
    rewards, reference = generator.normal(size=6), generator.dirichlet(np.ones(6))

    def point(beta: float) -> tuple[float, float]:
        policy = _tilted(beta, rewards, reference)
        return float(exact_kl(np.log(policy), np.log(reference))), float(policy @ rewards)

    for beta in (0.2, 0.7, 2.0):
        (low_kl, low), (high_kl, high) = point(beta * 1.0001), point(beta / 1.0001)
        assert (high - low) / (high_kl - low_kl) == pytest.approx(beta, rel=1e-4)
        bound = beta * math.log(float(reference @ np.exp(rewards / beta)))
        others = generator.dirichlet(np.ones(6), size=200)
        assert np.all(others @ rewards - beta * exact_kl(np.log(others), np.log(reference)[None]) <= bound + 1e-12)
    points = np.array([point(beta) for beta in np.geomspace(0.05, 50, 40)])
    assert envelope(points[:, 0], points[:, 1]).size == 40


def test_exact_kl_adds_nothing_for_what_never_happens() -> None:
    log_p, log_q = np.log([0.5, 0.5]), np.log([0.25, 0.25, 0.5])
    with np.errstate(divide="ignore"):
        assert exact_kl(np.append(log_p, np.log(0.0)), log_q) == pytest.approx(math.log(2), abs=1e-12)


def test_the_kl_of_a_chain_is_that_of_its_steps_and_of_its_estimators() -> None:
    """Two steps of two tokens, enumerated: k1, k3 and the exact KL by step have the sequences' KL as their mean."""
    first, first_ref = np.array([0.7, 0.3]), np.array([0.4, 0.6])
    second, second_ref = np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[0.5, 0.5], [0.6, 0.4]])
    probabilities = np.array([first[a] * second[a, b] for a, b in product((0, 1), (0, 1))])
    references = np.array([first_ref[a] * second_ref[a, b] for a, b in product((0, 1), (0, 1))])
    ratios = np.log(probabilities) - np.log(references)
    by_step = float(exact_kl(np.log(first), np.log(first_ref)))
    by_step += float(first @ exact_kl(np.log(second), np.log(second_ref)))
    assert probabilities @ k1(ratios) == pytest.approx(by_step, abs=1e-12)
    assert probabilities @ k3(ratios) == pytest.approx(by_step, abs=1e-12)
    steps = [np.log(first / first_ref)[[0, 0, 1, 1]], np.log(second / second_ref).ravel()]
    assert probabilities @ (k3(steps[0]) + k3(steps[1])) == pytest.approx(by_step, abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_best_of_n_of_a_discrete_policy_against_enumeration(n: int) -> None:
    """Two answers are equally good; the first sampled of the best is taken."""
    probabilities, rewards = np.array([0.2, 0.3, 0.1, 0.4]), np.array([1.0, 2.0, 2.0, 0.0])
    expected = np.zeros(4)
    for drawn in product(range(4), repeat=n):
        best = max(drawn, key=lambda answer: rewards[answer])
        expected[best] += np.prod(probabilities[list(drawn)])
    np.testing.assert_allclose(best_of_n_distribution(probabilities, rewards, n), expected, rtol=0, atol=1e-12)


def test_best_of_n_of_equally_likely_answers_and_the_bound_on_its_kl() -> None:
    for n in (1, 2, 8):
        found = best_of_n_distribution(np.full(50, 1 / 50), np.arange(50.0), n)
        ranks = np.arange(1, 51)
        np.testing.assert_allclose(found, (ranks / 50) ** n - ((ranks - 1) / 50) ** n, rtol=0, atol=1e-12)
        with np.errstate(divide="ignore"):
            kl = float(exact_kl(np.log(found), np.full(50, -math.log(50))))
        assert kl <= best_of_n_kl(n) + 1e-12
    fine = best_of_n_distribution(np.full(20_000, 1 / 20_000), np.arange(20_000.0), 4)
    assert exact_kl(np.log(fine), np.full(20_000, -math.log(20_000))) == pytest.approx(best_of_n_kl(4), abs=1e-3)
    assert best_of_n_kl(1) == 0.0


@pytest.mark.parametrize("n", [1, 2, 4, 7])
def test_the_unbiased_estimator_is_the_mean_over_all_subsets(n: int) -> None:
    generator = np.random.default_rng(1)
    proxy, gold = generator.normal(size=7), generator.normal(size=7)
    subsets = list(combinations(range(7), n))
    assert best_of_n_mean(proxy, n) == pytest.approx(np.mean([proxy[list(each)].max() for each in subsets]), abs=1e-12)
    chosen = [gold[max(each, key=lambda index: proxy[index])] for each in subsets]
    assert best_of_n_mean(gold, n, ranked_by=proxy) == pytest.approx(np.mean(chosen), abs=1e-12)


def test_equal_ranks_share_their_places() -> None:
    gold, proxy = np.array([1.0, 3.0, 8.0]), np.array([0.0, 5.0, 5.0])
    # of the three pairs the best by proxy is 1 or 2, in {1, 2} either
    assert best_of_n_mean(gold, 2, ranked_by=proxy) == pytest.approx((3 + 8 + 5.5) / 3, abs=1e-12)


@pytest.mark.parametrize("n", [0, 4])
def test_impossible_n_are_refused(n: int) -> None:
    with pytest.raises(ValueError, match=f"n is {n}"):
        best_of_n_mean(np.ones(3), n)


def test_impossible_distributions_are_refused() -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        best_of_n_distribution(np.array([0.5, 0.4]), np.ones(2), 2)
    with pytest.raises(ValueError, match="n is 0"):
        best_of_n_kl(0)


def test_the_band_of_rewards_at_equal_kl_is_over_prompts() -> None:
    """Rewards of a prompt rise and fall together: their level has the band of a mean, and their slope has none."""
    generator = np.random.default_rng(0)
    level = generator.normal(size=(200, 1))
    kl = np.array([0.0, 1.0, 2.0]) + np.zeros((200, 1))
    reward = np.array([0.0, 2.0, 3.0]) + level

    def at(kl: np.ndarray, reward: np.ndarray) -> np.ndarray:
        return reward_at_kl(kl, reward, (0.5, 1.5, 9.0))

    value, low, high = frontier_band(kl, reward, at, seed=0)
    error = 1.96 * level.std(ddof=1) / 200**0.5
    assert value[:2] == pytest.approx(np.array([1.0, 2.5]) + level.mean())
    assert (value - low)[:2] == pytest.approx(error, rel=0.12)
    assert (high - value)[:2] == pytest.approx(error, rel=0.12)
    assert np.isnan([value[2], low[2], high[2]]).all()
    gap, low, high = frontier_band(kl, reward, lambda kl, r: at(kl, r)[1:2] - at(kl, r)[:1], seed=0)
    assert (gap, low, high) == (pytest.approx(1.5), pytest.approx(1.5), pytest.approx(1.5))


def test_one_prompt_has_no_band_and_impossible_ones_are_refused() -> None:
    one = np.ones((1, 2))
    value, low, high = frontier_band(one, one, lambda _kl, r: r[:1], seed=0)
    assert value == 1.0
    assert np.isnan([low, high]).all()
    with pytest.raises(ValueError, match="one shape, and at least one prompt"):
        frontier_band(one[:0], one[:0], lambda _kl, r: r, seed=0)
    with pytest.raises(ValueError, match="draws is 1 and level"):
        frontier_band(one, one, lambda _kl, r: r, seed=0, draws=1)


def test_kl_and_reward_of_a_prompt_are_drawn_together() -> None:
    """Where a prompt's KL is higher its points lie to the right: at equal KL its reward is lower, unless both rise."""
    generator = np.random.default_rng(0)
    level = generator.normal(scale=0.2, size=(200, 1))
    kl, reward = np.array([0.0, 1.0, 2.0]) + level, np.array([0.0, 2.0, 4.0]) + np.zeros((200, 1))

    def at_one(kl: np.ndarray, reward: np.ndarray) -> np.ndarray:
        return reward_at_kl(kl, reward, (1.0,))

    _, low, high = frontier_band(kl, reward, at_one, seed=0)
    assert high - low == pytest.approx(2 * 1.96 * 2 * level.std(ddof=1) / 200**0.5, rel=0.12)
    _, low, high = frontier_band(kl, reward + 2 * level, at_one, seed=0)
    assert high - low == pytest.approx(0.0, abs=1e-12)
