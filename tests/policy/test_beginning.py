"""What all prompts begin with passes once, and no number moves."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
)

from prefloop.policy import TokenRow, response_logps, shared_length

BEGINNING = tuple(range(5, 30))
ROWS = [
    TokenRow((*BEGINNING, *rest), answer, (True,) * len(answer))
    for rest, answer in (
        ((1,), (2, 3, 4)),
        ((3, 1, 4, 1, 5), (9,)),
        ((2, 7), (1, 8, 2, 8, 1, 8)),
        ((2, 7), (6, 6)),
    )
]
SMALL = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.4,
}


def llama() -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**SMALL))


def gpt2() -> PreTrainedModel:
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=64, initializer_range=0.2)
    )


def sliding() -> PreTrainedModel:
    return MistralForCausalLM(MistralConfig(**SMALL, sliding_window=8))


def made(make: Callable[[], PreTrainedModel]) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().double().eval()


def naive(model: PreTrainedModel, row: TokenRow) -> Tensor:
    ids = torch.tensor([(*row.prompt_ids, *row.answer_ids)])
    logps = model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
    start = len(row.prompt_ids)
    return torch.stack([logps[start + t - 1, token] for t, token in enumerate(row.answer_ids)]).sum()


def tokens_through(model: PreTrainedModel) -> tuple[Tensor, int]:
    """Log-probabilities of the rows, and how many tokens were embedded for them, padding included."""
    seen: list[int] = []
    hook = model.get_input_embeddings().register_forward_hook(lambda _m, args, _out: seen.append(args[0].numel()))
    logps = response_logps(model, ROWS)
    hook.remove()
    return logps, sum(seen)


@pytest.mark.parametrize("make", [llama, gpt2, sliding])
def test_numbers_and_gradients_are_those_of_each_row_alone(make: Callable[[], PreTrainedModel]) -> None:
    model = made(make)
    weights = list(model.parameters())
    factors = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)

    logps = response_logps(model, ROWS)
    expected = torch.stack([naive(model, row) for row in ROWS])

    torch.testing.assert_close(logps, expected, rtol=0, atol=1e-9)
    gradients = torch.autograd.grad((logps * factors).sum(), weights)
    expected_gradients = torch.autograd.grad((expected * factors).sum(), weights)
    found, wanted = (torch.cat([part.flatten() for part in parts]) for parts in (gradients, expected_gradients))
    # transformers' RMSNorm works in float32 whatever the model does, so that sums over rows keep its rounding (6e-8).
    tolerance = 1e-12 if make is gpt2 else 1e-6
    assert float((found - wanted).norm() / wanted.norm()) < tolerance


@pytest.mark.parametrize("make", [llama, gpt2])
def test_the_beginning_passes_once(make: Callable[[], PreTrainedModel]) -> None:
    longest_rest = max(len(row) for row in ROWS) - len(BEGINNING)

    assert tokens_through(made(make))[1] == len(BEGINNING) + len(ROWS) * longest_rest


def test_a_sliding_window_model_takes_whole_rows() -> None:
    assert tokens_through(made(sliding))[1] == len(ROWS) * max(len(row) for row in ROWS)


def test_a_token_is_left_to_every_row_and_little_is_not_worth_a_pass() -> None:
    assert shared_length([tuple(range(70)), tuple(range(80))]) == 69
    assert shared_length([(1, 2, 3)] * 4) == 0
    assert shared_length([(1, *range(99)), (2, *range(99))]) == 0
