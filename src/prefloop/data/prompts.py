"""Prompt sets, and which part of one a round takes."""

import numpy as np

from prefloop.data.source import DataSource, messages_of, usable
from prefloop.errors import DataError
from prefloop.records import Prompt, seed_for


def read_prompts(source: DataSource) -> list[Prompt]:
    """All prompts of a source, the first of equal ones; rows have `prompt` (text or messages) or `messages`.

    Raises:
        DataError: a row is malformed, empty, or ends with an assistant turn; or there is no row at all.
    """
    prompts: dict[str, Prompt] = {}
    for place, row in usable(source):
        key = "prompt" if "prompt" in row else "messages"
        if key not in row:
            raise DataError(f"{place}: has the keys {sorted(row)}, expected `prompt` or `messages`.")
        messages = messages_of(row[key], key, place)
        if messages[-1].role == "assistant":
            raise DataError(f"{place}: {key} ends with an assistant turn, expected the turn that is to be answered.")
        answer = row.get("answer")
        prompt = Prompt.of(messages, source=place, answer=None if answer is None else str(answer))
        prompts.setdefault(prompt.prompt_id, prompt)
    if not prompts:
        raise DataError(f'{source.name}: has no prompts. Add one JSON object a line, such as {{"prompt": "..."}}.')
    return list(prompts.values())


def prompts_of_turn(prompts: list[Prompt], count: int | None, turn: int, seed: int) -> list[Prompt]:
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
    if count > len(prompts):
        raise DataError(
            f"prompts.count is {count}, but the set has {len(prompts)} prompts. Lower the count or add prompts."
        )
    turns_of_shuffle = len(prompts) // count
    shuffle, part = divmod(turn, turns_of_shuffle)
    order = np.random.Generator(np.random.Philox(seed_for(seed, "shuffle", shuffle))).permutation(len(prompts))
    return [prompts[index] for index in order[part * count : (part + 1) * count]]
