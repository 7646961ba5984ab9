"""Learning rates worked out by hand."""

from math import cos, pi

import pytest

from prefloop.training import learning_rate_at


@pytest.mark.parametrize(
    ("progress", "schedule", "expected"),
    [
        (0.05, "linear", 1.0),  # half-way up
        (0.1, "linear", 2.0),
        (0.55, "linear", 1.0),  # half-way down
        (1.0, "linear", 0.0),
        (0.05, "constant", 1.0),
        (0.9, "constant", 2.0),
        (0.05, "cosine", 1.0),
        (0.1, "cosine", 2.0),
        (0.55, "cosine", 1.0),
        (0.4, "cosine", 1 + cos(pi / 3)),  # a third of the way down
        (1.0, "cosine", 0.0),
    ],
)
def test_the_rate_rises_linearly_and_then_follows_its_schedule(progress: float, schedule: str, expected: float) -> None:
    assert learning_rate_at(progress, peak=2.0, warmup=0.1, schedule=schedule) == pytest.approx(expected, abs=1e-15)


def test_without_warm_up_it_starts_at_the_peak() -> None:
    assert learning_rate_at(1e-9, peak=2.0, warmup=0.0, schedule="linear") == pytest.approx(2.0)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_no_step_has_the_rate_zero(schedule: str, steps: int) -> None:
    rates = [learning_rate_at((n + 0.5) / steps, peak=1.0, warmup=0.1, schedule=schedule) for n in range(steps)]
    assert all(0 < rate <= 1 for rate in rates)
