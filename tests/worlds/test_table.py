"""A table in the place of a language model: the functionals say what enumeration says."""

import math
from math import fsum

import pytest
import torch
from torch import Tensor, nn

from prefloop.objectives import sequential_kl
from prefloop.policy import LiveReference, RowScores, TokenRow, response_logps, score_rows
from prefloop.sampling import SamplingSettings
from prefloop.sampling.choice import choose
from prefloop.statistics import kl_estimate
from prefloop.training.layout import scores_of_rows
from prefloop.worlds import Bandit, TabularPolicy, arms, language, of_lengths
from prefloop.worlds.judges import bradley_terry
from prefloop.worlds.table import EOS, IMPOSSIBLE, PROMPT, Tokens


def row(answer: Tokens) -> TokenRow:
    return TokenRow((PROMPT,), answer, (True,) * len(answer))


def random_policy(answers: tuple[Tokens, ...], seed: int) -> tuple[TabularPolicy, Tensor]:
    logps = torch.randn(len(answers), generator=torch.Generator().manual_seed(seed), dtype=torch.float64).log_softmax(0)
    return TabularPolicy(answers, logps), logps


def test_the_languages_are_all_sentences_of_their_words() -> None:
    assert language(2, 2) == ((EOS,), (2, EOS), (3, EOS), (2, 2, EOS), (2, 3, EOS), (3, 2, EOS), (3, 3, EOS))
    assert len(language(2, 4)) == 31
    assert len(language(10, 2)) == 111
    assert arms(2) == ((2, EOS), (3, EOS))
    assert of_lengths((1, 3)) == ((EOS,), (3, 3, EOS))


@pytest.mark.parametrize("answers", [language(2, 4), language(10, 2), of_lengths((2, 5, 3)), arms(4)], ids=len)
def test_answers_have_the_probabilities_that_the_table_was_made_of(answers: tuple[Tokens, ...]) -> None:
    policy, logps = random_policy(answers, 0)
    torch.testing.assert_close(policy.logps(), logps, rtol=0, atol=1e-14)
    torch.testing.assert_close(response_logps(policy, list(map(row, answers))), logps, rtol=0, atol=1e-14)
    scored = list(score_rows(policy, list(map(row, answers)), tokens_per_batch=7))
    assert scored == pytest.approx(logps.tolist(), abs=1e-13)
    assert fsum(math.exp(one) for one in scored) == pytest.approx(1, abs=1e-14)


def test_unnormalised_log_probabilities_are_normalised() -> None:
    policy = TabularPolicy(arms(2), torch.tensor([1.0, 1.0]))
    assert policy.logps().tolist() == pytest.approx([math.log(0.5)] * 2, abs=1e-15)


def test_entropy_and_collision_probability_and_kl_are_those_of_enumeration() -> None:
    """Expectations over sentences of sums over tokens equal sums over sentences: the chain rule."""
    answers = language(2, 3)
    policy, logps = random_policy(answers, 1)
    reference, ref_logps = random_policy(answers, 2)
    found = scores_of_rows(policy, list(map(row, answers)), {"entropy", "token_log_sum_sq"})
    entropy = float(-(logps.exp() * logps).sum())
    assert float(logps.exp() @ found["entropy"].detach()) == pytest.approx(entropy, abs=1e-14)
    seq_kl = scores_of_rows(policy, list(map(row, answers)), {"seq_kl"}, live=LiveReference(reference))["seq_kl"]
    kl = float((ref_logps.exp() * (ref_logps - logps)).sum())
    assert float(ref_logps.exp() @ seq_kl.detach()) == pytest.approx(kl, abs=1e-14)
    first = policy.table()[0].softmax(0).detach()
    assert found["token_log_sum_sq"][0, 0].detach().exp().item() == pytest.approx(float((first**2).sum()), abs=1e-14)


