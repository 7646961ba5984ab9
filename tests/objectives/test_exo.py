"""EXO on pairs: a divergence, so zero at its label and positive elsewhere."""

import math

import pytest
import torch

from prefloop.objectives import conservative_dpo, exo_pair

ZERO = torch.zeros(1, dtype=torch.float64)


@pytest.mark.parametrize("smoothing", [1e-3, 0.1, 0.5, 0.8])
def test_it_is_zero_where_the_policy_is_as_sure_as_the_label_and_nowhere_else(smoothing: float) -> None:
    target = math.log((1 - smoothing) / smoothing) / 0.1
    gaps = torch.tensor([target, target - 5, target + 5, -300, 300], dtype=torch.float64)
    zero = torch.zeros_like(gaps)
    losses = exo_pair(gaps, zero, zero, zero, beta=0.1, label_smoothing=smoothing)
    assert losses[0].item() == pytest.approx(0, abs=1e-15)
    assert losses[1:].min() > 1e-5


@pytest.mark.parametrize("smoothing", [0.05, 0.5])
def test_the_other_direction_of_the_divergence_is_conservative_dpo_less_the_labels_entropy(smoothing: float) -> None:
    smoothing = min(smoothing, 0.49)
    gap = torch.tensor([7.0], dtype=torch.float64)
    entropy = -(1 - smoothing) * math.log(1 - smoothing) - smoothing * math.log(smoothing)
    policy = 1 / (1 + math.exp(-0.7))
    label = 1 - smoothing
    forward = label * math.log(label / policy) + (1 - label) * math.log((1 - label) / (1 - policy))
    reverse = policy * math.log(policy / label) + (1 - policy) * math.log((1 - policy) / (1 - label))
    found = conservative_dpo(gap, ZERO, ZERO, ZERO, beta=0.1, label_smoothing=smoothing)
    assert found.item() - entropy == pytest.approx(forward, abs=1e-14)
    found = exo_pair(gap, ZERO, ZERO, ZERO, beta=0.1, label_smoothing=smoothing)
    assert found.item() == pytest.approx(reverse, abs=1e-14)


def test_a_satisfied_pair_stays_finite_in_float32() -> None:
    gaps = torch.tensor([2e3, -2e3, 1e6], requires_grad=True)
    zero = torch.zeros(3)
    losses = exo_pair(gaps, zero, zero, zero, beta=1.0)
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([-math.log(0.999), -math.log(1e-3), -math.log(0.999)], rel=1e-4)
    assert gaps.grad is not None
    assert gaps.grad.tolist() == [0.0, 0.0, 0.0]
