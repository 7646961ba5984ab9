"""Decisions on figures that are worked out by hand."""

from typing import Any

import pytest

from prefloop.config import GateConfig
from prefloop.loop.gate import decide
from prefloop.records import Alert


def measured(
    previous: float, interval: tuple[float, float] | None, initial: float = 60.0, half_width: float = 10.0
) -> dict[str, Any]:
    duel = {"win_rate": previous, "interval": interval, "clusters": 96}
    first = {"win_rate": initial, "interval": (initial - half_width, initial + half_width), "clusters": 96}
    return {"against": {"previous": {"judge": duel}, "initial": {"judge": first}}}


def alert(action: str) -> Alert:
    return Alert(
        monitor="length", metric="length/ratio", value=3, threshold=2, remedy="", action=action, message="too long"
    )


def test_a_round_that_is_not_shown_worse_is_accepted() -> None:
    assert decide(GateConfig(), measured(45, (35, 55)), None, ()).name == "accepted"


def test_a_round_that_is_shown_worse_is_rolled_back_and_says_what_could_be_seen() -> None:
    decision = decide(GateConfig(), measured(40, (31, 49)), None, ())

    assert decision.name == "rolled_back"
    assert not decision.accepted
    assert decision.reason == (
        "worse than the last accepted round: win rate 40.0 (31.0 to 49.0); "
        "96 prompts can show a difference of 9.0 points"
    )


@pytest.mark.parametrize(("action", "name", "stops"), [("warn", "warned", False), ("stop", "stopped", True)])
def test_the_action_decides_what_a_refusal_means(action: str, name: str, stops: bool) -> None:
    decision = decide(GateConfig(action=action), measured(40, (31, 49)), None, ())

    assert (decision.name, decision.stops, decision.accepted) == (name, stops, action == "warn")


def test_better_refuses_what_is_not_shown_better() -> None:
    gate = GateConfig(require="better")

    assert decide(gate, measured(55, (46, 64)), None, ()).name == "rolled_back"
    assert decide(gate, measured(60, (51, 69)), None, ()).name == "accepted"


def test_a_fall_against_the_initial_model_by_more_than_its_half_width_is_refused() -> None:
    earlier = measured(60, (51, 69), initial=70)

    assert decide(GateConfig(), measured(50, (41, 59), initial=61), earlier, ()).name == "accepted"
    refused = decide(GateConfig(), measured(50, (41, 59), initial=59), earlier, ())
    assert (
        refused.reason == "win rate against the initial model fell from 70.0 to 59.0, more than its half-width of 10.0"
    )


def test_the_most_severe_alarm_decides() -> None:
    assert decide(GateConfig(), measured(50, (41, 59)), None, (alert("warn"), alert("stop"))).name == "stopped"
    assert decide(GateConfig(), measured(50, (41, 59)), None, (alert("warn"),)).name == "warned"


def test_without_an_evaluation_or_an_interval_a_round_is_accepted() -> None:
    assert decide(GateConfig(), None, None, ()).name == "accepted"
    assert decide(GateConfig(), measured(0, None), None, ()).name == "accepted"
