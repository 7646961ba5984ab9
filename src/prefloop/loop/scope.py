"""From the names that a recipe uses to the artifacts and policies that they mean at this point of the run."""

import re
from dataclasses import dataclass, field, replace

from prefloop.config import Recipe, StepConfig, TrainStep
from prefloop.errors import RecipeError, did_you_mean
from prefloop.loop.artifact import Artifact, Place
from prefloop.objectives import find_objective
from prefloop.records import AVERAGED
from prefloop.training import EMA

EVEN = 50.0
"""The win rate of the initial model against itself, in percent."""
POLICY_NAMES = ("initial", "round_start", "current", "best")
EARLIER = re.compile(r"((?P<all>all)|previous(-(?P<back>[1-9]\d*))?)\.(?P<step>.+)")


def trains_policy(settings: StepConfig) -> bool:
    """Whether a step makes what answers prompts: it trains, and no reward model."""
    return isinstance(settings, TrainStep) and find_objective(settings.objective.name, "objective").told == "logps"


@dataclass
class RoundArtifacts:
    """What one round has made so far."""

    blocks: list[dict[str, Artifact]] = field(default_factory=list[dict[str, Artifact]])
    after: dict[str, Artifact] = field(default_factory=dict[str, Artifact])
    start: Artifact | None = None
    accepted: bool = False

    def find(self, name: str) -> Artifact | None:
        """The newest artifact of this name in the round."""
        if name in self.after:
            return self.after[name]
        return next((block[name] for block in reversed(self.blocks) if name in block), None)