def test_hidden_states_tell_beginnings_apart_so_that_a_head_is_a_table() -> None:
    """Before each token the beginning's own number, behind an answer the answer's; padding on the left changes none."""
    answers = ((2, EOS), (3, 2, EOS))
    policy, _ = random_policy(answers, 4)
    values = nn.Linear(len(policy.states), 1, bias=False, dtype=torch.float64)
    values.weight.data = torch.arange(len(policy.states)).double()[None]
    found = scores_of_rows(policy, list(map(row, answers)), {"token_values"}, heads={"token_values": values})
    of = policy.states
    assert found["token_values"].tolist() == [[of[()], of[2,], 0], [of[()], of[3,], of[3, 2]]]
    behind = scores_of_rows(policy, list(map(row, answers)), {"rewards"}, heads={"rewards": values})
    assert behind["rewards"].tolist() == [of[answer] for answer in answers]
    assert len({*of.values()}) == len(of) == 6


def test_what_may_not_follow_has_no_probability_and_no_part_in_entropy_or_kl() -> None:
    policy, _ = random_policy(((2, EOS), (3, 2, EOS)), 3)
    scores = RowScores.of(policy, [row((2, EOS)), row((3, 2, EOS))])
    assert scores.token_entropy()[:, 1:].tolist() == [[0.0, 0.0], [0.0, 0.0]]
    logits = scores.logits.detach()
    mask = torch.ones(2, 3, dtype=torch.bool)
    assert sequential_kl(logits, logits, mask).tolist() == [0.0, 0.0]
    assert math.exp(IMPOSSIBLE) == 0


def test_an_answer_that_begins_another_or_stands_twice_is_refused() -> None:
    zero = torch.zeros(2)
    with pytest.raises(ValueError, match="an answer is another one, or its beginning; end each with EOS"):
        TabularPolicy(((2,), (2, 3)), zero)
    with pytest.raises(ValueError, match="end each with EOS"):
        TabularPolicy(((2, EOS), (2, EOS)), zero)


def test_padding_and_the_batch_change_nothing() -> None:
    answers = language(2, 3)
    policy, logps = random_policy(answers, 4)
    alone = [float(response_logps(policy, [row(answer)]).detach()) for answer in answers]
    assert alone == pytest.approx(logps.tolist(), abs=1e-14)


def test_the_gradient_of_an_answers_log_probability_is_that_of_softmax() -> None:
    policy, logps = random_policy(arms(3), 5)
    (gradient,) = torch.autograd.grad(response_logps(policy, [row(policy.answers[1])]).sum(), policy.free)
    expected = torch.tensor([0.0, 1.0, 0.0]).double() - logps.exp()
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_temperature_is_applied_token_by_token(temperature: float) -> None:
    policy, _ = random_policy(language(2, 2), 6)
    each = (policy.table() / temperature).log_softmax(1)
    expected = each[0, 3] + each[policy.contexts[(3,)], 2]
    found = policy.tempered(temperature).logps()[policy.answers.index((3, 2, EOS))]
    assert found.item() == pytest.approx(expected.item(), abs=1e-14)


def test_temperature_0_takes_the_likeliest_token_not_the_likeliest_answer() -> None:
    answers = ((2, 2, EOS), (2, 3, EOS), (3, EOS))
    greedy = TabularPolicy(answers, torch.tensor([0.3, 0.25, 0.45]).log()).tempered(0.0)
    assert greedy.logps().exp().tolist() == [1.0, 0.0, 0.0]


