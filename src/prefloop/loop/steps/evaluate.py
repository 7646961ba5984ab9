"""Step type `evaluate`: the scoreboard of a round."""

import json
from collections.abc import Mapping
from dataclasses import replace
from statistics import fmean as mean

from prefloop.config import ANSWERS_OF_TURNS, COMPARED, TURN_2, EvaluateStep, StepConfig, in_pool
from prefloop.evaluation import Answers, best_of_each, comparisons, scoreboard, worth_of_choosing
from prefloop.loop.artifact import Artifact, Inputs
from prefloop.loop.scope import Scope
from prefloop.loop.steps.work import StepType, Work
from prefloop.policy import TokenRow, answer_kls
from prefloop.records import Judgment, Prompt, Response, seed_for
from prefloop.statistics import AnswerKl

KL_TOKENS_PER_BATCH = 2048
"""Of padded tokens; logits of two models stand in memory for them."""
POOL_SLOTS = ("", " judgments", " truth")
"""Endings of the slots of an opponent's answers and what was made of them."""


def make_evaluation(work: Work) -> Mapping[str, float]:
    """This round's held-out answers against the baseline's, the last accepted round's and the pool's."""
    settings = work.settings
    assert isinstance(settings, EvaluateStep)
    ours = _answers(work, "samples", "judgments", "truth")
    ours = replace(ours, compared=comparisons(ours, work.records("compared", Judgment)) if settings.compares else None)
    initial = _answers(work, "initial", "initial_judgments", "initial_truth")
    opponents = {"initial": initial}
    if work.artifact.inputs["previous"]:
        opponents["previous"] = _answers(work, "previous", "previous_judgments", "previous_truth")
    elif _baseline(work) == work.artifact.inputs["round_start"][0].identity:
        opponents["previous"] = initial
    pool = {name: _answers(work, *(f"pool {name}{slot}" for slot in POOL_SLOTS)) for name in settings.pool}
    chosen_from = {} if settings.best_of == 1 else {"best_of": worth_of_choosing(ours, settings.best_of)}
    if chosen_from:
        ours = best_of_each(ours, settings.best_of)
        opponents = {name: best_of_each(one, settings.best_of) for name, one in opponents.items()}
    board = scoreboard(
        ours,
        opponents,
        None if is_tempered(settings) else _kls(work, ours),
        pool=pool,
        seed=seed_for(work.recipe.seed, work.artifact.step, "bootstrap"),
        resamples=settings.resamples,
    )
    head = {
        "round": work.artifact.place.round,
        "suite": settings.suite,
        "prompts": len({question.prompt for question in map(initial.question, initial.responses)}),
        "num_samples": settings.num_samples,
    }
    work.out.write_text(json.dumps({**head, **board, **chosen_from}, indent=1) + "\n", encoding="utf-8")
    return {"answers": len(ours.responses)}


def is_tempered(settings: EvaluateStep) -> bool:
    """Whether answers are drawn from something else than the policy itself, so that they say nothing of its KL."""
    return settings.best_of > 1 or any(
        temperature != 1 for temperature in (settings.temperature, *settings.temperatures.values())
    )


def _baseline(work: Work) -> str:
    """Identity of the policy that gave the fixed opponent's answers."""
    return work.artifact.inputs["initial"][0].inputs["policy"][0].identity


def _answers(work: Work, responses: str, judged: str, truth: str) -> Answers:
    scores = {"judge": _scores(work, judged)} if work.artifact.inputs[judged] else {}
    if work.artifact.inputs[truth]:
        scores["truth"] = _scores(work, truth)
    answers = tuple(work.records(responses, Response))
    first = work.artifact.inputs[responses][0].step
    return Answers(answers, scores, {one.response_id: 2 for one in answers if one.step != first})


def _scores(work: Work, slot: str) -> dict[str, float]:
    """What the judge said of each answer; of several reward models the mean."""
    said: dict[str, list[float]] = {}
    for judgment in work.records(slot, Judgment):
        if judgment.values[0] is not None:
            said.setdefault(judgment.subjects[0], []).append(judgment.values[0])
    return {subject: mean(values) for subject, values in said.items()}


def _kls(work: Work, ours: Answers) -> list[AnswerKl]:
    """What each of our answers says of the KL to the initial policy: both read it in the same layout."""
    bench = work.resources.bench
    prompts = {prompt.prompt_id: bench.codec.prompt_ids(prompt) for prompt in work.records("prompts", Prompt)}
    rows = [
        TokenRow(prompts[response.prompt_id], tuple(response.token_ids or ()), (True,) * len(response.token_ids or ()))
        for response in ours.responses
    ]
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    found: dict[int, AnswerKl] = {}
    with bench.for_comparing(work.policy("policy"), work.policy("policy_initial")) as (policy, initial):
        each = answer_kls(policy, initial, [rows[index] for index in order], KL_TOKENS_PER_BATCH)
        for done, (index, kl) in enumerate(zip(order, each, strict=True), start=1):
            found[index] = kl
            work.report("KL to the initial policy", done, len(rows))
    return [found[index] for index in range(len(rows))]


def _inputs(name: str, settings: StepConfig, scope: Scope) -> Inputs:
    """The steps that the evaluation was expanded into, by their names."""
    assert isinstance(settings, EvaluateStep)
    has_truth = settings.judge.truth() is not None
    steps = {
        "prompts": f"{name}-prompts",
        "initial": f"{name}-initial",
        "initial_judgments": f"{name}-initial-judgments",
        "samples": f"{name}-samples",
        "judgments": f"{name}-judgments",
        "previous": f"previous.{name}-samples",
        "previous_judgments": f"previous.{name}-judgments",
    }
    truths = {
        "initial_truth": f"{name}-initial-truth",
        "truth": f"{name}-truth",
        "previous_truth": f"previous.{name}-truth",
    }
    for opponent in settings.pool:
        step = in_pool(name, opponent)
        steps |= {f"pool {opponent}": step, f"pool {opponent} judgments": f"{step}-judgments"}
        truths[f"pool {opponent} truth"] = f"{step}-truth"
    judged = {slot for slot in steps if slot.endswith("judgments")} if settings.compares else set[str]()
    slots: dict[str, tuple[Artifact, ...]] = {
        slot: () if slot in judged else scope.find(step) for slot, step in steps.items()
    }
    slots |= {slot: scope.find(step) if has_truth else () for slot, step in truths.items()}
    if settings.turns == 2:
        slots["prompts"] += scope.find(f"{name}-samples{TURN_2}")
        answered = [slot for slot, step in steps.items() if step.endswith(("-initial", "-samples"))]
        for slot in (*answered, *(f"pool {opponent}" for opponent in settings.pool)):
            slots[slot] += scope.find(f"{steps[slot]}-2")
    met = ("initial", "previous", *(f"pool-{opponent}" for opponent in settings.pool)) if settings.compares else ()
    slots["compared"] = tuple(
        made
        for opponent in met
        for turn in ANSWERS_OF_TURNS[: settings.turns]
        for made in scope.find(f"{name}-{opponent}{turn}{COMPARED}")
    )
    (sampled,) = scope.find(steps["samples"])
    slots["policy"] = () if is_tempered(settings) else sampled.inputs["policy"]
    return {**slots, "policy_initial": (scope.initial,), "round_start": (scope.round_start,)}


EVALUATE = StepType(make_evaluation, _inputs, suffix=".json", format=3)
