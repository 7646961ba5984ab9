"""The one pass over a data set: every row read and checked; good rows come out in order, the rest is told and kept."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from prefloop.data.checks import Check, row_problems
from prefloop.data.figures import Figures, Tally
from prefloop.data.formats import ROWS_LOOKED_AT, Detected, detect
from prefloop.data.given import Given
from prefloop.data.problems import CODES, Problem, RowRefused
from prefloop.data.row import Row
from prefloop.data.seen import Seen
from prefloop.data.source import DataSource
from prefloop.errors import DataError
from prefloop.records import in_pieces

EXAMPLES = 3
"""Rows that are shown of each code."""


@dataclass(frozen=True)
class Example:
    """A row that shows a problem."""

    code: str
    place: str
    detail: str


@dataclass(frozen=True)
class LintReport:
    """What a pass found. Every row is refused, warned or clean; a row has each of its codes once."""

    source: str
    says: str
    """What the rows are: "TRL preference, conversational, with scores"."""
    unread: tuple[str, ...]
    """Columns that the format does not read."""
    rows: int
    refused: int
    warned: int
    """Accepted rows with something to look at."""
    problems: Mapping[str, int]
    """Rows by code, in the order of CODES."""
    examples: tuple[Example, ...]
    figures: Figures
    """Of the accepted rows."""

    @property
    def accepted(self) -> int:
        """Rows that come out of the pass, warned ones included."""
        return self.rows - self.refused

    def counts(self) -> dict[str, int]:
        """What a step counts: rows by fate and code."""
        return {f"{CODES[code].fate}: {code}": number for code, number in self.problems.items()}

    def line(self) -> str | None:
        """One line where a row is refused or warned; None where all are clean."""
        said: list[str] = []
        for fate, number in (("refused", self.refused), ("warned", self.warned)):
            codes = [f"{code} {count}" for code, count in self.problems.items() if CODES[code].fate == fate]
            if codes:
                said.append(f"{number:,} {fate} ({', '.join(codes)})")
        return f"{self.source}: of {self.rows:,} rows {', '.join(said)}" if said else None

    def as_json(self) -> dict[str, Any]:
        """The report as `prefloop lint --json` writes it."""
        return {
            "source": self.source,
            "says": self.says,
            "unread": list(self.unread),
            "rows": self.rows,
            "accepted": self.accepted,
            "refused": self.refused,
            "warned": self.warned,
            "problems": dict(self.problems),
            "examples": [{**asdict(one), "fate": CODES[one.code].fate} for one in self.examples],
            "codes": {code: asdict(CODES[code]) for code in self.problems},
            "figures": asdict(self.figures),
        }


class Reading:
    """One pass over a source: iterate it once for the accepted rows, in order; then `report` says what was found.

    What refuses a row ends its checks. Their order: the line, the format, the row by itself, `checks`, the rows before.
    """

    def __init__(
        self,
        source: DataSource,
        *,
        format: str | None = None,
        checks: Sequence[Check] = (),
        quarantine: Path | None = None,
        seen: Seen | None = None,
    ) -> None:
        """Prepares the pass.

        Args:
            source: the rows.
            format: name of their format; None recognises it from the first rows.
            checks: further checks of a row: against evaluation prompts, with a model's tokens.
            quarantine: file for refused rows, as JSON lines with place, problems and original text; there only when a
                row is refused.
            seen: what rows of other sources said that belong to the same set; gets these too.
        """
        self._source = source
        self._format = format
        self._checks = checks
        self._quarantine = quarantine
        self._seen = seen
        self._tally = Tally()
        self._detected: Detected | None = None
        self._rows = self._refused = self._warned = 0
        self._problems: Counter[str] = Counter()
        self._examples: dict[str, list[Example]] = {}

    def __iter__(self) -> Iterator[Given]:
        """The accepted rows.

        Raises:
            DataError: there is no row, or the rows have no format, or more than one.
        """
        shared = None if self._seen is None else nullcontext(self._seen)
        with shared or closing(Seen()) as seen, _Quarantine(self._quarantine) as quarantine:
            checks = (row_problems, *self._checks, seen)
            for piece in in_pieces(self._source.rows(), ROWS_LOOKED_AT):
                readable = [row for row in piece if row.values is not None]
                if self._detected is None and readable:
                    self._detected = detect(readable, self._source.name, self._format)
                for row in piece:
                    given, problems = self._judged(row, checks)
                    self._count(row, problems)
                    if given is None:
                        quarantine.write(row, problems)
                    else:
                        self._tally.add(given, seen.count_prompt(given.prompt.prompt_id))
                        yield given
        if not self._rows:
            raise DataError(f"{self._source.name}: has no rows. Add one JSON object a line.")

    @property
    def report(self) -> LintReport:
        """What was found; whole once the pass is over."""
        return LintReport(
            source=self._source.name,
            says="no row could be read" if self._detected is None else self._detected.says,
            unread=() if self._detected is None else self._detected.unread,
            rows=self._rows,
            refused=self._refused,
            warned=self._warned,
            problems={code: self._problems[code] for code in CODES if code in self._problems},
            examples=tuple(example for code in CODES for example in self._examples.get(code, ())),
            figures=self._tally.figures(),
        )

    def _judged(self, row: Row, checks: Sequence[Check]) -> tuple[Given | None, tuple[Problem, ...]]:
        """The row as records if it is accepted, and its problems, each code once."""
        found: dict[str, Problem] = {}

        def refused_for(problems: Iterable[Problem]) -> bool:
            for problem in problems:
                found.setdefault(problem.code, problem)
            return any(problem.fate == "refused" for problem in found.values())

        if refused_for(row.problems):
            return None, tuple(found.values())
        assert row.values is not None
        assert self._detected is not None
        try:
            given = self._detected.format.read(row.values, row.place)
        except RowRefused as refused:
            found[refused.problem.code] = refused.problem
            return None, tuple(found.values())
        if any(refused_for(check(given)) for check in checks):
            return None, tuple(found.values())
        return given, tuple(found.values())

    def _count(self, row: Row, problems: tuple[Problem, ...]) -> None:
        self._rows += 1
        if not problems:
            return
        if any(problem.fate == "refused" for problem in problems):
            self._refused += 1
        else:
            self._warned += 1
        for problem in problems:
            self._problems[problem.code] += 1
            shown = self._examples.setdefault(problem.code, [])
            if len(shown) < EXAMPLES:
                shown.append(Example(problem.code, row.place, problem.detail))


class _Quarantine:
    """A file of refused rows, made when the first one comes."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def __enter__(self) -> "_Quarantine":
        if self._path is not None:
            self._path.unlink(missing_ok=True)  # of an earlier pass, whose rows may have been mended since
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, row: Row, problems: tuple[Problem, ...]) -> None:
        """Keeps a row as it stood in its file."""
        if self._path is None:
            return
        if self._file is None:
            # What is no character is written as \udc80, which JSON reads back as the same half of a pair.
            self._file = self._path.open("w", encoding="utf-8", errors="backslashreplace", newline="\n")
        line = {"place": row.place, "problems": [asdict(one) for one in problems], "original": row.original}
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")


def require_rows(report: LintReport, name: str) -> None:
    """A run needs at least one row of each source.

    Args:
        report: of the whole pass.
        name: the source as a recipe names it.

    Raises:
        DataError: every row was refused; says for what.
    """
    if not report.accepted:
        codes = ", ".join(f"{code} {count}" for code, count in report.problems.items())
        raise DataError(
            f"{report.source}: all of its {report.rows:,} rows are refused ({codes}). `prefloop lint {name}` says more."
        )
