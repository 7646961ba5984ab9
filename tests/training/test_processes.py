"""Two processes take the optimiser step that one takes alone."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from prefloop.training.processes import dealt

SIZES = {0: 5, 1: 20, 2: 7, 3: 9, 4: 3}


def test_every_process_gets_as_many_micro_batches_and_about_as_many_tokens() -> None:
    assert dealt([[0, 1], [2], [3], [4]], SIZES, 2) == [[[0, 1], [4]], [[3], [2]]]


def test_micro_batches_are_halved_until_there_are_enough() -> None:
    assert dealt([[0, 4, 2, 3]], SIZES, 2) == [[[2, 3]], [[0, 4]]]
    assert dealt([[1], [0, 4], [2, 3]], SIZES, 4) == [[[1]], [[3]], [[0, 4]], [[2]]]


def test_with_fewer_examples_than_processes_some_have_nothing_to_do() -> None:
    assert dealt([[1, 0]], SIZES, 3) == [[[1]], [[0]], [[]]]


def test_alone_everything_stays_in_its_order() -> None:
    assert dealt([[4], [1, 0], [2]], SIZES, 1) == [[[4], [1, 0], [2]]]


PROCESS = """
import importlib.util, sys
import torch
from torch import distributed
from prefloop.objectives import find_objective
from prefloop.training import TREES
from prefloop.training.processes import Processes

test_file, meeting, rank, size, out = sys.argv[1:]
distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=int(rank), world_size=int(size))
spec = importlib.util.spec_from_file_location("any_objective", test_file)
any_objective = importlib.util.module_from_spec(spec)
sys.modules["any_objective"] = any_objective
spec.loader.exec_module(any_objective)

found = {}
for name in ("dpo", "wpo", "orpo_with_prompt", "plackett_luce_dpo", "aot", "beta_dpo", "kto"):
    for tokens in (60, 10_000):
        engine = any_objective.engine(find_objective(name, "here"), tokens, layout=TREES, splits=True)
        engine.processes = Processes.joined()
        engine.max_grad_norm = 0.1  # of the whole gradient
        said = engine.step(any_objective.STEP, 0.0, 3)
        said.pop("tokens")
        found[f"{name} {tokens}"] = {"said": said, "gradient": any_objective.gradient(engine)}
    said = engine.step(any_objective.STEP[:1], 0.0, 4)  # fewer examples than processes
    said.pop("tokens")
    found[f"{name}, one example"] = {"said": said, "gradient": any_objective.gradient(engine)}
torch.save(found, out)
"""


def processes(count: int, folder: Path) -> list[dict[str, dict[str, Any]]]:
    """What each of some processes that step together says, by objective and budget."""
    meeting, test_file = folder / f"meeting-{count}", Path(__file__).parent / "test_any_objective.py"
    outs = [folder / f"{count}-{rank}.pt" for rank in range(count)]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(test_file), str(meeting), str(rank), str(count), str(out)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank, out in enumerate(outs)
    ]
    assert [process.wait(timeout=300) for process in started] == [0] * count
    return [torch.load(out) for out in outs]


@pytest.mark.long
def test_two_processes_say_and_learn_what_one_does(tmp_path: Path) -> None:
    """Loss, metrics, clipped gradient: separable, by token, by prompt, ranked, coupled, with a state, unpaired."""
    (alone,) = processes(1, tmp_path)
    for together in processes(2, tmp_path):
        for name, expected in alone.items():
            assert together[name]["said"] == pytest.approx(expected["said"], rel=1e-9, abs=1e-9), name
            torch.testing.assert_close(together[name]["gradient"], expected["gradient"], rtol=1e-6, atol=1e-9)
