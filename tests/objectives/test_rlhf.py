"""PPO and RLOO: advantages, clipping, and gradients against enumeration."""

import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from prefloop.objectives import (
    KlController,
    adapted_kl_coef,
    clipped_surrogate,
    clipped_value_error,
    generalized_advantages,
    kl_estimate,
    leave_one_out_advantages,
    ppo,
    ppo_adaptive_kl,
    ppo_terms,
    rloo,
    rloo_clipped,
    rloo_terms,
    token_rewards,
    whitened,
)

LENGTHS = (4, 1, 3)
MASK = torch.arange(4) < torch.tensor(LENGTHS)[:, None]


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def tokens(seed: int, low: float = -3.0, high: float = 0.0) -> Tensor:
    """Random values of tokens, and rubbish where there are none."""
    generator = torch.Generator().manual_seed(seed)
    values = low + (high - low) * torch.rand(3, 4, generator=generator, dtype=torch.float64)
    return values.masked_fill(~MASK, 99.0)


SCORES = column(0.7, -1.0, 0.3)
OPTIONS: dict[str, Any] = {
    "kl_coef": 0.05,
    "kl_estimator": "k1",
    "gamma": 1.0,
    "lam": 0.95,
    "cliprange": 0.2,
    "cliprange_value": 0.2,
    "whiten_advantages": True,
}


# --------------------------------------------------------------------------------------------- rewards and advantages


def test_both_estimators_have_the_mean_of_the_kl_and_k3_is_never_negative() -> None:
    policy, ref = (torch.randn(6, generator=torch.Generator().manual_seed(s)).double().log_softmax(0) for s in (0, 1))
    kl = (policy.exp() * (policy - ref)).sum().item()
    for estimator in ("k1", "k3"):
        assert (policy.exp() * kl_estimate(policy, ref, estimator=estimator)).sum().item() == pytest.approx(kl)
    assert kl_estimate(policy, ref, estimator="k3").min().item() >= 0
    assert kl_estimate(policy, ref, estimator="k1").min().item() < 0


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_the_rewards_of_an_answer_sum_to_its_score_minus_its_kl(estimator: Any) -> None:
    old, ref = tokens(0), tokens(1)
    found = token_rewards(old, ref, SCORES, MASK, kl_coef=0.3, kl_estimator=estimator)
    kl = kl_estimate(old, ref, estimator=estimator).masked_fill(~MASK, 0.0)
    torch.testing.assert_close(found.sum(1), SCORES - 0.3 * kl.sum(1))
    without = token_rewards(old, ref, 0 * SCORES, MASK, kl_coef=0.3, kl_estimator=estimator)
    assert (found != without).nonzero().tolist() == [[0, 3], [1, 0], [2, 2]]
    assert found[~MASK].tolist() == [0.0] * 4


def test_advantages_are_what_was_paid_minus_the_value_at_one_end_and_one_step_at_the_other() -> None:
    rewards, values = tokens(2), tokens(3, -1, 1)
    whole = generalized_advantages(rewards, values, MASK, gamma=1.0, lam=1.0)
    step = generalized_advantages(rewards, values, MASK, gamma=0.9, lam=0.0)
    for row, length in enumerate(LENGTHS):
        for t in range(length):
            value, following = values[row, t], values[row, t + 1] if t + 1 < length else 0.0
            assert whole.advantages[row, t].item() == pytest.approx((rewards[row, t:length].sum() - value).item())
            assert whole.returns[row, t].item() == pytest.approx(rewards[row, t:length].sum().item())
            assert step.advantages[row, t].item() == pytest.approx(rewards[row, t] + 0.9 * following - value)
    assert whole.advantages[~MASK].tolist() == [0.0] * 4


def test_between_the_ends_advantages_are_a_discounted_sum_of_one_step_errors() -> None:
    rewards, values = tokens(2), tokens(3, -1, 1)
    found = generalized_advantages(rewards, values, MASK, gamma=0.9, lam=0.8).advantages
    steps = generalized_advantages(rewards, values, MASK, gamma=0.9, lam=0.0).advantages
    expected = sum((0.9 * 0.8) ** k * steps[0, 1 + k].item() for k in range(3))
    assert found[0, 1].item() == pytest.approx(expected)


