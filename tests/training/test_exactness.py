"""Every objective's step against float64 arithmetic written out here: one sequence at a time, full log-softmax, the
objective called once on the whole step.

The naive side gives each token's log-probability its own gradient by every trained weight (a row of `slopes`), so that
a step's gradient is what the objective says of the tokens, times these rows. Nothing of the engine stands in it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import cycle, product
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from prefloop.objectives import REPEATED_ROLES, Objective, Quantity, objectives
from prefloop.policy import TokenRow, Trainable
from prefloop.records import Example, Member, Message, Prompt, seed_for
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
from prefloop.training.columns import column
from prefloop.training.loss import functionals_of

VOCAB, SEED, NUMBER, EVERYTHING = 37, 7, 3, 100_000
ROLES = ("chosen", "rejected", "response", "gold", "kl")
MODELS = {"policy": 0, "ref": 1, "prev": 2, "aux_ref": 3}
"""Seeds of random models."""
WITHIN = 1e-10
"""Of the largest number. Float64 sums in another order differ by some 1e-14 of what they sum."""


def ids(seed: int, length: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(3, VOCAB, (length,), generator=generator).tolist())


Answers = dict[str, tuple[tuple[int, ...], tuple[bool, ...]]]
"""By role tokens, and which of them count."""


def answers(*rows: tuple[int, ...], ranked: Sequence[tuple[int, ...]]) -> Answers:
    named = {**dict(zip(ROLES, rows, strict=True)), **{f"ranked.{rank}": row for rank, row in enumerate(ranked)}}
    return {role: (row, (True,) * len(row)) for role, row in named.items()}


def drawn(seed: int, *lengths: int) -> list[tuple[int, ...]]:
    return [ids(seed + number, length) for number, length in enumerate(lengths)]


SHARED = ids(20, 19)
"""A prompt that two examples share, one of which ranks eight answers."""
TURNS = (*ids(30, 6), 1, 2, *ids(31, 8))
"""What the assistant said before, what the user answered, and the header of the last answer."""
SPEAKS = (True,) * 6 + (False,) * 10
LONG = ids(40, 18)

AWKWARD: list[tuple[tuple[int, ...], Answers]] = [
    (SHARED, answers(*drawn(50, 3, 5, 7, 9, 11), ranked=drawn(110, 4, 1, 7, 2, 18, 3, 1, 5))),
    (SHARED, answers(*drawn(60, 6, 5, 4, 3, 2), ranked=drawn(120, 2, 2))),
    # no token shared with any other, answers of one token
    (ids(70, 1), answers((5,), ids(72, 7), (6,), (7,), ids(73, 2), ranked=[(8,), (9,), (10,)])),
    (ids(74, 4), answers(ids(75, 12), (9,), ids(76, 2), ids(77, 1), (4,), ranked=drawn(130, 1, 9))),
    # loss on all turns of a conversation: rows begin behind the first header, and what the user says does not count
    (
        ids(78, 9),
        {
            role: ((*TURNS, *ids(80 + number, 2 + number)), SPEAKS + (True,) * (2 + number))
            for number, role in enumerate((*ROLES, "ranked.0", "ranked.1", "ranked.2", "ranked.3"))
        },
    ),
    # cut at a length: one answer is where another begins, and they are alike for long
    (
        ids(78, 9),
        answers(LONG, (*LONG, 5, 8), LONG[:17], (*LONG[:9], 3), (*LONG, 5), ranked=[(*LONG, 6), LONG[:18], (*LONG, 7)]),
    ),
]
STEP = [3, 0, 5, 2, 4, 1]


def token_example(number: int) -> TokenExample:
    prompt, rows = AWKWARD[number]
    members = [
        Member(
            role=role.partition(".")[0],  # pyright: ignore[reportArgumentType]
            response_id=role,
            text="",
            numbers={
                "score": 1.2 + 0.1 * number - (role == "rejected"),
                "win_prob": 0.8 - 0.03 * number if role == "chosen" else 0.4,
                "visits": 3.0 + number,
                "label": float(number % 2),
            },
        )
        for role in rows
    ]
    example = Example(
        example_id=str(number),
        prompt=Prompt.of((Message(role="user", content="?"),)),
        members=tuple(members),
        weight=0.5 + number,
        numbers={"margin": 0.2 + number, "similarity": 0.1 * number, "prob_chosen_wins": 0.5 + 0.07 * number},
        why="test",
    )
    token_rows = {role: TokenRow(prompt, answer, counted) for role, (answer, counted) in rows.items()}
    marked = {role: tuple(place % 3 == 1 for place in range(len(answer))) for role, (answer, _) in rows.items()}
    return TokenExample.of(example, token_rows, marked)


EXAMPLES = [token_example(number) for number in range(len(AWKWARD))]


@pytest.fixture(autouse=True)
def exact_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The norm that transformers computes in float32 whatever the model's precision, in float64."""

    def norm(self: Any, states: Tensor) -> Tensor:
        return self.weight * states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)

    monkeypatch.setattr(LlamaRMSNorm, "forward", norm)


