"""Beam search against transformers' own, and against all answers that there are."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from tests.sampling.conftest import draws
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from prefloop.errors import ModelError
from prefloop.policy import PolicyFiles, Workbench
from prefloop.sampling import Answer, Component, Draw, LocalSampler, SamplingSettings, draws_for

BEAMS = SamplingSettings(temperature=0.0, top_p=1.0, max_new_tokens=16, num_beams=4)
PAD = 1
"""For transformers, to which 0 is none."""


def of_transformers(model: Any, prompt: tuple[int, ...], eos: list[int], num_beams: int, new: int) -> list[list[int]]:
    ids = torch.tensor([prompt])
    found = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        num_beams=num_beams,
        num_return_sequences=num_beams,
        do_sample=False,
        max_new_tokens=new,
        eos_token_id=eos,
        pad_token_id=PAD,
    )
    return [row[len(prompt) :] for row in found.tolist()]


def all_alike(sampler: LocalSampler, wanted: list[Draw], settings: SamplingSettings) -> list[Answer]:
    """Our answers, each of which is the beam of its place in transformers' search of its prompt alone."""
    found = {(one.draw.prompt_id, one.draw.index): one for one in sampler.sample(wanted, settings)}
    eos = sorted(sampler.eos_ids)
    for prompt_id, prompt in {draw.prompt_id: draw.prompt_ids for draw in wanted}.items():
        expected = of_transformers(sampler.model, prompt, eos, settings.num_beams, settings.max_new_tokens)
        for index, ids in enumerate(expected):
            answer = found[prompt_id, index]
            assert list(answer.token_ids) == ids[: len(answer.token_ids)]
            assert set(ids[len(answer.token_ids) :]) <= {PAD}
            assert (answer.finish_reason == "stop") == (answer.token_ids[-1] in eos)
    assert len(found) == len(wanted)
    return list(found.values())


@pytest.mark.parametrize("num_beams", [2, 4])
def test_answers_are_those_of_transformers(bench: Workbench, policy: PolicyFiles, num_beams: int) -> None:
    """All beams of every prompt, two prompts at a time."""
    sampler = LocalSampler(bench.for_sampling(policy), bench.codec.eos_ids, rows=2 * num_beams)
    found = all_alike(sampler, draws(bench, prompts=5, num_samples=num_beams), replace(BEAMS, num_beams=num_beams))
    assert {one.finish_reason for one in found} == {"stop"}


def test_so_are_answers_of_many_lengths_some_of_which_are_cut() -> None:
    sampler = LocalSampler(small(vocab=20, seed=2), frozenset({4, 5, 6}), rows=9)
    wanted = [
        draw
        for number in range(8)
        for draw in draws_for(
            f"p{number}", (1, number, 2, 3), num_samples=3, recipe_seed=0, step="s", round_number=0, block=0
        )
    ]
    found = all_alike(sampler, wanted, replace(BEAMS, max_new_tokens=10, num_beams=3))
    assert len({len(one.token_ids) for one in found}) > 5
    assert {one.finish_reason for one in found} == {"stop", "length"}


def small(vocab: int = 6, seed: int = 1) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=vocab,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            initializer_range=0.1,
            pad_token_id=0,
        )
        return AutoModelForCausalLM.from_config(config).double().eval()


def test_as_many_beams_as_answers_find_the_likeliest_of_all() -> None:
    model, prompt = small(), (1, 2, 3)
    (draw,) = draws_for("p", prompt, num_samples=1, recipe_seed=0, step="s", round_number=0, block=0)
    logps: dict[tuple[int, ...], float] = {}
    with torch.inference_mode():
        for ids in product(range(6), repeat=3):
            of_all = model(input_ids=torch.tensor([[*prompt, *ids]])).logits[0, 2:5].log_softmax(-1)
            logps[ids] = of_all.gather(1, torch.tensor(ids)[:, None]).sum().item()
    settings = replace(BEAMS, max_new_tokens=3, num_beams=36)

    (found,) = LocalSampler(model, frozenset()).sample([draw], settings)
    assert found.token_ids == max(logps, key=lambda ids: logps[ids])
    assert (found.finish_reason, found.sum_logp) == ("length", 0.0)
    (greedy,) = LocalSampler(model, frozenset()).sample([draw], replace(settings, num_beams=1))
    assert logps[greedy.token_ids] < logps[found.token_ids]


def test_a_mixture_is_searched_as_one_policy_is() -> None:
    model = small()
    (draw,) = draws_for("p", (1, 2, 3), num_samples=1, recipe_seed=0, step="s", round_number=0, block=0)
    settings = replace(BEAMS, max_new_tokens=5, num_beams=3)
    alone = LocalSampler(model, frozenset())
    halves = replace(alone, weight=0.5, others=(Component(model, 0.5),))
    assert list(halves.sample([draw], settings)) == list(alone.sample([draw], settings))


def test_texts_that_end_an_answer_end_beams(bench: Workbench, policy: PolicyFiles) -> None:
    sampler = LocalSampler(bench.for_sampling(policy), bench.codec.eos_ids, text_of=bench.codec.text_of)
    (wanted,) = draws(bench, prompts=1, num_samples=1)
    (whole,) = sampler.sample([wanted], BEAMS)
    word = bench.codec.text_of(whole.token_ids[1:2])
    (found,) = sampler.sample([wanted], replace(BEAMS, stop=(word,), num_beams=1))
    (searched,) = sampler.sample([wanted], replace(BEAMS, stop=(word,)))
    assert found.finish_reason == searched.finish_reason == "stop"
    assert bench.codec.text_of(searched.token_ids).count(word) <= 1
    assert len(searched.token_ids) < len(whole.token_ids)


def test_models_that_take_no_growing_answers_are_not_searched(bench: Workbench, policy: PolicyFiles) -> None:
    sampler = LocalSampler(bench.for_sampling(policy), bench.codec.eos_ids, together=False)
    with pytest.raises(ModelError, match="Set num_beams to 1"):
        list(sampler.sample(draws(bench, 1, 1), BEAMS))
