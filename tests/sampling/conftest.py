"""A real small model that samplers and servers of tests share."""

import pytest
import torch

from prefloop.policy import ChatCodec, PolicyFiles, Workbench, resolve_model
from prefloop.records import Message, Prompt
from prefloop.sampling import Draw, Patience, SamplingSettings, draws_for

QUICK = Patience(timeout_s=60.0, deadline_s=120.0, first_wait_s=0.002, longest_wait_s=0.02, failures=3)
PLAIN = SamplingSettings(1.0, 1.0, 16)


@pytest.fixture(scope="module")
def bench() -> Workbench:
    source = resolve_model("builtin:tiny")
    return Workbench(source, ChatCodec.load(source.directory, {}), torch.device("cpu"))


@pytest.fixture(scope="module")
def policy(bench: Workbench) -> PolicyFiles:
    return PolicyFiles(bench.source.identity, bench.source.directory)


def draws(bench: Workbench, prompts: int = 4, num_samples: int = 3) -> list[Draw]:
    wanted: list[Draw] = []
    for number in range(prompts):
        text = f"What is number {number}?"
        prompt = Prompt(prompt_id=f"p{number}", root_id="r", messages=(Message(role="user", content=text),))
        wanted += draws_for(
            prompt.prompt_id,
            bench.codec.prompt_ids(prompt),
            num_samples=num_samples,
            recipe_seed=0,
            step="s",
            round_number=0,
            block=0,
        )
    return wanted
