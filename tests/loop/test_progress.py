"""The time left that a run says."""

import io

import pytest
from rich.console import Console

from prefloop.loop import progress
from prefloop.loop.progress import PLAIN_LINE_EVERY_S, Report


def test_what_begins_again_is_timed_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two members of an ensemble train one behind the other, 30 steps of a second each."""
    said, now = io.StringIO(), [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    report = Report("setup/shared", None, Console(file=said), last_line=0.0)
    for _ in range(2):
        for done in range(31):
            report("train", done, 30)
            now[0] += 1

    assert PLAIN_LINE_EVERY_S == 10
    assert said.getvalue().splitlines() == [
        f"setup/shared: train {done}/30, about {30 - done} s left" for done in (10, 20, 1, 11, 21)
    ]


def test_a_bar_that_begins_again_is_reset() -> None:
    with progress.RichProgress(console=Console(file=io.StringIO())) as bar:
        report = Report("setup/shared", bar, bar.console)
        for done in (0, 30, 1):
            report("train", done, 30)

        (task,) = bar.tasks
        assert (task.completed, task.total, task.finished) == (1, 30, False)
