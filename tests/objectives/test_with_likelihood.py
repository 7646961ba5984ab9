"""Reductions of the likelihood, and the terms of RPO and MPO."""

import math

import pytest
import torch

from prefloop.objectives import find_objective, mpo, rpo, sft, unlikelihood

LOGPS = torch.tensor([-2.0, -18.0, -1.0], dtype=torch.float64)
LENGTHS = torch.tensor([1.0, 9.0, 2.0], dtype=torch.float64)
ZERO = torch.zeros(3, dtype=torch.float64)


@pytest.mark.parametrize(
    ("reduction", "mean"),
    [("token_mean", 21 / 12), ("sequence_mean", (2 + 2 + 0.5) / 3), ("sequence_sum", 7.0)],
)
def test_the_mean_over_examples_is_the_named_reduction(reduction: str, mean: float) -> None:
    losses = sft(LOGPS, LENGTHS, LENGTHS.mean(), nll_reduction=reduction)
    assert losses.mean().item() == pytest.approx(mean)


def test_a_token_mean_over_a_step_does_not_depend_on_how_the_step_is_cut() -> None:
    whole = sft(LOGPS, LENGTHS, LENGTHS.mean())
    parts = [sft(LOGPS[cut], LENGTHS[cut], LENGTHS.mean()) for cut in (slice(0, 1), slice(1, 3))]
    assert torch.cat(parts).tolist() == whole.tolist()


def test_unlikelihood_pulls_the_rejected_answer_down_however_unlikely_it_is() -> None:
    for rejected in (-1.0, -10_000.0):
        chosen, worse = (torch.tensor([value], dtype=torch.float64, requires_grad=True) for value in (-2.0, rejected))
        loss = unlikelihood(chosen, worse, alpha=0.3)
        loss.sum().backward()
        assert chosen.grad is not None
        assert worse.grad is not None
        assert (loss.item(), chosen.grad.item(), worse.grad.item()) == pytest.approx((2 + 0.3 * rejected, -1, 0.3))


def test_unlikelihood_without_weight_is_the_sum_that_preferred_ft_learns() -> None:
    found = unlikelihood(LOGPS, LOGPS - 5, alpha=0.0)
    assert found.tolist() == sft(LOGPS, LENGTHS, LENGTHS.mean(), nll_reduction="sequence_sum").tolist()


def test_rpo_holds_the_chosen_answer_up_where_dpo_lets_both_fall() -> None:
    chosen = LOGPS.clone().requires_grad_()
    rpo(chosen, ZERO - 99, LOGPS, ZERO, LENGTHS, LENGTHS.mean(), beta=1.0).sum().backward()
    assert chosen.grad is not None
    assert chosen.grad.tolist() == pytest.approx([-1 / 4] * 3, abs=1e-12)


def test_the_quality_of_mpo_is_bco_on_pairs() -> None:
    bco_pair = find_objective("bco_pair", "here").function
    pair = (LOGPS, LOGPS - 3, LOGPS + 1, LOGPS - 2)
    found = mpo(
        *pair, LENGTHS, LENGTHS.mean(), beta=0.4, preference_weight=0.0, quality_weight=1.0, generation_weight=0.0
    )
    torch.testing.assert_close(found, bco_pair(*pair, beta=0.4), rtol=1e-14, atol=0)


def test_the_shift_is_the_reward_at_which_an_answer_is_neither_good_nor_bad() -> None:
    at_the_shift = (LOGPS + 3, LOGPS + 3, LOGPS, LOGPS)
    found = mpo(
        *at_the_shift,
        LENGTHS,
        LENGTHS.mean(),
        beta=0.1,
        preference_weight=0.0,
        quality_weight=1.0,
        generation_weight=0.0,
        shift=0.3,
    )
    assert found.tolist() == pytest.approx([2 * math.log(2)] * 3)
