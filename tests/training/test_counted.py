"""What counts, end to end: answers without counted tokens reach no step, and no metric is taken over padding."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from prefloop.objectives import find_objective
from prefloop.policy import ChatCodec, EncodingSettings, TokenRow, Workbench
from prefloop.records import Example, Member, Message, Prompt
from prefloop.training import (
    ROWS,
    TREES,
    Budget,
    Engine,
    Layout,
    LossOfPlan,
    TokenExample,
    TokensOnDisk,
    TrainRequest,
    data_columns,
    read_margins,
    train,
    write_tokens,
)
from prefloop.training.optimizers import optimizer_for

RequestFor = Callable[..., TrainRequest]
BOTH = ("chosen", "rejected")


def silent(_what: str, _done: int, _count: int) -> None:
    pass


def pair(number: int, **broken: object) -> Example:
    """A pair whose chosen answer has what is given."""
    chosen = {"role": "chosen", "response_id": f"c{number}", "text": "I love it.", **broken}
    return Example.model_validate(
        {
            "example_id": f"e{number}",
            "prompt": Prompt.of((Message(role="user", content="How are you?"),)),
            "members": (chosen, Member(role="rejected", response_id=f"r{number}", text=f"No, not {number}.")),
            "why": "test",
        }
    )


NOTHING_COUNTS = (
    pair(1, counted=()),
    pair(3, token_ids=()),
    pair(4, text="", finished=False),
    pair(6, counted=((900, 950),)),
)
"""No span; no token; cut before its first; a span behind the answer's end."""


