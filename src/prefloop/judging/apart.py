"""A judge of single answers, asked about several: one by one, and for comparisons by its scores."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from prefloop.judging.protocol import Ask, AsksAnother, Judge, Kind, Verdict


@dataclass
class Apart(AsksAnother[Judge]):
    """Asks about each answer of an ask alone, of an answer that several asks show once."""

    compares: bool
    """Says which of two answers has the higher score: 1 the first, 0 the second, 0.5 neither. Else all scores."""
    _said: dict[tuple[str, str, int], Verdict] = field(default_factory=dict[tuple[str, str, int], Verdict])

    @property
    def kind(self) -> Kind:
        """That of the judge, unless it is made to compare."""
        return "preference" if self.compares else self.judged_by.kind

    def judge(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Verdict]]:
        """A verdict on every ask whose answers all have one; tokens count where an answer was asked about."""
        new = {key_of(one): one for ask in asks for one in alone(ask) if key_of(one) not in self._said}
        said_now: set[tuple[str, str, int]] = set()
        keys = list(new)
        for number, verdict in self.judged_by.judge(list(new.values())):
            self._said[keys[number]] = verdict
            said_now.add(keys[number])
        for number, ask in enumerate(asks):
            keys_of_ask = [key_of(one) for one in alone(ask)]
            if all(key in self._said for key in keys_of_ask):
                said = [self._said[key] for key in keys_of_ask]
                paid = [self._said[key] for key in keys_of_ask if key in said_now]
                said_now.difference_update(keys_of_ask)
                scores = [value for verdict in said for value in verdict.values]
                values = (compared(*scores),) if self.compares else tuple(scores)
                raw = [verdict.raw for verdict in said if verdict.raw is not None]
                yield (
                    number,
                    Verdict(
                        values,
                        "\n\n".join(raw) if raw else None,
                        sum(verdict.tokens_in for verdict in paid),
                        sum(verdict.tokens_out for verdict in paid),
                        sum(verdict.calls for verdict in paid),
                    ),
                )


def alone(ask: Ask) -> list[Ask]:
    """Asks about each answer of an ask alone."""
    return [Ask(ask.prompt, (subject,), ask.repeat) for subject in ask.subjects]


def key_of(ask: Ask) -> tuple[str, str, int]:
    """What an ask about one answer is known by."""
    (subject,) = ask.subjects
    return ask.prompt.prompt_id, subject.response_id, ask.repeat


def compared(first: float | None, second: float | None) -> float | None:
    """1 where the first score is higher, 0 where the second is, 0.5 where they are equal; None without both."""
    if first is None or second is None:
        return None
    return 0.5 if first == second else float(first > second)
