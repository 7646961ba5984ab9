"""How far the chosen answer of each pair was ahead when training last saw it: what a policy still gets wrong."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor

from prefloop.records import Record, read_records, write_records

MARGINS_FILE = "margins.jsonl"


class Margin(Record):
    """One pair, as the policy stood just before the step that last trained on it."""

    example_id: str
    margin: float
    """Nats: log-probability of the chosen answer less that of the rejected one, each less the reference's where there
    is one. Below 0 the policy has the pair wrong."""


def write_margins(folder: Path, example_ids: Sequence[str], margins: Tensor) -> None:
    """Writes the margins of all examples."""
    values: list[float] = margins.tolist()
    pairs = zip(example_ids, values, strict=True)
    write_records(folder / MARGINS_FILE, (Margin(example_id=name, margin=value) for name, value in pairs))


def read_margins(folder: Path) -> Iterator[Margin]:
    """The margins that a train step left; none where it trained on other than pairs."""
    file = folder / MARGINS_FILE
    return read_records(file, Margin) if file.is_file() else iter(())
