"""What a judge is: it is asked about answers, many at a time, and says what it thinks. It never combines."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

from prefloop.records import Prompt, Response, Span

Kind = Literal["score", "preference", "label", "steps"]
"""What the values of verdicts are: one score a subject, P(the first is preferred), right or wrong, one a step."""


@dataclass(frozen=True)
class Ask:
    """A prompt with the answers in the order in which they are shown."""

    prompt: Prompt
    subjects: tuple[Response, ...]
    repeat: int = 0
    """How many times the same was asked before, on purpose."""


@dataclass(frozen=True)
class Verdict:
    """What the judge said of one ask; None is an invalid answer, never a label."""

    values: tuple[float | None, ...]
    raw: str | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    calls: int = 1
    """Questions that it took."""
    spans: tuple[Span, ...] = ()
    """The tokens that each value is about, where there is one a step."""


EMPTY = "an empty answer"
"""What is recorded as said where an answer says nothing."""


def settled_by_emptiness(ask: Ask) -> Verdict | None:
    """The verdict on two answers, one of which says nothing; shown it, a judge would grade its question's form."""
    first, second = (not subject.text.strip() for subject in ask.subjects)
    return Verdict((0.5 if first and second else float(second),), EMPTY, calls=0) if first or second else None


class Judge(Protocol):
    """Scores or compares answers. An ask without a verdict stays open."""

    @property
    def name(self) -> str:
        """Name and version: goes into every judgment."""
        ...

    @property
    def kind(self) -> Kind:
        """What the values of its verdicts are."""
        ...

    def judge(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Verdict]]:
        """The number of an ask with its verdict, in any order."""
        ...


J = TypeVar("J", bound=Judge)


@dataclass
class AsksAnother(Generic[J]):
    """What a judge is made of that passes its asks on to another: it has that one's name and kind."""

    judged_by: J

    @property
    def name(self) -> str:
        """That of the judge."""
        return self.judged_by.name

    @property
    def kind(self) -> Kind:
        """That of the judge."""
        return self.judged_by.kind
