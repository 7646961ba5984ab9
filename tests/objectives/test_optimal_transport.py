"""AOT: what ranks are of, and whose loss is whose."""

import torch
from torch import Tensor

from prefloop.objectives import aot, aot_unpaired, conservative_dpo, dpo, find_objective


def drawn(pairs: int = 6) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    chosen, rejected, ref_chosen, ref_rejected = -30 * torch.rand(
        4, pairs, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    return chosen, rejected, ref_chosen, ref_rejected


def test_which_rejected_answer_stands_with_which_chosen_one_makes_no_difference_unpaired() -> None:
    chosen, rejected, ref_chosen, ref_rejected = drawn()
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    mixed = aot_unpaired(chosen, rejected[order], ref_chosen, ref_rejected[order], beta=0.2)
    torch.testing.assert_close(mixed, aot_unpaired(chosen, rejected, ref_chosen, ref_rejected, beta=0.2))


def test_paired_it_does_make_a_difference() -> None:
    chosen, rejected, ref_chosen, ref_rejected = drawn()
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    mixed = aot(chosen, rejected[order], ref_chosen, ref_rejected[order], beta=0.2)
    assert (mixed - aot(chosen, rejected, ref_chosen, ref_rejected, beta=0.2)).abs().max() > 0.1


def test_where_both_models_order_the_margins_alike_it_is_dpo_pair_by_pair() -> None:
    margins, ref_margins = torch.tensor([3.0, -1.0, 8.0, 0.5]), torch.tensor([1.0, -2.0, 4.0, 0.0])
    zero = torch.zeros(4)
    pair = (margins, zero, ref_margins, zero)
    torch.testing.assert_close(aot(*pair, beta=0.7), dpo(*pair, beta=0.7))


def test_where_chosen_and_rejected_answers_are_ordered_alike_unpaired_is_conservative_dpo() -> None:
    chosen, rejected, zero = torch.tensor([3.0, -1.0, 8.0]), torch.tensor([0.0, -9.0, 2.0]), torch.zeros(3)
    pair = (chosen, rejected, zero, zero)
    torch.testing.assert_close(
        aot_unpaired(*pair, beta=0.7, label_smoothing=0.2), conservative_dpo(*pair, beta=0.7, label_smoothing=0.2)
    )


def test_ranks_of_the_two_models_are_compared_and_losses_stand_at_the_policys_pairs() -> None:
    """Margins 5 and 1 under the policy, 0 and 2 under the reference: ranks differ by 5 - 2 and 1 - 0."""
    margins, ref_margins, zero = torch.tensor([5.0, 1.0]), torch.tensor([0.0, 2.0]), torch.zeros(2)
    expected = dpo(torch.tensor([3.0, 1.0]), zero, zero, zero, beta=1.0)
    torch.testing.assert_close(aot(margins, zero, ref_margins, zero, beta=1.0), expected)


def test_pairs_with_equal_margins_rank_in_the_order_they_came_in() -> None:
    """Forty of them: torch sorts a few stably in any case."""
    zero, ref_margins = torch.zeros(40), torch.linspace(-4.0, 4.0, 40)
    found = aot(zero, zero, ref_margins, zero, beta=0.5)
    torch.testing.assert_close(found, dpo(zero, zero, ref_margins, zero, beta=0.5))


def test_labels_cannot_be_softened_pair_by_pair() -> None:
    reason = find_objective("aot", "here").not_softened
    assert reason is not None
    assert "use label_smoothing" in reason
