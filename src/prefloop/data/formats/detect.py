"""Which format a data set has: from the columns of its first rows and what they hold."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from prefloop.data.formats.kinds import kind_of
from prefloop.data.formats.registry import (
    ANSWERED,
    DIALOGUE,
    FLAG,
    MESSAGES,
    NUMBER,
    REPLY,
    TEXT,
    Format,
    Kind,
    Kinds,
    find_format,
    first_names,
    formats,
    with_first_names,
)
from prefloop.data.row import Row
from prefloop.errors import DataError

ROWS_LOOKED_AT = 100
CHOICE = "Choose one with `format: NAME` in the recipe or `--format NAME`"
SAID = {
    "score_chosen": "scores",
    "chosen_score": "scores",
    "prob_chosen_wins": "probabilities",
    "weight": "weights",
    "margin": "margins",
    "answer": "gold answers",
    "ground_truth": "gold answers",
    "tools": "tools",
    "system": "system turns",
}
"""Columns that are said when they are there, and how."""
WORDS: Mapping[Kinds, str] = {
    TEXT: "text",
    REPLY: "text or an assistant's message",
    MESSAGES: "messages",
    DIALOGUE: "messages",
    ANSWERED: "messages that end with an answer",
    TEXT | MESSAGES: "text or messages",
    TEXT | NUMBER: "text or number",
    FLAG: "true or false",
}
"""What is said for kinds that go together; others are named one by one."""
ONLY_ANSWERS = ("chosen", "rejected", "completion", "completions")
"""Columns that nothing but an answer is called: a file that has one is not a file of prompts."""
Held = Mapping[str, Kind]


@dataclass(frozen=True)
class Detected:
    """What a data set turned out to be."""

    format: Format
    says: str
    """What a user is told: "conversational TRL preference with scores"."""
    unread: tuple[str, ...]
    """Columns that are not read."""


def detect(rows: Sequence[Row], where: str, format: str | None = None) -> Detected:
    """The format of a data set.

    A row fits a format that all of its columns are there for, holding what they should. Of several, the one that reads
    more of the row, or asks for something narrower, holds. What holds for most rows is the format of the set.

    Args:
        rows: its first rows; those that could not be read as lines are passed over.
        where: the name of the set, said first in errors.
        format: the name of the format, where a user has chosen one; nothing is detected then.

    Raises:
        DataError: no format fits; several fit equally well; or there is no such format.
    """
    held = [_kinds(row) for row in rows[:ROWS_LOOKED_AT] if row.values is not None]
    found = Counter(column for kinds in held for column in kinds)
    if format is not None:
        return _said(find_format(format, where), found)
    votes = Counter(candidate.name for kinds in held for candidate in _fitting(kinds))
    ahead = _foremost(votes)
    if not ahead:
        raise DataError(f"{where}: {_nothing_fits(held)}")
    if len(ahead) > 1:
        names = " and ".join(ahead)
        raise DataError(
            f"{where}: the columns {_listed(found)} fit {names} equally well. {CHOICE}, or remove what is not needed."
        )
    detected = _said(formats()[ahead[0]], found)
    if any(column in detected.unread for column in ONLY_ANSWERS):
        raise DataError(f"{where}: {_nothing_fits(held)}")
    return detected


def _kinds(row: Row) -> Held:
    """What the columns of a row hold; absent and empty ones are left out."""
    assert row.values is not None
    kinds: dict[str, Kind] = {}
    for column, value in row.values.items():
        if (kind := kind_of(value)) is not None:
            kinds[column] = kind
    return kinds


def _fitting(kinds: Held) -> list[Format]:
    """The formats that a row fits, without those that leave its answers or that another one is more specific than."""
    fitting = [one for one in formats().values() if _fits(one, with_first_names(one, kinds))]
    answers = kinds.keys() & set(ONLY_ANSWERS)
    fitting = [one for one in fitting if answers <= _reads(one, kinds).keys()] or fitting
    return [one for one in fitting if not any(_more_specific(other, one, kinds) for other in fitting)]


def _fits(one: Format, kinds: Held) -> bool:
    return all(kinds.get(column) in allowed for column, allowed in one.columns.items())


def _more_specific(one: Format, other: Format, kinds: Held) -> bool:
    """Whether a format reads more of a row than another, needs more of it, or asks for something narrower there."""
    reads, other_reads = _reads(one, kinds), _reads(other, kinds)
    if reads.keys() != other_reads.keys():
        return reads.keys() > other_reads.keys()
    needs, other_needs = _needs(one, reads), _needs(other, other_reads)
    if needs.keys() != other_needs.keys():
        return needs.keys() > other_needs.keys()
    return needs != other_needs and all(needs[column] <= other_needs[column] for column in needs)


def _reads(one: Format, kinds: Held) -> Mapping[str, str]:
    """The columns of a row that a format reads -> what it calls them."""
    known, names = one.columns.keys() | one.optional, first_names(one, kinds)
    return {column: names.get(column, column) for column in kinds if names.get(column, column) in known}


def _needs(one: Format, reads: Mapping[str, str]) -> Mapping[str, Kinds]:
    return {column: one.columns[name] for column, name in reads.items() if name in one.columns}


def _foremost(votes: Mapping[str, int]) -> list[str]:
    """The formats with the most rows. A row that lacks a column fits a poorer format, which then does not count."""
    known = formats()
    full = [
        name
        for name, count in votes.items()
        if not any(
            known[other].columns.keys() > known[name].columns.keys() and 10 * others >= count
            for other, others in votes.items()
        )
    ]
    most = max((votes[name] for name in full), default=0)
    return sorted(name for name in full if votes[name] == most)


def _said(one: Format, found: Mapping[str, int]) -> Detected:
    named = with_first_names(one, found)
    extras = list(
        dict.fromkeys(
            word for column, word in SAID.items() if column in one.optional - one.columns.keys() and column in named
        )
    )
    with_extras = f" {'and' if ' with ' in one.says else 'with'} {_joined(extras)}" if extras else ""
    known = one.columns.keys() | one.optional | one.labels
    unread = tuple(column for column in named if column not in known)
    return Detected(one, one.says + with_extras, unread)


def _nothing_fits(held: Sequence[Held]) -> str:
    if not held:
        return "none of its first rows can be read. Give rows with columns, such as one JSON object a line."
    found: dict[str, Kind] = {}
    for kinds in held:
        found = {**kinds, **found}
    columns = _joined([f"{column} ({kind})" for column, kind in found.items()])
    said = f"no format fits the columns {columns}." if columns else "its first rows hold nothing."
    return f"{said} {_closest(found)}docs/data.md shows every format with an example."


def _closest(found: Held) -> str:
    """What is missing for the format that lacks least; nothing, where no format has a column in common."""
    near: dict[str, tuple[float, list[str]]] = {}
    for name, one in formats().items():
        named = with_first_names(one, found)
        lacks = [
            _expected(one, column, named) for column, kinds in one.columns.items() if named.get(column) not in kinds
        ]
        there = sum(1.0 if named[column] in one.columns[column] else 0.5 for column in one.columns if column in named)
        if lacks and there:
            near[name] = there / len(one.columns), lacks
    if not near:
        return ""
    name = max(near, key=lambda name: near[name][0])
    return f"The closest is {name}, but {_joined(near[name][1])}. "


def _expected(one: Format, column: str, kinds: Held) -> str:
    names = " or ".join((column, *one.also.get(column, ())))
    allowed = WORDS.get(one.columns[column]) or " or ".join(sorted(one.columns[column]))
    return f"{names} should hold {allowed}" if column in kinds else f"{names} is missing ({allowed})"


def _listed(columns: Iterable[str]) -> str:
    return ", ".join(columns)


def _joined(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""
