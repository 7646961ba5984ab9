"""What glibc is told of freed memory, seen in how often the system has to clear pages."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import torch
from prefloop.policy.freed_memory import keep_freed_memory, return_freed_memory
keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24).add(1)  # twice 64 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
def held():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1])
faults(), faults()
again, kept = min(faults() for _ in range(5)), held()  # a busy system takes pages back of its own
return_freed_memory()
print(again, kept - held())
"""
PAGES = 2 * 2**26 // 4096


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
@pytest.mark.parametrize(("environment", "kept"), [({}, True), ({"MALLOC_MMAP_THRESHOLD_": "131072"}, False)])
def test_freed_memory_is_kept_until_it_is_returned(environment: dict[str, str], kept: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    again, returned = map(int, done.stdout.split())

    assert again < PAGES / 20 if kept else again > PAGES / 2
    assert returned > 120_000 if kept else returned < 60_000  # kB
