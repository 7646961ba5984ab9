"""Examples as training reads them, and the order in which they are trained on."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prefloop.objectives import REPEATED_ROLES
from prefloop.policy import ChatCodec, Encoded, EncodingSettings, TokenRow, encoded
from prefloop.records import Example, seed_for


@dataclass(frozen=True)
class TokenExample:
    """An example as tokens and numbers; by role what belongs to one answer."""

    example_id: str
    rows: Mapping[str, TokenRow]
    """By role; those of a role that an example has several times by role and rank, as `ranked.0`."""
    marked: Mapping[str, tuple[bool, ...]]
    """Which answer tokens lie in the member's marked spans."""
    weight: float
    numbers: Mapping[str, float]
    member_numbers: Mapping[str, Mapping[str, float]]
    part: str = ""
    """Which of several sources that were mixed it came from."""

    @classmethod
    def of(
        cls, example: Example, rows: Mapping[str, TokenRow], marked: Mapping[str, tuple[bool, ...]] | None = None
    ) -> "TokenExample":
        """An example with its rows."""
        return cls(
            example_id=example.example_id,
            rows=rows,
            marked=marked or {role: (False,) * len(row.answer_ids) for role, row in rows.items()},
            weight=example.weight,
            numbers=example.numbers,
            member_numbers=dict(
                zip(
                    keys_of([member.role for member in example.members]),
                    (member.numbers for member in example.members),
                    strict=True,
                )
            ),
            part=example.prompt.part,
        )

    def answers(self, roles: Sequence[str]) -> Iterator[tuple[str, TokenRow]]:
        """The answers of some roles, each with its role."""
        for key, row in self.rows.items():
            if (role := role_of(key)) in roles:
                yield role, row

    @property
    def longest(self) -> int:
        """Tokens of its longest row."""
        return max(len(row) for row in self.rows.values())

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """The prompt, which all rows begin with."""
        return next(iter(self.rows.values())).prompt_ids


def keys_of(roles: Sequence[str]) -> list[str]:
    """Names of an example's answers: their roles, and where a role may occur several times its rank too: `ranked.0`."""
    ranks = Counter[str]()
    keys: list[str] = []
    for role in roles:
        keys.append(f"{role}.{ranks[role]}" if role in REPEATED_ROLES else role)
        ranks[role] += 1
    return keys


def role_of(key: str) -> str:
    """The role of an answer by its name."""
    return key.partition(".")[0]


def tokenised(
    examples: Sequence[Example], codec: ChatCodec, settings: EncodingSettings
) -> tuple[list[TokenExample], Counter[str]]:
    """The examples that can be trained on, and how many were left out, cut or suspect, by reason."""
    kept: list[TokenExample] = []
    counts: Counter[str] = Counter()
    for one in encoded(examples, codec, settings):
        counts.update(reasons(one))
        if one.left_out is None:
            kept.append(_token_example(one))
    return kept, counts


def reasons(one: Encoded) -> tuple[str, ...]:
    """What is counted of an example: why it is left out, or what is to be said of it."""
    return one.warned if one.left_out is None else (one.left_out,)


def _token_example(one: Encoded) -> TokenExample:
    roles = keys_of([member.role for member in one.example.members])
    rows = dict(zip(roles, one.rows, strict=True))
    return TokenExample.of(one.example, rows, dict(zip(roles, one.marked, strict=True)))


def example_data(examples: Sequence[TokenExample], roles: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """The data quantities of all examples, by name: `{role}_lengths` in counted tokens, and `weights`."""
    single = [role for role in roles if role not in REPEATED_ROLES]
    data = np.array([[*(sum(one.rows[role].counted) for role in single), one.weight] for one in examples], float)
    names = (*(f"{role}_lengths" for role in single), "weights")
    return {name: data[:, number] for number, name in enumerate(names)}


def step_plan(num_examples: int, batch_size: int, epochs: int, seed: int) -> list[list[int]]:
    """Which examples each optimiser step sees: a global shuffle an epoch, a pure function of its arguments."""
    plan: list[list[int]] = []
    for epoch in range(epochs):
        order = np.random.Generator(np.random.Philox(seed_for(seed, "epoch", epoch))).permutation(num_examples).tolist()
        plan += [order[start : start + batch_size] for start in range(0, num_examples, batch_size)]
    return plan
