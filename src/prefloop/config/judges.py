"""Judges that a recipe can name, by `type`, each with its own fields."""

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from prefloop.config.base import Config


class JudgeSettings(Config):
    """What all judges have."""

    kept: ClassVar[bool] = False
    """Its answers are kept one by one, because they come from outside the program."""

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


class ExactMatchJudge(JudgeSettings):
    """1 for an answer that is the prompt's gold answer, spaces around both left out, else 0."""

    type: Literal["exact_match"]
    ignore_case: bool = False
    """Upper and lower case count as the same."""


class FinalNumberJudge(JudgeSettings):
    """1 for an answer that ends at the number of the prompt's gold answer (GSM8K), else 0."""

    type: Literal["final_number"]


class PythonJudge(JudgeSettings):
    """A user's own function, which returns a number for an answer: the higher, the better. None is no verdict."""

    kept: ClassVar[bool] = True
    type: Literal["python"]
    function: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    """`module:name`, found where the command runs or where Python finds modules. Its file is part of what it is: when
    its content changes, everything is judged again."""
    gives: Literal["text", "records"] = "text"
    """What the function is called with: the prompt and the answer as texts, or as records (`prompt.answer` is the gold
    answer). Of a conversation the text is `role: content`, turn by turn."""
    batch: Annotated[int, Field(ge=1)] | None = None
    """Call it with a list of so many prompts and a list of as many answers, at most; it returns a list. None: with one
    prompt and one answer."""
    price: Annotated[float, Field(ge=0)] = 0.0
    """US dollars that one answer costs, for `plan` and `max_cost`."""

    @property
    def price_of_a_call(self) -> float:
        """US dollars."""
        return self.price


class HumanJudge(JudgeSettings):
    """People, who answer in a file: `prefloop judge RUN --answers FILE`."""

    kept: ClassVar[bool] = True
    type: Literal["human"]
    question: str = "How good is this answer?"
    """What they are asked of every answer."""
    lowest: float = 1.0
    """The worst that they can say."""
    highest: float = 5.0
    """The best that they can say."""
    price: Annotated[float, Field(ge=0)] = 0.0
    """US dollars that one answer costs, for `plan` and `max_cost`."""

    @property
    def price_of_a_call(self) -> float:
        """US dollars."""
        return self.price

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


JudgeConfig = Annotated[
    VaderJudge
    | ShorterJudge
    | LongerJudge
    | LengthWindowJudge
    | RegexJudge
    | ExactMatchJudge
    | FinalNumberJudge
    | HumanJudge
    | PythonJudge
    | RewardModelJudge,
    Field(discriminator="type"),
]
