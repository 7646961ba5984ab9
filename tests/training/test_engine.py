"""The optimiser step against a gradient written out example by example."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from prefloop.errors import CheckFailedError
from prefloop.objectives import Objective, find_objective
from prefloop.policy import TokenRow, Trainable
from prefloop.records import Example, Message, Prompt
from prefloop.training import (
    ROWS,
    TREES,
    Budget,
    Engine,
    Layout,
    LossOfPlan,
    TokenExample,
    example_data,
    frozen_scores,
)
from prefloop.training.metrics import metrics as metrics_of

VOCAB = 30
ROLES = ("chosen", "rejected")
PROMPT = Prompt.of((Message(role="user", content="?"),))
REGULARIZED = find_objective("length_regularized_dpo", "here")
HYPER = {"beta": 0.3, "alpha": 0.05}
EVERYTHING = 10_000
NO_CLIPPING = 1e9


def token_example(number: int, prompt: int, chosen: int, rejected: int, weight: float) -> TokenExample:
    generator = torch.Generator().manual_seed(number)
    ids = [tuple(torch.randint(0, VOCAB, (n,), generator=generator).tolist()) for n in (prompt, chosen, rejected)]
    rows = {role: TokenRow(ids[0], answer, (True,) * len(answer)) for role, answer in zip(ROLES, ids[1:], strict=True)}
    example = Example(example_id=str(number), prompt=PROMPT, members=(), weight=weight, why="test")
    return TokenExample.of(example, rows)


EXAMPLES = [
    token_example(0, 3, 5, 2, 1.0),
    token_example(1, 8, 1, 7, 2.0),
    token_example(2, 2, 9, 9, 0.0),
    token_example(3, 5, 4, 1, 0.5),
    token_example(4, 3, 6, 3, 1.0),
]
STEP = [3, 0, 4, 1, 2]
OF_STEP = {index: EXAMPLES[index] for index in STEP}


def llama(seed: int) -> LlamaForCausalLM:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=VOCAB,
                hidden_size=16,
                intermediate_size=24,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=1,
                initializer_range=0.3,
                max_position_embeddings=64,
            )
        )
    return model.double().eval()


def engine(
    tokens_per_batch: int = EVERYTHING,
    *,
    model: LlamaForCausalLM | None = None,
    ref: LlamaForCausalLM | None = None,
    objective: Objective = REGULARIZED,
    max_grad_norm: float = NO_CLIPPING,
) -> Engine:
    """An engine on a random float64 model, whose reference is another one."""
    model, ref = model or llama(0), ref or llama(1)
    data = {name: torch.from_numpy(values) for name, values in example_data(EXAMPLES, ROLES).items()}
    loss = LossOfPlan(objective, HYPER, data, {"ref": reference(ref, STEP, tokens_per_batch)})
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    return Engine(
        Trainable(model, None, Path(), {}), loss, EXAMPLES, optimizer, max_grad_norm, Budget(tokens_per_batch)
    )


def reference(model: LlamaForCausalLM, step: Sequence[int], tokens_per_batch: int) -> dict[str, Tensor]:
    scores = {f"{role}_logps": torch.full((len(EXAMPLES),), torch.nan, dtype=torch.float64) for role in ROLES}
    for batch, columns in frozen_scores(model, EXAMPLES, ROLES, [step], tokens_per_batch):
        for name, column in columns.items():
            scores[name][batch] = torch.tensor(column, dtype=torch.float64)
    return scores


def naive_logp(model: LlamaForCausalLM, row: TokenRow) -> Tensor:
    logps = (
        model(input_ids=torch.tensor([(*row.prompt_ids, *row.answer_ids)]), use_cache=False).logits[0].log_softmax(-1)
    )
    start = len(row.prompt_ids)
    return torch.stack([logps[start + t - 1, token] for t, token in enumerate(row.answer_ids)]).sum()


def naive_losses(model: LlamaForCausalLM, ref: LlamaForCausalLM) -> Tensor:
    """Each example's weighted loss in the order of the step, straight from the formula."""
    losses: list[Tensor] = []
    for example in (EXAMPLES[index] for index in STEP):
        rho = {role: naive_logp(model, row) - naive_logp(ref, row).detach() for role, row in example.rows.items()}
        gap = len(example.rows["chosen"].answer_ids) - len(example.rows["rejected"].answer_ids)
        z = HYPER["beta"] * (rho["chosen"] - rho["rejected"]) + HYPER["alpha"] * gap
        losses.append(example.weight * torch.log1p(torch.exp(-z)))
    return torch.stack(losses)


