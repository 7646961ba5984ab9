"""An evaluate step, written out as the sample and judge steps that it needs."""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from prefloop.config.base import is_mapping
from prefloop.config.judges import JudgeConfig, JudgeSettings
from prefloop.config.steps import BUDGET
from prefloop.config.suite_file import of_step, read_suite
from prefloop.errors import RecipeError

TURN_2 = "-turn-2"
"""Ending of the step that asks the second questions; `-2` is that of their answers."""

ANSWERS_OF_TURNS = ("", "-2")
"""Endings of the steps with answers, by turn."""

COMPARED = "-compared"
"""Ending of the step in which a judge compares our answers with an opponent's."""


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
    setup = {
        f"{name}-prompts": prompts_of_suite(settings),
        **answers_of_suite(settings, f"{name}-initial", name, policy=settings.get("baseline", "initial")),
        **pool_of_suite(settings, name),
    }
    each_round = answers_of_suite(settings, f"{name}-samples", name, policy="current", stem=name)
    if settings["compares"]:
        pool: Any = settings.get("pool") or {}
        met = {"initial": f"{name}-initial", "previous": f"previous.{name}-samples"}
        met |= {f"pool-{opponent}": in_pool(name, opponent) for opponent in pool}
        steps = {f"{name}-{opponent}{COMPARED}": answers for opponent, answers in met.items()}
        each_round |= comparisons_of_suite(settings, f"{name}-samples", steps)
    position = full["round"].index(name)
    return {
        **full,
        **setup,
        **each_round,
        name: settings,
        "setup": [*full.get("setup", ()), *setup],
        "round": [*full["round"][:position], *each_round, *full["round"][position:]],
    }


def prompts_of_suite(settings: dict[str, Any]) -> dict[str, Any]:
    """The step that reads a suite's questions.

    Raises:
        RecipeError: nobody says where they are.
    """
    if settings.get("prompts") is None:
        raise RecipeError(
            f"suite {settings['suite']}: leaves its questions to you. Name their file: `prompts` beside `suite`."
        )
    taken = {key: settings[key] for key in ("count", "format", "references") if settings.get(key) is not None}
    return {"type": "prompts", "data": settings["prompts"], **taken}


def pool_of_suite(settings: dict[str, Any], name: str) -> dict[str, Any]:
    """The steps that read and judge the answers of fixed opponents."""
    pool: Any = settings.get("pool") or None
    if pool is None:
        return {}
    if not is_mapping(pool):
        raise RecipeError(f"{name}.pool is {pool!r}, expected names with their files of answers.")
    steps: dict[str, Any] = {}
    for opponent, file in pool.items():
        steps |= answers_of_suite(settings, in_pool(name, opponent), name, policy="initial", replayed=str(file))
    return steps


def comparisons_of_suite(settings: dict[str, Any], answers: str, opponents: Mapping[str, str]) -> dict[str, Any]:
    """The steps in which a judge of two meets our answers with those of each opponent, both orders, turn by turn.

    Args:
        settings: of the evaluation.
        answers: the step with our answers.
        opponents: by the name of the step that is made, the one with the opponent's answers.
    """
    return {
        compared_in(step, turn): {
            "type": "judge",
            "judge": settings["judge"],
            "reads": [f"{answers}{turn}"],
            "design": {"type": "against", "opponents": f"{theirs}{turn}"},
            **_budget(settings),
        }
        for step, theirs in opponents.items()
        for turn in ANSWERS_OF_TURNS[: settings.get("turns", 1)]
    }


def compared_in(step: str, turn: str) -> str:
    """The step with the comparisons of a turn, by that of the first."""
    return f"{step.removesuffix(COMPARED)}{turn}{COMPARED}"


def _budget(settings: dict[str, Any]) -> dict[str, Any]:
    """What limits the judge of an evaluation."""
    return {key: settings[key] for key in BUDGET if settings.get(key) is not None}


def in_pool(name: str, opponent: str) -> str:
    """The step with an opponent's answers."""
    return f"{name}-pool-{opponent}"