Trained = Literal["all weights", "lora", "lora on the head too"]
"""A head that is not trained has its gradient taken in the same pass."""
TARGETS = {"lora": ["q_proj", "v_proj", "down_proj"], "lora on the head too": ["v_proj", "lm_head"]}


def model_of(name: str, trained: Trained = "all weights") -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(MODELS[name])
        model: Any = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=VOCAB,
                hidden_size=16,
                intermediate_size=20,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                initializer_range=0.3,
                max_position_embeddings=64,
            )
        )
        if trained in TARGETS and name == "policy":
            model = get_peft_model(model, LoraConfig(r=2, target_modules=TARGETS[trained], init_lora_weights=False))
    return model.double().eval()


# ------------------------------------------------------------------------------------------------- the naive side


@dataclass(frozen=True)
class Said:
    """Some numbers that a model says of one sequence, and of the policy the gradient of each by all trained weights."""

    values: Tensor
    slopes: Tensor | None

    @classmethod
    def of(cls, values: Tensor, model: Any) -> "Said":
        if not values.requires_grad:
            return cls(values, None)
        weights = [one for one in model.parameters() if one.requires_grad]
        slopes = [
            torch.cat([one.flatten() for one in torch.autograd.grad(value, weights, retain_graph=True)])
            for value in values
        ]
        return cls(values.detach(), torch.stack(slopes))


@cache
def said_by(name: str, trained: Trained) -> Mapping[tuple[str, str], Mapping[int, Said]]:
    """By functional and role what a model says of each example; of tokens that do not count nothing."""
    model = model_of(name, trained)
    found: dict[tuple[str, str], dict[int, Said]] = {}
    for index, example in enumerate(EXAMPLES):
        for role, row in example.rows.items():
            sequence = torch.tensor([(*row.prompt_ids, *row.answer_ids)])
            with torch.set_grad_enabled(name == "policy"):
                logps = model(input_ids=sequence, use_cache=False).logits[0, :-1].log_softmax(-1)
            picked = torch.stack([logps[place, token] for place, token in enumerate(sequence[0, 1:])])
            start, counted = len(row.prompt_ids) - 1, torch.tensor(row.counted)
            found.setdefault(("token_logps", role), {})[index] = Said.of(picked[start:] * counted, model)
            if role in {"chosen", "rejected"}:
                concentration = logps[start:].exp().square().sum(1).log() * counted
                found.setdefault(("token_log_sum_sq", role), {})[index] = Said.of(concentration, model)
            if role == "chosen":
                given = picked[:start] if start else logps.sum()[None] * 0
                found.setdefault(("prompt_logps", ""), {})[index] = Said.of(given, model)
    return found


@dataclass
class Naive:
    """One objective on the whole step."""

    objective: Objective
    trained: Trained

    def __post_init__(self) -> None:
        self.leaves: dict[tuple[str, str, int], Tensor] = {}

    def model_column(self, quantity: Quantity) -> Tensor:
        """Summed, or token by token with zeros behind the answer's end."""
        if quantity.role in REPEATED_ROLES:
            ranks = [[name for name in AWKWARD[index][1] if name.startswith(f"{quantity.role}.")] for index in STEP]
            pairs = zip(STEP, ranks, strict=True)
            sums = [torch.stack([self.tokens(quantity, name, index).sum() for name in names]) for index, names in pairs]
            return pad_sequence(sums, batch_first=True)
        whole = pad_sequence([self.tokens(quantity, quantity.role or "", index) for index in STEP], batch_first=True)
        whole = whole if quantity.functional in {"token_logps", "token_log_sum_sq"} else whole.sum(1)
        return whole[:, None] if quantity.model == "aux_ref" else whole

    def tokens(self, quantity: Quantity, role: str, index: int) -> Tensor:
        """What a model says of one answer, or prompt, token by token."""
        functional = "token_logps" if quantity.functional == "logps" else quantity.functional
        values = said_by(str(quantity.model), self.trained)[functional, role][index].values
        if quantity.model != "policy":
            return values
        return self.leaves.setdefault((functional, role, index), values.clone().requires_grad_(True))

    def column(self, quantity: Quantity) -> Any:
        if quantity.model is not None:
            return self.model_column(quantity)
        return DATA[quantity.functional](quantity.role or "")

    def step(self) -> tuple[float, Tensor]:
        """The loss and its gradient by all trained weights."""
        hyper = self.objective.options().model_dump()
        values = {one.name: self.column(one) for one in self.objective.quantities if one.functional != "state"}
        if self.objective.state is not None:
            still = {name: value.detach() for name, value in values.items()}
            before = self.objective.state.initial(hyper)
            values["state"] = self.objective.updated(before, {**still, "state": before}, hyper)
        weights = torch.tensor([0.5 + index for index in STEP], dtype=torch.float64)
        loss = (self.objective.function(**values, **hyper) * weights).sum() / len(STEP)
        by_token = torch.autograd.grad(loss, list(self.leaves.values()), materialize_grads=True)
        parts = [
            of_token @ said_by("policy", self.trained)[functional, role][index].slopes
            for (functional, role, index), of_token in zip(self.leaves, by_token, strict=True)
        ]
        return loss.item(), torch.stack(parts).sum(0)


