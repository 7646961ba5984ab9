"""Each monitor alarms in a planted collapse and is silent in a healthy run."""

from typing import Any

from prefloop.config import CollapseMonitor, LengthMonitor, MonitorsConfig
from prefloop.loop.monitors import alerts_of, collapse, length

FALLING = [{"chosen_logps_drop_per_token": drop} for drop in (0.0, 0.1, 0.3, 0.5, 0.8, 0.9, 1.0, 1.0)]
STEADY = [{"chosen_logps_drop_per_token": 0.02}] * 8


def answers(ratio: float = 1.1, finish: float = 0.98, distinct: float = 0.6) -> dict[str, Any]:
    return {
        "length": {"ratio": ratio},
        "finish_rate": {"value": finish, "initial": 1.0},
        "distinct_2": {"value": distinct, "initial": 0.62},
    }


def test_falling_chosen_logps_with_answers_that_do_not_end_is_a_collapse() -> None:
    alert = collapse(CollapseMonitor(), FALLING, answers(finish=0.4))

    assert alert is not None
    assert alert.value == 1.0  # mean of the last quarter of the steps
    assert "chosen answers lost 1.00 nats a token and 40% of the answers end by themselves, 100% did" in alert.message


def test_falling_chosen_logps_with_answers_that_repeat_themselves_is_a_collapse() -> None:
    alert = collapse(CollapseMonitor(), FALLING, answers(distinct=0.2))

    assert alert is not None
    assert "distinct-2 is 0.20, it was 0.62" in alert.message


def test_falling_chosen_logps_alone_are_normal() -> None:
    assert collapse(CollapseMonitor(), FALLING, answers()) is None


def test_degraded_answers_alone_are_not_this_collapse() -> None:
    assert collapse(CollapseMonitor(), STEADY, answers(finish=0.4)) is None


def test_length_alarms_on_both_sides_of_its_band_and_names_the_remedy() -> None:
    long, short = length(LengthMonitor(), answers(ratio=2.7)), length(LengthMonitor(), answers(ratio=0.4))

    assert long is not None
    assert long.threshold == 2.0
    assert "length_regularized_dpo with alpha: fitted" in long.remedy
    assert short is not None
    assert short.threshold == 0.5
    assert length(LengthMonitor(), answers(ratio=1.9)) is None


def test_a_healthy_run_and_a_run_without_evaluation_are_silent() -> None:
    assert alerts_of(MonitorsConfig(), STEADY, answers()) == ()
    assert alerts_of(MonitorsConfig(), FALLING, None) == ()
