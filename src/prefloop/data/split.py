"""Which prompts of a data set are kept apart for validation: by prompt, never by row."""

from prefloop.records import seed_for


def is_for_validation(prompt_id: str, share: float, seed: int) -> bool:
    """Whether a prompt belongs to the share that is not trained on.

    It depends on nothing but the prompt and the seed: all rows of a prompt are on one side, and stay there when rows
    are added, removed or put in another order.

    Args:
        prompt_id: of the prompt.
        share: of all prompts, in expectation.
        seed: of the recipe.
    """
    return seed_for(seed, "validation", prompt_id) < share * 2**63
