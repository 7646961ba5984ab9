"""Decisions on figures that are worked out by hand."""

from typing import Any

import pytest

from prefloop.config import GateConfig
from prefloop.loop.gate import decide
from prefloop.records import Alert


def measured(
    previous: float, interval: tuple[float, float] | None, initial: float = 60.0, half_width: float = 10.0
) -> dict[str, Any]:
    duel = rates(previous, interval)
    first = rates(initial, (initial - half_width, initial + half_width))
    return {"against": {"previous": {"judge": duel}, "initial": {"judge": first}}}


def rates(controlled: float, interval: tuple[float, float] | None, plain: float = 50.0) -> dict[str, Any]:
    """With a plain win rate that is surely a draw, so that a test sees which of the two is looked at."""
    by_judge = {"win_rate": plain, "interval": (plain - 1, plain + 1)}
    return {"length_controlled_winrate": controlled, "lc_interval": interval, "clusters": 96, **by_judge}


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
        "worse than the last accepted round: length-controlled win rate 40.0 (31.0 to 49.0); "
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
        refused.reason == "length-controlled win rate against the initial model fell from 70.0 to 59.0, "
        "more than its half-width of 10.0"
    )


def test_a_round_that_lost_nothing_but_length_is_refused_only_by_the_plain_win_rate() -> None:
    """Seed 2 of the quickstart: the third round was shorter, better by the truth, and worse by the judge alone."""
    duel = {**rates(62.5, (54.0, 71.7)), "win_rate": 36.3, "interval": (30.9, 42.2), "clusters": 48}
    third = {"against": {"previous": {"judge": duel}, "initial": {"judge": rates(63.8, (56.0, 72.0), plain=54.6)}}}
    second = {"against": {"initial": {"judge": rates(57.8, (50.0, 65.0), plain=66.3)}}}

    assert decide(GateConfig(), third, second, ()).name == "accepted"
    assert decide(GateConfig(by="judge"), third, second, ()).reasons == (
        "worse than the last accepted round: win rate 36.3 (30.9 to 42.2); "
        "48 prompts can show a difference of 5.7 points",
        "win rate against the initial model fell from 66.3 to 54.6, more than its half-width of 1.0",
    )


def test_the_most_severe_alarm_decides() -> None:
    assert decide(GateConfig(), measured(50, (41, 59)), None, (alert("warn"), alert("stop"))).name == "stopped"
    assert decide(GateConfig(), measured(50, (41, 59)), None, (alert("warn"),)).name == "warned"


def test_without_an_evaluation_or_an_interval_a_round_is_accepted() -> None:
    assert decide(GateConfig(), None, None, ()).name == "accepted"
    assert decide(GateConfig(), measured(0, None), None, ()).name == "accepted"