def test_whitened_advantages_have_mean_zero_and_variance_one_over_counted_tokens() -> None:
    found = whitened(tokens(4), MASK)
    assert found[MASK].mean().item() == pytest.approx(0, abs=1e-12)
    assert found[MASK].var().item() == pytest.approx(1, rel=1e-6)
    assert found[~MASK].tolist() == [0.0] * 4


def test_two_tokens_can_be_whitened() -> None:
    """1 and 3: mean 2, unbiased variance 2."""
    found = whitened(torch.tensor([[1.0, 3.0]], dtype=torch.float64), torch.ones(1, 2, dtype=torch.bool))
    expected = torch.tensor([[-1.0, 1.0]], dtype=torch.float64) / (2 + 1e-8) ** 0.5
    torch.testing.assert_close(found, expected, rtol=1e-15, atol=0)


def test_one_token_cannot_be_whitened() -> None:
    one = torch.ones(1, 1)
    with pytest.raises(
        ValueError,
        match="whitening needs two tokens at least; whiten_advantages=False and whiten_rewards=False take one",
    ):
        whitened(one, one > 0)


@pytest.mark.parametrize(("kl", "factor"), [(6.0, 1.0), (60.0, 1.002), (0.0, 0.998), (6.6, 1.001)])
def test_the_kl_coefficient_follows_its_target_by_a_fifth_at_most(kl: float, factor: float) -> None:
    assert adapted_kl_coef(0.15, kl=kl, target=6.0, num_steps=100, horizon=10_000) == pytest.approx(0.15 * factor)


# ----------------------------------------------------------------------------------------------------------- clipping


@pytest.mark.parametrize(
    ("advantage", "ratio", "loss", "learns"),
    [
        (2.0, 1.1, -2.2, True),
        (2.0, 1.3, -2.4, False),
        (2.0, 0.5, -1.0, True),
        (-2.0, 0.9, 1.8, True),
        (-2.0, 0.7, 1.6, False),
        (-2.0, 3.0, 6.0, True),
        (2.0, 1.0, -2.0, True),
        (0.0, 3.0, 0.0, False),
    ],
)
def test_only_the_side_that_gains_is_clipped(advantage: float, ratio: float, loss: float, learns: bool) -> None:
    log_ratio = column(math.log(ratio)).requires_grad_()
    found = clipped_surrogate(log_ratio, column(advantage), cliprange=0.2)
    (grad,) = torch.autograd.grad(found.sum(), [log_ratio])
    assert found.item() == pytest.approx(loss)
    assert grad.item() == pytest.approx(-advantage * ratio if learns else 0.0)


