"""Tokenised examples on disk: written a thousand at a time, and read where an optimiser step stands.

`part-00000.jsonl` says of every example what people and objectives want to know; `part-00000.safetensors` has the token
ids of the same examples one behind the other, each prompt and then its answers, and a flag a token. Examples that were
left out stand in `left-out.jsonl` with the reason.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from prefloop.policy import ChatCodec, Encoded, EncodingSettings, TokenRow, encoded
from prefloop.records import Example, Indexed, Record, in_pieces, read_records, shards_in, to_line
from prefloop.training.rows import TokenExample, keys_of, reasons, role_of

TOGETHER = 1000
"""Examples that are tokenised at once: a fast tokenizer spreads so many texts over the cores."""
EXAMPLES_PER_FILE = 20_000
COUNTED, MARKED = 1, 2
"""Flags of a token: it is in the loss; it lies in a marked span."""
LEFT_OUT = "left-out.jsonl"


class TokenisedMember(Record):
    """One answer of a tokenised example."""

    role: str
    response_id: str
    tokens: int
    """Behind the prompt; with loss on all turns from behind the first header of the assistant on."""
    counted: int
    """Of them in the loss."""
    numbers: dict[str, float]


class TokenisedExample(Record):
    """What is said of an example beside its tokens."""

    example_id: str
    prompt_tokens: int
    members: tuple[TokenisedMember, ...]
    weight: float
    numbers: dict[str, float]
    part: str = ""
    """Which of several sources that were mixed it came from."""
    warned: tuple[str, ...] = ()
    """Codes: it was cut, or the template does not keep its prompt."""


class LeftOut(Record):
    """An example that is not trained on."""

    example_id: str
    reason: str


def write_tokens(
    folder: Path,
    examples: Iterable[Example],
    codec: ChatCodec,
    settings: EncodingSettings,
    progress: Callable[[int], None] = lambda _done: None,
) -> Counter[str]:
    """Tokenises examples and writes them; says how many there are, and how many were left out or cut, by reason."""
    counts: Counter[str] = Counter({"examples": 0})
    numbered = enumerate(encoded_all(examples, codec, settings))
    with (folder / LEFT_OUT).open("w", encoding="utf-8", newline="\n") as left_out:
        for part, of_file in groupby(numbered, key=lambda item: item[0] // EXAMPLES_PER_FILE):
            with _TokenFile(folder / f"part-{part:05d}") as file:
                for number, one in of_file:
                    counts.update(reasons(one))
                    if one.left_out is None:
                        file.add(one)
                        counts["examples"] += 1
                    else:
                        left_out.write(to_line(LeftOut(example_id=one.example.example_id, reason=one.left_out)))
                    if not (number + 1) % TOGETHER:
                        progress(number + 1)
    return counts


def encoded_all(examples: Iterable[Example], codec: ChatCodec, settings: EncodingSettings) -> Iterator[Encoded]:
    """Any number of examples as tokens, a thousand at a time."""
    for together in in_pieces(examples, TOGETHER):
        yield from encoded(together, codec, settings)


class _TokenFile:
    """A file of tokens that is being written: what is said of examples at once, their tokens when it is full."""

    def __init__(self, stem: Path) -> None:
        self._stem = stem
        self._said = stem.with_suffix(".jsonl").open("w", encoding="utf-8", newline="\n")
        self._ids: list[NDArray[np.int32]] = [np.zeros(0, np.int32)]
        self._flags: list[NDArray[np.uint8]] = [np.zeros(0, np.uint8)]

    def __enter__(self) -> "_TokenFile":
        return self

    def __exit__(self, *error: object) -> None:
        self._said.close()
        tensors = {"ids": np.concatenate(self._ids), "flags": np.concatenate(self._flags)}
        save_file(tensors, self._stem.with_suffix(".safetensors"))

    def add(self, one: Encoded) -> None:
        """Takes the tokens of an example: its prompt, then its answers."""
        prompt = one.rows[0].prompt_ids
        self._ids.append(np.array([*prompt, *(token for row in one.rows for token in row.answer_ids)], np.int32))
        counted = np.array(
            [*(False for _ in prompt), *(counts for row in one.rows for counts in row.counted)], np.uint8
        )
        marked = np.array([*(False for _ in prompt), *(mark for marks in one.marked for mark in marks)], np.uint8)
        self._flags.append(COUNTED * counted + MARKED * marked)
        self._said.write(to_line(_said(one)))


def _said(one: Encoded) -> TokenisedExample:
    example = one.example
    return TokenisedExample(
        example_id=example.example_id,
        prompt_tokens=len(one.rows[0].prompt_ids),
        members=tuple(
            TokenisedMember(
                role=member.role,
                response_id=member.response_id,
                tokens=len(row.answer_ids),
                counted=sum(row.counted),
                numbers=member.numbers,
            )
            for member, row in zip(example.members, one.rows, strict=True)
        ),
        weight=example.weight,
        numbers=example.numbers,
        part=example.prompt.part,
        warned=one.warned,
    )


class TokensOnDisk(Indexed[TokenExample]):
    """The examples of a folder with the answers of some roles, or all; token ids stay on disk until asked for."""

    def __init__(self, folder: Path, roles: Sequence[str] | None = None) -> None:
        self._wanted = None if roles is None else frozenset(roles)
        self._files: list[Any] = []
        self._file_of: list[int] = []
        self._start: list[int] = []
        self._lengths: list[tuple[int, ...]] = []
        self._roles: list[tuple[str, ...]] = []
        self.example_ids: list[str] = []
        self._weights: list[float] = []
        self._parts: list[str] = []
        self._numbers: dict[tuple[str, str], list[float]] = {}
        """By role ("" for the example's own) and name; NaN where an example has none."""
        known: dict[tuple[str, ...], tuple[str, ...]] = {}
        known_parts: dict[str, str] = {}
        for path in shards_in(folder):
            start = 0
            for one in read_records(path, TokenisedExample):
                roles = tuple(keys_of([member.role for member in one.members]))
                lengths = (one.prompt_tokens, *(member.tokens for member in one.members))
                self._add_numbers("", one.numbers)
                for key, member in zip(roles, one.members, strict=True):
                    self._add_numbers(key, member.numbers)
                self._file_of.append(len(self._files))
                self._start.append(start)
                self._lengths.append(lengths)
                self._roles.append(known.setdefault(roles, roles))
                self.example_ids.append(one.example_id)
                self._weights.append(one.weight)
                self._parts.append(known_parts.setdefault(one.part, one.part))
                start += sum(lengths)
            self._files.append(safe_open(path.with_suffix(".safetensors"), framework="numpy"))
        for values in self._numbers.values():
            values.extend([nan] * (len(self) - len(values)))

    def _add_numbers(self, role: str, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            values = self._numbers.setdefault((role, name), [])
            values += [nan] * (len(self) - len(values))
            values.append(value)

    def __len__(self) -> int:
        return len(self._start)

    def at(self, index: int) -> TokenExample:
        """An example, read from its file."""
        lengths, roles = self._lengths[index], self._roles[index]
        start = self._start[index]
        end = start + sum(lengths)
        file = self._files[self._file_of[index]]
        ids: list[int] = file.get_slice("ids")[start:end].tolist()
        flags: NDArray[np.uint8] = file.get_slice("flags")[start:end]
        counted: list[bool] = (flags & COUNTED).astype(bool).tolist()
        marked: list[bool] = (flags & MARKED).astype(bool).tolist()
        prompt = tuple(ids[: lengths[0]])
        rows: dict[str, TokenRow] = {}
        marks: dict[str, tuple[bool, ...]] = {}
        begin = lengths[0]
        for role, length in zip(roles, lengths[1:], strict=True):
            answer = slice(begin, begin + length)
            begin += length
            if self._wanted is None or role_of(role) in self._wanted:
                rows[role] = TokenRow(prompt, tuple(ids[answer]), tuple(counted[answer]))
                marks[role] = tuple(marked[answer])
        return TokenExample(
            example_id=self.example_ids[index],
            rows=rows,
            marked=marks,
            weight=self._weights[index],
            numbers=self._numbers_of("", index),
            member_numbers={role: self._numbers_of(role, index) for role in roles},
            part=self._parts[index],
        )

    def _numbers_of(self, role: str, index: int) -> dict[str, float]:
        return {
            name: values[index]
            for (of_role, name), values in self._numbers.items()
            if of_role == role and not isnan(values[index])
        }


def left_out(folder: Path) -> Iterator[LeftOut]:
    """The examples of a folder that are not trained on."""
    return read_records(folder / LEFT_OUT, LeftOut)
