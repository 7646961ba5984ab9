"""Objectives of the preference game: DNO, SPPO, INPO and Nash-MD."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from prefloop.objectives import (
    conservative_dpo,
    dno,
    dpo,
    inpo,
    inpo_win_rates,
    ipo,
    nash_md,
    nash_md_per_token,
    sppo,
    sppo_hard,
    sppo_pair,
)
from prefloop.worlds import minimise

NUMBER = st.floats(-50, 0)
PROBABILITY = st.floats(0, 1)


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def drawn(count: int, seed: int, pairs: int = 6) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [-40 * torch.rand(pairs, generator=generator, dtype=torch.float64) for _ in range(count)]


def win_rates(seed: int, pairs: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    chosen, rejected = torch.rand(2, pairs, generator=generator, dtype=torch.float64)
    return chosen, rejected


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.fixture
def game() -> tuple[Tensor, Tensor]:
    """Four answers whose preferences are no Bradley-Terry model, and a policy over them: (preference, log pi_t)."""
    generator = torch.Generator().manual_seed(3)
    strength = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    return (strength - strength.T).sigmoid(), torch.randn(4, generator=generator, dtype=torch.float64).log_softmax(0)


def every_pair(answers: int) -> tuple[Tensor, Tensor]:
    chosen, rejected = (1 - torch.eye(answers)).nonzero(as_tuple=True)
    return chosen, rejected


# ---------------------------------------------------------------------------------------------------------------- DNO


@pytest.mark.parametrize("seed", range(3))
def test_dno_of_a_sure_label_is_dpo(seed: int) -> None:
    pair = drawn(4, seed)
    sure = dno(*pair, column(*[1.0] * 6), column(*[0.0] * 6), eta=0.3, reward_scale=1e3)
    close(sure, dpo(*pair, beta=0.3))


@pytest.mark.parametrize("seed", range(3))
def test_dno_is_conservative_dpo_with_a_smoothing_of_its_own_for_each_pair(seed: int) -> None:
    pair, (chosen, rejected) = drawn(4, seed), win_rates(seed)
    better, worse = torch.maximum(chosen, rejected), torch.minimum(chosen, rejected)
    found = dno(*pair, better, worse, eta=0.3, reward_scale=2.0)
    for row in range(6):
        smoothing = (-2.0 * (better[row] - worse[row])).sigmoid().item()
        one = [value[row : row + 1] for value in pair]
        close(found[row : row + 1], conservative_dpo(*one, beta=0.3, label_smoothing=smoothing))


@pytest.mark.parametrize("eta", [0.1, 1.0])
def test_dno_is_least_where_the_gap_is_the_target_and_there_it_is_the_entropy(eta: float) -> None:
    chosen, rejected = column(0.9, 0.3), column(0.2, 0.6)
    target = 3.0 * (chosen - rejected)
    policy = (target / eta).requires_grad_()
    zero = torch.zeros_like(target)
    losses = dno(policy, zero, zero, zero, chosen, rejected, eta=eta, reward_scale=3.0)
    (grad,) = torch.autograd.grad(losses.sum(), [policy])
    close(grad, zero)
    close(losses, torch.distributions.Bernoulli(target.sigmoid()).entropy())


@pytest.mark.parametrize(
    ("objective", "hyper"), [("dno", {"eta": 0.3}), ("sppo", {"eta": 7.0}), ("inpo", {"eta": 0.4})]
)
def test_exchanging_the_answers_with_their_win_rates_changes_nothing(objective: str, hyper: dict[str, float]) -> None:
    (w, r, ref_w, ref_r, prev_w, prev_r), (win_w, win_r) = drawn(6, 5), win_rates(5)
    match objective:
        case "dno":
            one, other = dno(w, r, ref_w, ref_r, win_w, win_r, **hyper), dno(r, w, ref_r, ref_w, win_r, win_w, **hyper)
        case "sppo":
            one, other = (
                sppo(w, r, ref_w, ref_r, win_w, win_r, **hyper),
                sppo(r, w, ref_r, ref_w, win_r, win_w, **hyper),
            )
        case _:
            one = inpo_win_rates(w, r, ref_w, ref_r, prev_w, prev_r, win_w, win_r, **hyper)
            other = inpo_win_rates(r, w, ref_r, ref_w, prev_r, prev_w, win_r, win_w, **hyper)
    close(one, other)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_the_optimum_of_dno_is_one_step_of_soft_policy_iteration(game: tuple[Tensor, Tensor], eta: float) -> None:
    """And that step beats pi_t by half of one and more: 1/2 + eta_page * KL, where this eta is 1 over the page's."""
    preference, start = game
    win = preference @ start.exp()
    chosen, rejected = every_pair(4)

    def loss(theta: Tensor) -> Tensor:
        policy = theta.log_softmax(0)
        pair = (policy[chosen], policy[rejected], start[chosen], start[rejected])
        return dno(*pair, win[chosen], win[rejected], eta=eta, reward_scale=1.0).sum()

    found = minimise(loss, start=torch.zeros(4, dtype=torch.float64)).log_softmax(0)
    torch.testing.assert_close(found, (start + win / eta).log_softmax(0), rtol=0, atol=1e-5)
    beats = (found.exp() @ preference @ start.exp()).item()
    assert beats >= 0.5 + eta * (found.exp() * (found - start)).sum().item() - 1e-6


