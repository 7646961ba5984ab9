"""Trees against one sequence at a time: layouts, families of models, gradients."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn.attention import flex_attention as flex
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    CohereConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    GptOssConfig,
    GraniteConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    MixtralConfig,
    Phi3Config,
    PhiConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from prefloop.policy.functionals import RowScores, TokenRow, prompt_logps
from prefloop.policy.tree_attention import tree_attention
from prefloop.policy.tree_scores import TreeScores, takes_trees
from prefloop.policy.trees import WORTH_SHARING, Forest

VOCAB = 40
EXACT = 1e-10
"""Float64: sums in another order differ in the last bits only."""
IN_FLOAT32 = {"gemma-2": 3e-6, "mixture of experts": 3e-6}
"""Families of which transformers computes a softmax in float32: of eager attention, of the router. So many nats."""
SMALL: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WINDOW = 9
FAMILIES: dict[str, Callable[[], PretrainedConfig]] = {
    "llama": lambda: LlamaConfig(**SMALL),
    "llama, tied": lambda: LlamaConfig(**SMALL, tie_word_embeddings=True),
    "qwen2": lambda: Qwen2Config(**SMALL),
    "qwen2, windows": lambda: Qwen2Config(**SMALL, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1),
    "qwen3": lambda: Qwen3Config(**SMALL, head_dim=8),
    "mistral, windows": lambda: MistralConfig(**SMALL, sliding_window=WINDOW),
    "gemma-2": lambda: Gemma2Config(
        **SMALL, head_dim=8, sliding_window=WINDOW, attn_logit_softcapping=2.0, final_logit_softcapping=3.0
    ),
    "gemma-3": lambda: Gemma3TextConfig(**SMALL, head_dim=8, sliding_window=WINDOW, sliding_window_pattern=2),
    "gpt-2": lambda: GPT2Config(
        vocab_size=VOCAB,
        n_positions=128,
        n_embd=16,
        n_layer=2,
        n_head=2,
        initializer_range=0.4,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    ),
    "gpt-neox": lambda: GPTNeoXConfig(**{**SMALL, "num_key_value_heads": 4}),
    "phi": lambda: PhiConfig(**SMALL),
    "phi-3": lambda: Phi3Config(**SMALL),
    "mixture of experts": lambda: MixtralConfig(**SMALL, num_local_experts=4, num_experts_per_tok=2),
    "granite, logits scaled": lambda: GraniteConfig(**SMALL, logits_scaling=3.0, attention_multiplier=0.3),
    "cohere, logits scaled": lambda: CohereConfig(**SMALL, logit_scale=0.25),
}


def model_of(family: str, seed: int = 0) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            FAMILIES[family](),
            attn_implementation="eager" if family == "gemma-2" else None,  # SDPA knows no cap (attention_of)
            experts_implementation="eager",  # the other ways know no float64
        )
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = partial(exact_norm, module, one_more="Gemma" in type(module).__name__)
    return model.double().eval()


def exact_norm(norm: Any, states: Tensor, *, one_more: bool) -> Tensor:
    """The norm that transformers computes in float32 whatever the model's precision, in the model's own."""
    eps = norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps
    scaled = states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + eps)
    return scaled * (1 + norm.weight if one_more else norm.weight)


def ids(seed: int, length: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(3, VOCAB, (length,), generator=generator).tolist())


SYSTEM = ids(1, 20)
ROWS = [
    TokenRow((*SYSTEM, *ids(2, 18)), ids(3, 6), (True,) * 6),
    TokenRow((*SYSTEM, *ids(2, 18)), ids(4, 9), (True,) * 4 + (False,) * 3 + (True,) * 2),
    TokenRow((*SYSTEM, *ids(2, 18)), (*ids(4, 9)[:3], *ids(5, 1)), (True,) * 4),
    TokenRow((*SYSTEM, *ids(6, 3)), ids(7, 1), (True,)),
    TokenRow((*SYSTEM, *ids(6, 3)), ids(8, 25), (True,) * 25),
    TokenRow(ids(9, 5), ids(10, 4), (True,) * 4),
    TokenRow(ids(9, 5), ids(10, 4), (False,) * 3 + (True,)),
    TokenRow(ids(11, 1), ids(12, 2), (True,) * 2),
    TokenRow((*SYSTEM, *ids(6, 3)), (*ids(8, 25)[:18], *ids(13, 3)), (False,) * 5 + (True,) * 16),
]
"""Two prompts under one system turn, one alone, one of one token; answers of one token, twice the same, and two pairs
that begin alike: too shortly to share it, and with 18 tokens."""


def alone(model: Any, row: TokenRow) -> tuple[Tensor, Tensor, Tensor]:
    """Token log-probabilities of the answer, log sum p^2, and the prompt's sum, from one sequence's full softmax."""
    sequence = torch.tensor([(*row.prompt_ids, *row.answer_ids)])
    logps = model(input_ids=sequence, use_cache=False).logits[0].log_softmax(-1)
    picked = logps[:-1].gather(1, sequence[0, 1:, None])[:, 0]
    start = len(row.prompt_ids) - 1
    counted = torch.tensor(row.counted)
    return picked[start:] * counted, (2 * logps[start:-1]).logsumexp(1) * counted, picked[:start].sum()


# ------------------------------------------------------------------------------------------------------ the layout


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 40), st.lists(st.integers(0, 1), max_size=30)),
        min_size=1,
        max_size=7,
    ),
    st.sampled_from([None, 1, 300]),
)
def test_every_row_is_a_path_and_no_token_is_added(parts: list[tuple[int, int, list[int]]], behind: int | None) -> None:
    rows = [(*ids(stem, 41)[: 1 + length], *rest) for stem, length, rest in parts]
    forest = Forest.of(rows, behind)
    tokens, positions = torch.tensor(forest.ids), forest.positions()
    for number, row in enumerate(rows):
        places = forest.places(number)
        assert tuple(tokens[places].tolist()) == row
        assert positions[places].tolist() == list(range(len(row)))
    assert len(set(rows)) > 1 or len(forest) == len(rows[0])
    assert len(forest) <= sum(map(len, rows))
    assert [one.start for one in forest.segments[1:]] == [one.end for one in forest.segments[:-1]]


def test_what_is_worth_sharing_is_shared_at_every_level() -> None:
    system, question = ids(1, WORTH_SHARING), ids(2, WORTH_SHARING)
    rows = [(*system, *question, 5), (*system, *question, 6), (*system, 0)]
    forest = Forest.of(rows)
    assert len(forest) == 2 * WORTH_SHARING + 3
    assert [one.ancestors for one in forest.segments] == [
        (),
        (0,),
        (0,),
        (0, 2),
        (0, 2),
    ]  # sorted by their tokens: the short row first
    assert len(Forest.of([row[1:] for row in rows[:2]])) == 2 * WORTH_SHARING - 1 + 2
    assert len(Forest.of([(*system[1:], 5), (*system[1:], 6)])) == 2 * WORTH_SHARING


def test_a_segment_that_much_stands_behind_stands_there_again() -> None:
    system, questions = ids(1, 20), [ids(number, 150) for number in range(2, 11)]
    rows = [(*system, *question, answer) for question in questions for answer in (1, 2)]
    assert len(Forest.of(rows)) == 20 + 9 * 152
    times = {
        1: 3,
        320: 3,
        456: 3,
        609: 2,
        1216: 2,
        1217: 1,
    }  # 152 tokens a question, and at least 16 x 20
    for behind, expected in times.items():
        assert len(Forest.of(rows, behind)) == 20 * expected + 9 * 152, behind


@pytest.mark.parametrize("behind", [None, 1])
@pytest.mark.parametrize("window", [None, 7])
def test_the_mask_is_that_of_each_row_alone(window: int | None, behind: int | None) -> None:
    forest = Forest.of([(*row.prompt_ids, *row.answer_ids) for row in ROWS], behind)
    everything = torch.arange(len(forest))
    dense = forest.sees(everything, everything, window)
    seen = torch.zeros_like(dense)
    for number in range(len(ROWS)):
        places = forest.places(number)
        for later, place in enumerate(places):
            first = 0 if window is None else max(0, later - window + 1)
            seen[place, places[first : later + 1]] = True
    assert torch.equal(dense, seen)


# ------------------------------------------------------------------------------------------- the numbers of models


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_says_of_each_row_what_it_says_of_it_alone(family: str) -> None:
    model, within = model_of(family), IN_FLOAT32.get(family, EXACT)
    with torch.no_grad():
        found = TreeScores.of(model, ROWS)
        tokens, concentrations = found.token_logps(), found.token_log_sum_sq()
        prompts = found.prompt_logps([0, 3, 7])
        expected = [alone(model, row) for row in ROWS]
    for number, (own, concentration, _) in enumerate(expected):
        assert tokens[number, : len(own)].tolist() == pytest.approx(own.tolist(), abs=within)
        assert concentrations[number, : len(own)].tolist() == pytest.approx(concentration.tolist(), abs=within)
        assert not tokens[number, len(own) :].any()
    assert tokens.sum(1).tolist() == pytest.approx([float(own.sum()) for own, _, _ in expected], abs=within)
    assert prompts.tolist() == pytest.approx([float(expected[row][2]) for row in (0, 3, 7)], abs=within)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_says_the_same_with_flex_attention(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uncompiled: its kernels know no float64, and none for heads as narrow as these."""
    monkeypatch.setattr(flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    monkeypatch.setattr("prefloop.policy.tree_attention.compiled_flex_attention", lambda: flex.flex_attention)
    model = model_of(family).requires_grad_(False)
    segments = TreeScores.of(model, ROWS)
    monkeypatch.setattr("prefloop.policy.tree_attention._has_kernel", lambda *_: True)
    monkeypatch.delattr("prefloop.policy.tree_attention._AlongPaths")
    blocks = TreeScores.of(model, ROWS)
    torch.testing.assert_close(blocks.hidden, segments.hidden, rtol=0, atol=IN_FLOAT32.get(family, EXACT))


def gradient(loss: Tensor, model: Any) -> dict[str, Tensor]:
    model.zero_grad(set_to_none=True)
    loss.backward()
    return {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


def furthest(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest difference, as a share of the largest part of its tensor's gradient."""
    return max(float((found[name] - own).abs().max() / own.abs().max()) for name, own in expected.items())


def with_lora(model: PreTrainedModel, targets: Sequence[str]) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        adapted = get_peft_model(model, LoraConfig(r=2, target_modules=list(targets), init_lora_weights=False))
    return adapted.double().eval()


TRAINED: dict[str, Callable[[], Any]] = {
    "all weights": lambda: model_of("llama"),
    "all weights, tied": lambda: model_of("llama, tied"),
    "soft-capped": lambda: model_of("gemma-2"),
    "experts": lambda: model_of("mixture of experts"),
    "lora": lambda: with_lora(model_of("llama"), ["q_proj", "v_proj"]),
    "lora on the head": lambda: with_lora(model_of("llama"), ["v_proj", "lm_head"]),
}


@pytest.mark.parametrize("at_once", [7 * VOCAB, 2**23])
@pytest.mark.parametrize("trained", TRAINED)
def test_the_gradient_is_that_of_one_sequence_at_a_time(
    trained: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prefloop.policy.head.LOGITS_AT_ONCE", at_once)
    model = TRAINED[trained]()
    weights = torch.linspace(-1, 2, len(ROWS), dtype=torch.float64)
    found = gradient((weights * TreeScores.of(model, ROWS).token_logps().sum(1)).sum(), model)
    sums = torch.stack([alone(model, row)[0].sum() for row in ROWS])
    expected = gradient((weights * sums).sum(), model)
    assert found.keys() == expected.keys()
    assert furthest(found, expected) < (1e-5 if trained in {"soft-capped", "experts"} else EXACT)


def test_the_gradient_of_the_concentration_too() -> None:
    model = model_of("llama")
    found = gradient(TreeScores.of(model, ROWS).token_log_sum_sq().sum(), model)
    expected = gradient(torch.stack([alone(model, row)[1].sum() for row in ROWS]).sum(), model)
    assert furthest(found, expected) < EXACT


def test_rows_may_come_in_any_order_and_another_answer_moves_no_other() -> None:
    model = model_of("qwen3")
    with torch.no_grad():
        first = TreeScores.of(model, ROWS).token_logps().sum(1)
        turned = TreeScores.of(model, ROWS[::-1]).token_logps().sum(1)
        other = TokenRow(
            ROWS[1].prompt_ids,
            (*ROWS[1].answer_ids[:5], VOCAB - ROWS[1].answer_ids[5], *ROWS[1].answer_ids[6:]),
            ROWS[1].counted,
        )
        changed = TreeScores.of(model, [ROWS[0], other, *ROWS[2:]]).token_logps().sum(1)
    assert turned.flip(0).tolist() == pytest.approx(first.tolist(), abs=1e-12)
    moved = (changed - first).abs() > 1e-12
    assert moved.tolist() == [number == 1 for number in range(len(ROWS))]


def test_it_says_what_the_plain_way_says() -> None:
    model = model_of("llama")
    with torch.no_grad():
        trees, plain = TreeScores.of(model, ROWS), RowScores.of(model, ROWS)
        assert torch.allclose(trees.token_logps(), plain.token_logps(), rtol=0, atol=EXACT)
        assert torch.allclose(trees.token_log_sum_sq(), plain.token_log_sum_sq(), rtol=0, atol=EXACT)
        prompts = prompt_logps(model, [ROWS[0].prompt_ids, ROWS[3].prompt_ids])
        assert TreeScores.of(model, ROWS).prompt_logps([0, 3]).tolist() == pytest.approx(prompts.tolist(), abs=EXACT)


# ------------------------------------------------------------------------------------------- which models take them


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_that_takes_trees_is_found_out(family: str) -> None:
    assert takes_trees(model_of(family).float())


NOT_TAKEN: dict[str, Callable[[], PretrainedConfig]] = {
    "recurrent": lambda: MambaConfig(vocab_size=VOCAB, hidden_size=16, num_hidden_layers=2, state_size=4),
    "attention with sinks": lambda: GptOssConfig(
        **SMALL, head_dim=8, num_local_experts=2, num_experts_per_tok=1, layer_types=["full_attention"] * 2
    ),
    "a position bias": lambda: BloomConfig(vocab_size=VOCAB, hidden_size=16, n_layer=2, n_head=2),
}


@pytest.mark.parametrize("kind", NOT_TAKEN)
def test_a_model_that_would_say_something_else_gets_rows(kind: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(NOT_TAKEN[kind]())
    assert not takes_trees(model.eval())


def test_a_head_that_is_not_what_it_seems_gets_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("granite, logits scaled").float()
    assert takes_trees(model)
    monkeypatch.setattr("prefloop.policy.tree_scores.head_of", lambda of: of.get_output_embeddings())
    assert not takes_trees(model)


def test_the_models_own_attention_is_back_afterwards_also_after_an_error() -> None:
    model = model_of("llama")
    forest = Forest.of([(1, 2, 3)])
    with pytest.raises(KeyError), tree_attention(model, forest):
        raise KeyError
    assert model.config._attn_implementation == "sdpa"


def test_as_many_tokens_pass_as_the_forest_has() -> None:
    """20 of the system turn; 18 of a prompt and 6 + 9 + 4 of its answers; 21 that two rows share, their 7 + 3, and 4 of
    a row whose 3 tokens are not worth sharing; 9 of two equal rows; 3 of the last."""
    model, passed = model_of("llama"), []
    hook = model.base_model.embed_tokens.register_forward_hook(lambda *states: passed.append(states[2].shape[1]))
    with torch.no_grad():
        found = TreeScores.of(model, ROWS)
    hook.remove()
    assert passed == [len(found.forest)] == [20 + 18 + 19 + 21 + 10 + 4 + 9 + 3]
    assert sum(map(len, ROWS)) == 38 * 3 + 6 + 9 + 4 + 23 * 3 + 1 + 25 + 21 + 9 * 2 + 3
