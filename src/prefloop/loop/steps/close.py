"""Step type `close`: the summary of a round, with the gate's decision in it. Every round ends with it."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from prefloop.config import CloseStep, JudgeStep, StepConfig
from prefloop.loop.artifact import Inputs
from prefloop.loop.gate import decide
from prefloop.loop.monitors import alerts_of
from prefloop.loop.scope import Scope
from prefloop.loop.steps.judge import judge_name
from prefloop.loop.steps.work import StepType, Work
from prefloop.records import Estimate, RoundSummary


def make_summary(work: Work) -> Mapping[str, float]:
    """Reads what the round measured, asks monitors and gate, and writes the decision."""
    settings = work.settings
    assert isinstance(settings, CloseStep)
    inputs = work.artifact.inputs
    evaluation, earlier = _json(work, "evaluation"), _json(work, "previous")
    metrics = list(_training(work))
    alerts = alerts_of(settings.monitors, metrics, evaluation)
    decision = decide(settings.gate, evaluation, earlier, alerts)
    judges = [
        work.recipe.step(name, work.artifact.place.round or 0)
        for name in work.recipe.names()
        if work.recipe.type_of(name) == "judge"
    ]
    summary = RoundSummary(
        round=work.artifact.place.round or 0,
        decision=decision.name,
        reasons=(*decision.reasons, *_fit_warnings(work)),
        policies={name: inputs[name][0].identity for name in ("initial", "round_start", "current")},
        counts={str(artifact.step): dict(work.counts[artifact.identity]) for artifact in inputs["steps"]},
        training=metrics[-1] if metrics else {},
        evaluation=estimates(evaluation) if evaluation else {},
        judges=tuple(dict.fromkeys(judge_name(step, work.recipe) for step in judges if isinstance(step, JudgeStep))),
        alerts=alerts,
    )
    work.out.write_text(summary.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return {"alerts": len(alerts)}


def estimates(evaluation: Mapping[str, Any]) -> dict[str, Estimate]:
    """The figures of an evaluation by one name each, such as `against/initial/judge/win_rate`."""
    found = {
        f"against/{opponent}/{judge}/{rate}": Estimate(
            value=duel[rate], standard_error=duel[error], interval=duel[interval], n=duel["n"]
        )
        for opponent, judges in evaluation["against"].items()
        for judge, duel in judges.items()
        for rate, error, interval in (
            ("win_rate", "standard_error", "interval"),
            ("length_controlled_winrate", "lc_standard_error", "lc_interval"),
        )
    }
    length, kl = evaluation["length"], evaluation["kl"]
    found["length"] = Estimate(
        value=length["mean"], standard_error=length["standard_error"], interval=length["interval"], n=length["n"]
    )
    if kl is not None:
        found["kl"] = Estimate(
            value=kl["value"], standard_error=kl["standard_error"], interval=kl["interval"], n=kl["n"]
        )
    for name in ("finish_rate", "distinct_2"):
        found[name] = Estimate(value=evaluation[name]["value"], n=length["n"])
    return found


def _json(work: Work, slot: str) -> dict[str, Any] | None:
    if not work.artifact.inputs[slot]:
        return None
    return json.loads(work.path(slot).read_text(encoding="utf-8"))


def _training(work: Work) -> Iterator[dict[str, float]]:
    for artifact in work.artifact.inputs["trained"]:
        lines = (work.paths[artifact.identity] / "training.jsonl").read_text(encoding="utf-8").splitlines()
        yield from map(json.loads, lines)


def _fit_warnings(work: Work) -> Iterator[str]:
    for artifact in work.artifact.inputs["steps"]:
        fitted = work.paths[artifact.identity] / "fitted.json"
        if fitted.is_file():
            fits = json.loads(fitted.read_text(encoding="utf-8"))
            yield from (fit["warning"] for fit in fits.values() if fit["warning"])


def _inputs(_name: str, _settings: StepConfig, scope: Scope) -> Inputs:
    done = scope.rounds[-1]
    steps = (*(artifact for block in done.blocks for artifact in block.values()), *done.after.values())
    evaluated = tuple(artifact for artifact in steps if artifact.step_type == "evaluate")[-1:]
    return {
        "steps": steps,
        "trained": tuple(artifact for artifact in steps if artifact.step == scope.loop_policy),
        "evaluation": evaluated,
        "previous": tuple(found for artifact in evaluated for found in scope.find(f"previous.{artifact.step}")),
        "initial": (scope.initial,),
        "round_start": (scope.round_start,),
        "current": (scope.current,),
    }


CLOSE = StepType(make_summary, _inputs, suffix=".json")
