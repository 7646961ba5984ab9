"""The hinge, with a reference and without."""

import pytest
import torch

from prefloop.objectives import hinge, slic


def test_it_is_done_with_a_pair_at_a_margin_of_1_and_pulls_steadily_below() -> None:
    gaps = torch.tensor([-1000.0, 0.0, 9.9, 10.1, 1000.0], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros_like(gaps)
    losses = hinge(gaps, zero, zero, zero, beta=0.1)
    (slope,) = torch.autograd.grad(losses.sum(), [gaps])
    assert losses.tolist() == pytest.approx([101.0, 1.0, 0.01, 0.0, 0.0])
    assert slope.tolist() == [-0.1, -0.1, -0.1, 0.0, 0.0]


@pytest.mark.parametrize(
    ("reduction", "likelihoods"),
    [("sequence_sum", [6.0, 20.0]), ("sequence_mean", [3.0, 2.0]), ("token_mean", [1.0, 20 / 6])],
)
def test_slic_adds_the_likelihood_in_the_named_reduction(reduction: str, likelihoods: list[float]) -> None:
    """Answers of 2 and 10 tokens: 6 on average."""
    chosen, rejected = torch.tensor([-6.0, -20.0]).double(), torch.tensor([-7.5, -50.0]).double()
    lengths = torch.tensor([2.0, 10.0]).double()
    found = slic(chosen, rejected, lengths, lengths.mean(), delta=2.0, lam=0.5, nll_reduction=reduction)
    assert found.tolist() == pytest.approx([0.5 + 0.5 * likelihoods[0], 0.5 * likelihoods[1]])
