"""DPO on what two steps do not share, softened by visits."""

import pytest
import torch
from torch import Tensor

from prefloop.objectives import (
    conservative_dpo,
    dpo,
    first_difference,
    ipo,
    mcts_dpo,
    mcts_dpo_ipo,
    mcts_dpo_plain,
    visit_smoothing,
)
from prefloop.worlds import minimise

Rows = list[list[int]]


def padded(rows: Rows) -> tuple[Tensor, Tensor]:
    """Token ids and the mask of what is there."""
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    return ids, torch.arange(width) < torch.tensor([[len(row)] for row in rows])


def tokens(mask: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (-3 * torch.rand(mask.shape, generator=generator, dtype=torch.float64)).masked_fill(~mask, 0.0)


@pytest.mark.parametrize(
    ("chosen", "rejected", "position"),
    [
        ([5, 6, 7], [5, 6, 8], 2),
        ([5, 6, 7], [4, 6, 7], 0),
        ([5, 6], [5, 6, 7], 2),
        ([5, 6, 7, 8], [5], 1),
        ([5, 6, 0], [5, 6], 2),
        ([5, 6], [5, 6], 2),
        ([5, 0], [5, 0], 2),
        ([9], [0], 0),
    ],
)
@pytest.mark.parametrize("beside", [[1], [1, 2, 3, 4, 5]])
def test_the_first_difference_is_found_whatever_stands_beside_it_in_the_batch(
    chosen: list[int], rejected: list[int], position: int, beside: list[int]
) -> None:
    """A token 0 is not padding, and an answer that ends early differs there."""
    (left, left_mask), (right, right_mask) = padded([chosen, beside]), padded([rejected, [2]])
    assert first_difference(left, right, left_mask, right_mask).tolist() == [position, 0]


@pytest.mark.parametrize(
    ("chosen", "rejected", "smoothing"),
    [(9, 0, 0.0), (7, 7, 0.5), (2, 9, 0.5), (0, 0, 0.0), (30, 10, 0.25), (0, 1, 0.5)],
)
def test_visits_say_how_likely_a_label_is_wrong_and_never_more_than_half(
    chosen: float, rejected: float, smoothing: float
) -> None:
    counts = [torch.tensor([float(count)]).double() for count in (chosen, rejected)]
    assert visit_smoothing(*counts).tolist() == pytest.approx([smoothing])


CHOSEN, CHOSEN_MASK = padded([[5, 6, 7, 8], [3, 4]])
REJECTED, REJECTED_MASK = padded([[5, 6, 9], [3, 2]])
IDS = (CHOSEN, REJECTED, CHOSEN_MASK, REJECTED_MASK)


def pair(seed: int = 0) -> list[Tensor]:
    return [tokens(mask, seed + index) for index, mask in enumerate([CHOSEN_MASK, REJECTED_MASK] * 2)]


def test_what_the_answers_share_has_no_gradient_and_its_numbers_do_not_matter() -> None:
    values = pair()
    values[0].requires_grad_(), values[1].requires_grad_()
    visits = torch.tensor([9.0, 3.0]).double(), torch.tensor([2.0, 1.0]).double()
    losses = mcts_dpo(*values, *IDS, *visits)
    up, down = torch.autograd.grad(losses.sum(), values[:2])
    assert (up != 0).tolist() == [[False, False, True, True], [False, True, False, False]]
    assert (down != 0).tolist() == [[False, False, True], [False, True, False]]
    changed = [value.detach().clone() for value in values]
    changed[0][0, :2] -= 7
    assert mcts_dpo(*changed, *IDS, *visits).tolist() == losses.tolist()


def test_answers_that_differ_from_the_start_give_the_losses_of_whole_answers() -> None:
    values = pair(3)
    other = (CHOSEN, REJECTED + 50, CHOSEN_MASK, REJECTED_MASK)
    sums = [value.sum(1) for value in values]
    torch.testing.assert_close(mcts_dpo_plain(*values, *other, beta=0.3), dpo(*sums, beta=0.3))
    torch.testing.assert_close(mcts_dpo_ipo(*values, *other, beta=0.3), ipo(*sums, beta=0.3))
    visits = torch.tensor([30.0, 30.0]).double(), torch.tensor([10.0, 10.0]).double()
    expected = conservative_dpo(*sums, beta=0.3, label_smoothing=0.25)
    torch.testing.assert_close(mcts_dpo(*values, *other, *visits, beta=0.3), expected)


def test_a_loser_that_was_never_visited_gives_the_plain_form_and_equal_visits_pull_to_the_reference() -> None:
    values, one = pair(), torch.ones(2, dtype=torch.float64)
    torch.testing.assert_close(mcts_dpo(*values, *IDS, 9 * one, 0 * one), mcts_dpo_plain(*values, *IDS))
    mirrored = mcts_dpo(values[1], values[0], values[3], values[2], *IDS[1::-1], *IDS[:1:-1], one, one)
    torch.testing.assert_close(mcts_dpo(*values, *IDS, one, one), mirrored)


def test_the_length_power_averages_each_tail_over_its_own_tokens() -> None:
    values = pair()
    ratio_w, ratio_l = values[0] - values[2], values[1] - values[3]
    gaps = torch.stack([ratio_w[0, 2:].mean() - ratio_l[0, 2:].mean(), ratio_w[1, 1] - ratio_l[1, 1]])
    found = mcts_dpo_ipo(*values, *IDS, beta=0.5, length_power=1.0)
    torch.testing.assert_close(found, (gaps - 1) ** 2)


def test_equal_answers_teach_nothing() -> None:
    ids, mask = padded([[5, 6]])
    policy = tokens(mask, 0).requires_grad_()
    losses = mcts_dpo_plain(
        policy, policy, policy.detach(), 2 * policy.detach(), ids, ids, mask, mask, length_power=1.0
    )
    (grad,) = torch.autograd.grad(losses.sum(), [policy])
    assert losses.tolist() == pytest.approx([0.6931471805599453])
    assert grad.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_over_all_pairs_of_a_node_the_optimum_is_the_reference_times_visits(beta: float) -> None:
    """pi_ref * N^(1 / beta): answers of one token each."""
    visits = torch.tensor([12.0, 5.0, 3.0, 1.0], dtype=torch.float64)
    ref = torch.tensor([0.1, 0.4, 0.3, 0.2], dtype=torch.float64).log()
    chosen, rejected = (visits[:, None] > visits).nonzero(as_tuple=True)
    mask = torch.ones(len(chosen), 1, dtype=torch.bool)

    def loss(theta: Tensor) -> Tensor:
        sides = [model[side][:, None] for model in (theta.log_softmax(0), ref) for side in (chosen, rejected)]
        ids = chosen[:, None], rejected[:, None]
        return mcts_dpo(*sides, *ids, mask, mask, visits[chosen], visits[rejected], beta=beta).sum()

    found = minimise(loss, start=torch.zeros(4, dtype=torch.float64)).log_softmax(0)
    torch.testing.assert_close(found, (ref + visits.log() / beta).log_softmax(0), rtol=0, atol=1e-5)
