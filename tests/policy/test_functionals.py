"""Answers' log-probabilities against the whole log-softmax, one row at a time."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from prefloop.policy import (
    RowScores,
    TokenRow,
    batches_within,
    prompt_logps,
    response_logps,
    score_rows,
)

VOCAB = 40
SPREAD = 0.4  # standard deviation of the weights; the usual 0.02 makes all tokens equally likely


def llama() -> PreTrainedModel:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            initializer_range=SPREAD,
            max_position_embeddings=64,
        )
    )


def gpt2() -> PreTrainedModel:
    """Learned positions: wrong position ids show at once."""
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCAB, n_embd=16, n_layer=2, n_head=2, n_positions=64, initializer_range=SPREAD / 2)
    )


@pytest.fixture(scope="module", params=[llama, gpt2])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    """In float64: what remains are differences between layouts, not rounding."""
    make: Callable[[], PreTrainedModel] = request.param
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().double().eval()


def row(prompt: int, answer: int, seed: int, counted: tuple[bool, ...] | None = None) -> TokenRow:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, VOCAB, (prompt + answer,), generator=generator).tolist()
    return TokenRow(tuple(ids[:prompt]), tuple(ids[prompt:]), counted or (True,) * answer)


ROWS = [
    row(3, 5, seed=0),
    row(9, 1, seed=1),
    row(1, 12, seed=2),
    row(6, 6, seed=3, counted=(False, True, True, False, True, False)),
    row(2, 2, seed=4),
    row(20, 3, seed=5, counted=(True, False, False)),
]


def naive(model: PreTrainedModel, row: TokenRow) -> Tensor:
    """One row, no padding, every position's whole distribution."""
    ids = torch.tensor([(*row.prompt_ids, *row.answer_ids)])
    logps = model(input_ids=ids, use_cache=False).logits[0].double().log_softmax(-1)
    start = len(row.prompt_ids)
    terms = [logps[start + t - 1, token] for t, token in enumerate(row.answer_ids) if row.counted[t]]
    return torch.stack(terms).sum()


@torch.no_grad()
def test_a_row_has_the_sum_of_its_counted_log_softmax_terms(model: PreTrainedModel) -> None:
    for one in ROWS:
        assert response_logps(model, [one]).item() == pytest.approx(naive(model, one).item(), abs=1e-9)


