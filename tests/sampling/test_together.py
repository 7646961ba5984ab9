"""Answers that grow behind one copy of their prompts, against rows that are padded and have each its own."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    GptOssConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from prefloop.policy import Growing, PassedPrompts, grows_answers
from prefloop.sampling import Answer, Draw, LocalSampler, SamplingSettings, components, draws_for, together

VOCAB, EOS = 40, 4
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.4,
    "pad_token_id": 0,
}
FAMILIES: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: LlamaConfig(**SIZES),
    "qwen2": lambda: Qwen2Config(**SIZES),
    "qwen3": lambda: Qwen3Config(**SIZES, head_dim=4),
    "mistral": lambda: MistralConfig(**SIZES, sliding_window=6),
    "gemma2": lambda: Gemma2Config(
        **SIZES, head_dim=4, sliding_window=6, attn_logit_softcapping=2.0, final_logit_softcapping=3.0
    ),
    "phi3": lambda: Phi3Config(**SIZES),
    "gpt_neox": lambda: GPTNeoXConfig(**SIZES),
    "gpt2": lambda: GPT2Config(
        vocab_size=VOCAB, n_embd=16, n_layer=2, n_head=2, n_positions=256, initializer_range=0.2
    ),
}
OTHERS: dict[str, Callable[[], PreTrainedConfig]] = {
    "gpt_oss, whose attention has sinks": lambda: GptOssConfig(**SIZES, head_dim=4, num_local_experts=4),
    "bloom, whose scores have a bias of their own": lambda: BloomConfig(
        vocab_size=VOCAB, hidden_size=16, n_layer=2, n_head=2
    ),
}
IN_FLOAT32 = {"gemma2"}
"""Softmaxes of transformers' soft-capped attention are float32, in which the mask of padding in float64 is infinite."""
PLAIN = SamplingSettings(temperature=1.0, top_p=1.0, max_new_tokens=12)
EVERY_SETTING = SamplingSettings(0.8, 0.95, 12, top_k=30, min_p=0.01, repetition_penalty=1.3, stop_ids=(7,))


def built(config: PreTrainedConfig, dtype: torch.dtype = torch.float64) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return AutoModelForCausalLM.from_config(config).to(dtype).eval()


@pytest.fixture(scope="module")
def llama() -> PreTrainedModel:
    return built(FAMILIES["llama"]())


def prompts(*lengths: int, beginning: int = 0) -> list[tuple[int, ...]]:
    numbers = torch.Generator().manual_seed(2)
    of_all, *own = [torch.randint(VOCAB, (n,), generator=numbers).tolist() for n in (beginning, *lengths)]
    return [(*of_all, *one) for one in own]


def draws(of: Sequence[tuple[int, ...]], num_samples: int) -> list[Draw]:
    return [
        draw
        for number, prompt in enumerate(of)
        for draw in draws_for(
            f"p{number}", prompt, num_samples=num_samples, recipe_seed=0, step="s", round_number=0, block=0
        )
    ]


def by_draw(answers: Iterator[Answer]) -> dict[tuple[str, int], Answer]:
    return {(answer.draw.prompt_id, answer.draw.index): answer for answer in answers}


def same(found: dict[tuple[str, int], Answer], expected: dict[tuple[str, int], Answer], within: float = 1e-9) -> None:
    """Tokens and endings are equal, and log-probabilities nearly."""
    assert found.keys() == expected.keys()
    for key, answer in expected.items():
        assert (found[key].token_ids, found[key].finish_reason) == (answer.token_ids, answer.finish_reason)
        assert found[key].sum_logp == pytest.approx(answer.sum_logp, abs=within)


@pytest.mark.parametrize("settings", [PLAIN, EVERY_SETTING], ids=["plain", "every setting"])
@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_those_of_padded_rows(family: str, settings: SamplingSettings) -> None:
    """In float64, where rounding cannot reach a draw: prompts with and without a beginning that all share."""
    model = built(FAMILIES[family](), torch.float32 if family in IN_FLOAT32 else torch.float64)
    assert grows_answers(model)
    sampler = LocalSampler(model, frozenset({EOS, 5, 6}), rows=8)
    for wanted in (draws(prompts(7, 1, 4, 13), 3), draws(prompts(2, 9, 1, 5, beginning=11), 3)):
        found = by_draw(sampler.sample(wanted, settings))
        padded = by_draw(replace(sampler, together=False).sample(wanted, settings))
        same(found, padded, within=1e-4 if family in IN_FLOAT32 else 1e-9)
        assert "stop" in {answer.finish_reason for answer in found.values()}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_log_probability_is_that_of_a_plain_pass(family: str) -> None:
    """All of the vocabulary, while a prompt leaves, another enters and rows move."""
    model = built(FAMILIES[family]())
    of = prompts(7, 2, 9, beginning=5)
    said = torch.randint(VOCAB, (5, 8), generator=torch.Generator().manual_seed(3)).tolist()
    with torch.inference_mode():
        passed = PassedPrompts.of(model, of)
        growing = Growing(model, rows=4, new_tokens=8, shared=5)
        growing.enter(passed, 0, 2)
        growing.enter(passed, 1, 1)
        rows = [(of[0], said[0]), (of[0], said[1]), (of[1], said[2])]
        lengths = [0, 0, 0]
        for step in range(7):
            logps = growing.logits().log_softmax(-1)
            for (prompt, answer), length, found in zip(rows, lengths, logps, strict=True):
                whole = (*prompt, *answer[:length])
                plain = model(input_ids=torch.tensor([whole]), use_cache=False).logits[0, -1].log_softmax(-1)
                torch.testing.assert_close(found, plain, rtol=0, atol=1e-5 if family in IN_FLOAT32 else 1e-9)
                alone = growing.head(PassedPrompts.of(model, [whole]).hidden)[0].log_softmax(-1)
                torch.testing.assert_close(found, alone, rtol=0, atol=1e-9)
            if step == 2:
                growing.keep([0, 2])
                growing.enter(passed, 2, 2)
                rows = [rows[0], rows[2], (of[2], said[3]), (of[2], said[4])]
                lengths = [lengths[0], lengths[2], 0, 0]
            if step == 4:
                growing.keep([3, 1, 2])
                rows, lengths = [rows[3], rows[1], rows[2]], [lengths[3], lengths[1], lengths[2]]
            growing.advance(torch.tensor([answer[n] for (_, answer), n in zip(rows, lengths, strict=True)]))
            lengths = [length + 1 for length in lengths]


