"""The gate: a pure decision over what a round measured."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from prefloop.config import GateConfig
from prefloop.loop.artifact import Artifact
from prefloop.records import Alert

DecisionName = Literal["accepted", "warned", "rolled_back", "stopped"]
BY_ACTION: Mapping[str, DecisionName] = {"warn": "warned", "roll_back": "rolled_back", "stop": "stopped"}
RATES: Mapping[str, tuple[str, str, str]] = {
    "length_controlled": ("length_controlled_winrate", "lc_interval", "length-controlled win rate"),
    "judge": ("win_rate", "interval", "win rate"),
}
"""What the gate looks at: the rate, its interval, and its name."""
MEASURED = "against/initial/judge/length_controlled_winrate"
"""By which a summary tells rounds apart."""
SEVERITY: Sequence[DecisionName] = ("accepted", "warned", "rolled_back", "stopped")


@dataclass(frozen=True)
class Decision:
    """How a round ends, and why."""

    name: DecisionName
    reasons: tuple[str, ...]
    win_rate: float | None = None
    """Length-controlled, against the initial model, in percent; None where nothing was measured."""

    @property
    def accepted(self) -> bool:
        """The loop goes on from this round's policy."""
        return self.name in {"accepted", "warned"}

    @property
    def stops(self) -> bool:
        """The run ends here."""
        return self.name == "stopped"

    @property
    def reason(self) -> str:
        """All reasons in one line."""
        return "; ".join(self.reasons)


def decide(
    gate: GateConfig, evaluation: Mapping[str, Any] | None, earlier: Mapping[str, Any] | None, alerts: Sequence[Alert]
) -> Decision:
    """Accepts a round unless it is shown worse (or, with `require: better`, unless it is shown better).

    Args:
        gate: what is required, and what happens otherwise.
        evaluation: of this round; None where the recipe has none, which the gate accepts.
        earlier: of the last accepted round; None in the first.
        alerts: of the monitors; the most severe action counts.
    """
    refusals = refusals_of(gate, evaluation, earlier) if evaluation else []
    actions = [*([gate.action] if refusals else []), *(alert.action for alert in alerts)]
    severity = max((SEVERITY.index(BY_ACTION[action]) for action in actions), default=0)
    return Decision(SEVERITY[severity], (*refusals, *(alert.message for alert in alerts)))


def refusals_of(gate: GateConfig, evaluation: Mapping[str, Any], earlier: Mapping[str, Any] | None) -> list[str]:
    """Why the gate refuses a round; empty where it does not. Each reason says what this suite could have shown."""
    rate, interval, name = RATES[gate.by]
    latest, first = evaluation["against"].get("previous", {}).get("judge"), evaluation["against"]["initial"]["judge"]
    if latest is None or latest[interval] is None:
        return []
    low, high = latest[interval]
    seen = f"{name} {latest[rate]:.1f} ({low:.1f} to {high:.1f})"
    could_see = f"{latest['clusters']} prompts can show a difference of {(high - low) / 2:.1f} points"
    refusals: list[str] = []
    if high < 50:
        refusals.append(f"worse than the last accepted round: {seen}; {could_see}")
    elif gate.require == "better" and low <= 50:
        refusals.append(f"not shown better than the last accepted round: {seen}; {could_see}")
    if earlier is not None and first[interval] is not None:
        before = earlier["against"]["initial"]["judge"][rate]
        half_width = (first[interval][1] - first[interval][0]) / 2
        if first[rate] < before - half_width:
            refusals.append(
                f"{name} against the initial model fell from {before:.1f} to {first[rate]:.1f}, "
                f"more than its half-width of {half_width:.1f}"
            )
    return refusals


def read_decision(summary: Artifact) -> Decision:
    """The decision that a round's summary holds."""
    content = json.loads(summary.open().read_text(encoding="utf-8"))
    measured = content["evaluation"].get(MEASURED, {})
    return Decision(content["decision"], tuple(content["reasons"]), measured.get("value"))