@pytest.mark.parametrize("seed", range(3))
def test_the_surrogate_is_the_formula_of_the_paper(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    log_ratios, advantages = torch.randn(2, 50, generator=generator, dtype=torch.float64)
    q = log_ratios.exp()
    expected = torch.maximum(-advantages * q, -advantages * q.clamp(0.8, 1.2))
    torch.testing.assert_close(clipped_surrogate(log_ratios, advantages, cliprange=0.2), expected)


def test_a_ratio_beyond_all_numbers_that_is_clipped_has_no_gradient() -> None:
    log_ratio = torch.tensor([5000.0], requires_grad=True)
    (grad,) = torch.autograd.grad(clipped_surrogate(log_ratio, torch.ones(1), cliprange=0.2).sum(), [log_ratio])
    assert grad.item() == 0


@pytest.mark.parametrize(
    ("value", "old", "target", "error", "slope"),
    [
        (1.0, 1.0, 3.0, 2.0, -2.0),
        (1.5, 1.0, 3.0, 0.5 * 1.8**2, 0.0),
        (0.5, 1.0, 3.0, 0.5 * 2.5**2, -2.5),
        (4.0, 3.9, 3.0, 0.5, 1.0),
    ],
)
def test_a_value_that_moved_towards_its_target_is_held_and_one_that_moved_away_is_not(
    value: float, old: float, target: float, error: float, slope: float
) -> None:
    values = column(value)[:, None].requires_grad_()
    found = clipped_value_error(values, column(old)[:, None], column(target)[:, None], cliprange=0.2)
    (grad,) = torch.autograd.grad(found.sum(), [values])
    assert found.item() == pytest.approx(error)
    assert grad.item() == pytest.approx(slope)


# ---------------------------------------------------------------------------------------------------------------- PPO


def inputs() -> list[Tensor]:
    old = tokens(0)
    return [old + tokens(5, -0.3, 0.3), old, tokens(1), tokens(6, -1, 1), tokens(7, -1, 1), SCORES, MASK]


def test_the_mean_of_ppo_over_answers_is_the_mean_over_tokens() -> None:
    terms = ppo_terms(*inputs(), **OPTIONS)
    losses = ppo(*inputs(), **OPTIONS, vf_coef=0.3)
    expected = terms.policy_losses[MASK].mean() + 0.3 * terms.value_losses[MASK].mean()
    assert losses.mean().item() == pytest.approx(expected.item(), rel=1e-12)


def test_what_stands_behind_an_answer_changes_nothing() -> None:
    real = [value.is_floating_point() and value.shape == MASK.shape for value in inputs()]
    other = [
        value.masked_fill(~MASK, -7.0) if is_real else value for value, is_real in zip(inputs(), real, strict=True)
    ]
    assert ppo(*other, **OPTIONS).tolist() == ppo(*inputs(), **OPTIONS).tolist()
    wider = [torch.cat([value, value[:, :2]], 1) if value.ndim == 2 else value for value in inputs()]
    wider[6] = torch.cat([MASK, torch.zeros_like(MASK[:, :2])], 1)
    torch.testing.assert_close(ppo(*wider, **OPTIONS), ppo(*inputs(), **OPTIONS), rtol=1e-13, atol=0)


def test_where_nothing_has_moved_the_gradient_is_minus_the_advantage_over_the_tokens() -> None:
    given = inputs()
    given[0] = given[1].clone().requires_grad_()
    terms = ppo_terms(*given, **OPTIONS)
    (grad,) = torch.autograd.grad(ppo(*given, **OPTIONS).mean(), [given[0]])
    torch.testing.assert_close(grad, -terms.used_advantages / 8, rtol=1e-12, atol=1e-15)


def test_tokens_that_are_not_counted_have_no_loss() -> None:
    terms = ppo_terms(*inputs(), **OPTIONS)
    assert terms.policy_losses[~MASK].tolist() == [0.0] * 4
    assert terms.value_losses[~MASK].tolist() == [0.0] * 4


def test_rewards_advantages_and_returns_are_constants() -> None:
    given = [
        value.requires_grad_() if value.is_floating_point() and index in {0, 3} else value
        for index, value in enumerate(inputs())
    ]
    terms = ppo_terms(*given, **OPTIONS)
    constants = (terms.token_rewards, terms.advantages, terms.returns, terms.used_advantages)
    assert not any(value.requires_grad for value in constants)


@pytest.mark.long
@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_updates_of_ppo_on_a_bandit_end_at_the_reference_tilted_by_the_reward(beta: float) -> None:
    """pi_ref exp(r / beta) / Z within a total variation of 1e-3; every arm counts as often as the policy plays it."""
    generator = torch.Generator().manual_seed(0)
    reward = torch.randn(5, generator=generator, dtype=torch.float64)
    ref = torch.randn(5, generator=generator, dtype=torch.float64).log_softmax(0)
    theta = ref.clone().requires_grad_()
    zero, mask = torch.zeros(5, 1, dtype=torch.float64), torch.ones(5, 1, dtype=torch.bool)
    options = {**OPTIONS, "kl_coef": beta, "lam": 1.0, "whiten_advantages": False, "vf_coef": 0.0}
    for _ in range(1500):
        policy = theta.log_softmax(0)
        old = policy.detach()
        losses = ppo(policy[:, None], old[:, None], ref[:, None], zero, zero, reward, mask, **options)
        (gradient,) = torch.autograd.grad((old.exp() * losses).sum(), theta)
        theta = (theta - gradient / beta).detach().requires_grad_()

    expected = (ref + reward / beta).softmax(0)
    assert (theta.softmax(0) - expected).abs().sum().item() / 2 < 1e-3


def sequences(vocab: int, longest: int) -> list[tuple[int, ...]]:
    """All answers of at most so many tokens; token 0 ends one, and the longest are cut."""
    found: list[tuple[int, ...]] = []
    for length in range(1, longest + 1):
        for tokens_of in product(range(vocab), repeat=length):
            if 0 not in tokens_of[:-1] and (tokens_of[-1] == 0 or length == longest):
                found.append(tokens_of)
    return found


class Language:
    """A language small enough to enumerate: a distribution over the next token behind every beginning."""

    def __init__(self) -> None:
        self.answers = sequences(3, 3)
        begun = sorted({answer[:t] for answer in self.answers for t in range(len(answer))})
        places = {one: number for number, one in enumerate(begun)}
        padded = [(*answer, *[0] * (3 - len(answer))) for answer in self.answers]
        self.tokens = torch.tensor(padded)
        self.mask = torch.arange(3) < torch.tensor([len(answer) for answer in self.answers])[:, None]
        self.states = torch.tensor([[places.get(one[:t], 0) for t in range(3)] for one in padded])
        self.shape = (len(begun), 3)

    def token_logps(self, theta: Tensor) -> Tensor:
        """Of all answers, 0 behind their ends."""
        return theta.log_softmax(1)[self.states, self.tokens].masked_fill(~self.mask, 0.0)


@pytest.mark.parametrize("method", ["ppo", "rloo"])
def test_a_toy_language_ends_at_the_reference_tilted_by_the_reward(method: str) -> None:
    """15 answers of up to three tokens; each counts as often as the policy gives it. Two samples a prompt of RLOO are
    all pairs of answers."""
    language, beta = Language(), 0.5
    generator = torch.Generator().manual_seed(1)
    ref = language.token_logps(torch.randn(language.shape, generator=generator, dtype=torch.float64))
    reward = torch.randn(len(language.answers), generator=generator, dtype=torch.float64)
    theta = torch.zeros(language.shape, dtype=torch.float64, requires_grad=True)
    pairs = torch.cartesian_prod(torch.arange(15), torch.arange(15))
    for _ in range(600):
        logps = language.token_logps(theta)
        old = logps.detach()
        if method == "ppo":
            options = {**OPTIONS, "kl_coef": beta, "lam": 1.0, "whiten_advantages": False, "vf_coef": 0.0}
            losses = ppo(logps, old, ref, 0 * old, 0 * old, reward, language.mask, **options)
            # the mean over tokens, as the sum over an answer
            total = (old.sum(1).exp() * losses).sum() * language.mask.sum() / len(losses)
        else:
            sums = [logps.sum(1)[pairs], old.sum(1)[pairs], ref.sum(1)[pairs], reward[pairs]]
            losses = rloo(*sums, torch.ones_like(pairs, dtype=torch.bool), kl_coef=beta)
            total = (old.sum(1)[pairs].sum(1).exp() * losses).sum()
        (gradient,) = torch.autograd.grad(total, [theta])
        theta = (theta.detach() - 4 * gradient).requires_grad_()

    expected = (ref.sum(1) + reward / beta).softmax(0)
    assert (language.token_logps(theta).sum(1).exp() - expected).abs().sum().item() / 2 < 1e-3


def test_whitened_rewards_have_variance_one_and_keep_their_mean() -> None:
    """Advantages with lam = gamma = 1 and values of 0 are sums of them."""
    given = inputs()
    given[4] = 0 * given[4]
    plain = {**OPTIONS, "lam": 1.0, "whiten_advantages": False}
    rewards = ppo_terms(*given, **plain).token_rewards
    found = ppo_terms(*given, **plain, whiten_rewards=True)
    counted = rewards[MASK]
    expected = (counted - counted.mean()) / (counted.var() + 1e-8).sqrt() + counted.mean()
    torch.testing.assert_close(found.token_rewards[MASK], expected)
    assert found.token_rewards[MASK].var().item() == pytest.approx(1, rel=1e-6)
    assert found.advantages[1, 0].item() == pytest.approx(found.token_rewards[1, 0].item())
    assert found.advantages[0, 0].item() == pytest.approx(found.token_rewards[0].sum().item())


def test_the_coefficient_of_adaptive_ppo_follows_the_kl_of_each_step() -> None:
    _, old, ref, *_ = inputs()
    kl = (old - ref).masked_fill(~MASK, 0.0).sum(1).mean().item()
    seen = {"old_response_token_logps": old, "ref_response_token_logps": ref, "response_token_mask": MASK}
    begun = KlController.initial({"kl_coef": 0.15})
    higher, lower, same = (
        begun.updated(**seen, kl_target=target, kl_horizon=30).kl_coef for target in (kl / 2, kl * 2, kl)
    )
    # three answers of a horizon of thirty, an error cut at a fifth
    assert (higher, lower, same) == pytest.approx((0.15 * 1.02, 0.15 * 0.98, 0.15)) if kl > 0 else False
    dearer = ppo_adaptive_kl(*inputs(), KlController(0.4), **{**OPTIONS, "kl_coef": 0.15})
    assert dearer.tolist() == ppo(*inputs(), **{**OPTIONS, "kl_coef": 0.4}).tolist()


# --------------------------------------------------------------------------------------------------------------- RLOO

TWO = torch.ones(2, 2, dtype=torch.bool)


def by_prompt(*values: float) -> Tensor:
    """Two samples of each of two prompts."""
    return column(*values).view(2, 2)


def test_the_advantages_of_a_prompt_sum_to_zero_and_do_not_see_a_constant() -> None:
    rewards = torch.randn(2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mask = torch.tensor([[True] * 4, [True, True, True, False]])
    found = leave_one_out_advantages(rewards, mask, normalize=False)
    assert found.sum(1).tolist() == pytest.approx([0, 0], abs=1e-12)
    shifted = leave_one_out_advantages(rewards + column(5.0, -3.0)[:, None], mask, normalize=False)
    torch.testing.assert_close(found, shifted, rtol=0, atol=1e-12)
    for prompt, count in enumerate((4, 3)):
        for i in range(count):
            others = [rewards[prompt, j].item() for j in range(count) if j != i]
            assert found[prompt, i].item() == pytest.approx(rewards[prompt, i].item() - sum(others) / (count - 1))
    assert found[1, 3] == 0


def test_two_samples_are_set_against_each_other_and_one_alone_teaches_nothing() -> None:
    mask = torch.tensor([[True, True], [True, False]])
    assert leave_one_out_advantages(by_prompt(3, 1, 7, 0), mask, normalize=False).tolist() == [[2, -2], [0, 0]]


def test_normalised_advantages_have_deviation_one_over_the_samples_of_the_step() -> None:
    mask = torch.tensor([[True, True, True], [True, True, False]])
    rewards = torch.randn(2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    plain, found = (leave_one_out_advantages(rewards, mask, normalize=normalize) for normalize in (False, True))
    torch.testing.assert_close(found, plain / (plain[mask].std() + 1e-4), rtol=1e-14, atol=0)
    assert found[mask].std().item() == pytest.approx(1, abs=1e-3)


def test_equal_rewards_teach_nothing() -> None:
    logps = by_prompt(-3, -9, -1, -4).requires_grad_()
    losses = rloo(logps, logps.detach(), logps.detach(), by_prompt(2, 2, 2, 2), TWO)
    (grad,) = torch.autograd.grad(losses.sum(), [logps])
    assert grad.abs().max().item() == 0


def test_at_the_policy_that_sampled_the_clipped_form_has_the_gradient_of_the_plain_one() -> None:
    logps = by_prompt(-3, -9, -1, -4).requires_grad_()
    given = (logps, logps.detach(), by_prompt(-4, -8, -2, -4), by_prompt(0.3, 0.1, 0.8, 0.9), TWO)
    plain, clipped = (torch.autograd.grad(form(*given, kl_coef=0.1).sum(), [logps])[0] for form in (rloo, rloo_clipped))
    torch.testing.assert_close(plain, clipped, rtol=1e-14, atol=0)
    assert rloo_clipped(*given, kl_coef=0.1).tolist() == pytest.approx([0, 0], abs=1e-15)


def test_an_answer_that_went_beyond_the_clip_range_gains_no_more() -> None:
    old = by_prompt(-3, -9, -1, -4)
    policy = (old + by_prompt(0.5, 0, 0.1, 0)).requires_grad_()
    losses = rloo_clipped(policy, old, old, by_prompt(1, 0, 1, 0), TWO, cliprange=0.2)
    (grad,) = torch.autograd.grad(losses.sum(), [policy])
    # A is +1 and -1; a half for the mean over two samples a prompt
    expected = by_prompt(0, 0.5, -math.exp(0.1) / 2, 0.5)
    torch.testing.assert_close(grad, expected, rtol=1e-14, atol=1e-15)


def test_the_kl_of_rloo_is_that_of_the_policy_that_sampled() -> None:
    given = [row[None] for row in (column(-3, -9), column(-4, -8), column(-4.5, -6), column(1, 2))]
    terms = rloo_terms(*given, TWO[:1], kl_coef=0.5, normalize_advantages=False)
    assert terms.rewards.tolist() == [[1 - 0.25, 2 + 1]]


def test_the_mean_of_rloo_over_prompts_is_the_mean_over_samples() -> None:
    mask = torch.tensor([[True, True, True], [True, True, False]])
    logps = -1 - torch.rand(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scores = torch.tensor([[1.0, 0.0, 0.5], [2.0, 0.0, 99.0]], dtype=torch.float64)
    advantages = leave_one_out_advantages(scores, mask, normalize=False)
    expected = -(advantages * logps)[mask].mean()
    assert rloo(logps, logps, logps, scores, mask).mean().item() == pytest.approx(expected.item(), rel=1e-14)


def test_the_expected_gradient_is_reinforce_without_a_baseline_by_enumeration() -> None:
    """All pairs of two samples from four answers: E[R - KL] has the gradient that the mean loss has."""
    theta = torch.tensor([0.3, -0.2, 0.5, 0.1], dtype=torch.float64, requires_grad=True)
    ref, reward = column(0.4, 0.3, 0.2, 0.1).log(), column(1.0, 0.0, -1.0, 0.5)
    policy = theta.log_softmax(0)
    old, pairs = policy.detach(), torch.cartesian_prod(torch.arange(4), torch.arange(4))
    everyone = torch.ones_like(pairs, dtype=torch.bool)
    losses = rloo(policy[pairs], old[pairs], ref[pairs], reward[pairs], everyone, kl_coef=0.3)
    total = (old[pairs].sum(1).exp() * losses).sum()
    objective = -(policy.exp() * (reward - 0.3 * (policy - ref))).sum()
    found, expected = (torch.autograd.grad(value, [theta], retain_graph=True)[0] for value in (total, objective))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_following_that_gradient_ends_at_the_reference_tilted_by_the_reward() -> None:
    """pi_ref * exp(r / beta) / Z, to a total variation of 1e-3."""
    ref, reward, beta = column(0.4, 0.3, 0.2, 0.1).log(), column(1.0, 0.0, -1.0, 0.5), 0.5
    theta = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    pairs = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    everyone = torch.ones_like(pairs, dtype=torch.bool)
    for _ in range(400):
        policy = theta.log_softmax(0)
        old = policy.detach()
        losses = rloo(policy[pairs], old[pairs], ref[pairs], reward[pairs], everyone, kl_coef=beta)
        (grad,) = torch.autograd.grad((old[pairs].sum(1).exp() * losses).sum(), [theta])
        theta = (theta.detach() - 2 * grad).requires_grad_()
    expected = (ref + reward / beta).softmax(0)
    assert (theta.softmax(0) - expected).abs().sum().item() / 2 < 1e-3
