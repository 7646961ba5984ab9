"""What a sequence-classification model says of token sequences, many at a time, as it would of each alone.

Models that attend only backwards take trees: what sequences begin with alike - a system turn, a prompt - passes once,
and there is no padding. Others (encoders, recurrent layers) take rows of similar length, padded on the right, through
their own forward pass.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from prefloop.policy import Forest, batches_within
from prefloop.policy.head import precise
from prefloop.policy.tree_scores import UNKNOWN, forest_states, may_take_trees
from prefloop.policy.trees import WORTH_SHARING

WITHIN = 1e-3
"""Share of the largest score by which trees and rows may differ: float32 in another order."""

Ids = tuple[int, ...]


@dataclass(frozen=True)
class SequenceScorer:
    """A model whose one label is a score."""

    model: PreTrainedModel
    tokens_per_batch: int
    """Tokens that pass at once; a longer sequence passes alone."""

    @cached_property
    def takes_trees(self) -> bool:
        """Whether the model says of a small tree what it says of its sequences, each alone; found out by asking."""
        if not (may_take_trees(self.model) and isinstance(getattr(self.model, "score", None), nn.Linear)):
            return False
        vocab = self.model.config.get_text_config().vocab_size
        ids = tuple(number * 7919 % vocab for number in range(3 * WORTH_SHARING))
        begun = ids[: 2 * WORTH_SHARING]
        sequences = [ids, begun + ids[-5:], begun + ids[:3]]
        with torch.inference_mode():
            alone = torch.cat([scores_of_rows(self.model, [one]) for one in sequences])
            try:
                found = scores_of_trees(self.model, sequences)
            except UNKNOWN:
                return False
        return bool(((found - alone).abs() <= WITHIN * alone.abs().max()).all())

    def scores(self, sequences: Sequence[Ids]) -> Iterator[tuple[int, float]]:
        """The number of each sequence with its score, as they become known; none of the sequences is empty."""
        score = scores_of_trees if self.takes_trees else scores_of_rows
        for batch in self._batches(sequences):
            with torch.inference_mode():
                found = score(self.model, [sequences[number] for number in batch])
            yield from zip(batch, found.tolist(), strict=True)

    def _batches(self, sequences: Sequence[Ids]) -> Iterator[list[int]]:
        """Which sequences pass together, by their numbers."""
        if self.takes_trees:
            return trees_within(sequences, self.tokens_per_batch)
        ordered = sorted(range(len(sequences)), key=lambda number: len(sequences[number]))
        sizes = [len(sequences[number]) for number in ordered]
        return batches_within(ordered, sizes, 1 if pad_of(self.model) is None else self.tokens_per_batch)


def trees_within(sequences: Sequence[Ids], budget: int) -> Iterator[list[int]]:
    """Sequences that begin alike together, as many as pass within a budget; what they share counts once."""
    batch: list[int] = []
    taken = 0
    before: Ids = ()
    for number in sorted(range(len(sequences)), key=sequences.__getitem__):
        own = sequences[number]
        size = len(own) - shared_with(before, own)
        if batch and taken + size > budget:
            yield batch
            batch, taken, size = [], 0, len(own)
        batch.append(number)
        taken, before = taken + size, own
    if batch:
        yield batch


def shared_with(one: Ids, other: Ids) -> int:
    """Tokens that two sequences begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def scores_of_trees(model: PreTrainedModel, sequences: Sequence[Ids]) -> Float[Tensor, " sequences"]:
    """All sequences in one pass without padding; the head is asked where the model's own forward would ask it."""
    forest = Forest.of(sequences)
    hidden = forest_states(model, forest)
    pad = pad_of(model)
    places = [forest.places(row)[place_of_score(one, pad)] for row, one in enumerate(sequences)]
    head = model.score
    assert isinstance(head, nn.Linear)
    return precise(head(hidden[torch.stack(places).to(model.device)]))[:, 0]


def scores_of_rows(model: PreTrainedModel, sequences: Sequence[Ids]) -> Float[Tensor, " sequences"]:
    """All sequences in one pass of the model's own forward, padded on the right."""
    longest = max(map(len, sequences))
    pad = pad_of(model) or 0
    ids = torch.tensor([[*one, *[pad] * (longest - len(one))] for one in sequences], device=model.device)
    lengths = torch.tensor([len(one) for one in sequences], device=model.device)
    is_real = (torch.arange(longest, device=model.device) < lengths[:, None]).long()
    return precise(model(input_ids=ids, attention_mask=is_real).logits)[:, 0]


def place_of_score(sequence: Ids, pad: int | None) -> int:
    """The token behind which transformers reads the score: the last one that is not padding.

    Where the padding token ends turns as well, as it does in many reward models, that is the token before it.
    """
    return max((place for place, token in enumerate(sequence) if token != pad), default=0)


def pad_of(model: PreTrainedModel) -> int | None:
    """The padding token; without one a model takes one sequence at a time."""
    return model.config.get_text_config().pad_token_id
