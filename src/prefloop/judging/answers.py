"""Answers of judges outside the program, kept one by one, so that nothing that was answered is asked or paid twice."""

import json
import sqlite3
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import floor
from pathlib import Path
from typing import Protocol

from pydantic import JsonValue

from prefloop.errors import DataError, ResumableError
from prefloop.judging.protocol import Ask, AsksAnother, Judge, Verdict
from prefloop.records import digest

FILE = "answers.sqlite"
"""In the run folder, beside the journal. `gc` and what runs again leave it alone."""
SCHEMA = """
create table if not exists answers (
    key text primary key, judge text not null, step text not null, said text not null, raw text,
    tokens_in integer not null, tokens_out integer not null, price real not null, answered real not null
)
"""
AT_ONCE = 500
"""Keys that are looked up together: SQLite takes no more than a thousand."""


class KeptJudge(Judge, Protocol):
    """A judge whose answers are kept."""

    def seen(self, ask: Ask) -> JsonValue:
        """What of an ask it sees, and so all that its answer can depend on beside its name."""
        ...


@dataclass(frozen=True)
class Answers:
    """The answers of a run's judges."""

    connection: sqlite3.Connection

    @classmethod
    @contextmanager
    def of_run(cls, run: Path, *, survives_power_loss: bool = True) -> Generator["Answers"]:
        """Opens the file, or makes it. A process that is killed loses nothing.

        Args:
            run: the run folder.
            survives_power_loss: waits for the disk after every answer, which takes milliseconds.

        Raises:
            DataError: the file is something else.
        """
        connection = sqlite3.connect(run / FILE, isolation_level=None)
        try:
            connection.execute("pragma journal_mode = wal")
            connection.execute(f"pragma synchronous = {'full' if survives_power_loss else 'normal'}")
            connection.execute(SCHEMA)
            yield cls(connection)
        except sqlite3.DatabaseError as error:
            raise DataError(f"{run / FILE}: not the answers of judges ({error}). Move it away.") from error
        finally:
            connection.close()

    def find(self, keys: Sequence[str]) -> Mapping[str, Verdict]:
        """What was answered before, by key."""
        found: dict[str, Verdict] = {}
        for start in range(0, len(keys), AT_ONCE):
            some = keys[start : start + AT_ONCE]
            rows = self.connection.execute(
                f"select key, said, raw, tokens_in, tokens_out from answers where key in ({','.join('?' * len(some))})",
                some,
            )
            found |= {row[0]: Verdict(tuple(json.loads(row[1])), row[2], row[3], row[4]) for row in rows}
        return found

    def keep(self, key: str, verdict: Verdict, *, judge: str, step: str, price: float) -> None:
        """Keeps an answer; it is on disk when this returns."""
        self.connection.execute(
            "insert into answers values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                key,
                judge,
                step,
                json.dumps(verdict.values),
                verdict.raw,
                verdict.tokens_in,
                verdict.tokens_out,
                price,
                time.time(),
            ),
        )

    def paid(self, keys: Iterable[str], place: str) -> tuple[int, float]:
        """How many of some answers were given at a place, and what these cost, in US dollars."""
        wanted = sorted(keys)
        count, cost = 0, 0.0
        for start in range(0, len(wanted), AT_ONCE):
            some = wanted[start : start + AT_ONCE]
            found = self.connection.execute(
                f"select count(*), total(price) from answers where step = ? and key in ({','.join('?' * len(some))})",
                (place, *some),
            ).fetchone()
            count, cost = count + found[0], cost + found[1]
        return count, cost

    @property
    def calls(self) -> int:
        """How many answers there are, whoever gave them."""
        return self.connection.execute("select count(*) from answers").fetchone()[0]

    @property
    def cost(self) -> float:
        """What they cost in all, in US dollars."""
        return self.connection.execute("select total(price) from answers").fetchone()[0]


def key_of(judge: KeptJudge, ask: Ask) -> str:
    """What an answer is kept under: who was asked, in which version and with which settings, what it saw, how often."""
    return digest([judge.name, judge.seen(ask), ask.repeat])


@dataclass(frozen=True)
class Budget:
    """How much the judges of a run may be asked."""

    max_calls: int | None = None
    max_cost: float | None = None
    """US dollars."""

    def room(self, answers: Answers, price: float) -> int | None:
        """Calls that still fit at a price each; None: as many as one likes."""
        rooms: list[int] = []
        if self.max_calls is not None:
            rooms.append(self.max_calls - answers.calls)
        if self.max_cost is not None and price > 0:
            rooms.append(floor((self.max_cost - answers.cost) / price + 1e-9))  # 0.3 / 0.1 is 2.9999999999999996
        return max(0, min(rooms)) if rooms else None


