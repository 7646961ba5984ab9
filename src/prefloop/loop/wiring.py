"""A rehearsal of the whole run that makes nothing: what cannot work is said before a model is loaded."""

from collections.abc import Callable, Mapping
from itertools import takewhile
from pathlib import Path
from typing import cast

from pydantic import JsonValue

from prefloop.config import (
    COMPARED,
    BufferStep,
    DataStep,
    EvaluateStep,
    JudgeStep,
    LoadedRecipe,
    MixStep,
    PairStep,
    PairwiseModelJudge,
    PromptsStep,
    Recipe,
    SampleStep,
    StepConfig,
    TrainStep,
    mixture_of,
    policies_of,
)
from prefloop.data import chosen_at_turn, prompts_of_turn
from prefloop.errors import PrefloopError, RecipeError, did_you_mean
from prefloop.judging import check_judge, fetch_judge
from prefloop.loop.artifact import Artifact, Place, unmixed
from prefloop.loop.data_set import survey
from prefloop.loop.gate import Decision
from prefloop.loop.prompt_set import prompt_set
from prefloop.loop.rounds import rounds
from prefloop.loop.scope import Scope, trains_policy
from prefloop.loop.stage import derive
from prefloop.loop.steps.buffer import BEFORE
from prefloop.loop.steps.judge import shown, trained_judge
from prefloop.loop.steps.mix import earlier_slot
from prefloop.objectives import Objective, find_objective
from prefloop.pairing import find_rule
from prefloop.records import digest
from prefloop.sampling import authorization
from prefloop.training import MISMATCHED, not_mixed, require_measurable

REHEARSED_ROUNDS = 10
"""After three rounds every name means the same kind of thing as before; numbers by round may still change."""

OF_EVALUATION = ("previous", "previous_judgments", "truth", "policy")
"""How the slots are called that an evaluation does without."""


def is_optional(name: str, slot: str, settings: StepConfig) -> bool:
    """Whether a step does without what a slot holds where there is nothing."""
    match settings:
        case TrainStep() | BufferStep():
            return slot == ("previous" if isinstance(settings, TrainStep) else BEFORE)
        case EvaluateStep():
            return slot.endswith((*OF_EVALUATION, "judgments" if settings.compares else "compared"))
        case JudgeStep():  # before the first accepted round there is none to be compared with
            return slot == "opponents" and name.endswith((f"-previous{COMPARED}", f"-previous-2{COMPARED}"))
        case MixStep():
            return slot in map(earlier_slot, range(len(settings.reads)))
        case PairStep():
            return slot in {"responses", "judgments"} - {*find_rule(settings.rule, "rule").needs}
        case _:
            return False


class Rehearsal:
    """Derives every artifact without making it, and checks each step where it stands."""

    def __init__(self, where: str) -> None:
        self.where = where

    def do(self, name: str, recipe: Recipe, scope: Scope) -> Artifact:
        """The artifact that a step would make.

        Raises:
            RecipeError: the step cannot work here; says why.
        """
        settings = recipe.step(name, scope.place.round or 0)
        place = f"{self.where}: {name}"
        check = CHECKS.get(recipe.type_of(name))
        try:
            if check is not None:
                check(name, settings, place, recipe)
            artifact = derive(name, recipe, scope, _nothing_there)
        except PrefloopError as error:
            raise type(error)(str(error) if str(error).startswith(self.where) else f"{place}: {error}") from error
        if artifact.step_type != "close":
            for slot, artifacts in artifact.inputs.items():
                if not artifacts and not is_optional(name, slot, settings):
                    raise RecipeError(
                        f"{place}: it reads {slot}, but no step before it makes them. "
                        f"Add one before it, or name one in {name}.reads."
                    )
        if isinstance(settings, TrainStep):
            check_roles(settings, artifact, place, recipe)
        return artifact

    def decision(self, summary: Artifact) -> Decision:
        """Every round is taken for accepted."""
        del summary
        return Decision("accepted", ())


def rehearse(loaded: LoadedRecipe) -> None:
    """Walks through the first rounds of a recipe (RecipeError or DataError where it cannot work)."""
    recipe = loaded.recipe
    model = model_artifact("not looked at", Path())
    scope = Scope(recipe, model, model)
    for _ in takewhile(
        lambda artifact: (artifact.place.round or 0) < REHEARSED_ROUNDS, rounds(recipe, scope, Rehearsal(loaded.where))
    ):
        pass


