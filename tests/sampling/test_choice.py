import math

import pytest
import torch
from torch import Tensor

from prefloop.errors import ModelError
from prefloop.sampling import SamplingSettings
from prefloop.sampling.choice import choose, penalised


def settings(temperature: float = 1.0, top_p: float = 1.0, **others: float) -> SamplingSettings:
    return SamplingSettings(temperature=temperature, top_p=top_p, max_new_tokens=1, **others)


def logits_of(*probabilities: float) -> Tensor:
    return torch.tensor([probabilities], dtype=torch.float64).log()


def tokens_at(logits: Tensor, uniforms: list[float], how: SamplingSettings) -> list[int]:
    rows = logits.expand(len(uniforms), -1)
    return choose(rows, torch.tensor(uniforms, dtype=torch.float64), how).tokens.tolist()


def test_the_token_is_the_inverse_of_the_cumulative_distribution_in_id_order() -> None:
    logits = logits_of(0.25, 0.5, 0.125, 0.125)
    assert tokens_at(logits, [0.0, 0.249, 0.251, 0.749, 0.751, 0.999999], settings()) == [0, 0, 1, 1, 2, 3]


def test_a_token_without_probability_is_never_taken() -> None:
    logits = logits_of(0.0, 0.5, 0.0, 0.5, 0.0)
    assert tokens_at(logits, [0.0, 0.5, 1 - 2**-53], settings()) == [1, 3, 3]


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [
        (0.3, {1}),
        (0.45, {1, 3}),
        (0.6, {1, 3}),
        (0.65, {0, 1, 3}),  # 0 and 2 are equally likely: the lower id is kept
        (0.85, {0, 1, 2, 3}),
        (0.99, {0, 1, 2, 3, 4}),
    ],
)
def test_top_p_keeps_the_smallest_set_that_reaches_it(top_p: float, kept: set[int]) -> None:
    logits = logits_of(0.15, 0.4, 0.15, 0.22, 0.08)
    grid = [(n + 0.5) / 1000 for n in range(1000)]
    assert set(tokens_at(logits, grid, settings(top_p=top_p))) == kept


def test_top_p_is_exact_on_a_vocabulary_larger_than_the_first_look() -> None:
    """Of 2,000 tokens of nearly equal probability, 1,800 are needed for 0.9: far more than are looked at first."""
    logits = torch.zeros(1, 2000, dtype=torch.float64)
    logits[0, 1500] = -1e-6
    middles = [(number + 0.5) / 1800 for number in range(1800)]
    assert tokens_at(logits, middles, settings(top_p=0.9)) == [token for token in range(1801) if token != 1500]


@pytest.mark.parametrize(
    ("top_k", "kept"),
    [(1, {1}), (2, {1, 3}), (3, {0, 1, 3}), (4, {0, 1, 2, 3}), (5, {0, 1, 2, 3, 4}), (99, set(range(5)))],
)
def test_top_k_keeps_so_many_and_of_equally_likely_ones_the_lower_id(top_k: int, kept: set[int]) -> None:
    logits = logits_of(0.15, 0.4, 0.15, 0.22, 0.08)
    grid = [(n + 0.5) / 1000 for n in range(1000)]
    assert set(tokens_at(logits, grid, settings(top_k=top_k))) == kept


@pytest.mark.parametrize(("min_p", "kept"), [(0.19, {0, 1, 2, 3, 4}), (0.21, {0, 1, 2, 3}), (0.5, {1, 3}), (1.0, {1})])
def test_min_p_is_a_share_of_the_most_likely_tokens_probability(min_p: float, kept: set[int]) -> None:
    logits = logits_of(0.15, 0.4, 0.15, 0.22, 0.08)
    grid = [(n + 0.5) / 1000 for n in range(1000)]
    assert set(tokens_at(logits, grid, settings(min_p=min_p))) == kept


def test_top_p_counts_among_what_top_k_left() -> None:
    """0.4 of the 0.62 that two tokens have is 0.645: enough for 0.6, which of the whole it would not be."""
    logits = logits_of(0.15, 0.4, 0.15, 0.22, 0.08)
    grid = [(n + 0.5) / 1000 for n in range(1000)]
    assert set(tokens_at(logits, grid, settings(top_p=0.6, top_k=2))) == {1}
    assert set(tokens_at(logits, grid, settings(top_p=0.6))) == {1, 3}


def test_a_repetition_penalty_lowers_what_is_held_whatever_its_sign() -> None:
    logits = torch.tensor([[2.0, -2.0, 2.0, -2.0]])
    held = torch.tensor([[True, True, False, False]])
    assert penalised(logits, held, 4.0).tolist() == [[0.5, -8.0, 2.0, -2.0]]


def test_logps_are_those_of_the_distribution_that_was_sampled_from() -> None:
    logits = logits_of(0.5, 0.3, 0.2)
    uniforms = torch.zeros(1, dtype=torch.float64)
    tempered = math.sqrt(0.5) + math.sqrt(0.3)  # temperature 2, the third token is cut
    choice = choose(logits, uniforms, settings(temperature=2.0, top_p=0.7))
    assert choice.logps.item() == pytest.approx(math.log(math.sqrt(0.5) / tempered), abs=1e-14)


def test_temperature_zero_takes_the_lowest_id_of_the_most_likely_with_certainty() -> None:
    choice = choose(logits_of(0.2, 0.4, 0.4), torch.tensor([0.99], dtype=torch.float64), settings(temperature=0.0))
    assert (choice.tokens.item(), choice.logps.item()) == (1, 0.0)


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(37, 300, generator=generator)
    uniforms = torch.rand(37, generator=generator, dtype=torch.float64)
    for how in (settings(), settings(0.7, 0.9)):
        together = choose(logits, uniforms, how)
        alone = [choose(logits[row, None], uniforms[row, None], how) for row in range(37)]
        assert torch.equal(together.tokens, torch.cat([choice.tokens for choice in alone]))
        assert torch.equal(together.logps, torch.cat([choice.logps for choice in alone]))


def test_small_probabilities_of_a_large_vocabulary_are_not_lost() -> None:
    """49,152 equal logits: float32 sums would be off by 1e-5 at the end, float64 hits every edge."""
    logits = torch.zeros(1, 49_152)
    ids = [0, 1, 30_000, 49_150, 49_151]
    assert tokens_at(logits, [(token + 0.5) / 49_152 for token in ids], settings()) == ids


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_broken_logits_are_said(bad: float, temperature: float) -> None:
    logits = torch.tensor([[0.0, bad, 1.0]])
    with pytest.raises(ModelError, match="the policy gives NaN or infinite logits"):
        choose(logits, torch.zeros(1, dtype=torch.float64), settings(temperature))
