"""Checks between rows. What they remember lies on disk, so that memory stays flat whatever the data set's length."""

from collections.abc import Iterable, Iterator
from hashlib import blake2b

from prefloop.data.checks import preferred_pairs
from prefloop.data.given import Given
from prefloop.data.problems import Problem
from prefloop.data.temporary import temporary_database


class Seen:
    """What the rows so far said, by digests of 16 bytes: where a row, an id or a preference stood first.

    Rows that are refused must not be shown to it, so that no good row is called the duplicate of one that is not used.
    """

    def __init__(self) -> None:
        self._database = temporary_database()
        self._database.execute("CREATE TABLE seen (key BLOB PRIMARY KEY, says BLOB, place TEXT) WITHOUT ROWID")
        self._database.execute("CREATE TABLE prompts (key BLOB PRIMARY KEY, number INTEGER) WITHOUT ROWID")

    def __call__(self, given: Given) -> Iterator[Problem]:
        """The problems of a row with those before it; the row is remembered."""
        place, prompt = given.prompt.source, given.prompt.prompt_id
        content = _content(given)
        if given.row_id is not None and (earlier := self._earlier(_key("id", given.row_id), content, place)):
            says, where = earlier
            code = "duplicate_id" if says == content else "conflicting_id"
            yield Problem(code, f"id {given.row_id} stands at {where}")
        if earlier := self._earlier(_key("row", content.hex()), b"", place):
            yield Problem("duplicate_row", f"the same as {earlier[1]}")
        for key, says, code in _verdicts(given, prompt):
            if (earlier := self._earlier(key, says, place)) and earlier[0] != says:
                yield Problem(code, f"the opposite of {earlier[1]}")

    def count_prompt(self, prompt_id: str) -> int:
        """How often a prompt has come, this time included."""
        found = self._database.execute(
            "INSERT INTO prompts VALUES (?, 1) ON CONFLICT DO UPDATE SET number = number + 1 RETURNING number",
            (_key("prompt", prompt_id),),
        )
        (number,) = found.fetchone()
        return int(number)

    def close(self) -> None:
        """Gives the disk space back."""
        self._database.close()

    def _earlier(self, key: bytes, says: bytes, place: str) -> tuple[bytes, str] | None:
        """What stands under a key, and where; where there is nothing yet this row is entered."""
        entered = self._database.execute("INSERT OR IGNORE INTO seen VALUES (?, ?, ?)", (key, says, place))
        if entered.rowcount:
            return None
        says_then, where = self._database.execute("SELECT says, place FROM seen WHERE key = ?", (key,)).fetchone()
        return bytes(says_then), str(where)


def _content(given: Given) -> bytes:
    """Digest of a prompt, its gold answer, its answers and what is preferred or labelled; scores and votes aside."""
    parts = [given.prompt.prompt_id, repr(given.prompt.answer)]
    parts += sorted(response.response_id for response in given.responses)
    parts += sorted({f"{better}>{worse}" for better, worse, _prob in preferred_pairs(given)})
    parts += sorted({f"{subject}:{value}" for subject, value in _labels(given)})
    return _key(*parts)


def _verdicts(given: Given, prompt: str) -> Iterator[tuple[bytes, bytes, str]]:
    """What a row says that another could deny: key, verdict, and the code of a denial; each key once."""
    said: dict[bytes, tuple[bytes, str]] = {}
    for better, worse, _prob in preferred_pairs(given):
        said[_key("pair", prompt, *sorted((better, worse)))] = (better.encode(), "contradictory_pair")
    for subject, value in _labels(given):
        said[_key("label", prompt, subject)] = (str(value).encode(), "contradictory_label")
    return ((key, says, code) for key, (says, code) in said.items())


def _labels(given: Given) -> Iterable[tuple[str, float]]:
    for judgment in given.judgments:
        if judgment.kind == "label":
            for subject, value in zip(judgment.subjects, judgment.values, strict=False):
                if value is not None:
                    yield subject, value


def _key(*parts: str) -> bytes:
    return blake2b("\x1f".join(parts).encode(errors="surrogatepass"), digest_size=16).digest()