def gradients(model: LlamaForCausalLM) -> list[Tensor]:
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize(("tokens_per_batch", "batches"), [(1, 5), (36, 4), (54, 3), (60, 2), (EVERYTHING, 1)])
def test_loss_and_gradient_are_the_mean_over_the_step_however_it_is_split(tokens_per_batch: int, batches: int) -> None:
    """Normalised once, by the number of examples of the whole step; weights multiply and are not divided out."""
    found = engine(tokens_per_batch)
    assert len(list(ROWS.cut(OF_STEP, tokens_per_batch))) == batches
    metrics = found.step(STEP, learning_rate=0.0)
    model = llama(0)
    losses = naive_losses(model, llama(1))
    expected = torch.autograd.grad(losses.sum() / len(STEP), list(model.parameters()))
    assert metrics["loss"] == pytest.approx(losses.sum().item() / len(STEP), abs=1e-9)
    for one, other in zip(gradients(found.trainable.model), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    norm = math.sqrt(sum(grad.square().sum().item() for grad in expected))
    assert metrics["grad_norm"] == pytest.approx(norm, rel=1e-9)


def test_the_size_of_micro_batches_changes_no_metric() -> None:
    one, other = (engine(size).step(STEP, learning_rate=0.0) for size in (1, EVERYTHING))
    assert one.pop("tokens") < other.pop("tokens")  # padding
    assert one == pytest.approx(other, rel=1e-9, abs=1e-9)


def test_every_example_of_a_step_is_in_exactly_one_micro_batch_within_the_budget() -> None:
    for budget in (1, 20, 40, 44, 80, EVERYTHING):
        batches = list(ROWS.cut(OF_STEP, budget))
        order = [index for batch in batches for index in batch]
        assert sorted(order) == sorted(STEP)
        assert order == sorted(STEP, key=lambda index: EXAMPLES[index].longest)
        for batch in batches:
            padded = max(EXAMPLES[index].longest for index in batch) * 2 * len(batch)
            assert padded <= budget or len(batch) == 1


def test_reference_scores_do_not_depend_on_the_layout() -> None:
    one, other = (reference(llama(1), order, size) for order, size in ((STEP, 1), (range(5), EVERYTHING)))
    for role in ROLES:
        naive = [naive_logp(llama(1), example.rows[role]).item() for example in EXAMPLES]
        assert one[f"{role}_logps"].tolist() == pytest.approx(naive, abs=1e-9)
        assert other[f"{role}_logps"].tolist() == pytest.approx(naive, abs=1e-9)


def test_the_optimiser_gets_the_rate_and_the_clipped_gradient() -> None:
    """Plain gradient descent makes both visible."""
    found = engine(max_grad_norm=0.25)
    before = [parameter.detach().clone() for parameter in found.trainable.model.parameters()]
    norm = found.step(STEP, learning_rate=0.5)["grad_norm"]
    moved = [(b - a.detach()) for a, b in zip(found.trainable.model.parameters(), before, strict=True)]
    length = math.sqrt(sum(step.square().sum().item() for step in moved))
    assert norm > 0.25
    assert length == pytest.approx(0.5 * 0.25, rel=1e-5)  # torch adds 1e-6 to the norm that it divides by


def test_gradients_do_not_add_up_over_steps() -> None:
    found = engine()
    first = found.step(STEP, learning_rate=0.0)
    assert found.step(STEP, learning_rate=0.0) == first


# --------------------------------------------------------------------------------------------------- the metrics


def test_metrics_are_as_counted_by_hand() -> None:
    """beta 0.3; a win, a tie, a loss and a win: accuracy (1 + 0.5 + 0 + 1) / 4."""
    found = engine()
    ref = {"chosen_logps": torch.zeros(5).double(), "rejected_logps": torch.tensor([0.0, 0, 0, 0, 10]).double()}
    found.loss = replace(found.loss, frozen={"ref": ref})
    policy = {
        "chosen_logps": torch.tensor([2.0, -1.0, -4.0, -10.0]).double(),
        "rejected_logps": torch.tensor([1.0, -1.0, -2.0, -5.0]).double(),
    }
    metrics = metrics_of(found.loss, [0, 1, 2, 4], torch.tensor([0.5, 1.5, 0.0, 1.0]).double(), policy)
    assert metrics == pytest.approx(
        {
            "loss": 3 / 4,
            "logps/chosen": -13 / 4,
            "logps/rejected": -7 / 4,
            "rewards/chosen": 0.3 * -13 / 4,
            "rewards/rejected": 0.3 * (1 - 1 - 2 - 15) / 4,
            "rewards/margins": 0.3 * (1 + 0 - 2 + 5) / 4,
            "rewards/accuracies": 2.5 / 4,
            "chosen_logps_drop_per_token": (-2 / 5 + 1 / 1 + 4 / 9 + 10 / 6) / 4,
        },
        abs=1e-12,
    )


def test_without_a_reference_only_log_probabilities_are_told() -> None:
    found = engine()
    found.loss = replace(found.loss, frozen={})
    values = {f"{role}_logps": torch.ones(5).double() for role in ROLES}
    losses = torch.ones(5).double()
    assert metrics_of(found.loss, STEP, losses, values) == {"loss": 1.0, "logps/chosen": 1.0, "logps/rejected": 1.0}


@pytest.mark.parametrize("tokens_per_batch", [1, EVERYTHING])
def test_of_a_mixture_each_source_has_the_metrics_that_it_would_have_alone(tokens_per_batch: int) -> None:
    mixed = engine(tokens_per_batch)
    mixed.loss = replace(mixed.loss, parts=("a", "b", "a", "b", "a"))
    alone = engine(tokens_per_batch)

    found = mixed.step(STEP, learning_rate=0.0)

    for part, indices in {"a": [0, 4, 2], "b": [3, 1]}.items():
        expected = alone.measured(indices)
        assert {name: found[f"{name}@{part}"] for name in expected} == pytest.approx(expected, abs=1e-12)
        assert found[f"examples@{part}"] == len(indices)
    plain = alone.step(STEP, learning_rate=0.0)
    assert {name: found[name] for name in plain} == plain


# ------------------------------------------------------------------------------------------ numbers that are wrong


def nan_loss(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda **values: function(**values) * torch.nan


def nan_gradient(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Finite losses, but sqrt has no slope at 0."""
    return lambda **values: function(**values) + (values["policy_chosen_logps"] * 0).sqrt()


@pytest.mark.parametrize("break_it", [nan_loss, nan_gradient])
def test_a_loss_or_gradient_that_is_not_finite_stops_before_any_weight_changes(
    break_it: Callable[[Callable[..., Tensor]], Callable[..., Tensor]],
) -> None:
    found = engine(objective=replace(REGULARIZED, function=break_it(REGULARIZED.function)))
    before = [parameter.detach().clone() for parameter in found.trainable.model.parameters()]
    with pytest.raises(CheckFailedError) as raised:
        found.step(STEP, learning_rate=1.0)
    assert str(raised.value) == (
        "training: the loss or its gradient is not finite; the weights before this step are kept."
    )
    assert all(torch.equal(a, b) for a, b in zip(found.trainable.model.parameters(), before, strict=True))


def test_a_reference_with_the_weights_of_the_start_passes_the_check() -> None:
    engine(40, ref=llama(0)).check_start(STEP, ["ref"])


def test_a_reference_that_is_meant_to_differ_is_not_checked() -> None:
    engine(ref=llama(1)).check_start(STEP, [])


@pytest.mark.parametrize("role", ROLES)
def test_an_altered_reference_score_is_found_before_training(role: str) -> None:
    found = engine(40, ref=llama(0))
    found.loss.frozen["ref"][f"{role}_logps"][4] += 1e-3
    with pytest.raises(CheckFailedError) as raised:
        found.check_start(STEP, ["ref"])
    tokens = len(EXAMPLES[4].rows[role].answer_ids)
    message = str(raised.value)
    assert message.startswith(
        f"training: ref_{role}_logps of the start policy, nats a token: differs by {1e-3 / tokens:.2g}, "
        "expected at most 1e-06. The cached reference scores do not belong to these weights: run again with a fresh "
        "--run folder"
    )


def test_a_missing_reference_score_is_found_before_training() -> None:
    found = engine(ref=llama(0))
    found.loss.frozen["ref"]["chosen_logps"][0] = torch.nan
    with pytest.raises(CheckFailedError, match="ref_chosen_logps of the start policy"):
        found.check_start(STEP, ["ref"])


# ----------------------------------------------------------------------------------------- memory that runs out


def forgetful(found: Engine, tokens: int) -> None:
    """A machine on which no more than some padded tokens fit."""
    real = found.layout.scores

    def scores(model: Any, rows: Sequence[TokenRow], *others: Any) -> dict[str, Tensor]:
        if found.layout.size(rows) > tokens:
            raise MemoryError
        return real(model, rows, *others)

    found.layout = replace(found.layout, scores=scores)


@pytest.mark.parametrize(("fits", "ends_at"), [(60, 78), (15, 9)])
def test_where_memory_runs_out_the_same_step_is_taken_in_smaller_passes(fits: int, ends_at: int) -> None:
    """First by example; then answer by answer, since the two answers of an example are more than 15."""
    said: list[str] = []
    found, plain = engine(10_000), engine()
    found.notice = said.append
    forgetful(found, fits)
    one, other = found.step(STEP, learning_rate=0.5), plain.step(STEP, learning_rate=0.5)
    assert {name: one[name] for name in one if name != "tokens"} == pytest.approx(
        {name: other[name] for name in other if name != "tokens"}, rel=1e-6
    )
    for a, b in zip(found.trainable.model.parameters(), plain.trainable.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    assert found.budget == Budget(ends_at, splits_examples=True)
    assert said[-1] == f"training: out of memory; from here on {ends_at:,} tokens pass at once"
    assert len(said) == round(math.log2(10_000 / ends_at))


def test_an_answer_that_does_not_fit_alone_ends_training() -> None:
    found = engine()
    forgetful(found, 5)
    with pytest.raises(MemoryError):
        found.step(STEP, learning_rate=0.5)


def test_another_error_is_not_taken_for_memory() -> None:
    found = engine(objective=replace(REGULARIZED, function=lambda **_: torch.ones(2) @ torch.ones(3)))
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        found.step(STEP, learning_rate=0.5)


# ------------------------------------------------------------------------------------------------------- rankings


def test_metrics_of_rankings_leave_padding_out_and_count_pairs_of_ranks() -> None:
    """Rewards 0.5 x (3, 1, 2): two of three pairs in order, one a gap of -1; and 0.5 x (1, 1): a tie."""
    ranking = find_objective("plackett_luce_dpo", "here")
    data = {"ranked_mask": (torch.ones(3).bool(), torch.ones(2).bool()), "weights": torch.ones(2).double()}
    ref = {"ranked_logps": (torch.zeros(3).double(), torch.zeros(2).double())}
    loss = LossOfPlan(ranking, {"beta": 0.5}, data, {"ref": ref})
    logps = {"ranked_logps": torch.tensor([[3.0, 1, 2], [1, 1, 0]]).double()}
    found = metrics_of(loss, [0, 1], torch.tensor([0.25, 0.75]).double(), logps)
    assert found == pytest.approx(
        {
            "loss": 0.5,
            "logps/ranked": 8 / 5,
            "rewards/margins": 0.5 * (2 + 1 - 1 + 0) / 4,
            "rewards/accuracies": 2.5 / 4,
        },
        abs=1e-12,
    )


# ----------------------------------------------------------------------------------------------- tokens that pass


@pytest.mark.parametrize("layout", [ROWS, TREES], ids=["rows", "trees"])
@pytest.mark.parametrize("tokens_per_batch", [1, 40, EVERYTHING])
def test_the_tokens_that_are_reported_are_those_that_the_layers_see(layout: Layout, tokens_per_batch: int) -> None:
    found = engine(tokens_per_batch)
    found.layout = layout
    seen: list[int] = []
    norm = found.trainable.model.get_submodule("model.layers.1.input_layernorm")
    norm.register_forward_hook(lambda _module, _given, states: seen.append(states.shape[0] * states.shape[1]))
    assert found.step(STEP, learning_rate=0.0)["tokens"] == sum(seen)
