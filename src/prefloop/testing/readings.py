"""What some files of kind `loss` mean by their names and numbers, where that is not what the product means by them."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from prefloop.config import Options
from prefloop.objectives import sequential_kl
from prefloop.objectives.pieces import masked_sum
from prefloop.testing.cases import Extra, Flags, Inputs, Run

DIVERGENCES = {"js": "js_divergence", "alpha": "alpha_divergence"}
EXO_SMOOTHING = 1e-3
"""What TRL takes where a label smoothing of 0 would make EXO infinite."""


def one_token_mean(objective: Callable[..., Tensor], weight: str | None = None) -> Extra:
    """The files put a token mean into every example as one number; here an example has its own share of that mean.

    The mean over examples and all gradients are the same.

    Args:
        objective: whose losses have a likelihood among their terms.
        weight: the hyper-parameter that multiplies it; None where it is the whole loss.
    """

    def extra(run: Run) -> Mapping[str, Any]:
        if run.hyper["nll_reduction"] != "token_mean":
            return {}
        losses: Tensor = run.call(objective, **run.hyper)
        others = run.call(objective, **{**run.hyper, weight: 0.0}) if weight else 0 * losses
        return {"loss_per_example": others + (losses - others).mean()}

    return extra


def tdpo_options(flags: Flags) -> Options:
    """TDPO1's cases have an alpha that nothing reads."""
    unread = {"variant", "alpha"} if flags.get("variant") == "tdpo1" else {"variant"}
    return {name: value for name, value in flags.items() if name not in unread}


def f_divergence_options(flags: Flags) -> Options:
    """Two divergences go by shorter names."""
    return {**flags, "divergence": DIVERGENCES.get(flags["divergence"], flags["divergence"])}


def exo_options(flags: Flags) -> Options:
    """A label smoothing of 0 stands for the smallest that is used."""
    return {**flags, "label_smoothing": flags.get("label_smoothing") or EXO_SMOOTHING}


def mpo_options(flags: Flags) -> Options:
    """Three weights come as one list."""
    weights = dict(zip(("preference_weight", "quality_weight", "generation_weight"), flags["weights"], strict=True))
    return {**{name: value for name, value in flags.items() if name != "weights"}, **weights}


def tdpo_from_logits(inputs: Inputs) -> Mapping[str, Tensor]:
    """Sums of log-probabilities and of KL divergences, from the logits of every position."""
    made: dict[str, Tensor] = {}
    for role in ("chosen", "rejected"):
        mask, token_ids = inputs[f"{role}_token_mask"], inputs[f"{role}_token_ids"]
        for model in ("policy", "ref"):
            logps = inputs[f"{model}_{role}_logits"].log_softmax(2).gather(2, token_ids[:, :, None]).squeeze(2)
            made[f"{model}_{role}_logps"] = masked_sum(logps, mask)
        policy_logits, ref_logits = inputs[f"policy_{role}_logits"], inputs[f"ref_{role}_logits"]
        made[f"policy_{role}_seq_kl"] = sequential_kl(policy_logits, ref_logits, mask)
    return made
