"""A run that is killed at any point and started again gives the bytes of one that never was."""

import signal
from pathlib import Path

import pytest

from .conftest import SMALL, printed_by_processes, stable_files

pytestmark = pytest.mark.crash

CHILD = """
import os, signal, sys
from pathlib import Path
from prefloop.config import load_recipe
from prefloop.loop import Progress, run_recipe
import prefloop.loop.journal, prefloop.loop.steps.sample
from prefloop.training import Engine

def die_in(owner, name, when):
    original = getattr(owner, name)
    def fatal(*args, **kwargs):
        if when(args):
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)
    setattr(owner, name, fatal)

def die_at(where):
    Journal = prefloop.loop.journal.Journal
    match where.split(":"):
        case ["before-journal", path]:
            die_in(Journal, "begin", lambda args: args[1].path == path)
        case ["before-commit", path]:
            seen = []
            die_in(Journal, "begin", lambda args: seen.append(args[1]) and False)
            die_in(Journal, "commit", lambda args: seen[-1].path == path)
        case ["in-wave", number]:
            done = []
            def next_wave(args):
                return args[0].suffix == ".writing" and (done.append(args) or len(done) > int(number))
            die_in(prefloop.loop.steps.sample, "write_records", next_wave)
        case ["in-training", step]:
            calls = []
            die_in(Engine, "step", lambda args: calls.append(args) or len(calls) > int(step))

def start(run, where):
    die_at(where)
    run_recipe(load_recipe("quickstart.tiny", OVERRIDES), run, Progress())
"""

OVERRIDES = (*SMALL, "policy.lora={r: 4, alpha: 8}", "machine={threads: 1, checkpoint_steps: 1}")
POINTS = (
    "in-wave:3",  # the second wave of the round's samples: the set-up's answers take two
    "before-journal:round-00/judgments",
    "before-commit:round-00/pairs",
    "in-training:2",
    "before-commit:round-00/policy",
    "before-journal:round-00/evaluation.json",
)


def test_killed_at_every_point_in_turn_and_resumed_is_as_never_killed(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    runs = [(whole, "never"), *((killed, point) for point in POINTS), (killed, "never")]
    printed = printed_by_processes(f"OVERRIDES = {OVERRIDES}\n{CHILD}", runs)

    assert printed == ["0", *[str(-signal.SIGKILL)] * len(POINTS), "0"]
    assert stable_files(killed) == dict(stable_files(whole))
    assert not list((killed / ".scratch").glob("*"))
