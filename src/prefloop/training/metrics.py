"""What a line of training.jsonl says, under TRL's names."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from prefloop.objectives import REPEATED_ROLES
from prefloop.training.columns import picked
from prefloop.training.loss import LossOfPlan

PAIR = ("chosen", "rejected")


def said_of(loss: LossOfPlan, indices: Sequence[int], losses: Tensor, logps: Mapping[str, Tensor]) -> dict[str, float]:
    """The metrics of some examples; of each source of a mixture too, as `METRIC@SOURCE`.

    Args:
        loss: their objective.
        indices: of the examples.
        losses: (examples,), weighted.
        logps: by `{role}_logps` log-probabilities under the policy, (examples,) or (examples, ranks).
    """
    found = metrics(loss, indices, losses, logps)
    parts = [loss.parts[index] for index in indices] if loss.parts else []
    for part in sorted(set(parts)):
        places = [place for place, of_example in enumerate(parts) if of_example == part]
        of_part = {name: values[places] for name, values in logps.items()}
        of_source = metrics(loss, [indices[place] for place in places], losses[places], of_part)
        found |= {f"examples@{part}": len(places), **{f"{name}@{part}": of_source[name] for name in of_source}}
    return found


def metrics(loss: LossOfPlan, indices: Sequence[int], losses: Tensor, logps: Mapping[str, Tensor]) -> dict[str, float]:
    """Mean loss, log-probabilities, implicit rewards, margins and accuracies; a tie is half a win.

    Of rankings the accuracy is the share of all pairs of ranks that are in order; of single answers with labels the
    share whose reward has the sign of its label. `kl` is the mean log-ratio of answers to other prompts, at least 0.
    """
    named = {"loss": float(losses.sum() / len(indices))}
    for name, values in logps.items():
        role = name.removesuffix("_logps")
        there = picked(loss.data[f"{role}_mask"], indices) if role in REPEATED_ROLES else torch.ones_like(values).bool()
        named[f"logps/{role}"] = float(values[there].mean())
    beta = loss.hyper.get("beta")
    if (ref := loss.frozen.get("ref")) is None or beta is None:
        return named
    rewards = {name: beta * (values - picked(ref[name], indices)) for name, values in logps.items() if name in ref}
    if {f"{role}_logps" for role in PAIR} <= rewards.keys():
        chosen, rejected = (rewards[f"{role}_logps"] for role in PAIR)
        lengths = picked(loss.data["chosen_lengths"], indices)
        return {
            **named,
            "rewards/chosen": float(chosen.mean()),
            "rewards/rejected": float(rejected.mean()),
            "rewards/margins": float((chosen - rejected).mean()),
            "rewards/accuracies": _in_order(chosen - rejected),
            "chosen_logps_drop_per_token": float((-chosen / beta / lengths).mean()),
        }
    if "ranked_logps" in rewards:
        ranked, there = rewards["ranked_logps"], picked(loss.data["ranked_mask"], indices)
        better, worse = torch.triu_indices(ranked.shape[1], ranked.shape[1], offset=1)
        gaps = (ranked[:, better] - ranked[:, worse])[there[:, better] & there[:, worse]]
        return {**named, "rewards/margins": float(gaps.mean()), "rewards/accuracies": _in_order(gaps)}
    if "response_logps" in rewards and "response_labels" in loss.data:
        reward, is_good = rewards["response_logps"], picked(loss.data["response_labels"], indices)
        named["rewards/accuracies"] = _in_order(torch.where(is_good, reward, -reward))
    if "kl_logps" in rewards:
        named["kl"] = max(0.0, float(rewards["kl_logps"].mean()) / beta)
    return named


def _in_order(gaps: Tensor) -> float:
    return float(((gaps > 0).double() + (gaps == 0).double() / 2).mean())
