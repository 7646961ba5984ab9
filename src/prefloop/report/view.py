"""What the page shows of a run: frozen views of its files. Every part may be absent but the recipe."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue

from prefloop.config import is_mapping
from prefloop.records import Estimate, RoundSummary


class View(BaseModel):
    """A JSON file of another room; what the page does not show is not looked at."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


class Duel(View):
    """One opponent by one judge; rates are percentages."""

    win_rate: float
    standard_error: float | None = None
    interval: tuple[float, float] | None = None
    length_controlled_winrate: float
    lc_standard_error: float | None = None
    lc_interval: tuple[float, float] | None = None
    n: int = 0

    @property
    def raw(self) -> Estimate:
        """The plain win rate."""
        return Estimate(value=self.win_rate, standard_error=self.standard_error, interval=self.interval, n=self.n)

    @property
    def controlled(self) -> Estimate:
        """What it would be if both answers were equally long."""
        return Estimate(
            value=self.length_controlled_winrate,
            standard_error=self.lc_standard_error,
            interval=self.lc_interval,
            n=self.n,
        )


class Length(View):
    """Tokens of an answer, EOS included."""

    mean: float
    standard_error: float | None = None
    interval: tuple[float, float] | None = None
    initial: float
    ratio: float
    """To the initial model's."""
    ratio_standard_error: float | None = None
    ratio_interval: tuple[float, float] | None = None


class Level(View):
    """A number of the policy's answers beside the same of the initial model's."""

    value: float
    interval: tuple[float, float] | None = None
    initial: float


class Divergence(View):
    """KL from the initial model, nats an answer."""

    value: float
    standard_error: float | None = None
    interval: tuple[float, float] | None = None
    by_prompt: dict[str, float] = {}


class Evaluation(View):
    """`evaluation.json` of a round."""

    suite: str = ""
    prompts: int = 0
    num_samples: int = 1
    against: dict[str, dict[str, Duel]]
    """Opponent, then `judge` or `truth`."""
    length: Length
    finish_rate: Level
    distinct_2: Level | None = None
    kl: Divergence | None = None


class PlainRound(View):
    """One round of the committed curve; rates in percent."""

    judge: Estimate
    controlled: Estimate
    truth: Estimate
    length_ratio: Estimate
    """Mean length as a multiple of the initial model's."""


class PlainCurve(View):
    """What the same recipe does with plain DPO, measured once and shipped (`plain_curve.json`)."""

    name: str
    """The recipe that was run."""
    command: str
    """What made the numbers."""
    seeds: tuple[int, ...]
    facts: dict[str, JsonValue]
    """The settings on which a comparison rests: a run is compared only where its own are equal."""
    rounds: tuple[PlainRound, ...]


class Fitted(View):
    """A hyper-parameter that was fitted on a round's examples."""

    value: float
    factor: float = 1.0
    warning: str | None = None


class Validation(View):
    """`validation.json` of a train step: examples that were only measured."""

    examples: int
    before: dict[str, float]
    after: dict[str, float]


class RewardModel(View):
    """`reward_model.json` of a train step: how often it is right on pairs that it was not trained on."""

    place: str = ""
    """Of the model, in the run folder."""
    accuracy: float | None = None
    """Share of pairs in order, a tie half; None where no pairs were kept apart."""
    interval: tuple[float, float] | None = None
    """95 %, over prompts; None where there are too few."""
    pairs: int = 0
    prompts: int = 0


