"""Answers of a forest do not touch each other: what one depends on, what a change of one moves, and their order."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, MistralConfig, PretrainedConfig, Qwen3Config

from prefloop.policy import TokenRow, TreeScores

VOCAB = 40
WITHIN = 1e-12
"""Nats: float64 in another order."""
SMALL: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FAMILIES: dict[str, Callable[[], PretrainedConfig]] = {
    "llama": lambda: LlamaConfig(**SMALL),
    "qwen3": lambda: Qwen3Config(**SMALL, head_dim=8),
    "mistral, windows": lambda: MistralConfig(**SMALL, sliding_window=9),
    "gemma-2": lambda: Gemma2Config(
        **SMALL, head_dim=8, sliding_window=9, attn_logit_softcapping=2.0, final_logit_softcapping=3.0
    ),
}
EACH = pytest.mark.parametrize("family", FAMILIES)


def model_of(family: str) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = AutoModelForCausalLM.from_config(FAMILIES[family]())
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = partial(exact_norm, module, more=float("Gemma" in type(module).__name__))
    return model.double().eval()


def exact_norm(norm: Any, states: Tensor, *, more: float) -> Tensor:
    """The norm that transformers computes in float32 whatever the model's precision, in the model's own."""
    eps = norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps
    return states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + eps) * (more + norm.weight)


def ids(seed: int, length: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(3, VOCAB, (length,), generator=generator).tolist())


def answer(prompt: Sequence[int], own: Sequence[int]) -> TokenRow:
    return TokenRow(tuple(prompt), tuple(own), (True,) * len(own))


PROMPT, LONG = ids(1, 17), ids(2, 20)
EIGHT = [
    *(answer(PROMPT, ids(10 + number, length)) for number, length in enumerate((5, 1, 9, 3, 2))),
    answer(PROMPT, LONG),
    answer(PROMPT, (*LONG, 5, 6)),  # goes on where another one ends
    answer(PROMPT, (*LONG[:18], 7)),
]
"""Answers to one prompt."""
ALONE = answer(ids(30, 2), ids(31, 6))


def logps(model: Any, rows: Sequence[TokenRow]) -> list[Tensor]:
    """Of each row its tokens' log-probabilities."""
    with torch.no_grad():
        found = TreeScores.of(model, rows).token_logps()
    return [own[: len(row.answer_ids)] for own, row in zip(found, rows, strict=True)]


@EACH
def test_an_answer_depends_on_its_own_path_and_on_nothing_else(family: str) -> None:
    """The gradient of a row's log-probability by what enters the model: exactly zero off its path and from its last
    token on, and not zero at any token before, windows aside (three layers of nine tokens reach over 24)."""
    model, rows = model_of(family), [*EIGHT, ALONE]
    entered: list[Tensor] = []
    model.get_input_embeddings().register_forward_hook(lambda *states: entered.append(states[2]))
    passed = TreeScores.of(model, rows)
    sums = passed.token_logps().sum(1)
    for number, row in enumerate(rows):
        (slope,) = torch.autograd.grad(sums[number], entered, retain_graph=True)
        touched = slope[0].abs().sum(1) > 0
        path = passed.forest.places(number)[: len(row) - 1]
        expected = torch.zeros(len(passed.forest), dtype=torch.bool)
        expected[path] = True
        assert torch.equal(touched, expected)


@EACH
def test_a_changed_token_moves_the_numbers_from_itself_on_its_own_branch(family: str) -> None:
    """In every answer in turn its middle token; where answers share it, the others keep theirs."""
    model, before = model_of(family), logps(model_of(family), [*EIGHT, ALONE])
    for changed, row in enumerate(EIGHT):
        place = len(row.answer_ids) // 2
        other = answer(PROMPT, (*row.answer_ids[:place], 1, *row.answer_ids[place + 1 :]))
        after = logps(model, [*EIGHT[:changed], other, *EIGHT[changed + 1 :], ALONE])
        for number, (old, new) in enumerate(zip(before, after, strict=True)):
            moved = (old - new).abs() > WITHIN
            expected = [number == changed and token >= place for token in range(len(old))]
            assert moved.tolist() == expected


@EACH
def test_permuted_answers_have_permuted_numbers(family: str) -> None:
    model, rows = model_of(family), [*EIGHT, ALONE]
    straight = logps(model, rows)
    for seed in range(3):
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
        for place, own in zip(order, logps(model, [rows[place] for place in order]), strict=True):
            torch.testing.assert_close(own, straight[place], rtol=0, atol=WITHIN)


@EACH
def test_answers_that_are_split_over_passes_keep_their_numbers(family: str) -> None:
    """Eight answers at once, four and four, one by one."""
    model = model_of(family)
    together = logps(model, EIGHT)
    for size in (4, 1):
        split = [own for start in range(0, 8, size) for own in logps(model, EIGHT[start : start + size])]
        for one, other in zip(together, split, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=WITHIN)
