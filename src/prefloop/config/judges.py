"""Judges that a recipe can name, by `type`, each with its own fields."""

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from prefloop.config.base import Config
from prefloop.config.designs import Shown
from prefloop.config.servers import ServersConfig

Says = Literal["score", "label"]
"""`score`: a number that rules compare; `label`: right or wrong, for rules about final answers (Step-DPO, KTO)."""


class JudgeSettings(Config):
    """What all judges have."""

    scores: ClassVar[bool] = True
    """What it says of single answers can be compared."""

    @property
    def kept(self) -> bool:
        """Its answers are kept one by one, because they come from outside the program."""
        return False

    @property
    def varies(self) -> bool:
        """It may say something else when it is asked again."""
        return False

    @property
    def policies(self) -> Mapping[str, str]:
        """Policies of the run that it is made of, each by the part that it plays."""
        return {}

    @property
    def takes(self) -> tuple[Shown, ...]:
        """How many answers it can be shown in one ask. What takes one is asked about several one by one."""
        return ("one",)

    @property
    def price_of_a_call(self) -> float:
        """US dollars."""
        return 0.0

    def truth(self) -> "VaderJudge | None":
        """The same judge without its planted flaws; None where it has none."""
        return None


class VaderJudge(JudgeSettings):
    """Sentence sentiment by VADER, with flaws that can be planted."""

    type: Literal["vader"]
    unit: Literal["sentence", "text"] = "sentence"
    """`sentence` is the mean over sentences, nearly free of length; `text` scores the answer as one piece."""
    length_bias: float = 0.0
    """Planted flaw: score added a token."""
    negate: bool = False
    """Planted flaw: the sentiment counts the wrong way round."""

    def truth(self) -> "VaderJudge | None":
        """The same judge without its planted flaws; None where it has none."""
        return VaderJudge(type="vader", unit=self.unit) if self.length_bias or self.negate else None


class ShorterJudge(JudgeSettings):
    """Prefers the shorter answer: a control for length bias."""

    type: Literal["shorter"]


class LongerJudge(JudgeSettings):
    """Prefers the longer answer: what a judge with nothing but a length bias would do."""

    type: Literal["longer"]


class LengthWindowJudge(JudgeSettings):
    """1 for an answer whose length lies in a window, else 0."""

    type: Literal["length_window"]
    shortest: Annotated[int, Field(ge=0)] = 0
    """Least length that is good."""
    longest: Annotated[int, Field(ge=0)]
    """Greatest length that is good."""
    unit: Literal["tokens", "words", "characters"] = "tokens"
    """Tokens are the policy's, EOS included, the thinking part left out; words are what spaces separate."""

    @model_validator(mode="after")
    def _is_a_window(self) -> "LengthWindowJudge":
        if self.shortest > self.longest:
            raise ValueError(f"no length is at least {self.shortest} and at most {self.longest}")
        return self


class RegexJudge(JudgeSettings):
    """1 for an answer in which a pattern is found, else 0: a format, or a phrase."""

    type: Literal["regex"]
    pattern: str
    r"""A Python regular expression, looked for anywhere: `\A...\Z` for the whole answer, `(?i)` for any case, `(?s)` to
    let a dot stand for a line break."""
    forbidden: bool = False
    """The other way round: 1 where it is not found."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return pattern


class RubricJudge(JudgeSettings):
    """An additive rubric: a point for everything that holds of an answer."""

    type: Literal["rubric"]
    points: Annotated[
        tuple[Annotated[LengthWindowJudge | RegexJudge, Field(discriminator="type")], ...], Field(min_length=1)
    ]
    """What gives a point each: a length in a window, a pattern that is found or is not."""


class ExactMatchJudge(JudgeSettings):
    """1 for an answer that is the prompt's gold answer, spaces around both left out, else 0."""

    type: Literal["exact_match"]
    ignore_case: bool = False
    """Upper and lower case count as the same."""
    says: Says = "score"
    """As what it is recorded."""


class FinalNumberJudge(JudgeSettings):
    """1 for an answer that ends at the number of the prompt's gold answer (GSM8K), else 0."""

    type: Literal["final_number"]
    says: Says = "score"
    """As what it is recorded."""


class ArithmeticStepsJudge(JudgeSettings):
    """Of every step of a solution whether the calculations in it are right.

    A step with a wrong one is wrong, one with right ones is right, one with none is neutral (1, 0, 0.5). For the rules
    of Step-DPO.
    """

    scores: ClassVar[bool] = False
    type: Literal["arithmetic_steps"]
    steps: Literal["labels", "lines"] = "labels"
    """What a step is: what stands behind a label, `Step 1:`, at the beginning of a line; or a line (GSM8K)."""