def answers_of_suite(
    settings: dict[str, Any],
    answers: str,
    name: str,
    *,
    policy: str,
    stem: str | None = None,
    replayed: str | None = None,
) -> dict[str, Any]:
    """The steps in which one policy answers a suite and is judged.

    Args:
        settings: of the evaluate step.
        answers: name of the step with the answers to the first questions.
        name: of the evaluate step.
        policy: who answers.
        stem: what the names of judgments begin with; None: as the answers'.
        replayed: the file of answers that are read instead of sampled.
    """
    stem = answers if stem is None else stem
    sampling = {
        "type": "sample",
        "policy": policy,
        "temperature": settings.get("temperature", 1.0),
        "temperatures": settings.get("temperatures", {}),
        "top_p": 1.0,
        "num_samples": settings.get("num_samples", 1),
        "max_new_tokens": settings.get("max_new_tokens", 1024),
    }
    if replayed is not None:
        sampling["sampler"] = {"type": "replay", "file": replayed}
    else:
        sampling["num_samples"] *= settings.get("best_of", 1)
        sampling |= {key: settings[key] for key in ("num_beams",) if key in settings}
    if replayed is None and settings.get("sampler") is not None:
        sampling["sampler"] = settings["sampler"]
    steps: dict[str, Any] = {answers: {**sampling, "reads": [f"{name}-prompts"]}}
    if settings.get("turns", 1) == 2:
        steps[f"{answers}{TURN_2}"] = {"type": "next_turn", "reads": [f"{name}-prompts", answers]}
        steps[f"{answers}-2"] = {**sampling, "num_samples": 1, "reads": [f"{answers}{TURN_2}"]}
    if (judge := settings.get("judge")) is None:
        return steps
    read = [step for step, made in steps.items() if made["type"] == "sample"]
    if not settings.get("compares"):
        steps[f"{stem}-judgments"] = {"type": "judge", "judge": judge, "reads": read, **_budget(settings)}
    if (truth := _truth(judge)) is not None:
        steps[f"{stem}-truth"] = {"type": "judge", "judge": truth, "reads": read}
    return steps


def _with_defaults(full: dict[str, Any], name: str) -> dict[str, Any]:
    """What the suite says where the evaluation does not, and the loop's own steps where neither does."""
    settings = {
        **{key: value for key, (_, value) in loop_defaults(full, name).items()},
        **suite_defaults(full[name]),
        **{key: value for key, value in full[name].items() if value is not None},
    }
    judge = _judge(settings.get("judge"))
    only_compares = judge is not None and "one" not in judge.takes
    return {**settings, "compares": settings.get("compares", False) or only_compares}


def suite_defaults(settings: dict[str, Any]) -> dict[str, Any]:
    """What the suite of an evaluation says; nothing where it names none."""
    if settings.get("suite") is None:
        return {}
    return of_step(read_suite(str(settings["suite"])))


def loop_defaults(full: dict[str, Any], name: str) -> dict[str, tuple[str, Any]]:
    """Settings that an evaluation takes from the loop's own steps, each with the step that it is of.

    What its suite says is not taken from the loop. A judge of its own is not held to the budget of the loop's.
    """
    own = {**suite_defaults(full[name]), **full[name]}
    taken = [("judge", "judge"), ("sample", "max_new_tokens")]
    taken += [("judge", key) for key in BUDGET] * ("judge" not in own)
    defaults: dict[str, tuple[str, Any]] = {}
    for step in full.get("block", ()):
        settings = full.get(step, {})
        for kind, key in taken:
            if settings.get("type") == kind and key in settings:
                defaults.setdefault(key, (step, settings[key]))
    return defaults


def _truth(judge: Any) -> dict[str, Any] | None:
    checked = _judge(judge)
    truth = None if checked is None else checked.truth()
    return None if truth is None else truth.model_dump()


def _judge(judge: Any) -> JudgeSettings | None:
    """A judge as it is checked; None where it cannot be, which is reported with the evaluation's own settings."""
    try:
        return TypeAdapter[JudgeSettings](JudgeConfig).validate_python(judge)
    except ValidationError:
        return None