# --------------------------------------------------------------------------------------------------------------- SPPO


def test_sppo_is_zero_at_its_targets_and_learns_from_each_side_alone() -> None:
    win_w, win_r = column(0.8, 0.6), column(0.3, 0.1)
    ref_w, ref_r = column(-3, -9), column(-4, -1)
    at_target = [ref_w + 5 * (win_w - 0.5), ref_r + 5 * (win_r - 0.5)]
    close(sppo(*at_target, ref_w, ref_r, win_w, win_r, eta=5.0), torch.zeros(2, dtype=torch.float64))
    moved = at_target[0] + column(0.7, -0.2)
    moved.requires_grad_()
    (grad,) = torch.autograd.grad(sppo(moved, ref_r, ref_w, ref_r, win_w, win_r, eta=5.0).sum(), [moved])
    close(grad, column(0.7, -0.2))


@pytest.mark.parametrize(("win", "direction"), [(0.7, -1), (0.5, 0), (0.4, 1)])
def test_at_the_reference_sppo_pushes_an_answer_up_exactly_if_it_wins_more_than_it_loses(
    win: float, direction: int
) -> None:
    policy = column(-5).requires_grad_()
    losses = sppo(policy, column(-6), column(-5), column(-6), column(win), column(0.2), eta=10.0)
    (grad,) = torch.autograd.grad(losses.sum(), [policy])
    assert grad.sign().item() == direction


@settings(max_examples=30, deadline=None)
@given(st.tuples(NUMBER, NUMBER, NUMBER, NUMBER), st.floats(0.5, 100))
def test_sppo_of_a_sure_pair_is_the_hard_form(pair: tuple[float, float, float, float], eta: float) -> None:
    values = [column(value) for value in pair]
    one, zero = column(1), column(0)
    hard = sppo_pair(*values, one, eta=eta)
    close(hard, sppo(*values, one, zero, eta=eta))
    close(hard, sppo_hard(*values, beta=1 / eta, scale="half"))
    close(sppo_pair(*values, one, eta=eta, sides="sum"), sppo_hard(*values, beta=1 / eta, scale="sum"))


@settings(max_examples=30, deadline=None)
@given(st.tuples(NUMBER, NUMBER, NUMBER, NUMBER), PROBABILITY, st.floats(0, 100))
def test_sppo_pair_may_be_read_from_either_side(
    pair: tuple[float, float, float, float], prob: float, eta: float
) -> None:
    w, r, ref_w, ref_r = (column(value) for value in pair)
    one = sppo_pair(w, r, ref_w, ref_r, column(prob), eta=eta)
    close(one, sppo_pair(r, w, ref_r, ref_w, 1 - column(prob), eta=eta))


def test_without_a_step_sppo_pulls_back_to_the_reference() -> None:
    pair, wins = drawn(4, 1), win_rates(1)
    expected = ((pair[0] - pair[2]) ** 2 + (pair[1] - pair[3]) ** 2) / 2
    close(sppo(*pair, *wins, eta=0.0), expected)
    close(sppo_pair(*pair, wins[0], eta=0.0), expected)
    close(sppo_pair(*pair, torch.full_like(wins[0], 0.5), eta=1000.0), expected)


@pytest.mark.parametrize("eta", [0.02, 0.04])
def test_the_optimum_of_sppo_is_multiplicative_weights_up_to_the_third_power_of_the_step(
    game: tuple[Tensor, Tensor], eta: float
) -> None:
    """Answers drawn from pi_t, all probabilities known: the error shrinks with eta^3, and is not 0."""
    preference, start = game
    win = preference @ start.exp()

    def error(eta: float) -> float:
        def loss(theta: Tensor) -> Tensor:
            policy = theta.log_softmax(0)
            return (start.exp() * sppo(policy, policy, start, start, win, win, eta=eta)).sum()

        found = minimise(loss, start=start.clone()).log_softmax(0)
        return (found - (start + eta * win).log_softmax(0)).abs().max().item()

    assert error(eta) < 10 * eta**3
    assert error(4 * eta) / error(eta) == pytest.approx(64, rel=0.5)


# --------------------------------------------------------------------------------------------------------------- INPO


@pytest.mark.parametrize("seed", range(3))
def test_inpo_is_ipo_where_the_base_model_has_all_the_weight_or_is_the_previous_policy(seed: int) -> None:
    w, r, ref_w, ref_r, prev_w, prev_r = drawn(6, seed)
    close(inpo(w, r, ref_w, ref_r, prev_w, prev_r, eta=0.3, tau=0.3), ipo(w, r, ref_w, ref_r, beta=0.3))
    close(inpo(w, r, ref_w, ref_r, ref_w, ref_r, eta=0.3, tau=0.1), ipo(w, r, ref_w, ref_r, beta=0.3))
    close(inpo(w, r, ref_w, ref_r, prev_w, prev_r, eta=0.3, tau=0.0), ipo(w, r, prev_w, prev_r, beta=0.3))


