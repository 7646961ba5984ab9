"""Monitors: stateless functions of a round's figures that raise an alarm with a remedy."""

from collections.abc import Mapping, Sequence
from typing import Any

from prefloop.config import CollapseMonitor, LengthMonitor, MonitorsConfig
from prefloop.records import Alert


def alerts_of(
    monitors: MonitorsConfig, metrics: Sequence[Mapping[str, float]], evaluation: Mapping[str, Any] | None
) -> tuple[Alert, ...]:
    """The alarms of a round.

    Args:
        monitors: thresholds and actions.
        metrics: of the round's optimiser steps, in order.
        evaluation: of the round; without one no monitor can compare answers, and none is raised.
    """
    if evaluation is None:
        return ()
    found = (collapse(monitors.collapse, metrics, evaluation), length(monitors.length, evaluation))
    return tuple(alert for alert in found if alert is not None)


def collapse(
    monitor: CollapseMonitor, metrics: Sequence[Mapping[str, float]], evaluation: Mapping[str, Any]
) -> Alert | None:
    """Chosen answers lose probability and the policy's own answers degrade: finish less often, or repeat themselves."""
    drops = [line["chosen_logps_drop_per_token"] for line in metrics if "chosen_logps_drop_per_token" in line]
    last = drops[-max(len(drops) // 4, 1) :]
    finish, distinct = evaluation["finish_rate"], evaluation["distinct_2"]
    degraded: list[str] = []
    if finish["value"] < finish["initial"] - monitor.finish_drop:
        degraded.append(f"{finish['value']:.0%} of the answers end by themselves, {finish['initial']:.0%} did")
    if distinct["value"] < distinct["initial"] * (1 - monitor.distinct_drop):
        degraded.append(f"distinct-2 is {distinct['value']:.2f}, it was {distinct['initial']:.2f}")
    drop = sum(last) / len(last) if last else 0.0
    if drop <= monitor.chosen_drop or not degraded:
        return None
    remedy = "lower policy.learning_rate, raise objective.beta, or take dpop"
    return Alert(
        monitor="collapse",
        metric="chosen_logps_drop_per_token",
        value=drop,
        threshold=monitor.chosen_drop,
        remedy=remedy,
        action=monitor.action,
        message=f"collapse: chosen answers lost {drop:.2f} nats a token and {'; '.join(degraded)}. Remedy: {remedy}",
    )


def length(monitor: LengthMonitor, evaluation: Mapping[str, Any]) -> Alert | None:
    """Mean answer length left its band around the initial model's."""
    ratio = evaluation["length"]["ratio"]
    if monitor.low <= ratio <= monitor.high:
        return None
    threshold = monitor.high if ratio > monitor.high else monitor.low
    remedy = "take objective length_regularized_dpo with alpha: fitted, or pairs.length_penalty"
    return Alert(
        monitor="length",
        metric="length/ratio",
        value=ratio,
        threshold=threshold,
        remedy=remedy,
        action=monitor.action,
        message=(
            f"length: answers are {ratio:.2f} times as long as the initial model's, outside {monitor.low} to "
            f"{monitor.high}. Remedy: {remedy}"
        ),
    )