def number(name: str, dtype: torch.dtype = torch.float64) -> Callable[[str], Tensor]:
    """A number that the role's member carries, or the example itself."""

    def of(role: str) -> Tensor:
        examples = (EXAMPLES[index] for index in STEP)
        carried = [one.member_numbers[role][name] if role else one.numbers[name] for one in examples]
        return torch.tensor(carried, dtype=torch.float64).to(dtype)

    return of


def counted(role: str) -> Tensor:
    return torch.tensor([sum(AWKWARD[index][1][role][1]) for index in STEP], dtype=torch.float64)


def by_token(of: Callable[[TokenRow], Sequence[int | bool]]) -> Callable[[str], Tensor]:
    return lambda role: pad_sequence([torch.tensor(of(EXAMPLES[index].rows[role])) for index in STEP], batch_first=True)


def prompt_lengths(_role: str = "") -> Tensor:
    return torch.tensor([len(AWKWARD[index][0]) - 1 for index in STEP], dtype=torch.float64)


def uniforms(_role: str) -> Tensor:
    random = np.random.Generator(np.random.Philox(seed_for(SEED, "uniforms", NUMBER)))
    return torch.from_numpy(random.random(len(STEP)))


DATA: Mapping[str, Callable[[str], Tensor]] = {
    "lengths": counted,
    "token_mask": by_token(lambda row: row.counted),
    "token_ids": by_token(lambda row: row.answer_ids),
    "diff_mask": by_token(lambda row: [place % 3 == 1 for place in range(len(row.answer_ids))]),
    "prefix_lengths": lambda role: torch.tensor([AWKWARD[index][1][role][1].index(True) for index in STEP]),
    "scores": number("score"),
    "win_probs": number("win_prob"),
    "visits": number("visits"),
    "labels": number("label", torch.bool),
    "margin": number("margin"),
    "similarity": number("similarity"),
    "prob_chosen_wins": number("prob_chosen_wins"),
    "prompt_lengths": prompt_lengths,
    "mean_chosen_length": lambda _role: counted("chosen").mean(),
    "mean_gold_length": lambda _role: counted("gold").mean(),
    "mean_prompt_length": lambda _role: prompt_lengths().mean(),
    "uniforms": uniforms,
    "mask": lambda role: pad_sequence(
        [torch.tensor([True for name in AWKWARD[index][1] if name.startswith(f"{role}.")]) for index in STEP],
        batch_first=True,
    ),
}
KNOWN = {*DATA, "logps", "token_logps", "token_log_sum_sq", "prompt_logps", "state"}
PROVEN = [
    one
    for one in objectives().values()
    if all(quantity.functional in KNOWN and quantity.role in {None, *ROLES, "ranked"} for quantity in one.quantities)
]
TO_COME = {
    "bradley_terry",
    "bradley_terry_margin",
    "length_regularized_token_odpo",
    "pair_ranker",
    "ranked_rewards",
    "ranked_rewards_by_pairs",
    "ppo",
    "ppo_adaptive_kl",
    "rloo",
    "rloo_clipped",
    "spo",
    "tdpo1",
    "tdpo2",
}
"""They read heads, or a reference that stays loaded."""


# -------------------------------------------------------------------------------------------------------- the engine


