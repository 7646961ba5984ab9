"""What files of losses with switches, anchors, ranks and running statistics mean by their names and numbers."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor

from prefloop.config import Options
from prefloop.objectives import (
    adapted_beta,
    alpha_dpo_offset,
    aot,
    aot_unpaired,
    averaged_gap,
    bmc_weights,
    dpo,
    identity_offset,
    kto_reference_point,
    log_offset,
    log_ratio_offset,
    log_selection_weights,
    mipo_margin,
    mipo_offset,
    orpo,
    orpo_with_prompt,
    tpo,
    tpo_length_normalised,
    wpo_log_weights,
)
from prefloop.testing.cases import Compute, Fields, Flags, Inputs, Run, VectorCase
from prefloop.testing.readings import one_token_mean

UNPAIRED = {"policy_logps": "policy_response_logps", "ref_logps": "ref_response_logps", "labels": "response_labels"}
"""Files about single answers do not name their role."""

LOG_SUM_SQ = {f"{role}_token_log_sum_sq": f"policy_{role}_token_log_sum_sq" for role in ("chosen", "rejected")}

OFFSETS: Mapping[str, Callable[..., Tensor]] = {
    "log": log_offset,
    "log_ratio": log_ratio_offset,
    "identity": identity_offset,
}


def mipo_fields(run: Run) -> Mapping[str, Any]:
    """The reference's margin, and what it adds to the policy's."""
    margin = run.call(mipo_margin)
    return {"K": margin, "offset": mipo_offset(margin)}


def odpo_fields(run: Run) -> Mapping[str, Any]:
    """The offset of each pair."""
    alpha = run.hyper["alpha"]
    if run.flags["f"] == "constant":
        return {"offset": torch.full_like(run["policy_chosen_logps"], alpha)}
    return {"offset": OFFSETS[run.flags["f"]](run["chosen_scores"], run["rejected_scores"], alpha)}


def one_prefix(inputs: Inputs) -> Mapping[str, Tensor]:
    """The file's prefix is that of both answers."""
    lengths = inputs["prefix_lengths"].long()
    return {"chosen_prefix_lengths": lengths, "rejected_prefix_lengths": lengths}


def bmc_fields(run: Run) -> Mapping[str, Any]:
    """The policy's weights of the tokens of both answers."""
    found: dict[str, Any] = {}
    for role in ("chosen", "rejected"):
        tokens = f"policy_{role}_token_logps"
        weights = bmc_weights(run[tokens], run[f"{role}_diff_mask"], run.hyper["delta"])
        found[f"{role}_token_weights"] = run.inputs.rows(weights, tokens)
    return found


def wpo_fields(run: Run) -> Mapping[str, Any]:
    """The weight of each pair, capped or not."""
    log_weights: Tensor = run.call(wpo_log_weights)
    return {"pair_weights": (log_weights.clamp(max=0) if run.flags["clamp"] else log_weights).exp()}


def kto_fields(run: Run) -> Mapping[str, Any]:
    """The reference point."""
    return {"kl_estimate": run.call(kto_reference_point)}


def aot_by_rank(run: Run) -> Mapping[str, Any]:
    """The file orders losses by rank; here each stands at the pair that has it."""
    order = (run["policy_chosen_logps"] - run["policy_rejected_logps"]).argsort(stable=True)
    return {"loss_per_example": run.call(aot, **run.hyper)[order]}


def aot_unpaired_by_rank(run: Run) -> Mapping[str, Any]:
    """The same for ranks of chosen answers."""
    order = (run["policy_chosen_logps"] - run["ref_chosen_logps"]).argsort(stable=True)
    return {"loss_per_example": run.call(aot_unpaired, **run.hyper)[order]}


def orpo_fields(run: Run) -> Mapping[str, Any]:
    """A token mean is one number there; what remains without the odds is the likelihood."""
    if run.hyper["nll_reduction"] != "token_mean":
        return {}
    objective = orpo if run.flags["nll_scope"] == "response" else orpo_with_prompt
    losses: Tensor = run.call(objective, **run.hyper)
    likelihood: Tensor = run.call(objective, **{**run.hyper, "lam": 0.0})
    return {"loss_per_example": losses - likelihood + likelihood.mean()}


def tpo_options(flags: Flags) -> Options:
    """Cases of the sum have a gamma that nothing reads."""
    unread = {"variant", "gamma"} if flags["variant"] == "sum" else {"variant"}
    return {name: value for name, value in flags.items() if name not in unread}


def tpo_fields(run: Run) -> Mapping[str, Any]:
    """The gold answers' token mean as one number."""
    objective = tpo if run.flags["variant"] == "sum" else tpo_length_normalised
    return one_token_mean(objective, "nll_weight")(run)


def alpha_dpo_fields(run: Run) -> Mapping[str, Any]:
    """The offset of each pair."""
    gaps, hyper = run.call(averaged_gap), run.hyper
    return {"offset": alpha_dpo_offset(gaps, cast(Any, run.state), hyper["gamma_beta_ratio"], hyper["alpha"])}


def with_given_draw(compute: Compute) -> Compute:
    """The file says which pairs were drawn; how many that are is an option here."""

    def counted(case: VectorCase, where: str) -> Fields:
        drawn = cast(list[bool], case.inputs.get("selected", []))
        # Half a pair more than were drawn, so that rounding of the share cannot lose one.
        drop = max(0.0, 1 - (sum(drawn) + 0.5) / max(1, len(drawn)))
        return compute(case.model_copy(update={"hyper": {**case.hyper, "drop": drop}}), where)

    return counted


def draw_the_given(inputs: Inputs) -> Mapping[str, Tensor]:
    """Random numbers with which the pairs that the file names are drawn."""
    return {"uniforms": inputs["selected"]}


def beta_dpo_fields(run: Run) -> Mapping[str, Any]:
    """What decided the draw, the step's beta, and the losses of all pairs, drawn or not."""
    hyper, state = run.hyper, cast(Any, run.state)
    gaps = (
        run["policy_chosen_logps"] - run["ref_chosen_logps"] - run["policy_rejected_logps"] + run["ref_rejected_logps"]
    )
    beta = adapted_beta(
        gaps, run["selected"] > 0, state, beta=hyper["beta"], a=hyper["a"], min_beta=hyper["min_beta"]
    ).item()
    return {
        "selection_weights": log_selection_weights(gaps, state).exp(),
        "beta_used": beta,
        "loss_per_example": run.call(dpo, beta=beta),
    }
