"""The result and the decisions in words. What an interval does not show is not claimed."""

from collections.abc import Iterator
from dataclasses import dataclass

from prefloop.records import Alert, Estimate
from prefloop.report.figures import compact, rate, with_interval
from prefloop.report.table import ratio_of
from prefloop.report.view import Duel, Evaluation, Round, RunView

EVEN = 50.0
_DECIDED = {
    "accepted": "accepted",
    "warned": "accepted with a warning",
    "rolled_back": "rolled back; the run went on from the last accepted round",
    "stopped": "not accepted, and the run was stopped",
}
_ACTIONS = {"stop": "stops the run", "roll_back": "rolls the round back", "warn": "warns only"}


@dataclass(frozen=True)
class AlertText:
    """An alarm, readable."""

    title: str
    message: str
    measured: str
    remedy: str


@dataclass(frozen=True)
class RoundText:
    """One round in words."""

    label: str
    folder: str
    decision: str
    name: str
    """The decision as the summary spells it; the page styles by it."""
    reasons: tuple[str, ...]
    alerts: tuple[AlertText, ...]


def headline(run: RunView) -> str:
    """One sentence: what this run can claim."""
    if not run.finished:
        return "No round has finished yet, so there is no result to report."
    shown = run.last_accepted
    if shown is None:
        return (
            f"None of {_rounds(len(run.finished))} was accepted: the run stands where it began, on the initial model."
        )
    after = f"After {_rounds(shown.number + 1)}"
    evaluation = shown.evaluation
    if evaluation is None:
        return (
            f"{after} there is a trained policy, but it was not evaluated: this page cannot say whether it is better."
        )
    if (duel := shown.duel("truth")) is not None:
        return _claim(after, duel.raw, "the judge's truth", shown, evaluation)
    if (duel := shown.duel("judge")) is not None:
        return _claim(after, duel.controlled, "the judge with length controlled", shown, evaluation)
    return (
        f"{after} there is a trained policy, but it never met the initial model: this page cannot say if it is better."
    )


def _claim(after: str, wins: Estimate, judge: str, shown: Round, evaluation: Evaluation) -> str:
    unit = "prompts" if evaluation.num_samples == 1 else "comparisons"
    ratio = ratio_of(shown)
    length = "" if ratio is None else f", at {with_interval(ratio, 2)} times its length"
    share = rate(wins)
    by = f"by {judge}{length}"
    if wins.interval is None:
        return (
            f"{after} the policy wins {share} of held-out {unit} against the initial model {by}; "
            "without an interval, this may be chance."
        )
    low, high = wins.interval
    if low > EVEN:
        return f"{after} the policy is better than the initial model: it wins {share} of held-out {unit} {by}."
    if high < EVEN:
        return f"{after} the policy is worse than the initial model: it wins only {share} of held-out {unit} {by}."
    return (
        f"{after} the policy is not shown to differ from the initial model: it wins {share} of held-out {unit} {by}, "
        "and the interval contains 50\N{NO-BREAK SPACE}%."
    )


def notes(run: RunView) -> tuple[str, ...]:
    """What belongs beside the headline so that it does not mislead."""
    planned, finished = run.recipe.rounds, len(run.finished)
    lines: list[str] = []
    if finished < planned:
        lines.append(f"{finished} of {_rounds(planned)} {'has' if finished == 1 else 'have'} finished.")
    shown = run.last_accepted
    if shown is not None and (duel := shown.duel("judge")) is not None:
        lines.append(_judge_note(duel, truth_known=shown.duel("truth") is not None))
    lines.extend(_alarms(run))
    refused = [one.label for one in run.finished if not one.accepted]
    if refused:
        lines.append(f"Not accepted: round {', '.join(refused)}.")
    if run.left_over:
        folders = dict.fromkeys(path.partition("/")[0] for path in run.left_over)
        lines.append(
            f"Not shown: what the recipe left in {', '.join(folders)} before its last change. "
            "The same `prefloop run` without `--until` makes it anew."
        )
    return tuple(lines)


def _alarms(run: RunView) -> Iterator[str]:
    """Which monitor raised an alarm, and in which rounds."""
    raised: dict[str, list[str]] = {}
    for one in run.finished:
        for alert in one.summary.alerts if one.summary is not None else ():
            raised.setdefault(alert.monitor, []).append(one.label)
    for monitor, labels in raised.items():
        yield f"Alarm of the {monitor} monitor: round {', '.join(dict.fromkeys(labels))}."


def _judge_note(duel: Duel, *, truth_known: bool) -> str:
    raw = f"The judge itself says {rate(duel.raw)}"
    if truth_known:
        return f"{raw}, and {rate(duel.controlled)} with length controlled."
    return f"{raw} before its taste for length is taken out."


def round_texts(run: RunView) -> tuple[RoundText, ...]:
    """Every round: what was decided, why, and what the monitors said."""
    return tuple(_round_text(one) for one in run.rounds)


def _round_text(one: Round) -> RoundText:
    folder = f"round-{one.number:02d}"
    summary = one.summary
    if summary is None:
        return RoundText(one.label, folder, "not finished", "unfinished", (), ())
    warnings = tuple(
        f"{training.place}: {name} = {compact(fit.value)}: {fit.warning}"
        for training in one.training
        for name, fit in training.fitted.items()
        if fit.warning and not any(fit.warning in reason for reason in summary.reasons)
    )
    alarmed = {alert.message for alert in summary.alerts}
    reasons = (
        *(reason for reason in summary.reasons if reason not in alarmed),
        *_against_previous(one),
        *warnings,
    )
    return RoundText(
        one.label,
        folder,
        _DECIDED[summary.decision],
        summary.decision,
        reasons,
        tuple(map(_alert_text, summary.alerts)),
    )


def _against_previous(one: Round) -> tuple[str, ...]:
    """Round 1's previous round is the initial model, which the table has."""
    judge = "truth" if one.duel("truth", "previous") is not None else "judge"
    duel = one.duel(judge, "previous")
    if duel is None or one.number == 0:
        return ()
    return (f"Against the last accepted round it wins {rate(duel.raw)} by the {judge}.",)


def _alert_text(alert: Alert) -> AlertText:
    return AlertText(
        title=f"{alert.monitor} ({_ACTIONS[alert.action]})",
        message=alert.message.partition(" Remedy:")[0],
        measured=f"{alert.metric} is {compact(alert.value)}, the threshold {compact(alert.threshold)}",
        remedy=alert.remedy,
    )


def _rounds(number: int) -> str:
    return "1 round" if number == 1 else f"{number} rounds"
