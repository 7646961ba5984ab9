"""Which answers are to be drawn, and with which random numbers: a function of the recipe alone."""

from collections.abc import Hashable, Iterable

from prefloop.records import seed_for
from prefloop.sampling.protocol import Draw


def draws_for(
    prompt_id: str,
    prompt_ids: tuple[int, ...],
    *,
    num_samples: int,
    recipe_seed: int,
    step: str,
    round_number: int,
    block: int,
) -> tuple[Draw, ...]:
    """The draws of one prompt; the seed of each names its place in the recipe, never the run or the machine.

    Args:
        prompt_id: The prompt's id.
        prompt_ids: Its tokens with the generation prompt, then the given beginning of the answer.
        num_samples: Answers wanted (K).
        recipe_seed: The recipe's seed.
        step: Name of the sampling step.
        round_number: Round of the loop.
        block: Block within the round.
    """
    return tuple(
        Draw(
            prompt_id=prompt_id,
            index=index,
            seed=seed_for(recipe_seed, step, round_number, block, prompt_id, index),
            prompt_ids=prompt_ids,
        )
        for index in range(num_samples)
    )


def together(draws: Iterable[Draw], key: Iterable[Hashable]) -> list[tuple[Draw, ...]]:
    """Draws of equal key together, in the order in which the keys first appear."""
    of_key: dict[Hashable, list[Draw]] = {}
    for draw, name in zip(draws, key, strict=True):
        of_key.setdefault(name, []).append(draw)
    return [tuple(members) for members in of_key.values()]
