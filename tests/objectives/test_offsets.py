"""Offsets of the margin, by scores (ODPO) and by the reference (MIPO), and DavIR's floor."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from prefloop.errors import DataError
from prefloop.objectives import davir_dpo, mipo, odpo, odpo_identity, odpo_log_ratio
from prefloop.objectives.mipo import mipo_offset


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


ZERO = numbers(0.0)


def test_the_pull_is_stronger_where_scores_are_further_apart_and_equal_on_both_answers() -> None:
    zero = torch.zeros(3, dtype=torch.float64)
    chosen, rejected = zero.clone().requires_grad_(), zero.clone().requires_grad_()
    odpo(chosen, rejected, zero, zero, numbers(1.5, 2.0, 9.0), zero + 1, beta=0.3).sum().backward()
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert chosen.grad.tolist() == pytest.approx((-rejected.grad).tolist())
    assert chosen.grad.tolist() == pytest.approx([-0.3 * gap / (1 + gap) for gap in (0.5, 1.0, 8.0)])


def test_with_two_answers_the_best_margin_balances_both_offsets() -> None:
    """p sigmoid(d1 - m) = (1 - p) sigmoid(d2 + m), with d1 = log 4, d2 = 0 and p = 0.7."""

    def slope(margin: float) -> float:
        moved = numbers(margin).requires_grad_()
        first = odpo(moved, ZERO, ZERO, ZERO, numbers(5.0), numbers(1.0), beta=1.0)
        second = odpo(ZERO, moved, ZERO, ZERO, numbers(2.0), numbers(1.0), beta=1.0)
        (found,) = torch.autograd.grad((0.7 * first + 0.3 * second).sum(), [moved])
        return found.item()

    low, high = -10.0, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    sigmoid = torch.sigmoid(numbers(math.log(4) - low, low)).tolist()
    assert 0.7 * sigmoid[0] == pytest.approx(0.3 * sigmoid[1])
    assert low > math.log(0.7 / 0.3)


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_equal_scores_give_no_loss_and_no_gradient(alpha: float) -> None:
    chosen = numbers(-3.0).requires_grad_()
    losses = odpo(chosen, numbers(-2.0), numbers(-4.0), numbers(-1.0), numbers(2.0), numbers(2.0), alpha=alpha)
    losses.sum().backward()
    assert losses.tolist() == [0.0]
    assert chosen.grad is not None
    assert chosen.grad.tolist() == [0.0]


def test_equal_scores_without_an_offset_are_an_ordinary_pair() -> None:
    losses = odpo(ZERO, ZERO, ZERO, ZERO, numbers(2.0), numbers(2.0), alpha=0.0)
    assert losses.tolist() == pytest.approx([math.log(2)])


@pytest.mark.parametrize("function", [odpo, odpo_log_ratio, odpo_identity])
def test_scores_that_contradict_a_pair_are_an_error(function: Callable[..., Tensor]) -> None:
    zero = torch.zeros(3, dtype=torch.float64)
    with pytest.raises(DataError) as raised:
        function(zero, zero, zero, zero, numbers(1.0, 2.0, 3.0), numbers(2.0, 2.0, 4.0))
    assert str(raised.value) == (
        "odpo: chosen_scores are below rejected_scores in 2 of 3 pairs, expected at least as high. "
        "Leave out pairs whose scores contradict their order."
    )


@pytest.mark.parametrize("score", [-1.0, 0.0])
def test_ratios_of_scores_that_are_not_positive_are_an_error(score: float) -> None:
    with pytest.raises(DataError, match=r"odpo_log_ratio: scores are not positive in 1 of 1 pairs, expected all\."):
        odpo_log_ratio(ZERO, ZERO, ZERO, ZERO, numbers(1.0), numbers(score))


def test_mipo_asks_for_more_than_either_limit_by_log_2_at_most() -> None:
    margins = torch.linspace(-30, 30, 601, dtype=torch.float64)
    excess = mipo_offset(margins) - margins.clamp(min=0)
    assert bool((excess > 0).all())
    assert excess.max().item() == pytest.approx(math.log(2), abs=1e-15)
    assert margins[excess.argmax()].item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("margin", [800.0, -800.0])
def test_mipo_is_finite_under_a_very_sure_reference(margin: float, dtype: torch.dtype) -> None:
    chosen, one = torch.tensor([-3.0], dtype=dtype, requires_grad=True), torch.ones(1, dtype=dtype)
    losses = mipo(chosen, -2 * one, -1000 * one, (-1000 - margin) * one, one, one)
    losses.sum().backward()
    assert chosen.grad is not None
    assert bool(losses.isfinite() & chosen.grad.isfinite())
    assert losses.item() == pytest.approx(10 * (1 + max(margin, 0.0)), rel=1e-4)


def test_under_mipo_every_pair_starts_below_its_target_and_badly_ranked_ones_most() -> None:
    ref, rejected, one = numbers(-3.0, -2.0, -1.0), numbers(-2.0, -2.0, -2.0), numbers(1.0, 1.0, 1.0)
    losses = mipo(ref, rejected, ref, rejected, one, one, beta=1.0)
    assert bool((losses > math.log(2)).all())
    assert losses.tolist() == sorted(losses.tolist(), reverse=True)


def test_davir_dpo_divides_by_the_references_own_need_but_never_by_less_than_the_floor() -> None:
    chosen = numbers(-2.0, -2.0).requires_grad_()
    ref_chosen, ten = numbers(-4.0, -1e-9), numbers(-10.0, -10.0)
    davir_dpo(chosen, ten, ref_chosen, ten, beta=1.0, min_ref_nll=0.5).sum().backward()
    assert chosen.grad is not None
    margins = [(2.0 / 4.0), (-2.0 / 0.5)]
    expected = [-torch.sigmoid(numbers(-m)).item() / by for m, by in zip(margins, (4.0, 0.5), strict=True)]
    assert chosen.grad.tolist() == pytest.approx(expected, rel=1e-8)
