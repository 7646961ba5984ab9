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

run, where, overrides = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]

def die_in(owner, name, when):
    original = getattr(owner, name)
    def fatal(*args, **kwargs):
        if when(args):
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)
    setattr(owner, name, fatal)

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
run_recipe(load_recipe("quickstart.tiny", overrides), run, Progress())
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


def run_child(run: Path, where: str) -> int:
    done = subprocess.run([sys.executable, "-c", CHILD, str(run), where, *OVERRIDES], capture_output=True, check=False)
    return done.returncode


@pytest.fixture(scope="module")
def never_killed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    run = tmp_path_factory.mktemp("whole") / "run"
    assert run_child(run, "never") == 0
    return dict(stable_files(run))


def test_killed_at_every_point_in_turn_and_resumed_is_as_never_killed(
    never_killed: dict[str, bytes], tmp_path: Path
) -> None:
    for point in POINTS:
        assert run_child(tmp_path / "run", point) == -signal.SIGKILL, point

    assert run_child(tmp_path / "run", "never") == 0

    assert stable_files(tmp_path / "run") == never_killed
    assert not list((tmp_path / "run" / ".scratch").glob("*"))
