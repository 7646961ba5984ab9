"""The engine gives every objective that it can train what it asks for, and says what it cannot."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from prefloop.errors import CheckFailedError
from prefloop.objectives import Objective, find_objective, objectives, parse_quantity
from prefloop.objectives.quantities import FUNCTIONALS
from prefloop.policy import LiveReference, TokenRow, Trainable
from prefloop.policy.model_heads import new_heads
from prefloop.records import Example, Member, Message, Prompt, Role
from prefloop.training import (
    ROWS,
    TREES,
    Budget,
    Engine,
    Layout,
    LossOfPlan,
    TokenExample,
    data_columns,
    frozen_scores,
)
from prefloop.training.answers import Together
from prefloop.training.columns import column, picked
from prefloop.training.loss import functionals_of
from prefloop.training.rows import keys_of, role_of

VOCAB = 30
ROLES: tuple[Role, ...] = ("chosen", "rejected", "response", "gold", "kl")
LENGTHS = ((5, 2, 3, 4, 2), (2, 7, 2, 3, 5), (9, 9, 4, 2, 3), (4, 3, 6, 6, 2), (6, 3, 2, 2, 7))
RANKED = (2, 3, 5, 2, 4)
"""How many ranked answers each example has, of one token and more."""
SAMPLED = (2, 4, 2, 3, 1)
"""How many samples of the policy each example has."""
DEGREES = (3, 1, 2, 3, 2)
"""How many graded versions of an answer each example has."""
STEP = [3, 0, 4, 1, 2]
EVERYTHING = 10_000
CPU = torch.device("cpu")
HEADED = {name for name, functional in FUNCTIONALS.items() if functional.head}
DPO = find_objective("dpo", "here")
TRAINABLE = [one for one in objectives().values() if all(quantity.what.coming is None for quantity in one.quantities)]
"""Those whose quantities the engine computes, also where no rule makes their examples yet."""


def token_example(number: int) -> TokenExample:
    """Answers in all roles after a prompt of two tokens and more, with all numbers that an objective may read."""
    generator = torch.Generator().manual_seed(number)

    def drawn(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(0, VOCAB, (count,), generator=generator).tolist())

    prompt, better = drawn(2 + number), torch.rand(2, generator=generator).tolist()
    rows: dict[str, TokenRow] = {}
    members: list[Member] = []
    repeated: tuple[tuple[Role, int], ...] = (
        ("ranked", RANKED[number]),
        ("sampled", SAMPLED[number]),
        ("degree", DEGREES[number]),
    )
    roles: tuple[Role, ...] = (*ROLES, *(role for role, count in repeated for _ in range(count)))
    lengths = (
        *LENGTHS[number],
        *range(1, 1 + RANKED[number]),
        *range(2, 2 + SAMPLED[number]),
        *range(DEGREES[number], 0, -1),
    )
    for role, key, length in zip(roles, keys_of(roles), lengths, strict=True):
        answer = drawn(length)
        rows[key] = TokenRow(prompt, answer, (True,) * length)
        numbers = {
            "score": 1 + better[0] - (role == "rejected") + (length % 3 if role == "sampled" else 0),
            "win_prob": 0.8 if role == "chosen" else 0.4,
            "visits": 3.0 + number,
            "label": float(number % 2),
            "grade": float(key.partition(".")[2] or 0) if role == "degree" else 0.0,
        }
        members.append(Member.model_validate({"role": role, "response_id": role, "text": "", "numbers": numbers}))
    example = Example(
        example_id=str(number),
        prompt=Prompt.of((Message(role="user", content="?"),)),
        members=tuple(members),
        weight=0.5 + number,
        numbers={"margin": 0.2 + better[0], "similarity": better[1], "prob_chosen_wins": 0.5 + better[1] / 2},
        why="test",
    )
    return TokenExample.of(example, rows, {role: covered(row) for role, row in rows.items()})


def covered(row: TokenRow) -> tuple[bool, ...]:
    """The marks of the span from the second token to the third."""
    return tuple(position == 1 for position in range(len(row.answer_ids)))


EXAMPLES = [token_example(number) for number in range(5)]


def llama(seed: int) -> LlamaForCausalLM:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=VOCAB,
                hidden_size=16,
                intermediate_size=24,
                num_hidden_layers=1,
                num_attention_heads=2,
                num_key_value_heads=1,
                initializer_range=0.3,
                max_position_embeddings=64,
            )
        )
    return model.double().eval()


def heads(seed: int, functionals: Iterable[str]) -> dict[str, nn.Linear]:
    """Random heads of the width of `llama`, in float64; there are three grades."""
    found = new_heads({name: 3 if name == "head_logits" else 1 for name in sorted(functionals)}, 16, 0, CPU)
    generator = torch.Generator().manual_seed(seed)
    for head in found.values():
        for parameter in head.double().parameters():
            nn.init.normal_(parameter, generator=generator)
    return found


def of_roles(objective: Objective, examples: Sequence[TokenExample]) -> list[TokenExample]:
    return [
        replace(one, rows={key: row for key, row in one.rows.items() if role_of(key) in objective.roles})
        for one in examples
    ]


def frozen_of(
    model: LlamaForCausalLM, objective: Objective, name: str, tokens_per_batch: int, layout: Layout
) -> dict[str, Any]:
    examples, lists = of_roles(objective, EXAMPLES), {}
    wanted = functionals_of(objective, name)
    own = heads(5, wanted & HEADED)
    for batch, values in frozen_scores(model, examples, objective.roles, [STEP], tokens_per_batch, wanted, layout, own):
        for key, of_batch in values.items():
            for index, value in zip(batch, of_batch, strict=True):
                lists.setdefault(key, [None] * len(EXAMPLES))[index] = value
    return {key: column(values) for key, values in lists.items()}


def engine(
    objective: Objective,
    tokens_per_batch: int = EVERYTHING,
    *,
    references: int = 1,
    soft_labels: bool = False,
    hyper: Mapping[str, Any] | None = None,
    examples: Sequence[TokenExample] = EXAMPLES,
    rate: float = 0.0,
    layout: Layout = ROWS,
    splits: bool = False,
) -> Engine:
    """An engine on a random float64 model (seed 0), whose references are others (seeds from `references` on)."""
    model = llama(0)
    examples = of_roles(objective, examples)
    live = LiveReference(llama(references).requires_grad_(False)) if objective.live else None
    data = data_columns(examples, objective, soft_labels=soft_labels)
    frozen = {
        name: frozen_of(llama(references + number * (references > 0)), objective, name, tokens_per_batch, layout)
        for number, name in enumerate(objective.models)
    }
    options = objective.options().model_dump() if hyper is None else hyper
    loss = LossOfPlan(objective, options, data, frozen, soft_labels, seed=7)
    # heads that a policy and a reference have in common are the same where their weights are
    trainable = Trainable(model, None, Path(), {}, live, heads(5, objective.heads))
    optimizer = torch.optim.SGD(trainable.parameters().values(), lr=rate)
    return Engine(trainable, loss, examples, optimizer, 1e9, Budget(tokens_per_batch, splits), layout)


def numbers(of: Engine, number: int = 0) -> dict[str, float]:
    """What a step says, but for the tokens that passed."""
    return {name: value for name, value in of.step(STEP, 0.0, number).items() if name != "tokens"}


def gradient(of: Engine) -> Tensor:
    return torch.cat(
        [parameter.grad.flatten() for parameter in of.trainable.parameters().values() if parameter.grad is not None]
    )


EACH = pytest.mark.parametrize("objective", TRAINABLE, ids=[one.name for one in TRAINABLE])


@pytest.mark.long
@EACH
@pytest.mark.parametrize(("tokens_per_batch", "splits"), [(1, False), (1, True), (40, True)])
@pytest.mark.usefixtures("exact_norms")
def test_the_split_into_passes_changes_no_number(objective: Objective, tokens_per_batch: int, *, splits: bool) -> None:
    """Example by example, answer by answer, and some of both."""
    one, other = engine(objective, tokens_per_batch, splits=splits), engine(objective)
    assert numbers(one, 3) == pytest.approx(numbers(other, 3), rel=1e-9, abs=1e-9)
    torch.testing.assert_close(gradient(one), gradient(other), rtol=1e-9, atol=1e-9)


@pytest.fixture
def exact_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Norms in float64, which transformers computes in float32."""

    def exact(norm: Any, states: Tensor) -> Tensor:
        return norm.weight * states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon)

    monkeypatch.setattr(LlamaRMSNorm, "forward", exact)


