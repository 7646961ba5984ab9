"""Learning rates worked out by hand."""

from math import cos, pi

import pytest

from prefloop.training import learning_rate_at
from prefloop.training.schedule import Schedule, Shape


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


# ------------------------------------------------------------------------------------------------ warm-up in steps


def rates(shape: Shape, warmup_steps: int, *blocks: int) -> list[float]:
    """The rates of all steps of a round whose blocks have these numbers of steps; the peak is 8."""
    return [
        Schedule(8.0, shape, None, warmup_steps, steps, block, len(blocks), sum(blocks[:block])).rate(number)
        for block, steps in enumerate(blocks)
        for number in range(steps)
    ]


def test_so_many_steps_rise_and_what_follows_ends_with_the_round() -> None:
    assert rates("constant", 4, 8) == [1, 3, 5, 7, 8, 8, 8, 8]
    assert rates("linear", 4, 8) == pytest.approx([1, 3, 5, 7, 7, 5, 3, 1], abs=1e-12)
    assert rates("cosine", 4, 6) == pytest.approx([1, 3, 5, 7, 4 * (1 + cos(pi / 4)), 4 * (1 - cos(pi / 4))], abs=1e-12)


def test_without_steps_of_warm_up_the_rate_is_that_of_a_share_of_nothing() -> None:
    assert rates("linear", 0, 4) == [7, 5, 3, 1]


@pytest.mark.parametrize("blocks", [(8,), (4, 4), (2, 2, 2, 2)])
def test_steps_are_counted_over_the_blocks_of_a_round(blocks: tuple[int, ...]) -> None:
    assert rates("linear", 4, *blocks) == pytest.approx([1, 3, 5, 7, 7, 5, 3, 1], abs=1e-12)


def test_blocks_of_other_sizes_rise_by_the_same_and_fall_within_their_share() -> None:
    """Warm after 4 steps, which is after 2 of 3 blocks, or a third of the second: each of the rest falls by itself."""
    assert rates("linear", 4, 2, 2, 4) == pytest.approx([1, 3, 5, 7, 7, 5, 3, 1], abs=1e-12)
    rising, falling = rates("linear", 4, 3, 3, 3)[:4], rates("linear", 4, 3, 3, 3)[4:]
    assert rising == [1, 3, 5, 7]
    assert falling == pytest.approx([8 * (4.5 - number) / 5 for number in range(5)], abs=1e-12)


def test_a_warm_up_longer_than_the_round_never_reaches_the_peak() -> None:
    assert rates("linear", 16, 4) == [0.25, 0.75, 1.25, 1.75]


def test_a_share_of_warm_up_goes_over_the_blocks_of_a_round_too() -> None:
    found = [Schedule(8.0, "linear", 0.5, None, 2, block, 4).rate(number) for block in range(4) for number in range(2)]
    assert found == pytest.approx([1, 3, 5, 7, 7, 5, 3, 1], abs=1e-12)
