"""Which weights gave an answer: what policies say of a server's greedy answers, beside what the server says."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from prefloop.policy import RowScores, TokenRow

NATS_A_TOKEN = 0.05
"""How far a server's log-probabilities may be from ours, on average: bfloat16 moves them by 0.03."""
NEARLY_EQUAL = 0.15
"""Nats by which a token that a server took greedily may be behind our most likely one."""
SURE = 2.0
"""Standard errors after which it is said that a server serves one policy and not another."""


@dataclass(frozen=True)
class Reading:
    """What a policy says of the tokens of some answers, one answer after the other."""

    logps: Float[Tensor, " tokens"]
    """Nats."""
    behind: Float[Tensor, " tokens"]
    """Nats to the most likely token; 0 where it was taken."""
    likelier: Float[Tensor, " tokens"]
    """Share of all tokens that are more likely."""


def reading(
    model: PreTrainedModel | PeftModel, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
) -> Reading:
    """How a model reads answers behind their prompts.

    Args:
        model: of the policy.
        prompts: token ids.
        answers: token ids, one answer a prompt; at least one has tokens.
    """
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for prompt, ids in zip(prompts, answers, strict=True):
        if not ids:
            continue
        with torch.inference_mode():
            logps = RowScores.of(model, [TokenRow(tuple(prompt), tuple(ids), (True,) * len(ids))]).logits[0]
        logps = logps.double().log_softmax(-1)
        own = logps.gather(1, torch.tensor(ids, device=logps.device)[:, None])
        parts.append((own[:, 0], (logps.amax(1) - own[:, 0]), (logps > own).double().mean(1)))
    return Reading(*(torch.cat(column).cpu() for column in zip(*parts, strict=True)))


def is_nearer(
    theirs: Float[Tensor, " tokens"], ours: Float[Tensor, " tokens"], other: Float[Tensor, " tokens"]
) -> bool | None:
    """Whether a server's log-probabilities are another policy's rather than ours; None where they do not tell.

    Least squares: theirs = ours + place * (other - ours) + noise. At place 0 the server serves our policy, at 1 the
    other one; what tells them apart is how far the place is from a half, in its standard errors.

    Args:
        theirs: of the server, nats.
        ours: of the policy that it should serve, at the same tokens.
        other: of the other policy, at the same tokens.
    """
    way = other - ours
    length = way.square().sum()
    if not length > 0:
        return None
    place = ((theirs - ours) * way).sum() / length
    noise = (theirs - ours - place * way).square().sum() / max(1, len(theirs) - 1)
    if (place - 0.5).abs() < SURE * (noise / length).sqrt():
        return None
    return bool(place > 0.5)
