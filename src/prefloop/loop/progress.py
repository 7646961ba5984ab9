"""What a run says while it works: stages with their progress and time left, on a terminal or in plain lines."""

import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

PLAIN_LINE_EVERY_S = 10.0


@dataclass
class Report:
    """Progress of one stage: what is being done, how much of it is done, how much there is."""

    path: str
    bar: RichProgress | None
    console: Console
    last_line: float = field(default_factory=time.monotonic)
    started: dict[str, float] = field(default_factory=dict[str, float])
    done: dict[str, int] = field(default_factory=dict[str, int])
    tasks: dict[str, TaskID] = field(default_factory=dict[str, TaskID])

    def __call__(self, what: str, done: int, total: int) -> None:
        """Shows that `done` of `total` units of `what` are finished; fewer than before begin it again."""
        now, again = time.monotonic(), done < self.done.get(what, 0)
        self.done[what] = done
        if self.bar is not None:
            if what not in self.tasks:
                self.tasks[what] = self.bar.add_task(f"{self.path} {what}", total=total)
            if again:
                self.bar.reset(self.tasks[what], total=total)
            self.bar.update(self.tasks[what], completed=done)
            return
        if again:
            del self.started[what]
        begun = self.started.setdefault(what, now)
        if done < total and now - self.last_line >= PLAIN_LINE_EVERY_S and now > begun:
            left = (now - begun) / max(done, 1) * (total - done)
            self.console.print(f"{self.path}: {what} {done}/{total}, about {left:.0f} s left", highlight=False)
            self.last_line = now

    def note(self, text: str) -> None:
        """One line about the stage that stays."""
        self.console.print(f"{self.path}: {text}", highlight=False, markup=False, soft_wrap=True)


class Progress:
    """Speaks to standard error: a bar on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)

    def note(self, text: str) -> None:
        """One line that stays."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def stage(self, path: str) -> Generator[Report, None, None]:
        """A stage that runs now; says how long it took."""
        begun = time.monotonic()
        if self.console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            with RichProgress(*columns, console=self.console, transient=True) as bar:
                yield Report(path, bar, self.console)
        else:
            yield Report(path, None, self.console)
        self.note(f"{path}: {time.monotonic() - begun:.1f} s")
