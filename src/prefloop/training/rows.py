"""Examples as tokens, and the order in which they are trained on."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prefloop.policy import ChatCodec, TokenRow
from prefloop.records import Example, Member, Span, seed_for


@dataclass(frozen=True)
class TokenExample:
    """An example with the tokens of the members that the objective reads."""

    example: Example
    rows: Mapping[str, TokenRow]
    """By role."""

    @property
    def longest(self) -> int:
        """Tokens of its longest row."""
        return max(len(row) for row in self.rows.values())

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """The prompt, which all rows begin with."""
        return next(iter(self.rows.values())).prompt_ids

    def member(self, role: str) -> Member:
        """The only member with this role."""
        (found,) = (member for member in self.example.members if member.role == role)
        return found

    def marked(self, role: str) -> tuple[bool, ...]:
        """Which tokens of an answer lie in the member's marked spans."""
        num_tokens = len(self.rows[role].answer_ids)
        return _covered(self.member(role).marked, len(self.example.prompt.prefix_ids), num_tokens)


def tokenised(
    examples: Sequence[Example], codec: ChatCodec, roles: Sequence[str], max_length: int
) -> tuple[list[TokenExample], Counter[str]]:
    """The examples that can be trained on, and how many were left out for which reason.

    An example is never cut: one longer than `max_length` tokens, or with an answer without counted tokens, is left out.
    """
    kept: list[TokenExample] = []
    dropped: Counter[str] = Counter()
    for example in examples:
        prompt_ids = codec.prompt_ids(example.prompt)
        members = {member.role: member for member in example.members}
        rows = {role: _row(prompt_ids, len(example.prompt.prefix_ids), members[role], codec) for role in roles}
        token_example = TokenExample(example, rows)
        if token_example.longest > max_length:
            dropped["longer than max_length"] += 1
        elif not all(any(row.counted) for row in rows.values()):
            dropped["answer without counted tokens"] += 1
        else:
            kept.append(token_example)
    return kept, dropped


def _row(prompt_ids: tuple[int, ...], num_prefix: int, member: Member, codec: ChatCodec) -> TokenRow:
    """Sampled tokens are taken as they are; only a text without tokens is tokenised."""
    if member.token_ids is None:
        answer_ids = codec.response_ids(member.text, finished=member.finished)
    else:
        answer_ids = member.token_ids[num_prefix:]
    everything = ((num_prefix, num_prefix + len(answer_ids)),)
    spans = everything if member.counted is None else member.counted
    return TokenRow(prompt_ids, answer_ids, _covered(spans, num_prefix, len(answer_ids)))


def _covered(spans: Sequence[Span], num_prefix: int, num_tokens: int) -> tuple[bool, ...]:
    """Which tokens behind a given prefix lie in some spans, which are counted from the prefix's first token."""
    covered = [False] * num_tokens
    for start, end in spans:
        for position in range(max(start - num_prefix, 0), min(end - num_prefix, num_tokens)):
            covered[position] = True
    return tuple(covered)


def example_data(examples: Sequence[TokenExample], roles: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """The data quantities of all examples, by name: `{role}_lengths` in counted tokens, and `weights`."""
    data = {
        f"{role}_lengths": np.array([sum(example.rows[role].counted) for example in examples], float) for role in roles
    }
    return {**data, "weights": np.array([example.example.weight for example in examples], float)}


def step_plan(num_examples: int, batch_size: int, epochs: int, seed: int) -> list[list[int]]:
    """Which examples each optimiser step sees: a global shuffle an epoch, a pure function of its arguments."""
    plan: list[list[int]] = []
    for epoch in range(epochs):
        order = np.random.Generator(np.random.Philox(seed_for(seed, "epoch", epoch))).permutation(num_examples).tolist()
        plan += [order[start : start + batch_size] for start in range(0, num_examples, batch_size)]
    return plan