def test_only_differences_enter_inpo_and_its_gradients_are_opposite() -> None:
    w, r, *others = drawn(6, 2)
    w.requires_grad_(), r.requires_grad_()
    losses = inpo(w, r, *others, eta=0.2, tau=0.05)
    close(inpo(w + 3, r + 3, *others, eta=0.2, tau=0.05), losses)
    up, down = torch.autograd.grad(losses.sum(), [w, r])
    close(up, -down)
    h = w - r - 0.25 * (others[0] - others[1]) - 0.75 * (others[2] - others[3])
    close(up, 2 * (h - 1 / 0.4).detach())


def test_inpo_with_win_rates_half_apart_is_inpo() -> None:
    values = drawn(6, 4)
    half = torch.full((6,), 0.5, dtype=torch.float64)
    close(inpo_win_rates(*values, half + 0.25, half - 0.25, eta=0.3, tau=0.1), inpo(*values, eta=0.3, tau=0.1))


@pytest.mark.parametrize("tau", [0.0, 0.3])
def test_on_own_pairs_with_binary_labels_the_optimum_of_inpo_is_mirror_descent(
    game: tuple[Tensor, Tensor], tau: float
) -> None:
    preference, prev = game
    ref = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64).log()
    chosen, rejected = every_pair(4)
    mass = preference[chosen, rejected] * (prev[chosen] + prev[rejected]).exp()

    def loss(theta: Tensor) -> Tensor:
        policy = theta.log_softmax(0)
        sides = [part for model in (policy, ref, prev) for part in (model[chosen], model[rejected])]
        return (mass * inpo(*sides, eta=0.6, tau=tau)).sum()

    found = minimise(loss, start=torch.zeros(4, dtype=torch.float64)).log_softmax(0)
    win = preference @ prev.exp()
    expected = (win / 0.6 + tau / 0.6 * ref + (1 - tau / 0.6) * prev).log_softmax(0)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


# ------------------------------------------------------------------------------------------------------------ Nash-MD


def test_nash_md_is_the_gradient_of_win_rate_minus_kl(game: tuple[Tensor, Tensor]) -> None:
    """By enumeration over the answers: the surrogate's expected gradient is that of the regularised win rate."""
    preference, ref = game
    opponent = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    win = preference @ opponent
    theta = torch.tensor([0.3, -0.2, 0.5, 0.1], dtype=torch.float64, requires_grad=True)
    policy = theta.log_softmax(0)
    surrogate = (policy.detach().exp() * nash_md(policy, ref, win, beta=0.3)).sum()
    objective = (policy.exp() * (0.3 * (policy - ref) - win)).sum()
    (found,) = torch.autograd.grad(surrogate, [theta], retain_graph=True)
    (expected,) = torch.autograd.grad(objective, [theta])
    close(found, expected)


def test_token_by_token_nash_md_is_another_gradient_on_two_tokens_and_the_same_on_one() -> None:
    """Two tokens of a binary alphabet, the second depending on the first: KL of later tokens is missing."""
    theta = torch.tensor([0.2, 0.7, -0.4], dtype=torch.float64, requires_grad=True)
    ref = torch.tensor([0.0, 0.5, 0.5], dtype=torch.float64)

    def tokens(logits: Tensor) -> Tensor:
        """Log-probabilities of the two tokens of each of the four answers."""
        yes = torch.stack([logits, -logits], 1) / 2
        yes = yes.log_softmax(1)
        return torch.stack([torch.stack([yes[0, a], yes[1 + a, b]]) for a in (0, 1) for b in (0, 1)])

    policy, half = tokens(theta), torch.full((4,), 0.5, dtype=torch.float64)
    chance = policy.detach().sum(1).exp()
    kl = (policy.sum(1).exp() * (policy.sum(1) - tokens(ref).sum(1))).sum()
    whole = (chance * nash_md(policy.sum(1), tokens(ref).sum(1), half, beta=1.0)).sum()
    by_token = (chance * nash_md_per_token(policy, tokens(ref), half, beta=1.0)).sum()
    exact, found, other = (torch.autograd.grad(value, [theta], retain_graph=True)[0] for value in (kl, whole, by_token))
    close(found, exact)
    assert (other - exact).abs().max().item() > 0.01

    one = -torch.rand(5, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    close(
        nash_md_per_token(one, 2 * one, column(0.1, 0.4, 0.5, 0.8, 1.0), beta=0.3),
        nash_md(one[:, 0], 2 * one[:, 0], column(0.1, 0.4, 0.5, 0.8, 1.0), beta=0.3),
    )


def test_the_published_step_of_sppo_has_targets_of_hundreds_of_nats() -> None:
    zero = column(0)
    loss = sppo(zero, zero, zero, zero, column(0.9), column(0.1))
    assert loss.item() == pytest.approx(400.0**2)
    assert math.isfinite(loss.item())
