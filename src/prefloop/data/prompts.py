"""Prompt sets, and which part of one a round takes."""

from collections.abc import Iterable, Sequence

import numpy as np

from prefloop.data.given import Given
from prefloop.errors import DataError
from prefloop.records import Prompt, seed_for


def unique_prompts(rows: Iterable[Given]) -> list[Prompt]:
    """The prompts of some rows, the first of equal ones."""
    prompts: dict[str, Prompt] = {}
    for given in rows:
        prompts.setdefault(given.prompt.prompt_id, given.prompt)
    return list(prompts.values())


def prompts_of_turn(prompts: Sequence[Prompt], count: int | None, turn: int, seed: int) -> list[Prompt]:
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
        return list(prompts)
    if count > len(prompts):
        raise DataError(
            f"prompts.count is {count}, but the set has {len(prompts)} prompts. Lower the count or add prompts."
        )
    turns_of_shuffle = len(prompts) // count
    shuffle, part = divmod(turn, turns_of_shuffle)
    order = np.random.Generator(np.random.Philox(seed_for(seed, "shuffle", shuffle))).permutation(len(prompts))
    return [prompts[index] for index in order[part * count : (part + 1) * count]]
