"""KL(policy || reference) on answers that were sampled from the policy, answer by answer."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from prefloop.objectives import sequential_kl
from prefloop.policy.functionals import RowScores, TokenRow, batches_within
from prefloop.policy.head import tokens_at_once
from prefloop.policy.live import LiveReference
from prefloop.policy.precision import widest
from prefloop.statistics import AnswerKl


def answer_kls(
    policy: PreTrainedModel | PeftModel, reference: LiveReference, rows: Sequence[TokenRow], tokens_per_batch: int
) -> Iterator[AnswerKl]:
    """What each of some answers of a policy says of its KL to a reference, in the order given.

    Both models read every row in the same layout, so that a policy is at no distance at all from itself.

    Args:
        policy: at temperature 1 what sampled the answers.
        reference: may be the same weights with another adapter or none.
        rows: the answers; counted tokens enter.
        tokens_per_batch: budget of padded tokens; of that many tokens both models' logits stand in memory.
    """
    for batch in batches_within(rows, [len(row) for row in rows], tokens_per_batch):
        with torch.inference_mode():
            own = RowScores.of(policy, batch)
            with reference.active() as model:
                other = RowScores.of(model, batch)
            gaps = own.token_logps() - other.token_logps()
            k3 = (torch.expm1(-gaps) + gaps).sum(1)
            columns = zip(_over_the_vocabulary(own, other).tolist(), gaps.sum(1).tolist(), k3.tolist(), strict=True)
            yield from (AnswerKl(*row) for row in columns)


def _over_the_vocabulary(own: RowScores, other: RowScores) -> Float[Tensor, " rows"]:
    """KL of the next token, summed over counted positions, a few positions at a time."""
    count, length, vocab = own.logits.shape
    size = max(1, tokens_at_once(vocab, on_cuda=own.logits.is_cuda) // count)
    found = torch.zeros(count, dtype=widest(own.logits.device), device=own.logits.device)
    for start in range(0, length, size):
        part = slice(start, start + size)
        # of TDPO's two names the reference is what is sampled from
        found += sequential_kl(other.logits[:, part], own.logits[:, part], own.is_counted[:, part])
    return found
