"""Numbers that come in float64 are computed in float64, whatever torch's default is.

A count divided by a count is a float32 in torch: right to seven digits, and exact where it happens to be a fraction of
two, so that few examples show it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from prefloop.objectives import Objective, objectives
from prefloop.testing.drawn import quantities, variants

EVERY_CHOICE = pytest.mark.parametrize(
    ("objective", "hyper"),
    [
        pytest.param(objective, hyper, id=f"{name}:{number}")
        for name, objective in objectives().items()
        for number, hyper in enumerate(variants(objective))
    ],
)


@contextmanager
def float64_by_default() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@EVERY_CHOICE
def test_the_default_dtype_decides_nothing(objective: Objective, hyper: dict[str, Any]) -> None:
    values = quantities(objective, hyper)
    losses = objective.function(**values, **hyper)
    with float64_by_default():
        exact = objective.function(**values, **hyper)
    assert losses.dtype == torch.float64
    assert losses.tolist() == pytest.approx(exact.tolist(), rel=1e-13, abs=1e-13)