class Recipe(View):
    """`recipe.yaml`."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)

    name: str = ""
    title: str = ""
    paper: str | None = None
    model: str | dict[str, JsonValue] = ""
    rounds: int = 1
    seed: int = 0

    @property
    def model_path(self) -> str:
        """The model as the recipe names it."""
        return self.model if isinstance(self.model, str) else str(self.model.get("path", ""))

    @property
    def steps(self) -> Mapping[str, Mapping[str, Any]]:
        """What each step is told, as the recipe writes it."""
        return {name: value for name, value in (self.model_extra or {}).items() if is_mapping(value)}

    def setting(self, step: str, *keys: str) -> Any:
        """A setting of a step as it is written; None where the recipe does not say it."""
        found: Any = self.steps.get(step)
        for key in keys:
            found = found.get(key) if is_mapping(found) else None
        return found


@dataclass(frozen=True)
class Training:
    """What one train step left: a line an optimiser step, and the constants fitted for it."""

    place: str
    steps: tuple[Mapping[str, float], ...]
    fitted: Mapping[str, Fitted]
    validation: Validation | None = None

    @property
    def step(self) -> str:
        """The name of the step."""
        return self.place.rpartition("/")[2]


@dataclass(frozen=True)
class Round:
    """One round, as far as it got."""

    number: int
    """Counts from 0, as its folder does."""
    summary: RoundSummary | None
    evaluation: Evaluation | None
    training: tuple[Training, ...]
    counts: Mapping[str, Mapping[str, float]] = field(default_factory=dict[str, Mapping[str, float]])
    """What each finished step counted, by step; of a round that has no summary too."""

    @property
    def label(self) -> str:
        """How the page counts: 1 is the first."""
        return str(self.number + 1)

    @property
    def accepted(self) -> bool:
        """Whether its policy was kept."""
        return self.summary is not None and self.summary.decision in {"accepted", "warned"}

    def duel(self, judge: str, opponent: str = "initial") -> Duel | None:
        """What a judge makes of this round against an opponent."""
        return None if self.evaluation is None else self.evaluation.against.get(opponent, {}).get(judge)


@dataclass(frozen=True)
class Answer:
    """One answer and what the judges gave it."""

    prompt_id: str
    text: str
    num_tokens: int
    cut: bool
    scores: Mapping[str, float]
    """By `judge` and `truth`."""


@dataclass(frozen=True)
class Answers:
    """All held-out answers of one policy."""

    all: tuple[Answer, ...]
    first: Mapping[str, Answer]
    """The first answer to each prompt, by prompt id."""


@dataclass(frozen=True)
class Comparison:
    """One held-out prompt, answered by the initial model and by the last accepted round."""

    prompt: str
    earlier_turns: int
    before: Answer
    after: Answer


@dataclass(frozen=True)
class Stage:
    """One artifact of the journal."""

    path: str
    identity: str
    counts: Mapping[str, float]
    seconds: float
    made_from: Mapping[str, Any] | None = None
    """What its identity is the hash of; None: made by a version that did not keep it."""

    @property
    def in_place(self) -> bool:
        """Whether nothing has replaced it."""
        return not self.path.startswith("superseded/")


@dataclass(frozen=True)
class RunView:
    """Everything on the page."""

    recipe: Recipe
    recipe_text: str
    versions: Mapping[str, str]
    rounds: tuple[Round, ...]
    """Those that belong to the recipe; what an earlier recipe left is not among them."""
    left_over: tuple[str, ...]
    """Rounds, and parts of rounds, that an earlier recipe made; the page shows nothing of them."""
    before: Answers
    """Of the initial model."""
    after: Answers
    """Of the last accepted round."""
    comparisons: tuple[Comparison, ...]
    prompts: int
    """Held-out prompts from which the comparisons are taken."""
    stages: tuple[Stage, ...]
    reward_models: tuple[RewardModel, ...]
    """Those that were tried on pairs kept apart."""
    plain: PlainCurve | None
    """The committed curve of plain DPO, where this run may be compared with it."""

    @property
    def finished(self) -> tuple[Round, ...]:
        """Rounds with a decision."""
        return tuple(one for one in self.rounds if one.summary is not None)

    @property
    def last_accepted(self) -> Round | None:
        """The round whose policy the run stands on."""
        return last_accepted(self.rounds)


def last_accepted(rounds: tuple[Round, ...]) -> Round | None:
    """The last round whose policy was kept."""
    return next((one for one in reversed(rounds) if one.accepted), None)