@pytest.mark.parametrize("objective", ["dpo", "simpo"])
@pytest.mark.parametrize("layout", [ROWS, TREES], ids=lambda layout: layout.name)
def test_an_answer_without_counted_tokens_never_reaches_a_step(
    request_for: RequestFor,
    bench: Workbench,
    codec: ChatCodec,
    tmp_path: Path,
    objective: str,
    layout: Layout,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From records over tokens on disk to the step: what is said is finite, and of the others alone, in every byte."""
    seen: list[TokenRow] = []
    real = Engine.step

    def watched(self: Engine, indices: Sequence[int], learning_rate: float, number: int = 0) -> dict[str, float]:
        seen.extend(row for index in indices for row in self.examples[index].rows.values())
        return real(self, indices, learning_rate, number)

    monkeypatch.setattr(Engine, "step", watched)
    whole = [pair(number) for number in (0, 2, 5, 7, 8)]
    mixed = sorted([*whole, *NOTHING_COUNTS], key=lambda one: one.example_id)
    loss = find_objective(objective, "here")
    outcome: dict[str, list[dict[str, float | int]]] = {}
    for name, records in (("whole", whole), ("mixed", mixed)):
        (tmp_path / name / "tokens").mkdir(parents=True)
        counts = write_tokens(tmp_path / name / "tokens", records, codec, EncodingSettings(max_length=512))
        assert counts == {"examples": 5, **({"nothing_left": 4} if name == "mixed" else {})}
        request = replace(
            request_for(name),
            objective=loss,
            hyper=loss.options().model_dump(),
            references={"ref": request_for(name).start} if loss.models else {},
            examples=TokensOnDisk(tmp_path / name / "tokens", BOTH),
            layout=layout,
        )
        outcome[name] = train(request, bench, tmp_path / name / "model", silent)
        assert {one.example_id for one in read_margins(tmp_path / name)} == {one.example_id for one in whole}

    assert seen
    assert all(any(row.counted) for row in seen)
    assert outcome["mixed"] == outcome["whole"]
    assert "NaN" not in json.dumps(outcome)
    left = [
        json.loads(line)["example_id"] for line in (tmp_path / "mixed/tokens/left-out.jsonl").read_text().splitlines()
    ]
    assert left == [one.example_id for one in NOTHING_COUNTS]


def test_where_no_answer_counts_there_is_nothing_to_train_on(codec: ChatCodec, tmp_path: Path) -> None:
    assert write_tokens(tmp_path, NOTHING_COUNTS, codec, EncodingSettings(max_length=512)) == {
        "examples": 0,
        "nothing_left": 4,
    }


# ---------------------------------------------------------------------------------------------------------- padding


def partly_counted(examples: Sequence[TokenExample]) -> list[TokenExample]:
    """Of every answer some tokens count: all but the first, or every second one."""

    def counted(number: int, row: TokenRow) -> TokenRow:
        of = tuple(place > 0 if number % 2 else place % 2 == 1 for place in range(len(row.answer_ids)))
        return replace(row, counted=of if any(of) else row.counted)

    return [
        replace(one, rows={role: counted(number, row) for role, row in one.rows.items()})
        for number, one in enumerate(examples)
    ]


def alone(model: torch.nn.Module, row: TokenRow) -> float:
    """Log-probability of the counted tokens of one answer, in a forward pass of its own without any padding."""
    ids = torch.tensor([(*row.prompt_ids, *row.answer_ids)])
    with torch.no_grad():
        logps = model(input_ids=ids).logits[0].double().log_softmax(-1)
    before = len(row.prompt_ids) - 1
    picked = [float(logps[before + place, token]) for place, token in enumerate(row.answer_ids)]
    return sum(value for value, counts in zip(picked, row.counted, strict=True) if counts)


@pytest.mark.parametrize("layout", [ROWS, TREES], ids=lambda layout: layout.name)
@pytest.mark.parametrize("tokens_per_batch", [1, 100, 10_000])
def test_metrics_are_means_over_examples_and_counted_tokens_and_never_over_padding(
    request_for: RequestFor, bench: Workbench, examples: list[TokenExample], layout: Layout, tokens_per_batch: int
) -> None:
    """Answers of 2 to 12 tokens in one step, against each answer by itself; the policy has moved off its reference."""
    examples = partly_counted(examples)
    request, beta, step = request_for("run"), 0.1, list(range(7))
    with bench.for_scoring(request.start) as model:
        ref = {role: [alone(model, one.rows[role]) for one in examples] for role in BOTH}
    frozen = {f"{role}_logps": torch.tensor(values, dtype=torch.float64) for role, values in ref.items()}
    data = data_columns(examples, request.objective, soft_labels=False)
    with bench.for_training(request.start, None, seed=0) as trainable:
        optimizer = optimizer_for(trainable.parameters(), request.settings)
        loss = LossOfPlan(request.objective, {"beta": beta}, data, {"ref": frozen})
        engine = Engine(trainable, loss, examples, optimizer, 1.0, Budget(tokens_per_batch), layout)
        engine.step([0, 3, 5], 1e-3)
        policy = {role: [alone(trainable.model, one.rows[role]) for one in examples] for role in BOTH}
        found, said = engine.measured(step), engine.step(step, 1e-3)

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    rewards = {role: [beta * (a - b) for a, b in zip(policy[role], ref[role], strict=True)] for role in BOTH}
    margins = [a - b for a, b in zip(rewards["chosen"], rewards["rejected"], strict=True)]
    lengths = [sum(one.rows["chosen"].counted) for one in examples]
    assert len(set(lengths)) > 3
    weights = torch.tensor([one.weight for one in examples])
    expected = {
        "loss": float((torch.nn.functional.softplus(-torch.tensor(margins)) * weights).mean()),
        **{f"logps/{role}": mean(policy[role]) for role in BOTH},
        **{f"rewards/{role}": mean(rewards[role]) for role in BOTH},
        "rewards/margins": mean(margins),
        "rewards/accuracies": mean([float(margin > 0) for margin in margins]),
        "chosen_logps_drop_per_token": mean(
            [-reward / beta / length for reward, length in zip(rewards["chosen"], lengths, strict=True)]
        ),
    }
    assert found == pytest.approx(expected, abs=2e-4, rel=1e-5)
    assert {name: said[name] for name in expected} == pytest.approx(expected, abs=2e-4, rel=1e-5)
