"""Pieces that objectives share, at their edges."""

import math

import pytest
import torch

from prefloop.objectives.pieces import log1mexp


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (-1e-20, math.log(1e-20)),
        (-1e-9, math.log(1e-9) - 0.5e-9),
        (-math.log(2), -math.log(2)),
        (-50.0, -math.exp(-50)),
    ],
)
def test_log1mexp_loses_no_digits_near_0_and_far_away(x: float, expected: float) -> None:
    found = log1mexp(torch.tensor([x], dtype=torch.float64))
    assert found.item() == pytest.approx(expected, rel=1e-14)
