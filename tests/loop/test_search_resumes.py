"""A tree search that is killed between its waves goes on behind the last complete one, to the same bytes."""

import signal
from pathlib import Path

import pytest

from .conftest import printed_by_processes

pytestmark = pytest.mark.crash

CHILD = """
import os, signal, sys
from pathlib import Path
from prefloop.config import load_recipe
from prefloop.loop import Progress, run_recipe
from prefloop.loop.steps import search

write, done = search._write_wave, []

def start(run, waves):
    def until_killed(kept, records):
        if len(done) == int(waves):
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(kept)
        write(kept, records)

    search._write_wave = until_killed
    run_recipe(load_recipe("mcts_dpo.tiny", OVERRIDES), run, Progress(), until="tree")
    print(len(done), flush=True)
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
    printed = printed_by_processes(f"OVERRIDES = {OVERRIDES}\n{CHILD}", [(whole, 9), (killed, 1), (killed, 9)])
    assert printed == ["3", "0", str(-signal.SIGKILL), "2", "0"]
    for kind in ("prompts", "responses", "judgments"):
        files = [run / "round-00" / "tree" / kind / "part-00000.jsonl" for run in (whole, killed)]
        assert files[0].stat().st_size > 0
        assert files[0].read_bytes() == files[1].read_bytes()
