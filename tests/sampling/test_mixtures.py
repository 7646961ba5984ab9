"""Answers of mixtures: of two policies, and of one policy behind two prompts, token by token."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy.stats import chisquare

from prefloop.errors import ModelError
from prefloop.policy import ChatCodec, PolicyFiles, Workbench
from prefloop.sampling import Component, Draw, LocalPolicies, LocalSampler, SamplingSettings

from .conftest import draws as draws_of_tiny
from .test_local import (
    ENUMERABLE,
    EOS,
    answers_that_can_be,
    built,
    by_draw,
    draws,
    exact_probabilities,
    gpt2,
    llama,
    prompts_of_lengths,
)

PLAIN = SamplingSettings(1.0, 1.0, 3)
FILTERED = SamplingSettings(1.8, 0.9, 3, top_k=4, min_p=0.15, repetition_penalty=1.4)


def two(dtype: torch.dtype, vocab: int = ENUMERABLE) -> list[Any]:
    """Two models that disagree: of another architecture, so that nothing of one fits the other by accident."""
    return [built(llama, dtype, vocab=vocab), built(gpt2, dtype, vocab=vocab)]


def sampler_of(models: Sequence[Any], weights: Sequence[float], rows: int = 64) -> LocalSampler:
    (first, *others), (weight, *rest) = models, weights
    return LocalSampler(
        first,
        frozenset({EOS}),
        rows=rows,
        weight=weight,
        others=tuple(Component(model, one) for model, one in zip(others, rest, strict=True)),
    )


def exact_logp(
    models: Sequence[Any], weights: Sequence[float], draw: Draw, ids: Sequence[int], settings: SamplingSettings
) -> float:
    """The slow and plain way: products of powers of probabilities, token by token, each model behind its prompt."""
    prompts = (draw.prompt_ids, *(draw.others or [draw.prompt_ids] * (len(models) - 1)))
    each: list[torch.Tensor] = []
    for model, prompt in zip(models, prompts, strict=True):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*prompt, *ids]]), use_cache=False).logits[0]
        each.append(logits[len(prompt) - 1 : -1].double().softmax(-1))
    total = 0.0
    for place, token in enumerate(ids):
        product = [
            math.prod(float(of_one[place, one]) ** weight for of_one, weight in zip(each, weights, strict=True))
            for one in range(each[0].shape[-1])
        ]
        if settings.repetition_penalty == 1:
            logits = [math.log(value) for value in product]
        else:  # logits are what the models give, not normalised: a penalty divides by their sign
            logits = mixed_logits(models, weights, prompts, ids, place)
        probability = exact_probabilities(logits, (*draw.prompt_ids, *ids[:place]), settings)[token]
        total += math.log(probability) if probability else -math.inf
    return total


def mixed_logits(
    models: Sequence[Any], weights: Sequence[float], prompts: Sequence[Sequence[int]], ids: Sequence[int], place: int
) -> list[float]:
    with torch.no_grad():
        of_each = [
            weight * model(input_ids=torch.tensor([[*prompt, *ids[:place]]]), use_cache=False).logits[0, -1].double()
            for model, weight, prompt in zip(models, weights, prompts, strict=True)
        ]
    return sum(of_each, torch.zeros_like(of_each[0])).tolist()


@pytest.mark.long
@pytest.mark.parametrize(
    ("weights", "settings", "others"),
    [
        ([0.75, 0.25], PLAIN, ()),
        pytest.param([0.4, 0.6], FILTERED, (), marks=pytest.mark.slow),
        ([0.6, 0.4], PLAIN, ((1, 2),)),
        pytest.param([1.5, -0.5], replace(PLAIN, temperature=1.3), ((3, 1, 2, 0),), marks=pytest.mark.slow),
    ],
    ids=["two policies", "with every filter", "behind two prompts", "pushed away"],
)
def test_draws_of_a_mixture_have_the_exact_probabilities(
    weights: list[float], settings: SamplingSettings, others: tuple[tuple[int, ...], ...]
) -> None:
    """20,000 draws against all 85 answers that can be, and the sum_logp of every kind of them."""
    models, exact_models = two(torch.float32), two(torch.float64)
    wanted = [replace(draw, others=others) for draw in draws([(0, 3, 1)], 20_000)]
    answers = list(sampler_of(models, weights, rows=5000).sample(wanted, settings))

    exact = {
        ids: math.exp(exact_logp(exact_models, weights, wanted[0], ids, settings)) for ids in answers_that_can_be(3)
    }
    assert sum(exact.values()) == pytest.approx(1, abs=1e-9)
    seen = Counter(answer.token_ids for answer in answers)
    common = [ids for ids in exact if exact[ids] * len(wanted) >= 5]
    counts = [seen[ids] for ids in common]
    expected = [exact[ids] * sum(counts) / sum(exact[one] for one in common) for ids in common]
    assert len(common) >= 5
    assert sum(counts) > 0.99 * len(wanted)
    assert chisquare(counts, expected).pvalue > 1e-4
    for answer in {answer.token_ids: answer for answer in answers}.values():
        assert answer.sum_logp == pytest.approx(math.log(exact[answer.token_ids]), abs=1e-4)


def test_sum_logp_of_long_answers_is_the_mixtures_while_rows_leave_and_prompts_enter() -> None:
    models = two(torch.float64, vocab=40)
    settings = SamplingSettings(0.9, 0.95, 12)
    wanted = draws(prompts_of_lengths(7, 2, 9, 4), 4)
    other = {f"p{number}": ids for number, ids in enumerate(prompts_of_lengths(3, 8, 1, 5))}
    wanted = [replace(draw, others=(other[draw.prompt_id],)) for draw in wanted]
    answers = list(sampler_of(models, (0.7, 0.3), rows=5).sample(wanted, settings))
    assert len(answers) == 16
    assert len({len(answer.token_ids) for answer in answers}) > 2
    for answer in answers:
        exact = exact_logp(models, (0.7, 0.3), answer.draw, answer.token_ids, settings)
        assert answer.sum_logp == pytest.approx(exact, abs=1e-9)


def test_a_policy_mixed_with_itself_and_one_of_weight_1_are_the_policy() -> None:
    first, second = two(torch.float64, vocab=40)
    wanted, settings = draws(prompts_of_lengths(7, 2, 4), 4), SamplingSettings(0.9, 0.95, 12)
    alone = by_draw(sampler_of([first], [1.0]).sample(wanted, settings))
    for models, weights in (([first, first], (0.3, 0.7)), ([first, second], (1.0, 0.0))):
        mixed = by_draw(sampler_of(models, weights).sample(wanted, settings))
        assert {key: one.token_ids for key, one in mixed.items()} == {key: one.token_ids for key, one in alone.items()}
    half = by_draw(sampler_of([first, second], (0.5, 0.5)).sample(wanted, settings))
    assert {key: one.token_ids for key, one in half.items()} != {key: one.token_ids for key, one in alone.items()}


def test_the_greedy_answer_of_a_mixture_is_its_likeliest_next_token_each_time() -> None:
    models, weights = two(torch.float64, vocab=40), (0.5, 0.5)
    (answer,) = sampler_of(models, weights).sample(
        draws(prompts_of_lengths(5), 1), SamplingSettings(temperature=0.0, top_p=1.0, max_new_tokens=10)
    )
    prompts = [answer.draw.prompt_ids] * 2
    for place, token in enumerate(answer.token_ids):
        logits = mixed_logits(models, weights, prompts, answer.token_ids, place)
        assert token == max(range(40), key=logits.__getitem__)


def test_policies_are_mixed_on_one_workbench(bench: Workbench, policy: PolicyFiles) -> None:
    wanted, settings = draws_of_tiny(bench, prompts=3, num_samples=2), SamplingSettings(1.0, 1.0, 12)
    local = LocalPolicies(bench, rows=4)
    with local.mixing((policy, policy), (0.5, 0.5)) as serving:
        assert serving.model is serving.others[0].model  # one copy of the weights
        mixed = by_draw(serving.sample(wanted, settings))
    with local.serving(policy) as serving:
        alone = by_draw(serving.sample(wanted, settings))
    assert {key: one.token_ids for key, one in mixed.items()} == {key: one.token_ids for key, one in alone.items()}


def test_weights_are_packed_while_they_are_sampled_from(bench: Workbench, policy: PolicyFiles) -> None:
    layers = [layer for layer in bench.for_sampling(policy).modules() if type(layer) is torch.nn.Linear]
    local = LocalPolicies(bench)
    for serving in (local.serving(policy), local.mixing((policy, policy), (0.5, 0.5))):
        with serving:
            assert sum(layer.weight.numel() == 0 for layer in layers) > 4
        assert all(layer.weight.numel() for layer in layers)


def test_what_cannot_be_mixed_is_said(bench: Workbench, policy: PolicyFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    small = PolicyFiles("small", policy.directory)
    models = {policy.identity: bench.for_sampling(policy), "small": two(torch.float32)[0]}
    other = Workbench(bench.source, ChatCodec.load(bench.source.directory, {}), torch.device("cpu"))
    monkeypatch.setattr(other, "for_sampling", lambda one: models[one.identity])
    with (
        pytest.raises(ModelError, match=r"a mixture is of policies with the same tokens, but these have 5 and 821. "),
        LocalPolicies(other).mixing((policy, small), (0.5, 0.5)),
    ):
        pass
    other.__dict__["grows_answers"] = False
    with (
        pytest.raises(ModelError, match="a mixture of policies is sampled only from models whose attention can be put"),
        LocalPolicies(other).mixing((policy, policy), (0.5, 0.5)),
    ):
        pass
