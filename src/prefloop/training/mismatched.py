"""Answers to other prompts beside an example's own, by which KTO estimates how far policy and reference are apart."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from prefloop.errors import DataError
from prefloop.policy import TokenRow
from prefloop.records import Indexed
from prefloop.training.rows import TokenExample, step_plan

MISMATCHED = "kl"
"""The role of an answer to another prompt."""
TRIED = 64
"""Answers that are looked at for one that fits behind a prompt."""


@dataclass(frozen=True)
class Mismatched(Indexed[TokenExample]):
    """Examples of one answer, each with an answer to another prompt behind its own (arXiv:2402.01306 section 4.2).

    The answers are those of the same set, moved on by one in the order of the first epoch: each serves about once, and
    the same one in every epoch, so that references score it once. Authors and TRL move them on within a micro-batch.
    """

    examples: Sequence[TokenExample]
    partners: tuple[int, ...]
    """By index, the example whose answer is borrowed."""
    max_length: int
    """Tokens of prompt and answer; a borrowed answer that is longer loses its last ones, and with them EOS."""

    @classmethod
    def of(cls, examples: Sequence[TokenExample], max_length: int, seed: int) -> "Mismatched":
        """Partners for some examples; of answers to other prompts that follow, the first that fits is taken.

        Args:
            examples: with one answer each.
            max_length: tokens of prompt and answer.
            seed: of the train step, which orders its epochs.

        Raises:
            DataError: all examples have the same prompt.
        """
        (order,) = step_plan(len(examples), len(examples), 1, seed)
        prompts, lengths = list[int](), list[tuple[int, int]]()
        for one in examples:
            (row,) = one.rows.values()
            prompts.append(hash(row.prompt_ids))
            lengths.append((len(row.prompt_ids), len(row.answer_ids)))
        if len({*prompts}) < 2:
            raise DataError(
                f"training: all {len(examples)} examples have one prompt, but KTO compares with answers to other "
                "prompts. Give data with several prompts, or choose bco or apo_zero_unpaired."
            )

        def others(place: int) -> Iterator[int]:
            own = prompts[order[place]]
            following = (order[(place + step) % len(order)] for step in range(1, len(order)))
            return islice((index for index in following if prompts[index] != own), TRIED)

        partners = [0] * len(order)
        for place, index in enumerate(order):
            room = max_length - lengths[index][0]
            fitting = (other for other in others(place) if lengths[other][1] <= room)
            partners[index] = next(fitting, next(others(place)))
        return cls(examples, tuple(partners), max_length)

    def __len__(self) -> int:
        return len(self.examples)

    def at(self, index: int) -> TokenExample:
        """The example, with the answer that it borrows."""
        own = self.examples[index]
        (borrowed,) = self.examples[self.partners[index]].rows.values()
        room = self.max_length - len(own.prompt_ids)
        row = TokenRow(own.prompt_ids, borrowed.answer_ids[:room], borrowed.counted[:room])
        return replace(
            own,
            rows={**own.rows, MISMATCHED: row},
            marked={**own.marked, MISMATCHED: (False,) * len(row.answer_ids)},
            member_numbers={**own.member_numbers, MISMATCHED: {}},
        )