@dataclass(frozen=True)
class TokenPrice:
    """What tokens cost, beside the call."""

    token_in: float
    """US dollars."""
    token_out: float
    """US dollars."""
    most: Callable[[Ask], tuple[int, int]]
    """Tokens that a call may read and write at most."""


@dataclass
class Remembering(AsksAnother[KeptJudge]):
    """A judge that is asked only what nobody has answered yet, within a budget."""

    answers: Answers
    step: str
    price: float = 0.0
    """Of one call, in US dollars."""
    budget: Budget = Budget()
    tokens: TokenPrice | None = None
    place: str = ""
    """Which step of which round asks: answers that were kept elsewhere, or before, were not paid here."""
    asked: set[str] = field(default_factory=set[str])
    """Keys of what it was asked."""

    def judge(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Verdict]]:
        """What was answered before, then what is answered now; the same question in two asks is asked once.

        Raises:
            ResumableError: the next call would exceed the budget. All calls before it were made, and are kept.
        """
        keys = [key_of(self.judged_by, ask) for ask in asks]
        self.asked.update(keys)
        known = self.answers.find(keys)
        asking: dict[str, list[int]] = {}
        for number, key in enumerate(keys):
            if key in known:
                yield number, known[key]
            else:
                asking.setdefault(key, []).append(number)
        left = list(asking)
        while left:  # what a call really costs is known behind it, and may leave room for more
            count = self._fitting([asks[asking[key][0]] for key in left])
            if not count:
                raise ResumableError(self._used_up([asks[asking[key][0]] for key in left]))
            within, left = left[:count], left[count:]
            for place, verdict in self.judged_by.judge([asks[asking[key][0]] for key in within]):
                key = within[place]
                self.answers.keep(
                    key, verdict, judge=self.name, step=self.place or self.step, price=self._price_of(verdict)
                )
                for number in asking[key]:
                    yield number, verdict

    def require_room(self, asks: Sequence[Ask]) -> None:
        """So many calls fit into the budget (ResumableError where they do not)."""
        room = self.budget.room(self.answers, self.price)
        if room is not None and room < len(asks):
            raise ResumableError(self._used_up(asks))

    def open(self, asks: Sequence[Ask]) -> dict[str, Ask]:
        """What nobody has answered yet, by key."""
        found = {key_of(self.judged_by, ask): ask for ask in asks}
        known = self.answers.find(list(found))
        return {key: ask for key, ask in found.items() if key not in known}

    def _fitting(self, asks: Sequence[Ask]) -> int:
        """How many of the next calls fit into the budget, whatever each of them may cost."""
        most = len(asks)
        if self.budget.max_calls is not None:
            most = min(most, self.budget.max_calls - self.answers.calls)
        if self.budget.max_cost is None:
            return max(most, 0)
        left = self.budget.max_cost - self.answers.cost + 1e-9  # 0.3 - 0.2 is 0.09999999999999998
        for count, ask in enumerate(asks[: max(most, 0)]):
            left -= self._most_of(ask)
            if left < 0:
                return count
        return max(most, 0)

    def _most_of(self, ask: Ask) -> float:
        """US dollars that a call may cost."""
        if self.tokens is None:
            return self.price
        tokens_in, tokens_out = self.tokens.most(ask)
        return self.price + tokens_in * self.tokens.token_in + tokens_out * self.tokens.token_out

    def _price_of(self, verdict: Verdict) -> float:
        if self.tokens is None:
            return self.price
        return self.price + verdict.tokens_in * self.tokens.token_in + verdict.tokens_out * self.tokens.token_out

    def _used_up(self, left: Sequence[Ask]) -> str:
        calls, cost = self.answers.calls, self.answers.cost
        limits: list[str] = []
        if self.budget.max_calls is not None:
            limits.append(f"{self.step}.max_calls is {self.budget.max_calls}")
        if self.budget.max_cost is not None:
            limits.append(f"{self.step}.max_cost is ${self.budget.max_cost:g}")
        most = f"{'' if self.tokens is None else 'at most '}${sum(map(self._most_of, left)):.2f}"
        return (
            f"{self.step}: {' and '.join(limits)}, and {calls} answers for ${cost:.2f} are there; {len(left)} more are "
            f"needed now, for {most}. Raise the limit with --set and run the same command again."
        )
