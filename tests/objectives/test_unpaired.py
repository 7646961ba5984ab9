"""Objectives of single answers: reference points and running means."""

import pytest
import torch
from torch import Tensor

from prefloop.objectives import RewardMean, bco, find_objective, kto, kto_reference_point


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


GOOD = torch.tensor([True, False])


def test_ktos_reference_point_is_the_mean_log_ratio_of_other_answers_and_never_negative() -> None:
    assert kto_reference_point(numbers(-3.0, -8.0), numbers(-4.0, -10.0)).item() == 1.5
    assert kto_reference_point(numbers(-5.0, -8.0), numbers(-4.0, -6.0)).item() == 0.0


def test_ktos_reference_point_moves_good_and_bad_answers_apart() -> None:
    """At rho = z a loss is half its weight; z counts against good answers and for bad ones."""
    rho, ref = numbers(2.0, 2.0), numbers(0.0, 0.0)
    at_point = kto(rho, ref, GOOD, numbers(2.0, 2.0), ref, beta=0.7, desirable_weight=3.0)
    assert at_point.tolist() == [1.5, 0.5]
    beyond = kto(rho, ref, GOOD, numbers(4.0, 4.0), ref, beta=0.7, desirable_weight=3.0)
    assert beyond[0] > at_point[0]
    assert beyond[1] < at_point[1]


def test_ktos_reference_point_carries_no_gradient() -> None:
    other = numbers(3.0, 4.0).requires_grad_()
    losses = kto(numbers(1.0, 1.0).requires_grad_(), numbers(0.0, 0.0), GOOD, other, numbers(0.0, 0.0))
    losses.sum().backward()
    assert other.grad is None


def test_kto_gives_up_on_what_is_far_away_on_either_side() -> None:
    for far in (80.0, -80.0):
        rho = numbers(far, far).requires_grad_()
        kto(rho, numbers(0.0, 0.0), GOOD, numbers(0.0, 0.0), numbers(0.0, 0.0), beta=1.0).sum().backward()
        assert rho.grad is not None
        assert rho.grad.abs().max() < 1e-30


def test_bcos_mean_counts_every_answer_once_however_steps_are_cut() -> None:
    policy, ref = numbers(-3.0, -5.0, -2.0, -9.0), numbers(-4.0, -4.0, -4.0, -4.0)
    whole = RewardMean.initial({}).updated(policy_response_logps=policy, ref_response_logps=ref, beta=0.5)
    parts = RewardMean.initial({})
    for part in (slice(0, 1), slice(1, 4)):
        parts = parts.updated(policy_response_logps=policy[part], ref_response_logps=ref[part], beta=0.5)
    assert (whole.mean, whole.count) == (pytest.approx(0.5 * (1 - 1 + 2 - 5) / 4), 4)
    assert (parts.mean, parts.count) == (pytest.approx(whole.mean), whole.count)


def test_bco_classifies_by_the_distance_from_the_mean() -> None:
    """An answer at the mean is a toss-up, whatever the mean is."""
    losses = bco(numbers(4.0, 4.0), numbers(0.0, 0.0), GOOD, RewardMean(2.0, 7.0), beta=0.5)
    assert losses.tolist() == pytest.approx([0.6931471805599453] * 2)


def test_labels_of_single_answers_cannot_be_softened_by_exchange() -> None:
    assert find_objective("kto", "here").not_softened == "it does not read a chosen and a rejected answer"
