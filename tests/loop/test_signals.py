"""What the process says and returns when it is told to stop."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


@pytest.mark.crash
@pytest.mark.parametrize(
    ("number", "code", "said"), [(signal.SIGINT, 130, "Interrupt"), (signal.SIGTERM, 143, "Terminated")]
)
def test_a_signal_ends_the_run_with_its_code_and_one_line(
    number: signal.Signals, code: int, said: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "prefloop", "run", "loop.tiny", "--run", str(run), "--set", "rounds=9"]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    deadline = time.monotonic() + 60
    while not (run / "round-00" / "samples").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child.send_signal(number)

    _, errors = child.communicate(timeout=60)
    assert child.returncode == code
    assert errors.splitlines()[-1] == f"prefloop: {said}. The same command goes on from here."
