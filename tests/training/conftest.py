"""A small real model with a small preference set."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from prefloop.config import ObjectiveConfig, TrainStep
from prefloop.objectives import find_objective
from prefloop.policy import ChatCodec, EncodingSettings, ModelSource, PolicyFiles, Workbench, resolve_model
from prefloop.records import Example, Member, Message, Prompt
from prefloop.training import ROWS, SCORE_CACHE, BlockOfRound, Budget, TokenExample, TrainRequest, tokenised

ANSWERS = (
    ("I love it.", "It was a terrible day, and I hate the rain."),
    ("Thank you, that is very kind of you, dear friend!", "No."),
    ("Good morning.", "Go away now."),
    ("You can go for a walk and enjoy the sun.", "I am sad."),
    ("Yes!", "Nothing good will come of it."),
    ("It is a beautiful day, I am happy.", "It is a bad day."),
    ("A hot soup is nice.", "Food is boring and bad."),
)


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFLOOP_CACHE", str(tmp_path_factory.mktemp("cache")))
        return resolve_model("builtin:tiny")


@pytest.fixture(scope="session")
def codec(source: ModelSource) -> ChatCodec:
    return ChatCodec.load(source.directory, {})


@pytest.fixture
def bench(source: ModelSource, codec: ChatCodec) -> Workbench:
    return Workbench(source, codec, torch.device("cpu"))


@pytest.fixture(scope="session")
def examples(codec: ChatCodec) -> list[TokenExample]:
    """Seven pairs of different lengths."""
    records = [
        Example(
            example_id=f"e{number}",
            prompt=Prompt.of(
                (Message(role="user", content="How are you?" if number % 2 else "What shall I do today?"),)
            ),
            members=tuple(
                Member(role=role, response_id=f"{role}-{number}", text=text)
                for role, text in (("chosen", chosen), ("rejected", rejected))
            ),
            weight=1.0 + number % 3,
            why="test",
        )
        for number, (chosen, rejected) in enumerate(ANSWERS)
    ]
    kept, dropped = tokenised(records, codec, EncodingSettings(max_length=512))
    assert not dropped
    return kept


@pytest.fixture
def request_for(source: ModelSource, examples: list[TokenExample], tmp_path: Path) -> Callable[..., TrainRequest]:
    """A request for DPO on the seven pairs, four optimiser steps of two epochs; other settings by name."""

    def build(name: str, **changed: Any) -> TrainRequest:
        start = changed.get("start", PolicyFiles("start", source.directory))
        scratch = tmp_path / name / "scratch"
        scratch.mkdir(parents=True, exist_ok=True)
        settings = TrainStep(
            type="train",
            objective=ObjectiveConfig(name="dpo"),
            learning_rate=changed.get("learning_rate", 1e-3),
            epochs=2,
            batch_size=changed.get("batch_size", 4),
            lora=changed.get("lora"),
            **({"optimizer": "rmsprop"} if changed.get("optimizer") == "rmsprop" else {"weight_decay": 0.01}),
            precision=changed.get("precision", "float32"),
        )
        return TrainRequest(
            settings=settings,
            objective=find_objective("dpo", "here"),
            hyper={"beta": 0.1},
            examples=examples,
            start=start,
            references=changed.get("references", {"ref": start}),
            seed=changed.get("seed", 11),
            block=changed.get("block", BlockOfRound(0, 1, None)),
            scratch=scratch,
            score_cache=changed.get("score_cache", scratch / SCORE_CACHE),
            budget=changed.get("budget", Budget(100)),
            checkpoint_steps=changed.get("checkpoint_steps", 2),
            keep_last=changed.get("keep_last", 1),
            layout=changed.get("layout", ROWS),
            recompute=changed.get("recompute", False),
        )

    return build
