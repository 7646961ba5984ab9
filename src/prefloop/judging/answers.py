"""Answers of judges outside the program, kept one by one, so that nothing that was answered is asked or paid twice."""

import json
import sqlite3
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import NamedTuple, Protocol

from pydantic import JsonValue

from prefloop.errors import DataError, ResumableError
from prefloop.judging.protocol import Ask, AsksAnother, Judge, Verdict
from prefloop.records import digest

FILE = "answers.sqlite"
"""In the run folder, beside the journal. `gc` and what runs again leave it alone."""
SCHEMA = """
create table if not exists answers (
    key text primary key, judge text not null, step text not null, said text not null, raw text,
    tokens_in integer not null, tokens_out integer not null, price real not null, answered real not null,
    calls integer not null default 1
)
"""
CALLS = "alter table answers add column calls integer not null default 1"
"""For files of versions that counted answers."""
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
            if "calls" not in [column[1] for column in connection.execute("pragma table_info(answers)")]:
                connection.execute(CALLS)
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
                "select key, said, raw, tokens_in, tokens_out, calls from answers where key in "
                f"({','.join('?' * len(some))})",
                some,
            )
            found |= {key: Verdict(tuple(json.loads(said)), *rest) for key, said, *rest in rows}
        return found

    def keep(self, key: str, verdict: Verdict, *, judge: str, step: str, price: float) -> None:
        """Keeps an answer; it is on disk when this returns."""
        self.connection.execute(
            "insert into answers values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
                verdict.calls,
            ),
        )

    def paid(self, keys: Iterable[str], place: str) -> tuple[int, float]:
        """How many calls were made at a place for some answers, and what these cost, in US dollars."""
        wanted = sorted(keys)
        count, cost = 0, 0.0
        for start in range(0, len(wanted), AT_ONCE):
            some = wanted[start : start + AT_ONCE]
            found = self.connection.execute(
                "select coalesce(sum(calls), 0), total(price) from answers where step = ? and key in "
                f"({','.join('?' * len(some))})",
                (place, *some),
            ).fetchone()
            count, cost = count + found[0], cost + found[1]
        return count, cost

    @property
    def calls(self) -> int:
        """How many calls were made for the answers that are there, whoever gave them."""
        return self.connection.execute("select coalesce(sum(calls), 0) from answers").fetchone()[0]

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


class Taken(NamedTuple):
    """What an answer takes."""

    calls: int = 1
    tokens_in: int = 0
    tokens_out: int = 0


@dataclass(frozen=True)
class Price:
    """What a judge costs, in US dollars."""

    call: float = 0.0
    token_in: float = 0.0
    token_out: float = 0.0
    most: Callable[[Ask], Taken] = lambda _ask: Taken()
    """What an ask may take."""

    def of(self, taken: Taken) -> float:
        """What so much costs."""
        return taken.calls * self.call + taken.tokens_in * self.token_in + taken.tokens_out * self.token_out


@dataclass
class Remembering(AsksAnother[KeptJudge]):
    """A judge that is asked only what nobody has answered yet, within a budget."""

    answers: Answers
    step: str
    price: Price = Price()
    budget: Budget = Budget()
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
                cost = self.price.of(Taken(verdict.calls, verdict.tokens_in, verdict.tokens_out))
                self.answers.keep(key, verdict, judge=self.name, step=self.place or self.step, price=cost)
                for number in asking[key]:
                    yield number, verdict

    def require_room(self, asks: Sequence[Ask]) -> None:
        """So many calls fit into the budget (ResumableError where they do not)."""
        if self._fitting(asks) < len(asks):
            raise ResumableError(self._used_up(asks))

    def open(self, asks: Sequence[Ask]) -> dict[str, Ask]:
        """What nobody has answered yet, by key."""
        found = {key_of(self.judged_by, ask): ask for ask in asks}
        known = self.answers.find(list(found))
        return {key: ask for key, ask in found.items() if key not in known}

    def _fitting(self, asks: Sequence[Ask]) -> int:
        """How many of the next asks fit into the budget, whatever each of them may take."""
        if self.budget == Budget():
            return len(asks)
        max_calls, max_cost = (
            inf if limit is None else limit for limit in (self.budget.max_calls, self.budget.max_cost)
        )
        calls, cost = max_calls - self.answers.calls, max_cost - self.answers.cost + 1e-9  # 0.3 - 0.2 is less than 0.1
        for count, ask in enumerate(asks):
            most = self.price.most(ask)
            calls, cost = calls - most.calls, cost - self.price.of(most)
            if min(calls, cost) < 0:
                return count
        return len(asks)

    def _used_up(self, left: Sequence[Ask]) -> str:
        limits: list[str] = []
        if self.budget.max_calls is not None:
            limits.append(f"{self.step}.max_calls is {self.budget.max_calls}")
        if self.budget.max_cost is not None:
            limits.append(f"{self.step}.max_cost is ${self.budget.max_cost:g}")
        most = [self.price.most(ask) for ask in left]
        return (
            f"{self.step}: {' and '.join(limits)}, and {self.answers.calls} calls for ${self.answers.cost:.2f} were "
            f"made; {len(left)} more answers are needed now, at most {sum(one.calls for one in most)} calls for "
            f"${sum(map(self.price.of, most)):.2f}. Raise the limit and run the same command again."
        )
