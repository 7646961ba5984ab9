"""What a user can be told: one line that says where, what was found, what was expected and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class PrefloopError(Exception):
    """Base of everything that the command line shows as one line; `exit_code` is what the process returns."""

    exit_code = 2


class RecipeError(PrefloopError):
    """A recipe, an option or a command that cannot work."""


class DataError(PrefloopError):
    """A file or a record that is missing, malformed or unusable."""


class ModelError(PrefloopError):
    """A model directory that is missing or lacks something, such as a chat template."""


class RunLockedError(PrefloopError):
    """Another process is writing this run."""


class CheckFailedError(PrefloopError):
    """A check said no: a gate or monitor stops the run, or a number is not what it must be."""

    exit_code = 1


class ResumableError(PrefloopError):
    """The run stopped for a reason outside it; the same command goes on from here."""

    exit_code = 75


def did_you_mean(word: str, known: Iterable[str], listing: str | None = None) -> str:
    """A sentence that names the closest known word, if one is close, and all of them or the command that lists them."""
    names = sorted(known)
    close = get_close_matches(word, names, n=1)
    guess = f"Did you mean '{close[0]}'? " if close else ""
    return f"{guess}`{listing}` lists all." if listing else f"{guess}Known: {', '.join(names)}."
