"""Accepted rows by prompt, on disk: all rows of a prompt become one group, wherever in the sources they stood."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from prefloop.data.given import Given
from prefloop.data.temporary import temporary_database
from prefloop.records import Judgment, Prompt, Response


@dataclass(frozen=True)
class GivenGroup:
    """A prompt with all that its rows brought."""

    prompt: Prompt
    """As it stood first."""
    responses: tuple[Response, ...]
    """Each once."""
    judgments: tuple[Judgment, ...]


class Collection:
    """Rows of some sources, in a temporary database."""

    def __init__(self) -> None:
        self._database = temporary_database()
        self._database.execute(
            "CREATE TABLE given "
            "(number INTEGER PRIMARY KEY, source INTEGER, prompt TEXT, rank INTEGER, apart INTEGER, body TEXT)"
        )

    def __enter__(self) -> "Collection":
        return self

    def __exit__(self, *error: object) -> None:
        self._database.close()

    def add(self, given: Given, source: int, *, rank: int = 0, apart: bool = False) -> None:
        """Keeps a row.

        Args:
            given: the row.
            source: number of its source.
            rank: rows of low rank stay when a source is cut.
            apart: it is for validation.
        """
        self._database.execute(
            "INSERT INTO given (source, prompt, rank, apart, body) VALUES (?, ?, ?, ?, ?)",
            (source, given.prompt.prompt_id, rank, apart, given.model_dump_json(exclude_defaults=True)),
        )

    def rows_of(self, source: int) -> int:
        """How many rows of a source there are."""
        (rows,) = self._database.execute("SELECT COUNT(*) FROM given WHERE source = ?", (source,)).fetchone()
        return int(rows)

    def cut(self, source: int, rows: int) -> None:
        """Leaves so many rows of a source, those of lowest rank."""
        self._database.execute(
            "DELETE FROM given WHERE source = ?1 AND number NOT IN "
            "(SELECT number FROM given WHERE source = ?1 ORDER BY rank, number LIMIT ?2)",
            (source, rows),
        )

    def without_prompts_apart(self) -> int:
        """Removes the other rows of prompts that are kept apart; says how many there were."""
        return self._database.execute(
            "DELETE FROM given WHERE NOT apart AND prompt IN (SELECT prompt FROM given WHERE apart)"
        ).rowcount

    def size(self, *, apart: bool) -> tuple[int, int]:
        """How many prompts and how many rows there are on one side."""
        prompts, rows = self._database.execute(
            "SELECT COUNT(DISTINCT prompt), COUNT(*) FROM given WHERE apart = ?", (apart,)
        ).fetchone()
        return int(prompts), int(rows)

    def groups(self, *, apart: bool = False) -> Iterator[GivenGroup]:
        """The prompts of one side in the order in which they came first, each with all of its rows."""
        rows = self._database.execute(
            "SELECT given.prompt, given.body FROM given JOIN "
            "(SELECT prompt, MIN(number) AS first FROM given WHERE apart = ?1 GROUP BY prompt) AS firsts "
            "ON given.prompt = firsts.prompt WHERE given.apart = ?1 ORDER BY firsts.first, given.number",
            (apart,),
        )
        for _, of_prompt in groupby(rows, key=lambda row: row[0]):
            yield _group([Given.model_validate_json(body) for _, body in of_prompt])


def _group(rows: Sequence[Given]) -> GivenGroup:
    responses = {response.response_id: response for row in rows for response in row.responses}
    judgments = tuple(judgment for row in rows for judgment in row.judgments)
    return GivenGroup(rows[0].prompt, tuple(responses.values()), judgments)
