"""ORPO and ASFT near probability 1, and what each term sees."""

import math

import pytest
import torch
from torch import Tensor

from prefloop.objectives import asft, asft_align, orpo, orpo_with_prompt
from prefloop.objectives.pieces import log_odds


def numbers(*values: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype)


@pytest.mark.parametrize("p", [0.9, 0.5, 1e-3, 1e-200])
def test_log_odds_are_those_of_the_probability(p: float) -> None:
    assert log_odds(numbers(math.log(p))).item() == pytest.approx(math.log(p) - math.log1p(-p), rel=1e-14)


def test_asft_has_the_slopes_of_likelihood_and_unlikelihood() -> None:
    """-(1 + lam) / |w| for the chosen answer, lam / |l| * p / (1 - p) for the rejected one."""
    chosen, rejected = numbers(-10.0).requires_grad_(), numbers(-4.0).requires_grad_()
    asft(chosen, rejected, numbers(5.0), numbers(8.0), lam=0.5).sum().backward()
    assert chosen.grad is not None
    assert rejected.grad is not None
    p = math.exp(-0.5)
    assert chosen.grad.item() == pytest.approx(-1.5 / 5)
    assert rejected.grad.item() == pytest.approx(0.5 / 8 * p / (1 - p))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("logp", [0.0, -1e-9, -1e-7])
def test_certain_answers_give_finite_losses_and_slopes(logp: float, dtype: torch.dtype) -> None:
    for function in (asft, asft_align):
        chosen, rejected = (numbers(logp, dtype=dtype).requires_grad_() for _ in range(2))
        one = torch.ones(1, dtype=dtype)
        losses = function(chosen, rejected, one, one)
        losses.sum().backward()
        assert bool(losses.isfinite().all())
        assert chosen.grad is not None
        assert rejected.grad is not None
        assert bool(chosen.grad.isfinite() & rejected.grad.isfinite())
    pair = numbers(logp, dtype=dtype).requires_grad_()
    orpo(pair, pair, one, one, one[0]).sum().backward()
    assert pair.grad is not None
    assert bool(pair.grad.isfinite())


def test_no_term_of_asft_sees_both_answers() -> None:
    """The slope of one answer does not depend on the other."""
    lengths = numbers(10.0)
    slopes: list[float] = []
    for other in (-1.0, -30.0):
        chosen = numbers(-10.0).requires_grad_()
        asft_align(chosen, numbers(other), lengths, lengths, beta=0.3).sum().backward()
        assert chosen.grad is not None
        slopes.append(chosen.grad.item())
    assert slopes[0] == slopes[1]


def test_orpos_odds_are_never_above_asfts() -> None:
    generator = torch.Generator().manual_seed(0)
    chosen, rejected = -10 * torch.rand(2, 300, generator=generator, dtype=torch.float64)
    lengths = torch.full((300,), 5.0, dtype=torch.float64)
    odds = orpo(chosen, rejected, lengths, lengths, lengths[0], lam=1.0) - orpo(
        chosen, rejected, lengths, lengths, lengths[0], lam=0.0
    )
    assert bool((asft_align(chosen, rejected, lengths, lengths, beta=1.0) >= odds).all())


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [("sequence_sum", [10.0, 26.0]), ("sequence_mean", [10 / 5, 26 / 13]), ("token_mean", [10 / 9, 26 / 9])],
)
def test_the_prompt_is_learnt_with_the_answer(reduction: str, expected: list[float]) -> None:
    """Prompts of 3 and 5 tokens with answers of 2 and 8: 9 tokens on average."""
    prompts, answers = numbers(3.0, 5.0), numbers(2.0, 8.0)
    found = orpo_with_prompt(
        numbers(-4.0, -20.0),
        numbers(-4.0, -20.0),
        numbers(-6.0, -6.0),
        answers,
        answers,
        prompts,
        answers.mean(),
        prompts.mean(),
        lam=0.0,
        nll_reduction=reduction,
    )
    assert found.tolist() == pytest.approx(expected)
