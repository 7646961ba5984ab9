"""Rows as trees: what rows begin with alike - a system turn, a prompt - passes through a model once.

All tokens of a batch stand in one sequence without padding, segment behind segment. A token sees the tokens of its own
path from the root down to itself, so that every row's numbers are those that it would have alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

WORTH_SHARING = 16
"""Tokens that sharing a beginning must save: below, a segment of its own costs more than it saves."""
OF_COPIES = 16
"""Tokens that are behind a copy of a segment at least, for each token of it: copies add a sixteenth at most."""


class Standing(NamedTuple):
    """Where tokens stand in a forest: all that decides who sees whom."""

    place: Tensor
    """In the sequence."""
    reach: Tensor
    """Place behind the last token whose path it is on: what grows from a segment stands right behind it."""
    depth: Tensor
    """Tokens before it on its path."""
    horizon: Tensor | None = None
    """Least depth that it sees; None where it sees its whole path, so that a kernel need not look it up."""

    def to(self, device: torch.device) -> "Standing":
        """The same on a device."""
        horizon = None if self.horizon is None else self.horizon.to(device)
        return Standing(self.place.to(device), self.reach.to(device), self.depth.to(device), horizon)

    def at(self, index: Tensor) -> "Standing":
        """Where some of the tokens stand."""
        horizon = None if self.horizon is None else self.horizon[index]
        return Standing(self.place[index], self.reach[index], self.depth[index], horizon)


def may_see(query: Standing, key: Standing) -> Tensor:
    """Whether a token sees another: the one rule, for the segments of a path, the whole sequence and FlexAttention.

    Args:
        query: the tokens that look.
        key: those that are looked at; shapes broadcast.
    """
    on_path = (key.place <= query.place) & (query.place < key.reach)
    return on_path if query.horizon is None else on_path & (key.depth >= query.horizon)


@dataclass(frozen=True)
class Segment:
    """Tokens in a row that the same rows pass through."""

    start: int
    """Place of its first token in the sequence."""
    length: int
    depth: int
    """Tokens before it on its path: the position of its first token."""
    ancestors: tuple[int, ...]
    """Numbers of the segments before it on its path, from the root on."""

    @property
    def end(self) -> int:
        """Place behind its last token."""
        return self.start + self.length

    @property
    def seen(self) -> int:
        """Tokens that its last token sees, itself included."""
        return self.depth + self.length


@dataclass(frozen=True)
class Forest:
    """Rows of tokens with their beginnings shared."""

    ids: tuple[int, ...]
    """All tokens, segment behind segment."""
    segments: tuple[Segment, ...]
    paths: tuple[tuple[int, ...], ...]
    """Of each row the segments that it passes through."""

    @classmethod
    def of(cls, rows: Sequence[tuple[int, ...]], behind: int | None = None) -> "Forest":
        """The forest of some rows.

        Args:
            rows: none of them empty.
            behind: tokens behind one segment from which on it stands there again for further rows, since a kernel that
                gathers for each of a segment's tokens what all behind it say would wait for these alone.
        """
        grown = _Growth(rows, behind)
        grown.grow(sorted(range(len(rows)), key=rows.__getitem__), 0, ())
        return cls(tuple(grown.ids), tuple(grown.segments), tuple(grown.paths))

    def __len__(self) -> int:
        return len(self.ids)

    def positions(self) -> Int[Tensor, " tokens"]:
        """Of each token how many stand before it on its path."""
        return torch.cat([torch.arange(one.depth, one.seen) for one in self.segments])

    def places(self, row: int) -> Int[Tensor, " row_tokens"]:
        """Where the tokens of a row stand in the sequence."""
        return self.path(self.paths[row][-1])

    def path(self, number: int) -> Int[Tensor, " path"]:
        """Where the tokens stand that lead to the end of a segment."""
        return torch.cat([torch.arange(one.start, one.end) for one in self.passed(number)])

    def passed(self, number: int) -> list[Segment]:
        """The segments on the path to the end of one, itself the last."""
        return [self.segments[one] for one in (*self.segments[number].ancestors, number)]

    def standing(self, window: int | None = None) -> Standing:
        """Where every token stands.

        Args:
            window: tokens that a token sees at most, itself included, counted along the path.
        """
        ends = [one.end for one in self.segments]
        for one in self.segments:
            for ancestor in one.ancestors:
                ends[ancestor] = one.end
        reach = torch.tensor(ends).repeat_interleave(torch.tensor([one.length for one in self.segments]))
        depth = self.positions()
        return Standing(torch.arange(len(self)), reach, depth, None if window is None else depth - window + 1)

    def sees(self, query: Tensor, key: Tensor, window: int | None = None) -> Bool[Tensor, "queries keys"]:
        """What tokens at some places see of tokens at others.

        Args:
            query: places of the tokens that look.
            key: places of those that are looked at.
            window: as in `standing`.
        """
        standing = self.standing(window)
        return may_see(standing.at(query[:, None]), standing.at(key[None, :]))


class _Growth:
    """A forest that is being made, depth first."""

    def __init__(self, rows: Sequence[tuple[int, ...]], behind: int | None) -> None:
        self.rows = rows
        self.behind = behind
        self.ids: list[int] = []
        self.segments: list[Segment] = []
        self.paths: list[tuple[int, ...]] = [()] * len(rows)

    def grow(self, rows: Sequence[int], depth: int, ancestors: tuple[int, ...]) -> None:
        """Adds rows, in the order of their tokens, that have passed through some segments."""
        first, last = self.rows[rows[0]], self.rows[rows[-1]]
        shortest = min(len(first), len(last))
        fork = next((place for place in range(depth, shortest) if first[place] != last[place]), shortest)
        shared, alike = first[depth:fork], first[depth:] == last[depth:]
        worth_sharing = alike or (len(rows) - 1) * len(shared) >= WORTH_SHARING
        path = self._segment(shared, depth, ancestors) if worth_sharing else ancestors
        if alike:
            for row in rows:
                self.paths[row] = path
            return
        begun = len(self.ids)
        for group in self._forks(rows, fork):
            if worth_sharing and self._is_full(len(self.ids) - begun, shared):
                path, begun = self._segment(shared, depth, ancestors), len(self.ids) + len(shared)
            self.grow(group, fork if worth_sharing else depth, path)

    def _is_full(self, behind: int, shared: Sequence[int]) -> bool:
        """Whether enough tokens stand behind a segment for a copy of it to be worth its own."""
        return self.behind is not None and behind >= max(self.behind, OF_COPIES * len(shared))

    def _segment(self, ids: Sequence[int], depth: int, ancestors: tuple[int, ...]) -> tuple[int, ...]:
        """A new segment; returns the path to its end."""
        if not ids:
            return ancestors
        self.segments.append(Segment(len(self.ids), len(ids), depth, ancestors))
        self.ids += ids
        return (*ancestors, len(self.segments) - 1)

    def _forks(self, rows: Sequence[int], fork: int) -> Iterator[list[int]]:
        """Rows by their next token; those that end here first."""
        for _, group in groupby(rows, key=lambda row: self.rows[row][fork : fork + 1]):
            yield list(group)
