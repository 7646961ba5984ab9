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

overrides, runs = sys.argv[1].split(";"), sys.argv[2:]
write, done = search._write_wave, []

def until_killed(kept, records):
    if len(done) == waves:
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(kept)
    write(kept, records)

search._write_wave = until_killed
for run, waves in zip(runs[::2], map(int, runs[1::2])):
    child = os.fork()  # a process of its own, which need not import everything again
    if child == 0:
        run_recipe(load_recipe("mcts_dpo.tiny", overrides), Path(run), Progress(), until="tree")
        print(len(done), flush=True)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
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


def test_a_search_that_was_killed_searches_no_complete_wave_again(tmp_path: Path) -> None:
    """Five questions are three waves of two; killed in the second, the rest are two."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    runs = [(whole, 9), (killed, 1), (killed, 9)]
    command = [sys.executable, "-c", CHILD, ";".join(OVERRIDES), *(str(part) for run in runs for part in run)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "0", str(-signal.SIGKILL), "2", "0"], done.stderr
    for kind in ("prompts", "responses", "judgments"):
        files = [run / "round-00" / "tree" / kind / "part-00000.jsonl" for run in (whole, killed)]
        assert files[0].stat().st_size > 0
        assert files[0].read_bytes() == files[1].read_bytes()
