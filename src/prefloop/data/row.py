"""A row as it stands in a file, before anybody has said what its columns mean."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prefloop.data.problems import Problem


@dataclass(frozen=True)
class Row:
    """One row of a source."""

    place: str
    """Where it stands, "pairs.jsonl:412"; never a path. Lines and rows count from 1."""
    values: Mapping[str, Any] | None
    """Its columns as JSON values; None where the line could not be read."""
    original: str
    """The row as it stands in the file; as JSON, where the file is binary."""
    problems: tuple[Problem, ...] = ()
    """What is wrong with it as a line; a refused line has no values."""