@pytest.mark.parametrize("other", OTHERS)
def test_other_models_are_found_out_and_padded(other: str) -> None:
    model = built(OTHERS[other](), torch.float32)
    assert not grows_answers(model)
    sampler = LocalSampler(model, frozenset({EOS}), together=False)
    assert len(list(sampler.sample(draws(prompts(5, 5), 2), replace(PLAIN, max_new_tokens=3)))) == 4


def test_a_model_that_says_something_else_is_found_out(llama: PreTrainedModel) -> None:
    """One whose first layer scales what attention gives, where transformers' own attention is asked for by its name."""
    layer, config = llama.get_submodule("model.layers.0.self_attn"), llama.config
    asked = attrgetter("_attn_implementation")
    handle = layer.register_forward_hook(
        lambda _module, _given, out: (out[0] * (1.5 if "prefloop" in str(asked(config)) else 1), out[1])
    )
    try:
        assert not grows_answers(llama)
    finally:
        handle.remove()
    assert grows_answers(llama)


def rows_at_every_step(model: PreTrainedModel, wanted: Sequence[Draw], rows: int) -> tuple[list[int], list[int]]:
    """Live rows whenever a token is drawn, and the lengths of the answers."""
    live: list[int] = []
    sampler = LocalSampler(model, frozenset({EOS, 5, 6}), rows=rows)
    with pytest.MonkeyPatch.context() as patch:
        real = together.choose
        patch.setattr(together, "choose", lambda logits, *others: (live.append(len(logits)), real(logits, *others))[1])
        lengths = [len(answer.token_ids) for answer in sampler.sample(wanted, replace(PLAIN, max_new_tokens=40))]
    return live, lengths


def test_rows_that_become_free_are_filled_until_none_is_waiting(llama: PreTrainedModel) -> None:
    live, lengths = rows_at_every_step(llama, draws(prompts(*range(1, 31)), 4), rows=20)
    assert sum(live) == sum(lengths)
    assert max(live) == 20
    waiting = next(step for step in range(len(live)) if max(live[step:]) < 17)
    assert min(live[:waiting]) >= 17  # a prompt of four draws enters as soon as four rows are free
    assert sum(live[:waiting]) > 0.8 * sum(live)


def test_a_prompt_with_more_draws_than_rows_fills_them(llama: PreTrainedModel) -> None:
    wanted = draws(prompts(6), 50)
    live, lengths = rows_at_every_step(llama, wanted, rows=16)
    assert max(live) == 16
    assert len(lengths) == 50
    sampler = LocalSampler(llama, frozenset({EOS, 5, 6}), rows=16)
    found = by_draw(sampler.sample(wanted, EVERY_SETTING))
    same(found, by_draw(replace(sampler, together=False, rows=50).sample(wanted, EVERY_SETTING)))


@pytest.mark.parametrize("settings", [PLAIN, EVERY_SETTING], ids=["plain", "every setting"])
def test_the_same_call_gives_the_same_bytes(settings: SamplingSettings) -> None:
    """In float32, in which another order of rows rounds differently: what a restart makes again is what was lost."""
    model = built(FAMILIES["llama"](), torch.float32)
    wanted = draws(prompts(*range(1, 20), beginning=7), 3)
    first, again = (list(LocalSampler(model, frozenset({EOS}), rows=11).sample(wanted, settings)) for _ in range(2))
    assert first == again
    assert len(first) == len(wanted)


def test_prompts_pass_in_portions_and_their_beginning_with_each(
    llama: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = draws(prompts(*range(1, 13), beginning=20), 2)
    expected = by_draw(LocalSampler(llama, frozenset({EOS}), rows=6).sample(wanted, PLAIN))
    passed: list[int] = []
    handle = llama.get_input_embeddings().register_forward_hook(
        lambda _module, ids, _out: passed.append(ids[0].numel())
    )
    monkeypatch.setattr(components, "PASSED_AT_ONCE", 20)
    same(by_draw(LocalSampler(llama, frozenset({EOS}), rows=6).sample(wanted, PLAIN)), expected)
    handle.remove()
    portions = [20 + 12 + 11 + 10, 20 + 9 + 8 + 7 + 6 + 5 + 4, 20 + 3 + 2 + 1]
    assert [tokens for tokens in passed if tokens > 6] == portions


def test_stop_texts_end_answers_as_in_padded_rows(llama: PreTrainedModel) -> None:
    sampler = LocalSampler(
        llama, frozenset({EOS}), rows=9, text_of=lambda ids: "".join(chr(97 + token % 26) for token in ids)
    )
    settings = replace(PLAIN, stop=("ab", "h", "c"), max_new_tokens=30)
    wanted = draws(prompts(3, 7, 5), 9)
    found = by_draw(sampler.sample(wanted, settings))
    same(found, by_draw(replace(sampler, together=False).sample(wanted, settings)))
    ends = {chr(97 + answer.token_ids[-1] % 26) for answer in found.values() if answer.finish_reason == "stop"}
    assert {"h", "c"} <= ends
