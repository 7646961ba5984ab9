"""alpha-DPO and beta-DPO: running moments, drawn pairs, and what adapts to them."""

import pytest
import torch
from torch import Tensor

from prefloop.objectives import AveragedGapMoments, GapMoments, adapted_beta, alpha_dpo, beta_dpo, simpo
from prefloop.objectives.batch_adaptive import drawn_pairs, log_selection_weights


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def moved(state: GapMoments, *gaps: float, ema: float = 0.9) -> GapMoments:
    zero = torch.zeros(len(gaps), dtype=torch.float64)
    return state.updated(
        policy_chosen_logps=numbers(*gaps),
        policy_rejected_logps=zero,
        ref_chosen_logps=zero,
        ref_rejected_logps=zero,
        ema=ema,
    )


def test_moments_move_by_a_tenth_towards_a_step_with_its_unbiased_deviation() -> None:
    state = moved(GapMoments.initial({}), 1.0, 3.0)
    assert (state.mean, state.std) == (pytest.approx(0.2), pytest.approx(0.1 * 2**0.5))


def test_moments_start_from_0() -> None:
    assert GapMoments.initial({}) == GapMoments(mean=0.0, std=0.0)
    assert AveragedGapMoments.initial({}) == AveragedGapMoments(mean=0.0, std=0.0)


def test_one_pair_alone_moves_the_mean_and_leaves_the_deviation() -> None:
    state = moved(GapMoments(mean=1.0, std=4.0), 11.0)
    assert (state.mean, state.std) == (pytest.approx(2.0), pytest.approx(4.0))


def test_alpha_dpo_starts_as_simpo_where_all_gaps_are_0() -> None:
    """Mean and deviation are 0 too, and 0/0 is not a loss."""
    chosen, rejected, lengths = numbers(-8.0, -9.0), numbers(-12.0, -3.0), numbers(4.0, 6.0)
    state = AveragedGapMoments.initial({}).updated(
        policy_chosen_logps=chosen,
        policy_rejected_logps=rejected,
        ref_chosen_logps=chosen,
        ref_rejected_logps=rejected,
        chosen_lengths=lengths,
        rejected_lengths=lengths,
        ema=0.9,
    )
    found = alpha_dpo(chosen, rejected, chosen, rejected, lengths, lengths, state, beta=2.0, gamma_beta_ratio=0.5)
    assert found.tolist() == pytest.approx(simpo(chosen, rejected, lengths, lengths, beta=2.0, gamma=1.0).tolist())


def test_alpha_dpo_asks_more_of_pairs_that_are_ahead() -> None:
    """Gaps of 2 and 0 at a mean of 1 and a deviation of 2: offsets of g0 +- alpha / 2."""
    chosen, zero, one = numbers(2.0, 0.0), numbers(0.0, 0.0), numbers(1.0, 1.0)
    state = AveragedGapMoments(mean=1.0, std=2.0)
    found = alpha_dpo(chosen, zero, zero, zero, one, one, state, beta=1.0, gamma_beta_ratio=0.3, alpha=0.4)
    expected = simpo(chosen - numbers(0.2, -0.2), zero, one, one, beta=1.0, gamma=0.3)
    assert found.tolist() == pytest.approx(expected.tolist())


def test_beta_grows_with_the_drawn_pairs_gaps_and_has_a_floor() -> None:
    gaps, drawn = numbers(5.0, 1.0, -90.0), torch.tensor([True, True, False])
    state = GapMoments(mean=1.0, std=1.0)
    assert adapted_beta(gaps, drawn, state, beta=0.1, a=0.5, min_beta=1e-3).item() == pytest.approx(0.2)
    assert adapted_beta(gaps, ~drawn, state, beta=0.1, a=0.5, min_beta=1e-3).item() == 1e-3


@pytest.mark.parametrize(("pairs", "kept"), [(1, 1), (2, 1), (3, 2), (4, 3), (5, 4), (10, 8)])
def test_a_fifth_of_the_pairs_is_dropped_and_the_mean_is_over_the_others(pairs: int, kept: int) -> None:
    zero = torch.zeros(pairs, dtype=torch.float64)
    uniforms = torch.rand(pairs, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    losses = beta_dpo(zero, zero, zero, zero, uniforms, GapMoments.initial({}))
    assert int((losses > 0).sum()) == kept
    assert losses.mean().item() == pytest.approx(0.6931471805599453)


def test_pairs_are_drawn_in_proportion_to_their_weights() -> None:
    """One of three, 20,000 times, with chances 0.6, 0.3, 0.1: four standard errors are 0.014."""
    weights = numbers(0.6, 0.3, 0.1)
    uniforms = torch.rand(20_000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = torch.stack([drawn_pairs(weights.log(), row, 0.6) for row in uniforms]).double()
    assert drawn.sum(1).eq(1).all()
    torch.testing.assert_close(drawn.mean(0), weights, rtol=0, atol=0.014)


def test_pairs_so_far_off_that_their_weight_underflows_are_still_ordered() -> None:
    log_weights = log_selection_weights(numbers(0.0, 90.0, 80.0), GapMoments(mean=0.0, std=1.0))
    assert log_weights.exp().tolist() == [1.0, 0.0, 0.0]
    assert drawn_pairs(log_weights, numbers(0.5, 0.5, 0.5), 0.3).tolist() == [True, False, True]


def test_no_gradient_flows_through_what_adapts() -> None:
    chosen = numbers(1.0, 2.0).requires_grad_()
    zero = numbers(0.0, 0.0)
    state = GapMoments(mean=0.5, std=1.0)
    beta_dpo(chosen, zero, zero, zero, numbers(0.5, 0.5), state, beta=0.1, a=0.6, drop=0.0).sum().backward()
    assert chosen.grad is not None
    expected = [-0.16 * torch.sigmoid(numbers(-0.16 * gap)).item() for gap in (1.0, 2.0)]
    assert chosen.grad.tolist() == pytest.approx(expected)