def test_other_logits_are_another_policy_over_the_same_answers() -> None:
    policy, logps = random_policy(arms(3), 7)
    other = policy.with_logits(policy.free + torch.tensor([1.0, 0.0, 0.0]).double())
    expected = (logps + torch.tensor([1.0, 0.0, 0.0]).double()).log_softmax(0)
    torch.testing.assert_close(other.logps(), expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(policy.logps(), logps, rtol=0, atol=1e-14)


@pytest.mark.parametrize("answers", [language(2, 4), language(10, 2)], ids=["two words", "ten words"])
def test_sentences_that_the_samplers_choice_draws_agree_with_enumeration(answers: tuple[Tokens, ...]) -> None:
    """20,000 sentences: frequencies, KL to another policy and the win rate against it, within 4 standard errors."""
    count = 20_000
    policy, logps = random_policy(answers, 8)
    _, ref_logps = random_policy(answers, 9)
    drawn = sampled(policy, count, seed=10)
    number = {answer: place for place, answer in enumerate(answers)}
    places = torch.tensor([number[one] for one in drawn])
    p = logps.exp()
    errors = (places.bincount(minlength=len(answers)) / count - p) / (p * (1 - p) / count).sqrt()
    assert errors.abs().max() < 4
    assert float((errors**2).sum() / (len(answers) - 1)) < 1 + 4 * math.sqrt(2 / len(answers))
    ratios = (logps - ref_logps)[places]
    estimate = kl_estimate(ratios.numpy(), torch.arange(count).numpy()).k1
    exact = float((p * (logps - ref_logps)).sum())
    assert abs(estimate.value - exact) < 4 * float(ratios.std()) / math.sqrt(count)
    prefers = bradley_terry(torch.randn(len(answers), generator=torch.Generator().manual_seed(11), dtype=torch.float64))
    wins = (prefers @ ref_logps.exp())[places]
    assert abs(float(wins.mean()) - float(p @ prefers @ ref_logps.exp())) < 4 * float(wins.std()) / math.sqrt(count)


def sampled(policy: TabularPolicy, count: int, seed: int) -> list[Tokens]:
    """Token by token, with the choice that sampling from language models makes."""
    generator = torch.Generator().manual_seed(seed)
    settings = SamplingSettings(temperature=1.0, top_p=1.0, max_new_tokens=99)
    answers: list[Tokens] = [() for _ in range(count)]
    table = policy.table().detach()
    while open_ones := [place for place, answer in enumerate(answers) if answer[-1:] != (EOS,)]:
        logits = table[torch.tensor([policy.contexts[answers[place]] for place in open_ones])]
        uniforms = torch.rand(len(open_ones), generator=generator, dtype=torch.float64)
        for place, token in zip(open_ones, choose(logits, uniforms, settings).tokens.tolist(), strict=True):
            answers[place] = (*answers[place], token)
    return answers


def test_a_bandit_is_what_its_numbers_say() -> None:
    world = Bandit.of(3, seed=1, lengths=(2, 4, 6))
    assert world.lengths.tolist() == [2, 4, 6]
    assert world.prefers[0, 1].item() == pytest.approx(1 / (1 + math.exp(world.reward[1] - world.reward[0])))
    assert world.ref.exp().sum().item() == pytest.approx(1)
    assert torch.equal(Bandit.of(3, seed=1).reward, world.reward)
    assert not torch.equal(Bandit.of(3, seed=2).reward, world.reward)
    torch.testing.assert_close(world.tilted(torch.zeros(3)), world.ref)


def test_the_table_has_a_column_a_token_and_zero_where_one_alone_can_follow() -> None:
    policy = TabularPolicy(arms(2), torch.tensor([0.25, 0.75]).log())
    lines = {context: policy.table()[number].tolist() for context, number in policy.contexts.items()}
    assert lines[(2,)] == lines[(3,)] == [IMPOSSIBLE, 0.0, IMPOSSIBLE, IMPOSSIBLE]
    assert lines[()][:2] == [IMPOSSIBLE] * 2
    assert lines[()][2:] == pytest.approx([math.log(0.25), math.log(0.75)])


def test_as_many_logits_come_as_are_asked_for_from_the_end_on() -> None:
    policy, _ = random_policy(language(2, 2), 12)
    ids = torch.tensor([[PROMPT, 2, 3, EOS]])
    whole = policy(ids).logits
    assert whole.shape == (1, 4, 4)
    torch.testing.assert_close(policy(ids, logits_to_keep=2).logits, whole[:, 2:])
    torch.testing.assert_close(whole[0, 1], policy.table()[policy.contexts[(2,)]])
