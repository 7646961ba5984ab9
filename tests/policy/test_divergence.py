"""KL on sampled answers against sums over all answers of a model small enough to enumerate, in float64."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from prefloop.policy import LiveReference, TokenRow, answer_kls, response_logps
from prefloop.policy import divergence as under_test

VOCAB, EOS, LONGEST = 5, 4, 3
PROMPT = (1, 3)


def model_of(seed: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.9,
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).double().eval()


def all_answers(begun: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    """Every answer that ends by itself or at the length limit."""
    if begun and (begun[-1] == EOS or len(begun) == LONGEST):
        yield begun
        return
    for token in range(VOCAB):
        yield from all_answers((*begun, token))


ROWS = [TokenRow(PROMPT, ids, (True,) * len(ids)) for ids in all_answers()]


@pytest.mark.parametrize("budget", [7, 10_000])
def test_every_estimator_has_the_exact_kl_as_its_mean(budget: int) -> None:
    policy, reference = model_of(0), model_of(1)
    with torch.no_grad():
        logps, ref_logps = (response_logps(model, ROWS).numpy() for model in (policy, reference))
    chance = np.exp(logps)
    assert chance.sum() == pytest.approx(1.0, abs=1e-12)
    exact = float(chance @ (logps - ref_logps))
    assert exact > 0.1
    kls = list(answer_kls(policy, LiveReference(reference), ROWS, budget))
    for estimate in ([one.exact for one in kls], [one.k1 for one in kls], [one.k3 for one in kls]):
        assert float(chance @ np.array(estimate)) == pytest.approx(exact, abs=1e-10)
    assert min(one.exact for one in kls) >= 0
    assert min(one.k3 for one in kls) >= 0
    spread = [float(chance @ (np.array(each) - exact) ** 2) for each in zip(*map(vars_of, kls), strict=True)]
    assert spread[0] < spread[1], "the KL along the answer varies less than the log-ratio"


def vars_of(one: under_test.AnswerKl) -> tuple[float, float]:
    return one.exact, one.k1


def test_a_few_positions_at_a_time_give_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = LiveReference(model_of(1))
    whole = list(answer_kls(model_of(0), reference, ROWS, 10_000))
    monkeypatch.setattr(under_test, "tokens_at_once", lambda _vocab, **_: 1)
    pieces = list(answer_kls(model_of(0), reference, ROWS, 10_000))
    assert [one.exact for one in pieces] == pytest.approx([one.exact for one in whole], abs=1e-12)


def test_the_reference_may_be_the_same_weights_without_the_adapter() -> None:
    adapted = get_peft_model(model_of(0), LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, weights in adapted.named_parameters():
            if "lora_B" in name:
                weights.normal_(generator=torch.Generator().manual_seed(3))
    adapted = adapted.double().eval()
    apart = list(answer_kls(adapted, LiveReference(model_of(0)), ROWS, 10_000))
    shared = list(answer_kls(adapted, LiveReference(adapted, "off"), ROWS, 10_000))
    assert shared == apart
    assert max(one.exact for one in shared) > 1e-3


def test_a_policy_is_at_no_distance_from_itself() -> None:
    same = model_of(0)
    assert {(one.exact, one.k1, one.k3) for one in answer_kls(same, LiveReference(same), ROWS, 50)} == {(0.0, 0.0, 0.0)}
