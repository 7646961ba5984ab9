"""KL estimators against the exact sums of small categorical distributions."""

import numpy as np
import pytest

from prefloop.statistics import k1, k2, k3, kl_estimate

POLICY = np.array([0.5, 0.3, 0.15, 0.05])
REFERENCE = np.array([0.25, 0.25, 0.25, 0.25])
LOG_RATIOS = np.log(POLICY / REFERENCE)
EXACT = float(POLICY @ LOG_RATIOS)


def test_k1_and_k3_are_unbiased() -> None:
    assert POLICY @ k1(LOG_RATIOS) == pytest.approx(EXACT, abs=1e-15)
    assert POLICY @ k3(LOG_RATIOS) == pytest.approx(EXACT, abs=1e-15)


def test_k2_is_half_the_mean_square_and_biased() -> None:
    assert POLICY @ k2(LOG_RATIOS) == pytest.approx(0.5 * float(POLICY @ LOG_RATIOS**2), abs=1e-15)
    assert abs(POLICY @ k2(LOG_RATIOS) - EXACT) > 0.01


def test_k2_agrees_to_second_order() -> None:
    """KL = d^2 / 2 up to third order when the policy moves by a step of 1e-3."""
    policy = REFERENCE * np.exp(1e-3 * np.array([1.0, -1.0, 2.0, 0.0]))
    policy /= policy.sum()
    ratios = np.log(policy / REFERENCE)
    assert policy @ k2(ratios) == pytest.approx(policy @ ratios, rel=2e-3)


def test_k3_is_never_negative() -> None:
    magnitudes = np.logspace(-18, 2.5, 400)
    assert (k3(np.concatenate([-magnitudes, magnitudes])) >= 0).all()


def test_token_level_k3_sums_to_the_kl_of_the_chain() -> None:
    """Two steps: KL of step 1 plus the expected KL of step 2, also by the sums of per-token k3."""
    step_policy = np.array([[0.7, 0.3], [0.2, 0.8]])
    step_reference = np.array([[0.5, 0.5], [0.6, 0.4]])
    first_policy, first_reference = np.array([0.9, 0.1]), np.array([0.4, 0.6])
    joint = first_policy[:, None] * step_policy
    first, second = np.log(first_policy / first_reference)[:, None], np.log(step_policy / step_reference)
    chain = float((joint * (first + second)).sum())
    conditional = (step_policy * second).sum(1)
    assert chain == pytest.approx(float(first_policy @ (first[:, 0] + conditional)), abs=1e-15)
    assert float((joint * (k3(first) + k3(second))).sum()) == pytest.approx(chain, abs=1e-15)
    assert float((joint * k3(first + second)).sum()) == pytest.approx(chain, abs=1e-15)


def test_estimates_from_samples_are_within_their_standard_errors() -> None:
    """5,000 prompts with 2 samples each; k1 and k3 within 4 standard errors of the exact KL."""
    drawn = np.random.default_rng(0).choice(4, size=10_000, p=POLICY)
    estimate = kl_estimate(LOG_RATIOS[drawn], np.repeat(np.arange(5_000), 2))
    assert abs(estimate.k1.value - EXACT) < 4 * estimate.k1.standard_error
    assert abs(estimate.k3.value - EXACT) < 4 * estimate.k3.standard_error
    variance = float(POLICY @ (LOG_RATIOS - EXACT) ** 2)
    assert estimate.k1.standard_error == pytest.approx((variance / 10_000) ** 0.5, rel=0.05)
    assert (estimate.k1.n, estimate.k1.clusters) == (10_000, 5_000)


def test_samples_of_one_prompt_count_once() -> None:
    values = np.array([0.1, 0.5, 0.9])
    once = kl_estimate(values, np.arange(3))
    copied = kl_estimate(np.repeat(values, 4), np.repeat(np.arange(3), 4))
    assert copied.k1.standard_error == pytest.approx(once.k1.standard_error, abs=1e-15)
