"""Training that is killed at every step in turn ends with the bytes of one that never was."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prefloop.config import LoraConfig
from prefloop.objectives import find_objective
from prefloop.policy import Workbench
from prefloop.training import BlockOfRound, TokenExample, TrainRequest, train
from prefloop.training.checkpoint import latest_checkpoint

RequestFor = Callable[..., TrainRequest]
LORA = LoraConfig(r=4, alpha=8)
STEPS = 8
CASES = [
    pytest.param("dpo", None, "adamw", id="dpo-full-adamw"),
    pytest.param("beta_dpo", LORA, "rmsprop", id="beta_dpo-lora-rmsprop"),
    *(
        pytest.param(objective, lora, optimizer, id=f"{objective}-{kind}-{optimizer}", marks=pytest.mark.slow)
        for objective in ("dpo", "beta_dpo", "sft")
        for kind, lora in (("full", None), ("lora", LORA))
        for optimizer in ("adamw", "rmsprop")
    ),
]
"""beta_dpo reads random numbers and keeps running statistics; sft has no pairs and no reference."""


def silent(_what: str, _done: int, _count: int) -> None:
    pass


def killed_at(step: int) -> Callable[[str, int, int], None]:
    """Between a step and the checkpoint behind it."""

    def progress(what: str, done: int, _count: int) -> None:
        if (what, done) == ("train", step):
            raise KeyboardInterrupt

    return progress


def request_of(
    request_for: RequestFor, name: str, objective: str, examples: list[TokenExample], **changed: Any
) -> TrainRequest:
    """Eight steps of two examples, all but one of them inside an epoch, with validation; the first of two blocks."""
    found = find_objective(objective, "here")
    roles = [replace(one, rows={role: one.rows[role] for role in found.roles}) for one in examples]
    request = request_for(name, batch_size=2, checkpoint_steps=1, block=BlockOfRound(0, 2, None), **changed)
    return replace(
        request,
        objective=found,
        hyper=found.options().model_dump(),
        references={name: request.start for name in found.models},
        examples=roles,
        validation=roles[:3],
    )


def files(folder: Path) -> Mapping[str, bytes]:
    """What a train step leaves: weights, margins, what validation said, and the state for the next block."""
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and "scratch" not in file.parts
    }


@pytest.mark.parametrize(("objective", "lora", "optimizer"), CASES)
def test_killed_at_every_step_in_turn_it_ends_with_the_same_bytes(
    request_for: RequestFor,
    bench: Workbench,
    examples: list[TokenExample],
    tmp_path: Path,
    objective: str,
    lora: LoraConfig | None,
    optimizer: str,
) -> None:
    whole, cut = (
        request_of(request_for, name, objective, examples, lora=lora, optimizer=optimizer) for name in ("whole", "cut")
    )
    expected = train(whole, bench, tmp_path / "whole" / "model", silent)
    resumed_at: list[int] = []
    for step in range(1, STEPS + 1):
        with pytest.raises(KeyboardInterrupt):
            train(cut, bench, tmp_path / "cut" / "model", killed_at(step))
        found = latest_checkpoint(cut.scratch)
        resumed_at.append(0 if found is None else found[1])

    assert train(cut, bench, tmp_path / "cut" / "model", silent) == expected
    assert resumed_at == list(range(STEPS))
    left = files(tmp_path / "cut")
    assert left == files(tmp_path / "whole")
    names = {"validation.json", f"checkpoint-{STEPS:08d}/state.safetensors"}
    assert names | ({"margins.jsonl"} if "rejected" in cut.objective.roles else set()) <= left.keys()


@pytest.mark.parametrize(("keep_last", "kept"), [(1, [7]), (3, [5, 6, 7]), (9, [1, 2, 3, 4, 5, 6, 7])])
def test_so_many_checkpoints_are_kept(
    request_for: RequestFor,
    bench: Workbench,
    examples: list[TokenExample],
    tmp_path: Path,
    keep_last: int,
    kept: list[int],
) -> None:
    request = request_of(request_for, "run", "dpo", examples, keep_last=keep_last)
    train(request, bench, tmp_path / "run" / "model", silent)
    assert sorted(folder.name for folder in request.scratch.glob("checkpoint-*")) == [
        f"checkpoint-{step:08d}" for step in kept
    ]


@pytest.mark.parametrize("damaged", ["state.safetensors", "progress.json"])
@pytest.mark.parametrize(("keep_last", "goes_on_from"), [(2, 4), (1, 0)])
def test_from_a_damaged_checkpoint_it_goes_back_to_one_that_can_be_read(
    request_for: RequestFor,
    bench: Workbench,
    examples: list[TokenExample],
    tmp_path: Path,
    damaged: str,
    keep_last: int,
    goes_on_from: int,
) -> None:
    whole, cut = (request_of(request_for, name, "dpo", examples, keep_last=keep_last) for name in ("whole", "cut"))
    expected = train(whole, bench, tmp_path / "whole" / "model", silent)
    with pytest.raises(KeyboardInterrupt):
        train(cut, bench, tmp_path / "cut" / "model", killed_at(6))
    file = cut.scratch / "checkpoint-00000005" / damaged
    file.write_bytes(file.read_bytes()[:-100])
    said: list[int] = []

    again = train(
        cut, bench, tmp_path / "cut" / "model", lambda what, done, _: said.append(done) if what == "train" else None
    )

    assert said == list(range(goes_on_from + 1, STEPS + 1))
    assert again == expected
    assert files(tmp_path / "cut") == files(tmp_path / "whole")
