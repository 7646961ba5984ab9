"""What a line of training.jsonl says, under TRL's names."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from prefloop.objectives import REPEATED_ROLES
from prefloop.training.columns import picked
from prefloop.training.loss import LossOfPlan

PAIR = ("chosen", "rejected")


def said_of(loss: LossOfPlan, indices: Sequence[int], losses: Tensor, told: Mapping[str, Tensor]) -> dict[str, float]:
    """The metrics of some examples; of each source of a mixture too, as `METRIC@SOURCE`.

    Args:
        loss: their objective.
        indices: of the examples.
        losses: (examples,), weighted.
        told: by `{role}_logps` log-probabilities under the policy, (examples,) or (examples, ranks); of a reward model
            by `{role}_rewards` what it gives.
    """
    found = metrics(loss, indices, losses, told)
    parts = [loss.parts[index] for index in indices] if loss.parts else []
    for part in sorted(set(parts)):
        places = [place for place, of_example in enumerate(parts) if of_example == part]
        of_part = {name: values[places] for name, values in told.items()}
        of_source = metrics(loss, [indices[place] for place in places], losses[places], of_part)
        found |= {f"examples@{part}": len(places), **{f"{name}@{part}": of_source[name] for name in of_source}}
    return found


def metrics(loss: LossOfPlan, indices: Sequence[int], losses: Tensor, told: Mapping[str, Tensor]) -> dict[str, float]:
    """Mean loss, log-probabilities, implicit rewards, margins and accuracies; a tie is half a win.

    Of rankings the accuracy is the share of all pairs of ranks that are in order; of single answers with labels the
    share whose reward has the sign of its label. `kl` is the mean log-ratio of answers to other prompts, at least 0.
    """
    named = {"loss": float(losses.sum() / len(indices))}
    kind = loss.objective.told
    for name, values in told.items():
        role = name.removesuffix(f"_{kind}")
        there = picked(loss.data[f"{role}_mask"], indices) if role in REPEATED_ROLES else torch.ones_like(values).bool()
        named[f"{kind}/{role}"] = float(values[there].mean())
    if kind == "rewards":
        return {**named, **_of_pairs(loss, indices, {name.removesuffix(f"_{kind}"): own for name, own in told.items()})}
    beta = loss.hyper.get("beta")
    if (ref := loss.frozen.get("ref")) is None or beta is None:
        return named
    rewards = {
        name.removesuffix("_logps"): beta * (values - picked(ref[name], indices))
        for name, values in told.items()
        if name in ref
    }
    if paired := {*PAIR} <= rewards.keys():
        named |= {f"rewards/{role}": float(rewards[role].mean()) for role in PAIR}
    named |= _of_pairs(loss, indices, rewards)
    if paired:
        lengths = picked(loss.data["chosen_lengths"], indices)
        named["chosen_logps_drop_per_token"] = float((-rewards["chosen"] / beta / lengths).mean())
    if "response" in rewards and "response_labels" in loss.data:
        is_good = picked(loss.data["response_labels"], indices)
        named["rewards/accuracies"] = _in_order(torch.where(is_good, rewards["response"], -rewards["response"]))
    if "kl" in rewards:
        named["kl"] = max(0.0, float(rewards["kl"].mean()) / beta)
    return named


def _of_pairs(loss: LossOfPlan, indices: Sequence[int], rewards: Mapping[str, Tensor]) -> dict[str, float]:
    """How far and how often the better answer is ahead, by rewards by role; of rankings over all pairs of ranks."""
    if {*PAIR} <= rewards.keys():
        gaps = rewards["chosen"] - rewards["rejected"]
    elif "ranked" in rewards:
        ranked, there = rewards["ranked"], picked(loss.data["ranked_mask"], indices)
        better, worse = torch.triu_indices(ranked.shape[1], ranked.shape[1], offset=1)
        gaps = (ranked[:, better] - ranked[:, worse])[there[:, better] & there[:, worse]]
    else:
        return {}
    return {"rewards/margins": float(gaps.mean()), "rewards/accuracies": _in_order(gaps)}


def _in_order(gaps: Tensor) -> float:
    return float(((gaps > 0).double() + (gaps == 0).double() / 2).mean())