class OutsideJudge(JudgeSettings):
    """A judge outside the program, whose answers may cost something and may not be the same again."""

    price: Annotated[float, Field(ge=0)] = 0.0
    """US dollars that one answer costs, for `plan` and `max_cost`."""

    @property
    def kept(self) -> bool:
        """They come from outside the program."""
        return True

    @property
    def varies(self) -> bool:
        """Nobody knows."""
        return True

    @property
    def price_of_a_call(self) -> float:
        """US dollars."""
        return self.price


class PythonJudge(OutsideJudge):
    """A user's own function, which returns a number for an answer: the higher, the better. None is no verdict."""

    type: Literal["python"]
    function: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    """`module:name`, found where the command runs or where Python finds modules. Its file is part of what it is: when
    its content changes, everything is judged again."""
    gives: Literal["text", "records"] = "text"
    """What the function is called with: the prompt and the answer as texts, or as records (`prompt.answer` is the gold
    answer). Of a conversation the text is `role: content`, turn by turn."""
    compares: bool = False
    """It is called with a prompt and two answers, and returns the probability that the first of them is better."""
    batch: Annotated[int, Field(ge=1)] | None = None
    """Call it with a list of so many prompts and a list of as many answers, at most; it returns a list. None: with one
    prompt and one answer."""

    @property
    def takes(self) -> tuple[Shown, ...]:
        """Two answers where it compares, else one."""
        return ("two",) if self.compares else ("one",)


class HumanJudge(OutsideJudge):
    """People, who answer in a file: `prefloop judge RUN --answers FILE`."""

    type: Literal["human"]
    question: str = "How good is this answer?"
    """What they are asked of every answer."""
    lowest: float = 1.0
    """The worst that they can say."""
    highest: float = 5.0
    """The best that they can say."""

    @model_validator(mode="after")
    def _is_a_scale(self) -> "HumanJudge":
        if self.lowest >= self.highest:
            raise ValueError(f"from {self.lowest:g} to {self.highest:g} is no scale")
        return self


class RewardModelJudge(JudgeSettings):
    """A reward model: a sequence-classification model with one label, which reads prompt and answer."""

    type: Literal["reward_model"]
    model: str
    """A train step of the recipe that trains a reward model; or a directory with config.json (`./NAME` where a step has
    that name), or `org/name@revision` on the Hub. Its own chat template writes conversations."""
    center: float = 0.0
    """Subtracted from every score: its mean on answers that are neither good nor bad, so that 0 divides them. Of a
    train step's model it comes on top of what that step measured on the answers that it trained on."""


class JudgeServer(ServersConfig):
    """Servers that a judge asks: OpenAI's chat completions, or vLLM's reward models."""

    model: str
    """Name under which the servers know the model."""
    concurrency: Annotated[int, Field(ge=1)] = 16
    """Requests under way at each server."""


class RewardServerJudge(OutsideJudge):
    """A reward model behind servers: vLLM's `/pooling` or `/classify`, which may run models that bring their own code.

    The server writes the conversation by the model's own template.
    """

    type: Literal["reward_server"]
    server: JudgeServer
    """Where the model is served."""
    endpoint: Literal["pooling", "classify"] = "pooling"
    """Which of vLLM's addresses is asked, below the server's root."""
    center: float = 0.0
    """Subtracted from every score: its mean on answers that are neither good nor bad, so that 0 divides them."""

    @property
    def varies(self) -> bool:
        """It says the same every time, but for rounding."""
        return False


class PairwiseModelJudge(JudgeSettings):
    """A pairwise model: a sequence-classification model with one label, which reads a prompt and two answers.

    Its label is the logit that the answer shown first is better.
    """

    type: Literal["pairwise_model"]
    model: str
    """A train step of the recipe with objective `pair_ranker`; or a directory, or `org/name@revision` on the Hub."""
    form: Annotated[str, Field(pattern=r"(?s)\{first\}.+\{second\}")] | None = None
    """How a model from elsewhere was shown two answers in training, with `{first}` and `{second}`; its chat template
    writes that as the answer to the prompt. None: as models that are trained here are shown them."""

    @property
    def takes(self) -> tuple[Shown, ...]:
        """Two answers."""
        return ("two",)


class ImplicitRewardJudge(JudgeSettings):
    """What a policy's own training says of an answer: log pi - log ref, in nats.

    Summed over its tokens it is the reward that DPO fits, but for the factor beta (arXiv:2305.18290). Of both policies
    an answer is asked for as training asks for it: the same template, the same EOS.
    """

    type: Literal["implicit_reward"]
    policy: str = "current"
    """Whose reward: initial, round_start, current, best, or the name of a train step."""
    reference: str
    """What it was trained against: `current.ref`, `initial`, a train step's name."""
    tokens: Literal["sum", "avg", "norm"] = "sum"
    """How the log-probabilities of each policy's tokens become one number: their sum, their mean, or less their
    Euclidean norm. RewardBench's script takes the mean where it is not told otherwise (arXiv:2403.13787)."""

    @property
    def policies(self) -> Mapping[str, str]:
        """The policy whose reward it is, and its reference."""
        return {"policy": self.policy, "reference": self.reference}