def fetch_judges(recipe: Recipe) -> None:
    """Downloads the judges' models that a recipe names, so that their content is known (ModelError where it fails)."""
    for name in recipe.names():
        settings = recipe.step(name, 0)
        if isinstance(settings, JudgeStep) and trained_judge(settings.judge, recipe) is None:
            fetch_judge(settings.judge)


def check_prompts(name: str, settings: StepConfig, place: str, recipe: Recipe) -> None:
    """The set can be read, and is large enough for one round."""
    del place
    assert isinstance(settings, PromptsStep)
    prompts_of_turn(prompt_set(name, settings, recipe).prompts, settings.count, 0, 0)


def check_data(name: str, settings: StepConfig, place: str, recipe: Recipe) -> None:
    """The set can be read, each side of its split has a prompt, and it is large enough for one round."""
    del place
    assert isinstance(settings, DataStep)
    found = survey(name, settings, recipe)
    if settings.count is not None:
        chosen_at_turn(found.prompts, settings.count, 0, 0, f"{name}.count")


PAIRWISE = "pair_ranker"
"""The objective of pairwise models, which see two answers at once."""


def check_judgments(name: str, settings: StepConfig, place: str, recipe: Recipe) -> None:
    """The judge can be asked."""
    del name
    assert isinstance(settings, JudgeStep)
    if (step := trained_judge(settings.judge, recipe)) is None:
        check_judge(settings.judge, shown(settings))
        return
    trained = recipe.step(step)
    compares = isinstance(settings.judge, PairwiseModelJudge)
    what, objective = ("pairwise model", PAIRWISE) if compares else ("reward model", "bradley_terry")
    if not isinstance(trained, TrainStep) or trains_policy(trained) or (trained.objective.name == PAIRWISE) != compares:
        raise RecipeError(
            f"{place}.judge.model is '{step}', a step that trains no {what}. Give it the objective "
            f"{objective}, or name the directory ./{step}."
        )
    if isinstance(settings.judge, PairwiseModelJudge) and settings.judge.form is not None:
        raise RecipeError(
            f"{place}.judge.form is set, but step '{step}' trains on the form that is shipped. Remove it."
        )


def check_sample(name: str, settings: StepConfig, place: str, recipe: Recipe) -> None:
    """The key of a server is there."""
    del name, recipe
    assert isinstance(settings, SampleStep)
    if settings.sampler.type == "server":
        authorization(settings.sampler.key, f"{place}.sampler.key")


def check_pair(name: str, settings: StepConfig, place: str, recipe: Recipe) -> None:
    """The rule exists, its options fit, and what it reads is there to be read."""
    del name
    assert isinstance(settings, PairStep)
    rule = find_rule(settings.rule, f"{place}.rule")
    rule.checked(settings.options, place)
    has_data = any(recipe.type_of(step) == "data" for step in recipe.names())
    if rule.reads_given and not has_data:
        raise RecipeError(
            f"{place}.rule is '{rule.name}', which reads pairs of a data set, but no step of type data is there. "
            "Use best_worst, or add a data step."
        )


def check_train(name: str, settings: StepConfig, place: str, recipe: Recipe) -> None:
    """The objective exists and can be trained, its options fit, and exactly the references that it reads are named."""
    del name
    assert isinstance(settings, TrainStep)
    objective = find_objective(settings.objective.name, f"{place}.objective.name")
    options = objective.checked(settings.objective.options, f"{place}.objective")
    if objective.not_trained is not None:
        raise RecipeError(
            f"{place}.objective.name is '{objective.name}', but {objective.not_trained}. Choose another objective."
        )
    data = [step for step in map(recipe.step, recipe.names()) if isinstance(step, DataStep)]
    require_measurable(settings, objective, validation=any(step.validation is not None for step in data))
    if settings.soft_labels and objective.not_softened is not None:
        raise RecipeError(
            f"{place}.soft_labels: labels of {objective.name} cannot be softened, since {objective.not_softened}. "
            "Remove it, or choose another objective."
        )
    if settings.ensemble > 1 and trains_policy(settings):
        raise RecipeError(
            f"{place}.ensemble is {settings.ensemble}, but {objective.name} trains a policy. Remove it, or choose a "
            "reward model's objective."
        )
    if settings.ema_decay is not None and objective.heads:
        raise RecipeError(
            f"{place}.ema_decay is {settings.ema_decay}, but {objective.name} trains a head, of which no average is "
            "kept. Remove it, or choose another objective."
        )
    if MISMATCHED in objective.roles and settings.loss_on == "all_turns":
        raise RecipeError(
            f"{place}.loss_on is all_turns, but {objective.name} compares with answers to other prompts, which have no "
            "earlier turns in common. Use last_turn."
        )
    check_references(settings, objective, place)
    if "aux_ref" in objective.models:
        check_weights(getattr(options, "weights", None), settings, place)


