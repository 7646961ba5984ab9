"""Entropy, KL from a live reference and hidden states against the whole softmax, one sequence at a time, in float64."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM as Auto
from transformers import (
    CohereConfig,
    Gemma3TextConfig,
    GraniteConfig,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
)

from prefloop.policy import LiveReference, RowScores, TokenRow, TreeScores
from prefloop.policy.head import token_logps
from prefloop.policy.live import REFERENCE

VOCAB = 40
SMALL: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
    "initializer_range": 0.4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CONFIGS: dict[str, Callable[[], PretrainedConfig]] = {
    "own head": lambda: LlamaConfig(**SMALL),
    "tied": lambda: LlamaConfig(**SMALL, tie_word_embeddings=True),
    "capped": lambda: Gemma3TextConfig(**SMALL, head_dim=8, final_logit_softcapping=3.0),
    "divided": lambda: GraniteConfig(**SMALL, logits_scaling=3.0, attention_multiplier=0.3),
    "scaled": lambda: CohereConfig(**SMALL, logit_scale=0.25),
}


def model_of(kind: str, seed: int) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: PreTrainedModel = Auto.from_config(CONFIGS[kind]())
    for module in model.modules():
        kind_of_norm = type(module).__name__
        if kind_of_norm.endswith(("RMSNorm", "LayerNorm")):
            module.forward = partial(
                exact_norm, module, one_more="Gemma" in kind_of_norm, centred="Layer" in kind_of_norm
            )
    return model.double().eval()


def exact_norm(norm: Any, states: Tensor, *, one_more: bool, centred: bool) -> Tensor:
    """The norm that transformers computes in float32 whatever the model's precision, in the model's own."""
    eps = norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps
    states = states - states.mean(-1, keepdim=True) if centred else states
    scaled = states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + eps)
    return scaled * (1 + norm.weight if one_more else norm.weight)


def ids(seed: int, length: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(3, VOCAB, (length,), generator=generator).tolist())


PROMPT = ids(1, 20)
ROWS = [
    TokenRow(PROMPT, ids(2, 6), (True,) * 6),
    TokenRow(PROMPT, ids(3, 5), (True, False, False, True, True)),
    TokenRow((*PROMPT, *ids(4, 3)), ids(5, 1), (True,)),
    TokenRow(ids(6, 4), ids(7, 3), (False, True, True)),
]


def adapted(model: PreTrainedModel, targets: tuple[str, ...], seed: int) -> Any:
    config = LoraConfig(r=2, target_modules=list(targets), init_lora_weights=False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        found = get_peft_model(model, config)
        found.add_adapter(REFERENCE, config)
    found.base_model.set_adapter("default")
    return found.double().eval()


HEAD = ("v_proj", "lm_head")


def policy_and_reference(kind: str) -> tuple[Any, LiveReference, Callable[[], Any]]:
    """A policy, its live reference, and the same reference as a model that nothing was done to."""
    if kind in CONFIGS:
        reference = model_of(kind, 1).requires_grad_(False)
        return model_of(kind, 0), LiveReference(reference), lambda: reference
    targets = HEAD if "head" in kind else ("q_proj", "v_proj")
    policy = adapted(model_of("own head", 0), targets, 5)
    if "off" in kind:
        return policy, LiveReference(policy, "off"), lambda: model_of("own head", 0)

    def merged() -> Any:
        own = adapted(model_of("own head", 0), targets, 5)
        return own.merge_and_unload(adapter_names=[REFERENCE])

    return policy, LiveReference(policy, "reference"), merged


KINDS = [*CONFIGS, "lora, off", "lora, reference", "lora on the head, off", "lora on the head, reference"]


def logits_of(model: Any, row: TokenRow) -> Tensor:
    """The whole logits before each answer token, of one row alone."""
    found = model(input_ids=torch.tensor([[*row.prompt_ids, *row.answer_ids]])).logits[0]
    return found[len(row.prompt_ids) - 1 : -1]


def naive_kl(model: Any, reference: Any) -> Tensor:
    sums: list[Tensor] = []
    for row in ROWS:
        p, q = logits_of(model, row).softmax(1), logits_of(reference, row).softmax(1).detach()
        sums.append(((q * (q / p).log()).sum(1) * torch.tensor(row.counted)).sum())
    return torch.stack(sums)


def naive_entropy(model: Any) -> Tensor:
    sums: list[Tensor] = []
    for row in ROWS:
        p = logits_of(model, row).softmax(1)
        sums.append((-(p * p.log()).sum(1) * torch.tensor(row.counted)).sum())
    return torch.stack(sums)


WEIGHTS = torch.linspace(-1, 2, len(ROWS), dtype=torch.float64)


def gradient(values: Tensor, model: Any) -> dict[str, Tensor]:
    model.zero_grad(set_to_none=True)
    (values * WEIGHTS).sum().backward()
    return {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


IN_FLOAT32 = {"scaled": 1e-7}
"""Of Cohere transformers rotates queries and keys in float32: gradients agree to its last bits only."""


def must_be_alike(found: dict[str, Tensor], expected: dict[str, Tensor], within: float = 1e-9) -> None:
    assert found.keys() == expected.keys()
    assert found
    for name, one in expected.items():
        assert (found[name] - one).norm() <= within * max(one.norm().item(), 1e-3), name


EACH_LAYOUT = pytest.mark.parametrize("scores", [RowScores, TreeScores])
EACH_PIECE = pytest.mark.parametrize("at_once", [1, 4, 10_000])


@EACH_LAYOUT
@EACH_PIECE
@pytest.mark.parametrize("kind", KINDS)
def test_the_kl_from_a_live_reference_and_its_gradient(
    kind: str, at_once: int, scores: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prefloop.policy.head.LOGITS_AT_ONCE", at_once * VOCAB)
    policy, live, reference = policy_and_reference(kind)
    trainable = {name for name, one in policy.named_parameters() if one.requires_grad}
    found = scores.of(policy, ROWS).seq_kl(live)
    of_found = gradient(found, policy)
    expected = naive_kl(policy, reference())
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-9)
    assert min(found.tolist()) > 1e-3
    must_be_alike(of_found, gradient(expected, policy), IN_FLOAT32.get(kind, 1e-9))
    assert {name for name, one in policy.named_parameters() if one.requires_grad} == trainable
    assert all(one.grad is None for one in live.model.parameters() if not one.requires_grad)


@EACH_LAYOUT
@EACH_PIECE
@pytest.mark.parametrize("kind", [*CONFIGS, "lora on the head, off"])
def test_the_entropy_and_its_gradient(kind: str, at_once: int, scores: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefloop.policy.head.LOGITS_AT_ONCE", at_once * VOCAB)
    policy, _, _ = policy_and_reference(kind)
    found = scores.of(policy, ROWS).token_entropy()
    assert not found[1, 1:3].any()
    of_found = gradient(found.sum(1), policy)
    expected = naive_entropy(policy)
    assert found.sum(1).tolist() == pytest.approx(expected.tolist(), rel=1e-9)
    must_be_alike(of_found, gradient(expected, policy), IN_FLOAT32.get(kind, 1e-9))


@EACH_LAYOUT
def test_a_policy_that_is_its_reference_is_exactly_nowhere_else(scores: Any) -> None:
    model = model_of("tied", 0)
    kl = scores.of(model, ROWS).seq_kl(LiveReference(model))
    assert kl.tolist() == [0.0] * len(ROWS)
    assert max(one.abs().max().item() for one in gradient(kl, model).values()) < 1e-14


def test_hidden_states_for_heads_stand_where_heads_read_them() -> None:
    model = model_of("own head", 0)
    rows, trees = RowScores.of(model, ROWS, with_states=True), TreeScores.of(model, ROWS)
    weight = torch.linspace(-1, 1, 16, dtype=torch.float64)
    for number, row in enumerate(ROWS):
        whole = model.model(input_ids=torch.tensor([[*row.prompt_ids, *row.answer_ids]])).last_hidden_state[0]
        before = whole[len(row.prompt_ids) - 1 : -1]
        for passed in (rows, trees):
            torch.testing.assert_close(passed.last_states()[number], whole[-1], rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(passed.token_states()[number, : len(before)], before, rtol=1e-9, atol=1e-9)
            assert not passed.token_states()[number, len(before) :].any()
    of_rows = gradient((rows.last_states() + rows.token_states().sum(1)) @ weight, model)
    of_trees = gradient((trees.last_states() + trees.token_states().sum(1)) @ weight, model)
    must_be_alike(of_trees, of_rows)


@pytest.mark.parametrize("tokens", [1, 3, 4, 8, 11])
def test_what_is_kept_is_not_computed_again_and_changes_no_number(tokens: int) -> None:
    """Four at a time: of 11 tokens the last 4 pass once, the 7 before them twice."""
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 6, generator=generator, dtype=torch.float64) for n in (tokens, 9))
    targets = torch.arange(tokens) % 9
    found: dict[bool, list[torch.Tensor]] = {}
    passed = {False: 0, True: 0}
    for keep in (False, True):
        head = nn.Linear(6, 9, bias=False).double()
        head.weight.data = weight.clone()
        head.register_forward_hook(
            lambda _head, given, _made, keep=keep: passed.update({keep: passed[keep] + len(given[0])})
        )
        states = hidden.clone().requires_grad_(True)
        logps = token_logps(head, states, targets, {"at_once": 4, "weights": [head.weight]}, keep=keep)
        (logps * torch.arange(1, tokens + 1)).sum().backward()
        assert states.grad is not None
        assert head.weight.grad is not None
        found[keep] = [logps.detach(), states.grad, head.weight.grad]
    assert passed == {False: 2 * tokens, True: 2 * tokens - (tokens % 4 if tokens < 4 else 4)}
    states, exact = hidden.clone().requires_grad_(True), weight.clone().requires_grad_(True)
    logps = (states @ exact.T).log_softmax(1)[range(tokens), targets]
    (logps * torch.arange(1, tokens + 1)).sum().backward()
    for numbers in found.values():
        for one, expected in zip(numbers, (logps, states.grad, exact.grad), strict=True):
            torch.testing.assert_close(one, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["weights in bfloat16", "autocast to bfloat16"])
def test_the_gradient_of_a_head_is_added_up_in_float32(kind: str) -> None:
    """Of 2,000 pieces with gradients of one sign; added up in bfloat16 it would stop growing after some 256."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 4, generator=generator)
    states = 1 + 0.1 * torch.randn(2000, 4, generator=generator)
    targets = torch.zeros(2000, dtype=torch.long)
    head = nn.Linear(4, 8, bias=False)
    in_weights = kind == "weights in bfloat16"
    head.weight.data = (weight.bfloat16() if in_weights else weight.bfloat16().float()).clone()
    hidden = states.bfloat16() if in_weights else states.bfloat16().float()
    with torch.autocast("cpu", torch.bfloat16, enabled=not in_weights):
        found = token_logps(head, hidden, targets, {"at_once": 1, "weights": [head.weight]}, keep=True)
    found.sum().backward()
    exact = weight.bfloat16().double().requires_grad_(True)
    (states.bfloat16().double() @ exact.T).log_softmax(1)[:, 0].sum().backward()
    assert head.weight.grad is not None
    assert exact.grad is not None
    assert (head.weight.grad.double() - exact.grad).norm() < 0.005 * exact.grad.norm()
