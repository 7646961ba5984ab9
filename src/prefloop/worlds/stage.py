"""The loop in a world: `rounds()` over a recipe, every step done exactly instead of on disk."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from prefloop.config import CloseStep, PairStep, Recipe, SampleStep, StepConfig, TrainStep, load_recipe, mixture_of
from prefloop.config.references import Reference
from prefloop.loop.artifact import Artifact
from prefloop.loop.gate import Decision, decide
from prefloop.loop.rounds import rounds
from prefloop.loop.scope import Scope
from prefloop.loop.stage import derive
from prefloop.loop.wiring import model_artifact
from prefloop.training import TokenExample
from prefloop.worlds.population import Drawn, Judging, examples_of, groups
from prefloop.worlds.solve import Mixed, population_loss
from prefloop.worlds.solve import Reference as SolvedReference
from prefloop.worlds.table import TabularPolicy

PolicyNamed = Callable[[str], TabularPolicy]
"""The policy that a name means at this point of the run, as recipes say it: `initial`, `current`, `round_start`, ..."""


@dataclass(frozen=True)
class World:
    """What a loop meets where a language model meets prompts, people and judges."""

    initial: TabularPolicy
    """The policy called `initial`."""
    judging: Callable[[PolicyNamed], Judging] | None = None
    """The judge of all answers, which may be made of policies."""
    given: Sequence[Drawn] = ()
    """Answers that a data set brings to every group."""
    examples: Mapping[str, Callable[[PolicyNamed], list[TokenExample]]] = field(default_factory=dict[str, Any])
    """By name of a pair step: examples of the whole population in place of a rule's, where theory asks for these."""
    model: TabularPolicy | None = None
    """The policy from which the loop starts; None: `initial`."""
    prefers: Float[Tensor, "answers answers"] | None = None
    """P(i is preferred to j), by which rounds are evaluated for the gate; None: no evaluation."""


@dataclass
class ExactStage:
    """Does the steps of a recipe in a world."""

    world: World
    policies: dict[str, TabularPolicy]
    """By identity of the artifact."""
    examples: dict[str, list[TokenExample]] = field(default_factory=dict[str, list[TokenExample]])
    decisions: dict[str, Decision] = field(default_factory=dict[str, Decision])
    evaluations: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])
    """Of accepted rounds."""

    def do(self, name: str, recipe: Recipe, scope: Scope) -> Artifact:
        """The artifact of a step, derived as in any run; what it holds is kept here under its identity."""
        artifact = derive(name, recipe, scope, _nothing_there)
        settings = recipe.step(name, scope.place.round or 0)
        match settings:
            case PairStep():
                self.examples[artifact.identity] = self._paired(artifact, settings, recipe, scope)
            case TrainStep():
                self.policies[artifact.identity] = self._trained(artifact, settings)
            case CloseStep():
                self._close(artifact, settings, scope)
            case _:
                pass
        return artifact

    def decision(self, summary: Artifact) -> Decision:
        """The gate's decision on exact win rates."""
        return self.decisions[summary.identity]

    def named(self, scope: Scope) -> PolicyNamed:
        """What policies' names mean now."""
        return lambda name: self.policies[scope.policy(name).identity]

    def _paired(self, artifact: Artifact, settings: PairStep, recipe: Recipe, scope: Scope) -> list[TokenExample]:
        if artifact.step in self.world.examples:
            return self.world.examples[artifact.step](self.named(scope))
        assert self.world.judging is not None, "a world has a judge or examples of its own"
        draws = [draw for made in artifact.inputs["responses"] for draw in self._draws(made, recipe)]
        population = groups([*self.world.given, *draws], self.world.judging(self.named(scope)))
        return examples_of(population, settings.rule, **settings.options)

    def _draws(self, made: Artifact, recipe: Recipe) -> list[Drawn]:
        settings: StepConfig = recipe.step(made.step, made.place.round or 0)
        assert isinstance(settings, SampleStep)
        (policy,) = made.inputs["policy"]
        asked = self.policies[policy.identity].tempered(settings.temperature)
        return [Drawn.sampled(made.step, asked.answers, asked.logps())] * settings.num_samples

    def _trained(self, artifact: Artifact, settings: TrainStep) -> TabularPolicy:
        (start,), (examples,) = artifact.inputs["start"], artifact.inputs["examples"]
        loss = population_loss(
            settings.objective.name,
            self.examples[examples.identity],
            self.policies[start.identity],
            {slot: self._reference(artifact, slot, of) for slot, of in settings.references.items()},
            soft_labels=settings.soft_labels,
            **settings.objective.options,
        )
        return loss.minimum()

    def _reference(self, artifact: Artifact, slot: str, reference: Reference) -> SolvedReference:
        policies = [self.policies[one.identity] for one in artifact.inputs[slot]]
        mixture = mixture_of(reference)
        return policies[0] if mixture is None else Mixed(policies, mixture)

    def _close(self, artifact: Artifact, settings: CloseStep, scope: Scope) -> None:
        evaluation = None if self.world.prefers is None else self._evaluation(scope)
        decision = decide(settings.gate, evaluation, self.evaluations[-1] if self.evaluations else None, ())
        self.decisions[artifact.identity] = decision
        if decision.accepted and evaluation is not None:
            self.evaluations.append(evaluation)

    def _evaluation(self, scope: Scope) -> dict[str, Any]:
        """Win rates of this round's policy in percent, with intervals of no width."""
        named = self.named(scope)

        def against(opponent: str) -> dict[str, Any]:
            assert self.world.prefers is not None
            win_rate = 100 * float(probs(named("current")) @ self.world.prefers @ probs(named(opponent)))
            return {"judge": {"win_rate": win_rate, "interval": (win_rate, win_rate), "clusters": 1}}

        return {"against": {"initial": against("initial"), "previous": against("round_start")}}


def probs(policy: TabularPolicy) -> Float[Tensor, " answers"]:
    """Probability of each answer."""
    return policy.logps().detach().exp()


@dataclass(frozen=True)
class Played:
    """What became of a loop."""

    policies: tuple[TabularPolicy, ...]
    """That of each round, refused ones too."""
    decisions: tuple[Decision, ...]


def play(world: World, *overrides: str, recipe: str = "loop") -> Played:
    """Runs a recipe in a world: sampling, rules, references, objectives and gate are those of any run, without noise.

    Prompts and judges are the world's, whatever the recipe names.

    Args:
        world: where.
        overrides: of the recipe, as on the command line.
        recipe: a shipped name or a file.
    """
    loaded = load_recipe(recipe, ("gate.by=judge", *overrides)).recipe
    initial, model = (model_artifact(name, Path()) for name in ("the initial policy", "the model"))
    stage = ExactStage(world, {initial.identity: world.initial, model.identity: world.model or world.initial})
    scope = Scope(loaded, initial, model)
    policies: list[TabularPolicy] = []
    decisions: list[Decision] = []
    for artifact in rounds(loaded, scope, stage):
        if artifact.step_type == "close":
            policies.append(stage.policies[scope.current.identity])
            decisions.append(stage.decision(artifact))
    return Played(tuple(policies), tuple(decisions))


def _nothing_there() -> Path:
    raise AssertionError("a world keeps nothing on disk")