def check_references(settings: TrainStep, objective: Objective, place: str) -> None:
    """Exactly what the objective reads is named, and says what it reads."""
    for model in objective.models:
        if model not in settings.references:
            raise RecipeError(
                f"{place}.references does not name '{model}', which {objective.name} reads. "
                f"Add {{{model}: round_start}} or {{{model}: initial}}."
            )
    for model, reference in settings.references.items():
        if model not in objective.models:
            reads = ", ".join(objective.models) or "no reference"
            raise RecipeError(f"{place}.references names '{model}', but {objective.name} reads {reads}. Remove it.")
        if not policies_of(reference):
            raise RecipeError(f"{place}.references.{model} is an empty list. Name a policy.")
        if isinstance(reference, tuple) and model != "aux_ref":
            raise RecipeError(
                f"{place}.references.{model} has a list, but {objective.name} reads one. "
                "Name one policy, or mix them: {geometric: {policies: [...], weights: [...]}}."
            )
        mixture = mixture_of(reference)
        if mixture is not None and model == objective.live:
            raise RecipeError(
                f"{place}.references.{model} is a mixture, which has no weights, but {objective.name} needs it loaded "
                "while it trains. Name one policy, or choose another objective."
            )
        if mixture is not None and (unmixed := not_mixed(mixture, objective, model)):
            raise RecipeError(
                f"{place}.references.{model} is a mixture, which has no {', '.join(unmixed)}, but {objective.name} "
                "reads them. Name one policy, or choose another objective."
            )


def check_weights(weights: object, settings: TrainStep, place: str) -> None:
    """Weights of an objective that reads several references are one a reference, the anchor's first."""
    reference = settings.references["aux_ref"]
    count = 1 + (len(reference) if isinstance(reference, tuple) else 1)
    given = cast("tuple[float, ...]", weights) if isinstance(weights, tuple) else None
    if given is not None and len(given) != count:
        raise RecipeError(
            f"{place}.objective.weights has {len(given)} values, but references name {count} policies. "
            "Give one a policy, that of ref first."
        )


def check_roles(settings: TrainStep, artifact: Artifact, place: str, recipe: Recipe) -> None:
    """The rule that makes the examples gives every role that the objective reads."""
    objective = find_objective(settings.objective.name, place)
    for examples in unmixed(artifact.inputs["examples"]):
        made_by = recipe.step(examples.step, examples.place.round or 0)
        assert isinstance(made_by, PairStep)
        rule = find_rule(made_by.rule, place)
        for role in objective.roles:
            if role not in (*rule.roles, MISMATCHED):
                raise RecipeError(
                    f"{place}: {objective.name} reads answers in the role '{role}', but rule {rule.name} makes "
                    f"{', '.join(rule.roles)}. Choose another rule or objective."
                )


CHECKS: dict[str, Callable[[str, StepConfig, str, Recipe], None]] = {
    "prompts": check_prompts,
    "data": check_data,
    "judge": check_judgments,
    "sample": check_sample,
    "pair": check_pair,
    "train": check_train,
}


def identity_of(model: str, chat_template_kwargs: Mapping[str, JsonValue]) -> str:
    """Identity of a model together with what its chat template is told."""
    return digest([model, dict(chat_template_kwargs)]) if chat_template_kwargs else model


def model_artifact(identity: str, directory: Path) -> Artifact:
    """A model from outside as the artifact that policies are resolved to."""
    return Artifact("model", "model", identity, Place(), "", {}, {}, lambda: directory)


def check_until(until: str, recipe: Recipe, where: str) -> None:
    """`--until` names a step of the recipe, in a round that it has."""
    round_name, slash, step = until.rpartition("/")
    if step not in set(recipe.names()):
        raise RecipeError(f"--until {until}: '{step}' is not a step of {where}. {did_you_mean(step, recipe.names())}")
    if slash and step in recipe.setup:
        raise RecipeError(f"--until {until}: '{step}' is done in the set-up. Use --until {step}.")
    known = [f"round-{number:02d}" for number in range(recipe.rounds)]
    if slash and round_name not in known:
        raise RecipeError(
            f"--until {until}: '{round_name}' is not a round of {where}. Known: {known[0]} to {known[-1]}."
        )


def _nothing_there() -> Path:
    raise AssertionError("a rehearsal makes nothing that could be opened")
