"""Answers of judges outside the program, kept one by one, so that nothing that was answered is asked or paid twice."""

import json
import sqlite3
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import floor
from pathlib import Path
from typing import Protocol

from pydantic import JsonValue

from prefloop.errors import DataError, ResumableError
from prefloop.judging.protocol import Ask, Judge, Kind, Verdict
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
class Remembering:
    """A judge that is asked only what nobody has answered yet, within a budget."""

    judged_by: KeptJudge
    answers: Answers
    step: str
    price: float = 0.0
    """Of one call, in US dollars."""
    budget: Budget = Budget()

    @property
    def name(self) -> str:
        """That of the judge."""
        return self.judged_by.name

    @property
    def kind(self) -> Kind:
        """That of the judge."""
        return self.judged_by.kind

    def judge(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Verdict]]:
        """What was answered before, then what is answered now; the same question in two asks is asked once.

        Raises:
            ResumableError: the next call would exceed the budget. All calls before it were made, and are kept.
        """
        keys = [key_of(self.judged_by, ask) for ask in asks]
        known = self.answers.find(keys)
        asking: dict[str, list[int]] = {}
        for number, key in enumerate(keys):
            if key in known:
                yield number, known[key]
            else:
                asking.setdefault(key, []).append(number)
        room = self.budget.room(self.answers, self.price) if asking else None
        within = list(asking)[:room]
        for place, verdict in self.judged_by.judge([asks[asking[key][0]] for key in within]):
            key = within[place]
            self.answers.keep(key, verdict, judge=self.name, step=self.step, price=self.price)
            for number in asking[key]:
                yield number, verdict
        if len(within) < len(asking):
            raise ResumableError(self._used_up(len(asking) - len(within)))

    def require_room(self, calls: int) -> None:
        """So many calls fit into the budget (ResumableError where they do not)."""
        room = self.budget.room(self.answers, self.price)
        if room is not None and room < calls:
            raise ResumableError(self._used_up(calls))

    def open(self, asks: Sequence[Ask]) -> dict[str, Ask]:
        """What nobody has answered yet, by key."""
        found = {key_of(self.judged_by, ask): ask for ask in asks}
        known = self.answers.find(list(found))
        return {key: ask for key, ask in found.items() if key not in known}

    def _used_up(self, left: int) -> str:
        calls, cost = self.answers.calls, self.answers.cost
        limits: list[str] = []
        if self.budget.max_calls is not None:
            limits.append(f"{self.step}.max_calls is {self.budget.max_calls}")
        if self.budget.max_cost is not None:
            limits.append(f"{self.step}.max_cost is ${self.budget.max_cost:g}")
        return (
            f"{self.step}: {' and '.join(limits)}, and {calls} answers for ${cost:.2f} are there; {left} more are "
            f"needed now, for ${left * self.price:.2f}. Raise the limit with --set and run the same command again."
        )