class LogLikelihoodJudge(JudgeSettings):
    """How likely a policy is to give an answer: log pi, in nats, summed over its tokens."""

    type: Literal["log_likelihood"]
    policy: str = "current"
    """Whose: initial, round_start, current, best, or the name of a train step."""

    @property
    def policies(self) -> Mapping[str, str]:
        """The policy that it asks."""
        return {"policy": self.policy}


class LlmJudge(JudgeSettings):
    """A language model, asked by a prompt file: about one answer, two, or all of a prompt's, as the design says."""

    type: Literal["llm"]
    model: str | None = None
    """The model, in this process: a directory, `builtin:NAME`, or `org/name@revision`."""
    policy: str | None = None
    """Instead, a policy of this run as judge of its own answers: current, initial, a train step's name."""
    server: JudgeServer | None = None
    """Instead, a model behind servers."""
    prompt: str | None = None
    """A shipped prompt - additive, six_points (one answer), compare, compare_at_once (two), six_points_jointly (all) -
    or a file of your own. Default: additive, compare, six_points_jointly, as the design wants it."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """Softmax temperature; 0 takes the most likely token. Nothing is drawn where the verdict is a probability."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 512
    """Longest answer of the judge, in tokens."""
    price: Annotated[float, Field(ge=0)] = 0.0
    """US dollars that one call costs beside its tokens, for `plan` and `max_cost`."""
    price_in: Annotated[float, Field(ge=0)] = 0.0
    """US dollars for a million tokens that it reads."""
    price_out: Annotated[float, Field(ge=0)] = 0.0
    """US dollars for a million tokens that it writes."""
    expected_tokens: Annotated[int, Field(ge=0)] = 1500
    """Tokens that it is expected to read a call, for `plan` alone: what it really reads is what counts."""

    @property
    def kept(self) -> bool:
        """What servers say is."""
        return self.server is not None

    @property
    def varies(self) -> bool:
        """Where it is sampled."""
        return self.temperature > 0

    @property
    def takes(self) -> tuple[Shown, ...]:
        """As many as the prompt file shows."""
        return ("one", "two", "all")

    @property
    def policies(self) -> Mapping[str, str]:
        """The policy that judges, if one does."""
        return {} if self.policy is None else {"judge": self.policy}

    @property
    def price_of_a_call(self) -> float:
        """US dollars, for as many tokens as are expected in and as many as may come out."""
        return self.price + (self.price_in * self.expected_tokens + self.price_out * self.max_new_tokens) / 1e6

    @model_validator(mode="after")
    def _is_somewhere(self) -> "LlmJudge":
        given = [name for name in ("model", "policy", "server") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"judge llm is one of model, policy and server, found {found}")
        priced = [name for name in ("price", "price_in", "price_out") if getattr(self, name)]
        if priced and self.server is None:
            raise ValueError(f"{', '.join(priced)}: a model in this process costs nothing. Remove it.")
        return self


class LlmStepsJudge(LlmJudge):
    """A language model, asked of every step of a solution whether it is right; for the rules of Step-DPO.

    It sees the solution up to that step. A step's verdict is the probability that it is right.
    """

    scores: ClassVar[bool] = False
    type: Literal["llm_steps"]  # pyright: ignore[reportIncompatibleVariableOverride]
    prompt: str | None = None
    """A file of your own that shows one answer, the solution up to a step, and reads a choice: A for right. Default:
    last_step_at_once."""
    steps: Literal["labels", "lines"] = "labels"
    """What a step is: what stands behind a label, `Step 1:`, at the beginning of a line; or a line (GSM8K)."""
    expected_steps: Annotated[int, Field(ge=1)] = 6
    """Steps that a solution is expected to have, for `plan` alone, until some were counted."""

    @property
    def takes(self) -> tuple[Shown, ...]:
        """One answer."""
        return ("one",)


JudgeConfig = Annotated[
    VaderJudge
    | ShorterJudge
    | LongerJudge
    | LengthWindowJudge
    | RegexJudge
    | RubricJudge
    | ExactMatchJudge
    | FinalNumberJudge
    | LlmJudge
    | LlmStepsJudge
    | ArithmeticStepsJudge
    | HumanJudge
    | PythonJudge
    | RewardModelJudge
    | PairwiseModelJudge
    | RewardServerJudge
    | ImplicitRewardJudge
    | LogLikelihoodJudge,
    Field(discriminator="type"),
]

EndJudge = Annotated[ExactMatchJudge | FinalNumberJudge | RegexJudge | LengthWindowJudge, Field(discriminator="type")]
"""Rules that call a whole answer right (1) or wrong (0)."""