@torch.no_grad()
def test_padding_beside_longer_rows_changes_nothing(model: PreTrainedModel) -> None:
    expected = [naive(model, one).item() for one in ROWS]
    assert response_logps(model, ROWS).tolist() == pytest.approx(expected, abs=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("order", [(5, 4, 3, 2, 1, 0), (2, 0, 4, 1, 5, 3)])
def test_the_order_of_rows_changes_nothing(model: PreTrainedModel, order: tuple[int, ...]) -> None:
    found = response_logps(model, [ROWS[index] for index in order]).tolist()
    expected = response_logps(model, ROWS).tolist()
    assert found == pytest.approx([expected[index] for index in order], abs=1e-9)


@pytest.mark.parametrize("budget", [1, 25, 50, 1000])
def test_the_size_of_batches_changes_nothing(model: PreTrainedModel, budget: int) -> None:
    with torch.no_grad():
        expected = [naive(model, one).item() for one in ROWS]
    assert list(score_rows(model, ROWS, budget)) == pytest.approx(expected, abs=1e-9)


def test_gradients_are_those_of_the_naive_sum_with_padding_or_without(model: PreTrainedModel) -> None:
    weights = [tensor for tensor in model.parameters() if tensor.requires_grad]
    factors = torch.arange(1.0, len(ROWS) + 1).double()
    expected = torch.autograd.grad((torch.stack([naive(model, one) for one in ROWS]) * factors).sum(), weights)
    found = torch.autograd.grad((response_logps(model, ROWS) * factors).sum(), weights)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_tokens_that_are_not_counted_still_condition_the_rest(model: PreTrainedModel) -> None:
    """The parts of an answer add up to the whole."""
    whole = ROWS[2]
    parts = [tuple(t % 3 == part for t in range(12)) for part in range(3)]
    rows = [TokenRow(whole.prompt_ids, whole.answer_ids, counted) for counted in parts]
    assert response_logps(model, rows).sum().item() == pytest.approx(naive(model, whole).item(), abs=1e-9)


@torch.no_grad()
def test_the_probabilities_of_all_one_token_answers_sum_to_one(model: PreTrainedModel) -> None:
    rows = [TokenRow((7, 3, 7), (token,), (True,)) for token in range(VOCAB)]
    assert response_logps(model, rows).exp().sum().item() == pytest.approx(1, abs=1e-12)


@torch.no_grad()
def test_a_row_without_counted_tokens_is_zero(model: PreTrainedModel) -> None:
    assert response_logps(model, [row(3, 2, seed=9, counted=(False, False)), ROWS[0]])[0].item() == 0.0


@torch.no_grad()
@pytest.mark.parametrize("make", [llama, gpt2])
def test_in_float32_only_rounding_is_lost(make: Callable[[], PreTrainedModel]) -> None:
    """A logit, and so their norm, passes at most a hundred roundings, each relative to the largest logit."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = make().eval()
    found = response_logps(model, ROWS)
    assert found.dtype == torch.float64
    largest = max(model(torch.tensor([one.prompt_ids + one.answer_ids])).logits.abs().max().item() for one in ROWS)
    model.double()
    for value, one in zip(found.tolist(), ROWS, strict=True):
        tolerance = 2 * 100 * torch.finfo(torch.float32).eps * largest * sum(one.counted)
        assert value == pytest.approx(naive(model, one).item(), abs=tolerance)


@torch.no_grad()
def test_bfloat16_logits_are_summed_above_their_precision() -> None:
    """Softmax in bfloat16 would miss by percents; from given logits the loss of each token is exact to float32."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = llama().bfloat16().eval()
    assert response_logps(model, ROWS[:1]).item() == pytest.approx(naive(model, ROWS[0]).item(), abs=1e-5)


@pytest.mark.parametrize(
    ("sizes", "budget", "expected"),
    [
        ([5, 5, 5, 5], 10, [[0, 1], [2, 3]]),
        ([1, 2, 9, 1], 10, [[0, 1], [2], [3]]),
        ([3, 3, 3], 9, [[0, 1, 2]]),
        ([3, 3, 3], 8, [[0, 1], [2]]),
        ([50, 1], 10, [[0], [1]]),
        ([], 10, []),
    ],
)
def test_batches_keep_the_order_and_the_padded_budget(sizes: list[int], budget: int, expected: list[list[int]]) -> None:
    assert list(batches_within(range(len(sizes)), sizes, budget)) == expected


# ------------------------------------------------------------------------------------------------ token by token


def naive_tokens(model: PreTrainedModel, row: TokenRow) -> tuple[list[float], list[float]]:
    """log p of each answer token and log sum_v p_v^2 of its distribution, 0 where it is not counted."""
    ids = torch.tensor([(*row.prompt_ids, *row.answer_ids)])
    logps = model(input_ids=ids, use_cache=False).logits[0].double().log_softmax(-1)
    start = len(row.prompt_ids)
    each = [
        (logps[start + t - 1, token].item(), logps[start + t - 1].exp().square().sum().log().item())
        for t, token in enumerate(row.answer_ids)
    ]
    own, collisions = zip(*each, strict=True)
    return (
        [value * counted for value, counted in zip(own, row.counted, strict=True)],
        [value * counted for value, counted in zip(collisions, row.counted, strict=True)],
    )


def test_tokens_are_scored_from_the_left_and_padded_with_zeros(model: PreTrainedModel) -> None:
    found = RowScores.of(model, ROWS)
    logps, log_sum_sq = found.token_logps(), found.token_log_sum_sq()
    for number, one in enumerate(ROWS):
        own, collisions = naive_tokens(model, one)
        behind = [0.0] * (12 - len(own))
        assert logps[number].tolist() == pytest.approx(own + behind, abs=1e-9)
        assert log_sum_sq[number].tolist() == pytest.approx(collisions + behind, abs=1e-9)


def test_scores_of_tokens_add_up_to_that_of_the_answer(model: PreTrainedModel) -> None:
    found = RowScores.of(model, ROWS).token_logps()
    assert found.dtype == torch.float64
    assert found.sum(1).tolist() == pytest.approx(response_logps(model, ROWS).tolist(), abs=1e-12)


def test_scores_of_tokens_do_not_depend_on_their_neighbours(model: PreTrainedModel) -> None:
    alone = RowScores.of(model, ROWS[3:4])
    together = RowScores.of(model, ROWS)
    assert alone.token_logps()[0].tolist() == pytest.approx(together.token_logps()[3, :6].tolist(), abs=1e-9)
    assert alone.token_log_sum_sq()[0].tolist() == pytest.approx(together.token_log_sum_sq()[3, :6].tolist(), abs=1e-9)


def test_a_prompt_is_scored_without_its_first_token(model: PreTrainedModel) -> None:
    prompts = [one.prompt_ids for one in ROWS if len(one.prompt_ids) > 1]
    expected = [naive(model, TokenRow(ids[:1], ids[1:], (True,) * (len(ids) - 1))).item() for ids in prompts]
    assert prompt_logps(model, prompts).tolist() == pytest.approx(expected, abs=1e-9)
