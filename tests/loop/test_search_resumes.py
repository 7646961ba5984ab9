"""A tree search that is killed between its waves goes on behind the last complete one, to the same bytes."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.crash

CHILD = """
import os, signal, sys
from pathlib import Path
from prefloop.config import load_recipe
from prefloop.loop import Progress, run_recipe
from prefloop.loop.steps import search

run, waves, overrides = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
write, done = search._write_wave, []

def until_killed(kept, records):
    if len(done) == waves:
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(kept)
    write(kept, records)

search._write_wave = until_killed
run_recipe(load_recipe("mcts_dpo.tiny", overrides), run, Progress(), until="tree")
print(len(done))
"""
OVERRIDES = (
    "blocks=1",
    "setup=[]",
    "start=null",
    "prompts.count=5",
    "tree={simulations: 3, depth: 2, num_actions: 2, max_step_tokens: 6, max_steps: 2, max_new_tokens: 8, wave: 2}",
    "policy.references={ref: initial}",
    "evaluation.suite=null",
)


def searched(run: Path, waves: int) -> tuple[int, str]:
    """How the process ended, and how many waves it searched."""
    told = [sys.executable, "-c", CHILD, str(run), str(waves), *OVERRIDES]
    done = subprocess.run(told, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.strip()


def test_a_search_that_was_killed_searches_no_complete_wave_again(tmp_path: Path) -> None:
    """Five questions are three waves of two; killed in the second, the rest are two."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert searched(whole, 9) == (0, "3")
    assert searched(killed, 1)[0] == -signal.SIGKILL
    assert searched(killed, 9) == (0, "2")
    for kind in ("prompts", "responses", "judgments"):
        files = [run / "round-00" / "tree" / kind / "part-00000.jsonl" for run in (whole, killed)]
        assert files[0].stat().st_size > 0
        assert files[0].read_bytes() == files[1].read_bytes()