class Scope:
    """Where the run is, and what every name means there."""

    def __init__(self, recipe: Recipe, initial: Artifact, model: Artifact) -> None:
        self.recipe = recipe
        self.initial = initial
        self.model = model
        self.setup: dict[str, Artifact] = {}
        self.rounds: list[RoundArtifacts] = []
        self.place = Place()
        self.current = model
        self.round_start = model
        self.best = model
        self.best_win_rate = EVEN

    def open_round(self, number: int) -> None:
        """A new round begins; its start is what every `round_start` means until it ends."""
        self.place = Place(round=number)
        self.round_start = self.current
        if number == 0:
            self.best = self.current
        self.rounds.append(RoundArtifacts(start=self.current))

    def open_block(self, number: int) -> None:
        """A new block of the round begins."""
        self.place = Place(self.place.round, number if self.recipe.blocks > 1 else None)
        self.rounds[-1].blocks.append({})

    def close_blocks(self) -> None:
        """The blocks are done; what follows belongs to the round."""
        self.place = Place(self.place.round)

    def close_round(self, win_rate: float | None, *, accepted: bool) -> None:
        """The gate has decided: go on from this round's policy, or from where the round started.

        Args:
            win_rate: of this round's policy against the initial model, in percent; None where nothing was measured.
            accepted: by the gate.
        """
        self.rounds[-1].accepted = accepted
        if not accepted:
            self.current = self.round_start
        elif win_rate is not None and win_rate > self.best_win_rate:
            self.best, self.best_win_rate = self.current, win_rate

    def add(self, artifact: Artifact) -> None:
        """A step is done; the loop's policy becomes `current`."""
        if not self.rounds:
            self.setup[artifact.step] = artifact
            if artifact.step == self.recipe.start:
                self.current = artifact
        elif artifact.step in self.recipe.block:
            self.rounds[-1].blocks[-1][artifact.step] = artifact
        else:
            self.rounds[-1].after[artifact.step] = artifact
        if artifact.step_type == "train" and artifact.step == self.loop_policy:
            self.current = artifact

    @property
    def loop_policy(self) -> str:
        """The train step whose result the loop goes on with: `policy`, or the only one that trains a policy."""
        trained = [name for name in self.recipe.block if trains_policy(self.recipe.step(name))]
        return "policy" if "policy" in trained or not trained else trained[-1]

    def _trains_policy(self, made: Artifact) -> bool:
        return trains_policy(self.recipe.step(made.step, made.place.round or 0))

    def made_before(self) -> list[Artifact]:
        """What was made earlier in this block and after it, or in the set-up, in order."""
        if not self.rounds:
            return list(self.setup.values())
        return [*self.rounds[-1].blocks[-1].values(), *self.rounds[-1].after.values()]

    def find(self, name: str) -> tuple[Artifact, ...]:
        """The artifacts that a name means: `x`, `previous.x`, `previous-2.x`, `all.x`, or a step of the set-up.

        `previous` counts accepted rounds only; it is empty where there was none.

        Raises:
            RecipeError: no step of this name has run before.
        """
        accepted = [done for done in self.rounds[:-1] if done.accepted]
        if earlier := EARLIER.fullmatch(name):
            step = earlier["step"]
            if step not in self.recipe.names():
                raise RecipeError(f"'{name}': there is no step '{step}'. {did_you_mean(step, self.recipe.names())}")
            if earlier["all"]:
                return tuple(found for done in accepted if (found := done.find(step)) is not None)
            back = int(earlier["back"] or 1)
            found = accepted[-back].find(step) if back <= len(accepted) else None
            return (found,) if found is not None else ()
        found = self.rounds[-1].find(name) if self.rounds else None
        found = found or self.setup.get(name)
        if found is None:
            known = [*self.setup, *(made.step for made in self.made_before())]
            raise RecipeError(f"'{name}' has not been made when it is read. {did_you_mean(name, known)}")
        return (found,)

    def made_last(self, name: str) -> tuple[Artifact, ...]:
        """What the step of this name made when it last ran: in this round, or in the last accepted one that has it."""
        accepted = [done for done in self.rounds[:-1] if done.accepted]
        for done in reversed([*accepted, *self.rounds[-1:]]):
            if (found := done.find(name)) is not None:
                return (found,)
        return ()

    def begun_average(self, start: Artifact) -> tuple[Artifact, ...]:
        """The moving average that training from a policy goes on with; none where the policy keeps none."""
        kept = start.step_type == "train" and self._keeps_average(start.step, start.place.round)
        return (_average_of(start),) if kept else ()

    def _keeps_average(self, step: str, round_number: int | None) -> bool:
        settings = self.recipe.step(step, round_number or 0) if step in self.recipe.names() else None
        return isinstance(settings, TrainStep) and settings.ema_decay is not None

    def _average(self, name: str, policy: Artifact) -> Artifact:
        """The average that a policy keeps: before it was ever trained, the policy itself."""
        is_trained = policy.step_type == "train"
        keeper, place = (policy.step, policy.place) if is_trained else (self.loop_policy, self.place)
        if not self._keeps_average(keeper, place.round):
            raise RecipeError(f"'{name}': {keeper} keeps no average of its weights. Give it ema_decay, such as 0.99.")
        return _average_of(policy) if is_trained else policy

    def _best(self) -> Artifact:
        """Of the accepted rounds the one that was ahead of the initial model most; before one was, the loop's start."""
        if not any(self.recipe.type_of(name) == "evaluate" for name in self.recipe.round):
            raise RecipeError("'best' is the policy of the best round, but no round is measured. Add an evaluation.")
        return self.best

    def policy(self, name: str) -> Artifact:
        """The policy that a name means: one of `POLICY_NAMES`, or a train step; its start, reference or average.

        Raises:
            RecipeError: there is no such policy here.
        """
        match name:
            case "initial":
                return self.initial
            case "round_start":
                return self.round_start
            case "current":
                return self.current
            case "best":
                return self._best()
            case _:
                stem, dot, origin = name.rpartition(".")
                if dot and origin == EMA:
                    return self._average(name, self.policy(stem))
                is_origin = dot and origin in {"start", "ref"}
                found = self.policy(stem).inputs.get(origin, ()) if is_origin else self.find(name)
                if is_origin and len(found) > 1:
                    raise RecipeError(f"'{name}' is a mixture of {len(found)} policies. Name one policy.")
                if found and found[0].step_type == "train" and not self._trains_policy(found[0]):
                    raise RecipeError(
                        f"'{name}' trains a reward model, which answers nothing. Name {', '.join(POLICY_NAMES)} or a "
                        "train step of a policy."
                    )
                if not found or found[0].step_type not in {"train", "model"}:
                    raise RecipeError(f"'{name}' is no policy here. Name {', '.join(POLICY_NAMES)} or a train step.")
                return found[0]


def _average_of(policy: Artifact) -> Artifact:
    """The moving average that lies in a train step's folder, as a policy of its own."""
    return replace(
        policy,
        identity=f"{policy.identity}{AVERAGED}",
        path=f"{policy.path}/{EMA}",
        open=lambda: policy.open() / EMA,
    )
