"""The local sampler wherever the model is: on this machine's CPU, and (marked `gpu`) on a CUDA device."""

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy.stats import chisquare

from prefloop.policy import ChatCodec, PolicyFiles, TokenRow, Workbench, grows_answers, resolve_model
from prefloop.sampling import Answer, LocalPolicies, LocalSampler, SamplingSettings
from prefloop.training.layout import ROWS, TREES, Layout

from .conftest import draws as draws_of_tiny
from .test_local import (
    ENUMERABLE,
    EOS,
    answers_that_can_be,
    built,
    draws,
    exact_sum_logp,
    gpt2,
    llama,
    mistral,
    prompts_of_lengths,
)

pytestmark = pytest.mark.usefixtures("masks_without_checks")
ON_DEVICES = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
FILTERED = SamplingSettings(1.8, 0.9, 3, top_k=4, min_p=0.15, repetition_penalty=1.4)


def on(device: str, model: Any) -> Any:
    return model.to(device)


@pytest.mark.gpu
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("settings", [SamplingSettings(1.0, 1.0, 3), FILTERED], ids=["plain", "filtered"])
def test_on_a_gpu_draws_have_the_exact_probabilities(settings: SamplingSettings, *, together: bool) -> None:
    """20,000 draws against all 85 answers that can be, whose probabilities a copy on the CPU says in float64."""
    model = on("cuda", built(llama, torch.float32, vocab=ENUMERABLE))
    exact_model = built(llama, torch.float64, vocab=ENUMERABLE)
    wanted = draws([(0, 3, 1)], 20_000)
    sampler = LocalSampler(model, frozenset({EOS}), rows=5000, together=together)
    answers = list(sampler.sample(wanted, settings))

    exact = {
        ids: math.exp(exact_sum_logp(exact_model, Answer(wanted[0], ids, "stop", 0.0), settings))
        for ids in answers_that_can_be(3)
    }
    seen = Counter(answer.token_ids for answer in answers)
    assert all(exact[ids] > 0 for ids in seen)
    common = [ids for ids in exact if exact[ids] * len(wanted) >= 5]
    counts = [seen[ids] for ids in common]
    expected = [exact[ids] * sum(counts) / sum(exact[one] for one in common) for ids in common]
    assert sum(counts) > 0.99 * len(wanted)
    assert chisquare(counts, expected).pvalue > 1e-4
    for answer in answers[:200]:
        assert answer.sum_logp == pytest.approx(math.log(exact[answer.token_ids]), abs=1e-4)


@ON_DEVICES
@pytest.mark.parametrize("layout", [ROWS, TREES], ids=["rows", "trees"])
def test_sum_logp_is_what_training_says_of_the_answer(layout: Layout, device: str) -> None:
    """At temperature 1 without filters, by both layouts of the engine, in float32; builtin:tiny."""
    source = resolve_model("builtin:tiny")
    bench = Workbench(source, ChatCodec.load(source.directory, {}), torch.device(device))
    policy = PolicyFiles(source.identity, source.directory)
    with LocalPolicies(bench, rows=16).serving(policy) as serving:
        assert serving.together
        answers = list(serving.sample(draws_of_tiny(bench, prompts=6, num_samples=4), SamplingSettings(1.0, 1.0, 24)))
    rows = [TokenRow(one.draw.prompt_ids, one.token_ids, (True,) * len(one.token_ids)) for one in answers]
    with bench.for_scoring(policy) as model, torch.no_grad():
        said = layout.scores(model, rows, (), (), None, {})["logps"]
    told = torch.tensor([one.sum_logp for one in answers], dtype=torch.float64)
    torch.testing.assert_close(said.double().cpu(), told, rtol=0, atol=1e-4)
    assert len({len(one.token_ids) for one in answers}) > 4


@pytest.mark.gpu
@pytest.mark.parametrize("penalty", [1.0, 1.7])
@pytest.mark.parametrize("make", [llama, gpt2, mistral])
def test_on_a_gpu_greedy_is_that_of_transformers_token_by_token(make: Any, penalty: float) -> None:
    model = on("cuda", built(make, torch.float32))
    model.generation_config.pad_token_id = 0
    assert grows_answers(model)
    prompts = prompts_of_lengths(3, 11, 1, 6, 6)
    settings = SamplingSettings(temperature=0.0, top_p=1.0, max_new_tokens=20, repetition_penalty=penalty)
    sampler = LocalSampler(model, frozenset({EOS, 9}), rows=8)
    for way in (sampler, replace(sampler, together=False)):
        found = {answer.draw.prompt_id: answer for answer in way.sample(draws(prompts, 1), settings)}
        for number, prompt in enumerate(prompts):
            ids = torch.tensor([prompt], device="cuda")
            whole = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=20,
                eos_token_id=[EOS, 9],
                repetition_penalty=penalty,
            )
            assert found[f"p{number}"].token_ids == tuple(whole[0, len(prompt) :].tolist())


@pytest.mark.gpu
def test_on_a_gpu_the_same_call_gives_the_same_answers_in_the_same_order() -> None:
    model = on("cuda", built(llama, torch.float32))
    wanted = draws(prompts_of_lengths(*range(1, 20)), 3)
    sampler = LocalSampler(model, frozenset({EOS}), rows=11)
    settings = SamplingSettings(0.8, 0.95, 12, top_k=30, min_p=0.01, repetition_penalty=1.3, stop_ids=(7,))
    first, again = (list(sampler.sample(wanted, settings)) for _ in range(2))
    assert first == again
    assert len(first) == len(wanted)


@pytest.mark.gpu
def test_on_a_gpu_answers_are_those_of_the_cpu() -> None:
    """In float64, where rounding cannot reach a draw."""
    wanted = draws(prompts_of_lengths(7, 2, 4, 4, 13), 3)
    settings = SamplingSettings(temperature=0.9, top_p=0.95, max_new_tokens=12)
    found: list[dict[tuple[str, int], tuple[int, ...]]] = []
    for device in ("cpu", "cuda"):
        sampler = LocalSampler(on(device, built(llama, torch.float64)), frozenset({EOS, 5}), rows=7)
        answers = sampler.sample(wanted, settings)
        found.append({(one.draw.prompt_id, one.draw.index): one.token_ids for one in answers})
    assert found[0] == found[1]