@pytest.fixture
def shared(exact_norms: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that is alike is shared."""
    del exact_norms
    monkeypatch.setattr("prefloop.policy.trees.WORTH_SHARING", 1)


@EACH
@pytest.mark.parametrize("tokens_per_batch", [12, EVERYTHING])
@pytest.mark.usefixtures("shared")
def test_trees_say_what_rows_say(objective: Objective, tokens_per_batch: int) -> None:
    rows, trees = engine(objective), engine(objective, tokens_per_batch, layout=TREES)
    assert numbers(trees, 3) == pytest.approx(numbers(rows, 3), rel=1e-9, abs=1e-9)
    torch.testing.assert_close(gradient(trees), gradient(rows), rtol=1e-9, atol=1e-9)


@pytest.mark.long
@pytest.mark.usefixtures("shared")
def test_fifty_steps_on_trees_are_those_on_rows() -> None:
    rows, trees = (engine(DPO, 12, rate=0.05, layout=layout) for layout in (ROWS, TREES))
    for number in range(50):
        one, other = (found.step(STEP, 0.05, number) for found in (rows, trees))
        assert other.pop("tokens") < one.pop("tokens")
        assert other == pytest.approx(one, rel=1e-9, abs=1e-9)
    assert one["loss"] < 0.5  # from log 2 times the mean weight of 2.5


@EACH
def test_the_loss_of_a_step_is_the_weighted_mean_of_the_formula(objective: Objective) -> None:
    """The policy's numbers from one forward pass over all, the data straight from the examples."""
    found = engine(objective)
    order = sorted(STEP, key=lambda index: found.examples[index].longest)
    with torch.no_grad():
        of_order = Together.of(dict(enumerate(found.examples)), objective.roles, [(order, True)])
        wanted = functionals_of(objective, "policy")
        answers = of_order.by_role(
            of_order.scores(
                found.trainable.model, of_order.passes[0], wanted, ROWS, found.trainable.live, found.trainable.heads
            )
        )
        of_step = found.loss.of_step(STEP, 2)
        if found.state is not None:
            values = found.loss.values(order, answers, {**of_step, "state": found.state})
            of_step["state"] = objective.updated(found.state, values, found.loss.hyper)
        values = found.loss.values(order, answers, of_step)
        assert values.keys() == {quantity.name for quantity in objective.quantities}
        losses = objective.function(**values, **found.loss.hyper)
    weights = torch.tensor([0.5 + index for index in order], dtype=torch.float64)
    assert found.step(STEP, 0.0, 2)["loss"] == pytest.approx((losses * weights).sum().item() / 5, rel=1e-12)


@EACH
def test_training_that_starts_at_the_reference_is_checked(objective: Objective) -> None:
    if objective.models:
        engine(objective, references=0).check_start(STEP, objective.models)


def test_a_value_at_the_reference_that_the_formula_does_not_have_stops_training() -> None:
    wrong = replace(DPO, at_reference=lambda _: 0.5)
    with pytest.raises(CheckFailedError, match=r"first loss against its value at policy = ref, nats: differs by 0.19"):
        engine(wrong, references=0).check_start(STEP, ["ref"])


# -------------------------------------------------------------------------------------------------- what it gives


def probe(*names: str, **changed: Any) -> tuple[Objective, list[dict[str, Any]]]:
    """DPO that reads more, and what it was given."""
    seen: list[dict[str, Any]] = []

    def function(beta: float, **values: Any) -> Tensor:
        seen.append(values)
        known = {quantity.name: values[quantity.name] for quantity in DPO.quantities}
        return DPO.function(**known, beta=beta)

    quantities = (*DPO.quantities, *(parse_quantity(name) for name in names))
    return replace(DPO, function=function, quantities=quantities, **changed), seen


def test_step_quantities_are_of_the_whole_step_in_every_micro_batch() -> None:
    objective, seen = probe("mean_chosen_length")
    engine(objective, 1).step(STEP, 0.0)
    assert [values["mean_chosen_length"].item() for values in seen] == [26 / 5] * 5


def test_random_numbers_belong_to_an_example_and_a_step() -> None:
    def drawn(tokens_per_batch: int, step: int) -> list[float]:
        objective, seen = probe("uniforms")
        engine(objective, tokens_per_batch).step(STEP, 0.0, step)
        return torch.cat([values["uniforms"] for values in seen]).tolist()

    assert drawn(1, 3) == drawn(EVERYTHING, 3)
    assert len(set(drawn(1, 3)) | set(drawn(1, 4))) == 10
    assert all(0 <= number < 1 for number in drawn(1, 4))


def test_one_auxiliary_reference_is_one_column_of_models() -> None:
    objective, seen = probe("aux_ref_chosen_logps")
    found = engine(objective)
    found.step(STEP, 0.0)
    assert seen[0]["aux_ref_chosen_logps"].shape == (5, 1)
    order = sorted(STEP, key=lambda index: found.examples[index].longest)
    expected = picked(found.loss.frozen["aux_ref"]["chosen_logps"], order)
    assert seen[0]["aux_ref_chosen_logps"][:, 0].tolist() == expected.tolist()


# ---------------------------------------------------------------------------------------------------- soft labels


def turned(example: TokenExample) -> TokenExample:
    rows = {**example.rows, "chosen": example.rows["rejected"], "rejected": example.rows["chosen"]}
    return replace(example, rows=rows)


def with_probability(example: TokenExample, probability: float) -> TokenExample:
    return replace(example, numbers={**example.numbers, "prob_chosen_wins": probability})


def test_a_soft_label_is_the_mixture_of_both_orders_in_loss_and_gradient() -> None:
    """p L(w, l) + (1 - p) L(l, w) of length-regularised DPO, against the two hard labels.

    Gradients of up to 0.8 to 1e-6: the model's norms compute in float32, so that gradients add up only to its rounding.
    """
    objective = find_objective("length_regularized_dpo", "here")
    hyper = {"beta": 0.3, "alpha": 0.05}
    examples = [with_probability(one, 0.8) for one in EXAMPLES]
    soft = engine(objective, 40, soft_labels=True, hyper=hyper, examples=examples)
    straight = engine(objective, hyper=hyper)
    other_way = engine(objective, hyper=hyper, examples=[turned(one) for one in EXAMPLES])
    frozen = straight.loss.frozen["ref"]
    exchanged = {"chosen_logps": frozen["rejected_logps"], "rejected_logps": frozen["chosen_logps"]}
    other_way.loss = replace(other_way.loss, frozen={"ref": exchanged})
    losses = [one.step(STEP, 0.0)["loss"] for one in (soft, straight, other_way)]
    assert losses[0] == pytest.approx(0.8 * losses[1] + 0.2 * losses[2], rel=1e-12)
    mixed = 0.8 * gradient(straight) + 0.2 * gradient(other_way)
    torch.testing.assert_close(gradient(soft), mixed, rtol=0, atol=1e-6)


def test_a_label_that_is_certain_is_the_hard_label() -> None:
    examples = [with_probability(one, 1.0) for one in EXAMPLES]
    soft, hard = engine(DPO, soft_labels=True, examples=examples), engine(DPO)
    assert numbers(soft) == pytest.approx(numbers(hard), rel=1e-14)


def test_with_soft_labels_the_mean_length_is_that_of_the_winner_in_expectation() -> None:
    objective, seen = probe("mean_chosen_length")
    examples = [with_probability(one, 0.75) for one in EXAMPLES]
    engine(objective, soft_labels=True, examples=examples).step(STEP, 0.0)
    expected = (0.75 * 26 + 0.25 * 24) / 5
    assert [values["mean_chosen_length"].item() for values in seen] == pytest.approx([expected] * 2, rel=1e-14)


@pytest.mark.parametrize("objective", objectives().values(), ids=objectives())
def test_what_can_be_softened_reads_two_answers_that_can_be_exchanged(objective: Objective) -> None:
    assert objective.swappable == (objective.not_softened is None)
    if objective.swappable:
        assert {"chosen", "rejected"} <= set(objective.roles)
        assert not objective.whole_step


# --------------------------------------------------------------------------------------------- state and coupling


@dataclass(frozen=True)
class Seen:
    """Counts the steps, and averages the policy's margins."""

    steps: int
    mean: float

    @classmethod
    def initial(cls, hyper: Mapping[str, Any]) -> "Seen":
        return cls(0, hyper["beta"])

    def updated(self, policy_chosen_logps: Tensor, policy_rejected_logps: Tensor, beta: float) -> "Seen":
        assert not policy_chosen_logps.requires_grad
        margin = beta * (policy_chosen_logps - policy_rejected_logps).mean().item()
        return Seen(self.steps + 1, 0.9 * self.mean + 0.1 * margin)


def test_the_state_is_updated_once_a_step_on_all_of_it_before_the_loss() -> None:
    objective, seen = probe("state", state=Seen)
    found = engine(objective, 1)
    for number in range(2):
        found.step(STEP, 0.0, number)
    margin = 0.1 * (seen[0]["policy_chosen_logps"] - seen[0]["policy_rejected_logps"]).mean().item()
    first = 0.9 * 0.1 + 0.1 * margin
    assert [values["state"].steps for values in seen] == [1, 2]
    assert [values["state"].mean for values in seen] == pytest.approx([first, 0.9 * first + 0.1 * margin], rel=1e-12)
    assert found.state == seen[1]["state"]


def test_a_coupled_objective_sees_the_whole_step_at_once() -> None:
    objective, seen = probe(couples_batch=True)
    engine(objective, 1).step(STEP, 0.0)
    assert [len(values["policy_chosen_logps"]) for values in seen] == [5]


# ------------------------------------------------------------------------------------------------ what is to come


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "policy_chosen_logits",
            "policy_chosen_logits (chosen answer: logits at each token, for vocabularies small enough to keep them) is "
            "not computed in training yet; it is coming with whole distributions",
        ),
        (
            "policy_gold_logps",
            "policy_gold_logps (gold answer: log probability of the counted tokens, summed, EOS included) is not "
            "computed in training yet; it is coming with rules that keep a gold answer",
        ),
    ],
)
def test_what_cannot_be_computed_yet_is_said(name: str, reason: str) -> None:
    assert probe(name)[0].not_trained == reason


def test_most_objectives_can_be_trained() -> None:
    assert DPO.not_trained is None
    assert len(TRAINABLE) > len(objectives()) / 2
