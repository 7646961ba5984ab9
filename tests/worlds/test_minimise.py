"""Minima to a gradient of 1e-12, and what has none."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from prefloop.worlds import NoMinimumError, minimise
from prefloop.worlds.minimise import GRADIENT

START = torch.tensor([3.0, -2.0], dtype=torch.float64)


def gradient(loss: object, theta: Tensor) -> float:
    theta = theta.clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(theta), theta)  # type: ignore[operator]
    return found.abs().max().item()


def test_a_quadratic_and_a_logistic_end_where_they_must() -> None:
    scale = torch.tensor([1.0, 1e-4], dtype=torch.float64)
    centre = torch.tensor([0.3, 7.0], dtype=torch.float64)
    found = minimise(lambda theta: (scale * (theta - centre) ** 2).sum(), START)
    torch.testing.assert_close(found, centre, rtol=0, atol=1e-12)

    def logistic(theta: Tensor) -> Tensor:
        return (-0.9 * logsigmoid(theta) - 0.1 * logsigmoid(-theta)).sum()

    found = minimise(logistic, START)
    torch.testing.assert_close(found, torch.full((2,), 9.0, dtype=torch.float64).log(), rtol=0, atol=1e-12)
    assert gradient(logistic, found) < GRADIENT


def test_a_valley_that_is_not_convex_is_followed_to_its_end() -> None:
    """Rosenbrock's function."""
    found = minimise(lambda t: (1 - t[0]) ** 2 + 100 * (t[1] - t[0] ** 2) ** 2, START)
    torch.testing.assert_close(found, torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-10)


def test_what_the_loss_does_not_see_stays_where_it_was() -> None:
    found = minimise(lambda theta: ((theta[0] - theta[1]) - 1) ** 2, START)
    assert (found[0] - found[1]).item() == pytest.approx(1, abs=1e-12)
    assert found.sum().item() == pytest.approx(1, abs=1e-12)


def test_a_tiny_mass_does_not_stop_the_search_early() -> None:
    """Its gradient is small long before its minimum; a logistic of mass 1e-9 beside one of mass 1."""
    mass = torch.tensor([1.0, 1e-9], dtype=torch.float64)
    found = minimise(lambda t: (mass * (softplus(-t) + 0.5 * t)).sum(), START)
    torch.testing.assert_close(found, torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda t: -logsigmoid(t[0]) + t[1] ** 2, "vanish together: the loss falls for ever"),
        (lambda t: t[0] + t[1] ** 2, "still falls"),
        (lambda t: -(t[0] ** 2) + t[1] ** 2, "still falls"),
        (lambda t: -logsigmoid(t[0] - t[1]), "the loss falls for ever"),
    ],
    ids=["a sure label", "a slope", "a hill", "a sure pair"],
)
def test_a_loss_that_falls_for_ever_has_no_minimum(loss: object, message: str) -> None:
    with pytest.raises(NoMinimumError, match=message):
        minimise(loss, START)  # type: ignore[arg-type]


def test_a_saddle_is_no_minimum() -> None:
    with pytest.raises(NoMinimumError, match=r"a saddle: curvature -2\.0e\+00, the largest is 2\.0e\+00"):
        minimise(lambda t: t[0] ** 2 - t[1] ** 2, torch.zeros(2, dtype=torch.float64))


def test_a_search_that_takes_too_long_says_where_it_stands() -> None:
    with pytest.raises(NoMinimumError, match=r"gradient .* after 1 Newton steps"):
        minimise(lambda t: (t**4).sum() + (t[0] * t[1]).cosh(), 5 * START, most=1)


def test_a_curvature_downwards_that_is_rounding_is_none_beside_the_largest() -> None:
    curvatures = torch.tensor([-1e-14, 0.05, 1.0], dtype=torch.float64)
    start = torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64)
    found = minimise(lambda theta: (curvatures * theta**2).sum() / 2, start)
    torch.testing.assert_close(found, torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-11)