def frozen_of(name: str, objective: Objective, examples: Sequence[TokenExample], layout: Layout, budget: Budget) -> Any:
    """What the engine's way of scoring says of all examples."""
    lists: dict[str, list[Any]] = {}
    asked = functionals_of(objective, name)
    for batch, values in frozen_scores(model_of(name), examples, objective.roles, [STEP], budget.tokens, asked, layout):
        for key, of_batch in values.items():
            for index, value in zip(batch, of_batch, strict=True):
                lists.setdefault(key, [None] * len(examples))[index] = value
    return {key: column(values) for key, values in lists.items()}


def engine_step(
    objective: Objective, layout: Layout, budget: Budget, trained: Trained = "all weights"
) -> tuple[float, Tensor]:
    """The loss and its gradient by all trained weights."""
    examples = [
        replace(one, rows={key: row for key, row in one.rows.items() if key.partition(".")[0] in objective.roles})
        for one in EXAMPLES
    ]
    frozen = {name: frozen_of(name, objective, examples, layout, budget) for name in objective.models}
    hyper = objective.options().model_dump()
    loss = LossOfPlan(objective, hyper, data_columns(examples, objective), frozen, seed=SEED)
    model = model_of("policy", trained)
    optimizer = torch.optim.SGD([one for one in model.parameters() if one.requires_grad], lr=0.0)
    engine = Engine(Trainable(model, None, Path(), {}), loss, examples, optimizer, 1e12, budget, layout)
    found = engine.step(STEP, 0.0, NUMBER)
    grads = [torch.zeros_like(one) if one.grad is None else one.grad for one in engine.trainable.parameters().values()]
    return found["loss"], torch.cat([grad.flatten() for grad in grads])


def assert_same(found: tuple[float, Tensor], expected: tuple[float, Tensor]) -> None:
    assert found[0] == pytest.approx(expected[0], rel=WITHIN, abs=WITHIN)
    largest = float(expected[1].abs().max())
    assert largest > 1e-6
    assert float((found[1] - expected[1]).abs().max()) <= WITHIN * largest


EACH = pytest.mark.parametrize("objective", PROVEN, ids=[one.name for one in PROVEN])


def test_only_objectives_that_are_to_come_are_left_out() -> None:
    assert set(objectives()) - {one.name for one in PROVEN} <= TO_COME


@EACH
def test_a_step_is_what_the_formula_says_of_each_sequence_alone(
    objective: Objective, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prefloop.policy.head.LOGITS_AT_ONCE", 5 * VOCAB)
    assert_same(engine_step(objective, TREES, Budget(60, splits_examples=True)), Naive(objective, "all weights").step())


@pytest.mark.long
@pytest.mark.parametrize("trained", TARGETS)
@pytest.mark.parametrize("name", ["kto", "orpo_with_prompt", "wpo"])
@pytest.mark.parametrize("layout", [ROWS, TREES], ids=["rows", "trees"])
def test_adapters_and_all_ways_to_split_a_step_too(
    name: str, trained: Trained, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From micro-batches of one example to all in one; everything that is alike shared."""
    monkeypatch.setattr("prefloop.policy.trees.WORTH_SHARING", 1)
    objective = objectives()[name]
    for budget in (Budget(1), Budget(1, splits_examples=True), Budget(150), Budget(EVERYTHING)):
        assert_same(engine_step(objective, layout, budget, trained), Naive(objective, trained).step())


BUDGETS = (1, 50, 60, 70, 100, 120, 200, EVERYTHING)


@pytest.mark.slow
@pytest.mark.parametrize("trained", get_args(Trained))
@EACH
def test_the_whole_grid(objective: Objective, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layouts, ways to split a step from one example to all, pieces of the head from one token to all, whatever is
    alike shared or only what is worth it."""
    expected = Naive(objective, trained).step()
    for budget, (tokens, shortest) in zip(BUDGETS, cycle(product((1, 5, EVERYTHING), (1, 16))), strict=False):
        monkeypatch.setattr("prefloop.policy.head.LOGITS_AT_ONCE", tokens * VOCAB)
        monkeypatch.setattr("prefloop.policy.trees.WORTH_SHARING", shortest)
        for layout, splits in product((ROWS, TREES), (False, True)):
            assert_same(engine_step(objective, layout, Budget(budget, splits), trained), expected)


def test_the_ways_to_split_are_from_one_example_to_all() -> None:
    pairs = {
        index: replace(EXAMPLES[index], rows={role: EXAMPLES[index].rows[role] for role in ROLES[:2]}) for index in STEP
    }
    counts = {one.name: [len(list(one.cut(pairs, budget))) for budget in BUDGETS] for one in (ROWS, TREES)}
    assert counts == {"rows": [6, 6, 6, 5, 4, 3, 2, 1], "trees": [6, 5, 4, 3, 3, 2, 1, 1]}
