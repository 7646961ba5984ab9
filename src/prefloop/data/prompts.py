"""Prompt sets, and which part of one a round takes."""

from collections.abc import Iterable, Sequence

import numpy as np

from prefloop.data.given import Given
from prefloop.data.temporary import temporary_database
from prefloop.errors import DataError
from prefloop.records import Indexed, Prompt, seed_for


class UniquePrompts(Indexed[Prompt]):
    """The prompts of some rows, the first of equal ones, in a temporary database."""

    def __init__(self, rows: Iterable[Given]) -> None:
        self._database = temporary_database()
        self._database.execute("CREATE TABLE prompts (number INTEGER PRIMARY KEY, prompt_id TEXT UNIQUE, body TEXT)")
        for given in rows:
            self._database.execute(
                "INSERT OR IGNORE INTO prompts (prompt_id, body) VALUES (?, ?)",
                (given.prompt.prompt_id, given.prompt.model_dump_json(exclude_defaults=True)),
            )
        (self._length,) = self._database.execute("SELECT COUNT(*) FROM prompts").fetchone()

    def __len__(self) -> int:
        return self._length

    def at(self, index: int) -> Prompt:
        """A prompt, read from the database."""
        number = range(len(self))[index] + 1
        (body,) = self._database.execute("SELECT body FROM prompts WHERE number = ?", (number,)).fetchone()
        return Prompt.model_validate_json(body)


def prompts_of_turn(prompts: Sequence[Prompt], count: int | None, turn: int, seed: int) -> Sequence[Prompt]:
    """The prompts of one turn: disjoint parts of one shuffle, then of a new shuffle when it is used up.

    Args:
        prompts: the whole set.
        count: prompts a turn; None takes all, in the order of the set.
        turn: how many turns came before.
        seed: of the shuffles.

    Raises:
        DataError: there are fewer prompts than one turn takes.
    """
    if count is None:
        return prompts
    return [prompts[index] for index in chosen_at_turn(len(prompts), count, turn, seed, "prompts.count")]


def chosen_at_turn(size: int, count: int, turn: int, seed: int, where: str) -> list[int]:
    """Which of a set's prompts are those of one turn, by their number in it.

    Args:
        size: prompts of the set.
        count: prompts a turn.
        turn: how many turns came before.
        seed: of the shuffles.
        where: the setting that says the count, for the error.

    Raises:
        DataError: there are fewer prompts than one turn takes.
    """
    if count > size:
        raise DataError(f"{where} is {count}, but the set has {size} prompts. Lower the count or add prompts.")
    shuffle, part = divmod(turn, size // count)
    order = np.random.Generator(np.random.Philox(seed_for(seed, "shuffle", shuffle))).permutation(size)
    return order[part * count : (part + 1) * count].tolist()
