"""An evaluate step, written out as the sample and judge steps that it needs."""

from typing import Any

from pydantic import TypeAdapter, ValidationError

from prefloop.config.judges import JudgeConfig
from prefloop.config.steps import BUDGET

SUITES = {"everyday": "everyday:heldout"}
"""Shipped suites and their prompt sets."""


def expand_evaluations(raw: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """The recipe with each evaluate step preceded by what it reads; one without a suite is left out, aloud.

    The baseline answers once, in the set-up; the round's policy answers every round, with seeds of its own.
    `NAME-truth` judges without the planted flaws, where the judge has any.
    """
    full = dict(raw)
    for name in raw.get("round") or ():
        if raw.get(name, {}).get("type") != "evaluate":
            continue
        if raw[name].get("suite") is None:
            full["round"] = [other for other in full["round"] if other != name]
            del full[name]
            notes.append(f"{name} is left out: it names no suite")
            continue
        full = _expand(full, name)
    return full


def _expand(full: dict[str, Any], name: str) -> dict[str, Any]:
    settings = _with_defaults(full, name)
    sampling = {
        "type": "sample",
        "reads": [f"{name}-prompts"],
        "temperature": 1.0,
        "top_p": 1.0,
        "num_samples": settings.get("num_samples", 1),
        "max_new_tokens": settings.get("max_new_tokens", 1024),
    }
    prompts = {"type": "prompts", "data": SUITES.get(settings["suite"], settings["suite"])}
    if settings.get("count") is not None:
        prompts["count"] = settings["count"]
    setup: dict[str, Any] = {
        f"{name}-prompts": prompts,
        f"{name}-initial": {**sampling, "policy": settings.get("baseline", "initial")},
    }
    each_round: dict[str, Any] = {f"{name}-samples": {**sampling, "policy": "current"}}
    for answers, steps in ((f"{name}-initial", setup), (f"{name}-samples", each_round)):
        stem = answers.removesuffix("-samples")
        budget = {key: settings[key] for key in BUDGET if settings.get(key) is not None}
        steps[f"{stem}-judgments"] = {"type": "judge", "judge": settings.get("judge"), "reads": [answers], **budget}
        if (truth := _truth(settings.get("judge"))) is not None:
            steps[f"{stem}-truth"] = {"type": "judge", "judge": truth, "reads": [answers]}
    position = full["round"].index(name)
    return {
        **full,
        **setup,
        **each_round,
        name: settings,
        "setup": [*full.get("setup", ()), *setup],
        "round": [*full["round"][:position], *each_round, *full["round"][position:]],
    }


def _with_defaults(full: dict[str, Any], name: str) -> dict[str, Any]:
    """What the loop's own steps say, where the evaluation does not."""
    return {**{key: value for key, (_, value) in loop_defaults(full, name).items()}, **full[name]}


def loop_defaults(full: dict[str, Any], name: str) -> dict[str, tuple[str, Any]]:
    """Settings that an evaluation takes from the loop's own steps, each with the step that it is of.

    A judge of its own is not held to the budget of the loop's.
    """
    taken = [("judge", "judge"), ("sample", "max_new_tokens")]
    taken += [("judge", key) for key in BUDGET] * ("judge" not in full[name])
    defaults: dict[str, tuple[str, Any]] = {}
    for step in full.get("block", ()):
        settings = full.get(step, {})
        for kind, key in taken:
            if settings.get("type") == kind and key in settings:
                defaults.setdefault(key, (step, settings[key]))
    return defaults


def _truth(judge: Any) -> dict[str, Any] | None:
    try:
        truth = TypeAdapter[Any](JudgeConfig).validate_python(judge).truth()
    except ValidationError:
        return None  # the mistake is reported where the evaluation's own settings are checked
    return None if truth is None else truth.model_dump()
