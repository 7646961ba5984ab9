"""A run that is killed at any point and started again gives the bytes of one that never was."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import SMALL, stable_files

pytestmark = pytest.mark.crash

CHILD = """
import os, signal, sys
from pathlib import Path
from prefloop.config import load_recipe
from prefloop.loop import Progress, run_recipe
import prefloop.loop.journal, prefloop.loop.steps.sample
from prefloop.training import Engine

overrides, runs = sys.argv[1].split(";"), sys.argv[2:]

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

for run, where in zip(runs[::2], runs[1::2]):
    child = os.fork()  # a process of its own, which need not import everything again
    if child == 0:
        die_at(where)
        run_recipe(load_recipe("quickstart.tiny", overrides), Path(run), Progress())
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
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
    command = [sys.executable, "-c", CHILD, ";".join(OVERRIDES), *(str(part) for run in runs for part in run)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == ["0", *[str(-signal.SIGKILL)] * len(POINTS), "0"], done.stderr
    assert stable_files(killed) == dict(stable_files(whole))
    assert not list((killed / ".scratch").glob("*"))
