"""How much every step does: at most, as measured before lets expect, and as it was. Pure counting over artifacts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import ceil

from prefloop.config import (
    BufferStep,
    DataStep,
    JudgeStep,
    LlmJudge,
    LlmStepsJudge,
    MixStep,
    NextTurnStep,
    PairStep,
    PromptsStep,
    Recipe,
    SampleStep,
    SearchStep,
    TrainStep,
)
from prefloop.judging import most_calls, prompt_of
from prefloop.loop.artifact import Artifact
from prefloop.loop.data_set import survey
from prefloop.loop.prompt_set import prompts_at
from prefloop.loop.steps.judge import shown
from prefloop.loop.steps.mix import earlier_slot
from prefloop.objectives import REPEATED_ROLES
from prefloop.pairing import find_rule
from prefloop.records import Example

Counts = Mapping[str, int]
"""How much of what: `prompts`, `given_pairs`, `answers`, `tokens`, `judge_calls`, `pairs`, `optimiser_steps`."""

JOURNALED = {
    "prompts": {"prompts": "prompts"},
    "next_turn": {"prompts": "prompts"},
    "data": {"given_pairs": "pairs"},
    "sample": {"answers": "responses", "tokens": "tokens"},
    "search": {"prompts": "prompts", "answers": "responses"},
    "judge": {"judge_calls": "calls"},
    "pair": {"pairs": "examples", "prompts": "prompts"},
    "mix": {"pairs": "examples"},
    "buffer": {"pairs": "examples"},
    "train": {"optimiser_steps": "steps"},
}
"""By type of step: what the journal calls the same numbers."""


@dataclass(frozen=True)
class StepAmounts:
    """How much one step does."""

    at_most: Counts
    expected: Counts
    """By what was measured before the step; without what nothing was measured for."""
    actual: Counts
    """As the journal has it; empty until the step is done."""


@dataclass
class Ledger:
    """Adds up steps in the order in which they run."""

    recipe: Recipe
    at_most: dict[str, Counts] = field(default_factory=dict[str, Counts])
    expected: dict[str, Counts] = field(default_factory=dict[str, Counts])
    tokens_per_answer: dict[str, float] = field(default_factory=dict[str, float])
    """By step, as last measured; `any` is the last of all steps."""
    made_per_prompt: dict[str, float] = field(default_factory=dict[str, float])
    """By pair step: examples or derived prompts."""
    calls_per_answer: dict[str, float] = field(default_factory=dict[str, float])
    """By judge step."""

    def add(self, artifact: Artifact, journaled: Mapping[str, float] | None) -> StepAmounts:
        """What a step does, given all before it.

        Args:
            artifact: of the step.
            journaled: what was counted when it was made; None where it has to be made.
        """
        at_most = self._amounts(artifact, self.at_most)
        expected = self._amounts(artifact, self.expected, measured=True)
        actual: Counts = {}
        if journaled is not None:
            names = JOURNALED.get(artifact.step_type, {})
            actual = {ours: int(journaled[theirs]) for ours, theirs in names.items() if theirs in journaled}
            self._measure(artifact, actual, journaled)
        self.at_most[artifact.identity] = at_most
        self.expected[artifact.identity] = {**expected, **actual}
        return StepAmounts(at_most, expected, actual)

    def _measure(self, artifact: Artifact, actual: Counts, journaled: Mapping[str, float]) -> None:
        if artifact.step_type == "sample" and actual["answers"]:
            mean = actual["tokens"] / actual["answers"]
            self.tokens_per_answer |= {artifact.step: mean, "any": mean}
        if artifact.step_type == "pair" and journaled.get("groups"):
            self.made_per_prompt[artifact.step] = sum(actual.values()) / journaled["groups"]
        answers = _read(artifact, self.expected, "responses", "answers")
        if artifact.step_type == "judge" and answers:
            self.calls_per_answer[artifact.step] = actual["judge_calls"] / answers

    def _amounts(self, artifact: Artifact, known: Mapping[str, Counts], *, measured: bool = False) -> Counts:
        """Bounds, or with `measured` expectations, from the amounts of what the step reads."""

        def read(slot: str, what: str) -> int | None:
            return _read(artifact, known, slot, what)

        settings = self.recipe.step(artifact.step, artifact.place.round or 0)
        amounts: dict[str, int | None] = {}
        match settings:
            case PromptsStep():
                amounts = {"prompts": len(prompts_at(artifact, settings, self.recipe))}
            case DataStep():
                found = survey(artifact.step, settings, self.recipe)
                prompts = found.prompts if settings.count is None else settings.count
                amounts = {"prompts": prompts, "given_pairs": found.pairs, "answers": found.answers}
            case SampleStep():
                answers = _times(read("prompts", "prompts"), settings.num_samples)
                mean = self.tokens_per_answer.get(artifact.step, self.tokens_per_answer.get("any"))
                amounts = {
                    "answers": answers,
                    "tokens": _times(answers, mean if measured else settings.max_new_tokens),
                }
            case JudgeStep():
                calls = self.calls_per_answer.get(artifact.step) if measured else None
                amounts = {"judge_calls": _judge_calls(settings, read, calls, measured=measured)}
            case NextTurnStep() | SearchStep():
                amounts = _derived(settings, read, measured=measured)
            case PairStep():
                makes = "pairs" if find_rule(settings.rule, "rule").writes is Example else "prompts"
                amounts = {makes: self._made(artifact, settings, read, measured=measured)}
            case MixStep() | BufferStep():
                amounts = {"pairs": _gathered(settings, read)}
            case TrainStep():
                pairs = read("examples", "pairs")
                steps = None if pairs is None else ceil(pairs / settings.batch_size) * settings.epochs
                amounts = {"optimiser_steps": steps}
            case _:
                pass
        return {what: number for what, number in amounts.items() if number is not None}

    def _made(
        self, artifact: Artifact, settings: PairStep, read: Callable[[str, str], int | None], *, measured: bool
    ) -> int | None:
        """A rule over sampled answers makes at most one example a prompt; one over a data set, one a given pair.

        One whose examples have a single answer, or that says so, makes at most as many as there are answers; one that
        looks at every two answers to a prompt, as many as there are such pairs.
        """
        rule = find_rule(settings.rule, "rule")
        single = len(rule.roles) == 1 and not {*rule.roles} & {*REPEATED_ROLES}
        if (single or rule.of_each == "answer") and not measured:
            return read("responses", "answers")
        if rule.reads_given:
            return None if measured else read("judgments", "given_pairs")
        if rule.of_each == "pair" and not measured:
            return _pairs_of(read("responses", "answers"), read("prompts", "prompts"))
        share = self.made_per_prompt.get(artifact.step) if measured else 1
        return _times(read("prompts", "prompts"), share)


def _pairs_of(answers: int | None, prompts: int | None) -> int | None:
    """Pairs of answers to one prompt, where every prompt has as many."""
    if answers is None or not prompts:
        return None
    each = ceil(answers / prompts)
    return prompts * each * (each - 1) // 2


def _derived(
    settings: NextTurnStep | SearchStep, read: Callable[[str, str], int | None], *, measured: bool
) -> dict[str, int | None]:
    """Second questions, one an answer; or the beginnings and steps that a search keeps at most."""
    if isinstance(settings, NextTurnStep):
        return {"prompts": read("responses", "answers")}
    beginnings = _times(read("prompts", "prompts"), None if measured else settings.max_steps)
    return {"prompts": beginnings, "answers": _times(beginnings, settings.num_actions)}


def _gathered(settings: MixStep | BufferStep, read: Callable[[str, str], int | None]) -> int | None:
    """Examples of several steps together: of a mixture all at most, from a buffer as many as are drawn."""
    if isinstance(settings, BufferStep):
        return settings.draws
    slots = ("first", *map(earlier_slot, range(len(settings.shares))))
    return sum(read(slot, "pairs") or 0 for slot in slots) or None


def _judge_calls(
    settings: JudgeStep, read: Callable[[str, str], int | None], per_answer: float | None, *, measured: bool
) -> int | None:
    """Asks of the design; of a language model its questions, which a server may be asked twice at most."""
    judge, asks, answers = settings.judge, _asks(settings, read), read("responses", "answers")
    if asks is None or answers is None or not isinstance(judge, LlmJudge):
        return asks
    if per_answer is not None:
        return _times(answers, per_answer)
    prompt = prompt_of(judge, shown(settings))
    if isinstance(judge, LlmStepsJudge):
        tokens = _times(read("responses", "tokens"), settings.design.repeats)
        asks = asks * judge.expected_steps if measured else tokens  # no step is less than a token
    each = answers / max(read("prompts", "prompts") or 0, 1)
    twice = not measured and (judge.server is not None or not prompt.choices)
    return _times(asks, prompt.questions(each) * (2 if twice else 1))


def _asks(settings: JudgeStep, read: Callable[[str, str], int | None]) -> int | None:
    """Asks of the design at most; of a judge that is asked one by one instead, one an answer."""
    answers, opponents = read("responses", "answers"), read("opponents", "answers") or 0
    if answers is None:
        return None
    design = settings.design
    if design.shows not in settings.judge.takes:
        return (answers + opponents) * design.repeats
    prompts = read("prompts", "prompts")
    if design.shows == "one":
        return answers * design.repeats
    return None if prompts is None else most_calls(design, prompts=prompts, answers=answers, opponents=opponents)


def _read(artifact: Artifact, known: Mapping[str, Counts], slot: str, what: str) -> int | None:
    """How much of something a step reads in a slot, as far as it is known."""
    found = [known[one.identity].get(what) for one in artifact.inputs.get(slot, ()) if one.identity in known]
    return sum(number for number in found if number is not None) if any(n is not None for n in found) else None


def _times(number: int | None, factor: float | None) -> int | None:
    return None if number is None or factor is None else round(number * factor)
