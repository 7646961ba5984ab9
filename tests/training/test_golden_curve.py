"""Fifty optimiser steps in float64, as they were when the curve was written, by both layouts.

A change that should alter no number leaves the curve as it is; one that should says so and writes it again:

    python tests/training/test_golden_curve.py

GPT-2, since transformers computes none of it in float32, where processors differ; weights and tokens are written out as
formulas, so that no random generator has a part in it.
"""

import json
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from prefloop.objectives import find_objective
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
    data_columns,
    frozen_scores,
    step_plan,
)
from prefloop.training.columns import column

CURVE = Path(__file__).with_name("golden_curve.json")
STEPS, RATE, BATCH, TOKENS_PER_BATCH, VOCAB = 50, 1e-3, 4, 120, 41
COLUMNS = ("loss", "grad_norm", "rewards/margins", "logps/chosen", "logps/rejected")
ROLES = ("chosen", "rejected")
OBJECTIVE = find_objective("length_regularized_dpo", "here")
HYPER = {"beta": 0.2, "alpha": 0.01}


def ids(first: int, count: int) -> tuple[int, ...]:
    return tuple((first * 17 + place * place * 7 + place * 3) % VOCAB for place in range(count))


def token_example(number: int) -> TokenExample:
    """Answers of 1 to 12 tokens to one of three prompts of 20, 13 and 6 tokens; every fourth pair begins alike."""
    prompt, alike = ids(number % 3, (20, 13, 6)[number % 3]), ids(number, 18) if number % 4 == 3 else ()
    answers = {"chosen": ids(number + 5, 1 + number * 5 % 12), "rejected": ids(number + 9, 1 + number * 7 % 12)}
    rows = {role: TokenRow(prompt, (*alike, *own), (True,) * (len(alike) + len(own))) for role, own in answers.items()}
    asked = Prompt.of((Message(role="user", content="?"),))
    example = Example(example_id=str(number), prompt=asked, members=(), weight=1 + number % 2, why="test")
    return TokenExample.of(example, rows)


EXAMPLES = [token_example(number) for number in range(12)]


def model() -> GPT2LMHeadModel:
    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    shape = {"vocab_size": VOCAB, "n_positions": 64, "n_embd": 24, "n_layer": 2, "n_head": 3}
    config = GPT2Config(**shape, **dropout, bos_token_id=0, eos_token_id=1)
    made = GPT2LMHeadModel(config).double().eval()
    with torch.no_grad():
        for number, weights in enumerate(made.parameters()):
            if weights.dim() == 2:
                wave = torch.sin(torch.arange(weights.numel(), dtype=torch.float64) * 12.9898 + number)
                weights.copy_(0.12 * wave.reshape(weights.shape))
    return made


def curve(layout: Layout) -> list[dict[str, float]]:
    """What the steps say, one after the other."""
    plan = step_plan(len(EXAMPLES), BATCH, 17, seed=1)[:STEPS]
    lists = {f"{role}_logps": [0.0] * len(EXAMPLES) for role in ROLES}
    for batch, values in frozen_scores(model(), EXAMPLES, ROLES, plan[:3], TOKENS_PER_BATCH, layout=layout):
        for name, of_batch in values.items():
            for index, value in zip(batch, of_batch, strict=True):
                lists[name][index] = value
    frozen = {"ref": {name: column(values) for name, values in lists.items()}}
    loss = LossOfPlan(OBJECTIVE, HYPER, data_columns(EXAMPLES, OBJECTIVE), frozen)
    trained = model()
    optimizer = torch.optim.AdamW(trained.parameters(), lr=RATE, weight_decay=0.01, fused=True)
    trainable = Trainable(trained, None, Path(), {})
    engine = Engine(trainable, loss, EXAMPLES, optimizer, 1.0, Budget(TOKENS_PER_BATCH), layout)
    said = [engine.step(indices, RATE, number) for number, indices in enumerate(plan)]
    return [{name: one[name] for name in COLUMNS} for one in said]


@pytest.mark.parametrize("layout", [ROWS, TREES], ids=["rows", "trees"])
def test_fifty_steps_are_as_they_were(layout: Layout) -> None:
    golden = json.loads(CURVE.read_text(encoding="utf-8"))
    found = curve(layout)
    assert len(found) == len(golden) == STEPS
    for one, other in zip(found, golden, strict=True):
        assert one == pytest.approx(other, rel=1e-9, abs=1e-9)


@pytest.mark.long
def test_the_fast_way_is_the_plain_way_at_every_step() -> None:
    plain, fast = curve(ROWS), curve(TREES)
    for one, other in zip(fast, plain, strict=True):
        assert one == pytest.approx(other, rel=1e-9, abs=1e-9)
    assert plain[-1]["loss"] < plain[0]["loss"] / 4


if __name__ == "__main__":
    lines = ",\n".join(json.dumps(one) for one in curve(ROWS))
    CURVE.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
