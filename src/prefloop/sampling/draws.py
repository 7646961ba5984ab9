"""Which answers are to be drawn, and with which random numbers: a function of the recipe alone."""

from collections.abc import Hashable, Iterable, Iterator, Sequence

import numpy as np

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


def parts_of(draws: Sequence[Draw], rows: int) -> Iterator[tuple[Draw, ...]]:
    """Draws of one prompt each, the longest prompts first; parted only if they alone are more than the rows."""
    prompts = together(draws, key=[(draw.prompt_ids, draw.others) for draw in draws])
    prompts.sort(key=lambda of_prompt: -len(of_prompt[0].prompt_ids))
    for of_prompt in prompts:
        for start in range(0, len(of_prompt), rows):
            yield of_prompt[start : start + rows]


def seen_by(draw: Draw, components: int) -> tuple[tuple[int, ...], ...]:
    """The tokens behind which each component of a mixture continues a draw."""
    return (draw.prompt_ids, *(draw.others or (draw.prompt_ids,) * (components - 1)))


def uniforms_of(seed: int, count: int) -> np.ndarray:
    """The random numbers of a draw, one a position, in [0, 1); a longer answer has the same ones first."""
    return np.random.Generator(np.random.Philox(key=seed)).random(count)
