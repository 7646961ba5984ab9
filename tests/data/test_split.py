"""The split by prompt: which side a prompt is on depends on itself and the seed, on nothing else."""

from hypothesis import given
from hypothesis import strategies as st

from prefloop.data import is_for_validation
from prefloop.records import digest

PROMPTS = [digest(number)[:16] for number in range(4000)]


def test_about_the_share_is_kept_apart() -> None:
    """Within four standard errors: sqrt(0.05 * 0.95 / 4000) = 0.0034."""
    kept = sum(is_for_validation(prompt, 0.05, seed=0) for prompt in PROMPTS)
    assert abs(kept / len(PROMPTS) - 0.05) < 4 * 0.0034


def test_a_larger_share_keeps_what_a_smaller_one_kept() -> None:
    small = {prompt for prompt in PROMPTS if is_for_validation(prompt, 0.02, seed=0)}
    large = {prompt for prompt in PROMPTS if is_for_validation(prompt, 0.1, seed=0)}
    assert small < large


@given(st.text(), st.floats(0, 1), st.integers(0, 2**32))
def test_the_side_of_a_prompt_is_a_function_of_prompt_share_and_seed(prompt: str, share: float, seed: int) -> None:
    assert is_for_validation(prompt, share, seed) == is_for_validation(prompt, share, seed)
    assert not is_for_validation(prompt, 0.0, seed)
    assert is_for_validation(prompt, 1.0, seed)


def test_seeds_split_differently() -> None:
    sides = [[is_for_validation(prompt, 0.5, seed) for prompt in PROMPTS] for seed in (0, 1)]
    agreement = sum(one == other for one, other in zip(*sides, strict=True)) / len(PROMPTS)
    assert abs(agreement - 0.5) < 0.05
