"""Published numbers against the product's own functions: the one table of which file speaks of which function."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from prefloop.errors import DataError
from prefloop.objectives import cpo, cpo_simpo, mpo, rpo, sft, slic
from prefloop.testing.cases import Compute, Fields, VectorCase, by_objective, by_rule, switch
from prefloop.testing.field_readings import (
    LOG_SUM_SQ,
    UNPAIRED,
    alpha_dpo_fields,
    aot_by_rank,
    aot_unpaired_by_rank,
    beta_dpo_fields,
    bmc_fields,
    draw_the_given,
    kto_fields,
    mipo_fields,
    odpo_fields,
    one_prefix,
    orpo_fields,
    tpo_fields,
    tpo_options,
    with_given_draw,
    wpo_fields,
)
from prefloop.testing.readings import (
    exo_options,
    f_divergence_options,
    mpo_options,
    one_token_mean,
    tdpo_from_logits,
    tdpo_options,
)
from prefloop.testing.round_readings import (
    COMPARISONS,
    DEGREES,
    NASH,
    RESPONSE,
    comparison,
    inpo_fields,
    mcts_dpo_fields,
    mrpo_fields,
    online_objective,
    ppo_fields,
    reference_sample,
    rloo_case,
    sapo_options,
    sopo_fields,
    spo_fields,
    sure_labels,
)
from prefloop.testing.selection_readings import SELECTIONS, ByOperation

Status = Literal["pass", "fail", "computed", "unknown"]
TOLERANCE = 1e-9
"""Relative, for floats. Anything else must be equal exactly."""
SMALLEST_SCALE = 1e-3
"""Values below it are compared as if they were this large: an absolute tolerance of 1e-12."""
WRONG = 1.0
"""Error of what must be equal exactly and is not, or cannot be compared."""


class VectorFile(BaseModel):
    """The part of a vector file that decides anything."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    cases: tuple[VectorCase, ...]


@dataclass(frozen=True)
class FileResult:
    """What became of a file."""

    status: Status
    max_relative_error: float
    """Over everything that was compared; 0 where nothing was."""
    cases: dict[str, Fields]
    """Every result field as computed, by case."""
    failed: tuple[str, ...] = ()
    """Names of the cases that differ."""


TDPO = switch("variant", {"tdpo1": "tdpo1", "tdpo2": "tdpo2"}, default="tdpo2")
"""Both files of TDPO say by the same flag which of the two is meant."""

METHODS: Mapping[str, Compute] = {
    **SELECTIONS,
    "asft": by_objective(switch("variant", {"one_stage": "asft", "align": "asft_align"}, default="one_stage")),
    "bmc": by_objective(
        switch("ref_weights", {"policy": "bmc", "own": "bmc_own_weights"}, default="policy"), extra=bmc_fields
    ),
    "davir": by_objective("davir_dpo"),
    "dno": by_objective("dno", inputs=NASH),
    "dpo": by_objective("dpo"),
    "dpo_cdpo": by_objective("conservative_dpo"),
    "dpo_f_divergence": by_objective("f_divergence_dpo"),
    "dpo_ipo": by_objective(switch("length_normalized", {False: "ipo", True: "ipo_per_token"}, default=False)),
    "dpo_plackett_luce": by_objective("plackett_luce_dpo"),
    "dpo_reference_free": by_objective("reference_free_dpo"),
    "dpo_robust": by_objective("robust_dpo"),
    "dpop": by_objective(
        switch("penalty_scaling", {"inside_beta": "dpop", "outside_beta": "dpop_outside_beta"}, default="inside_beta"),
        hyper={"lambda": "lam"},
    ),
    "field_alpha_dpo": by_objective("alpha_dpo", extra=alpha_dpo_fields),
    "field_alphapo": by_objective("alphapo"),
    "field_aot": by_objective("aot", extra=aot_by_rank),
    "field_aot_unpaired": by_objective("aot_unpaired", extra=aot_unpaired_by_rank),
    "field_apo_down": by_objective("apo_down"),
    "field_apo_zero": by_objective("apo_zero"),
    "field_apo_zero_unpaired": by_objective("apo_zero_unpaired", inputs=UNPAIRED),
    "field_bco": by_objective("bco", inputs=UNPAIRED),
    "field_bco_pair": by_objective("bco_pair"),
    "field_beta_dpo": with_given_draw(by_objective("beta_dpo", make=draw_the_given, extra=beta_dpo_fields)),
    "field_cpo": by_objective("cpo", extra=one_token_mean(cpo, "nll_weight")),
    "field_cpo_simpo": by_objective("cpo_simpo", extra=one_token_mean(cpo_simpo, "nll_weight")),
    "field_discopop": by_objective("discopop"),
    "field_exo_pair": by_objective("exo_pair", hyper=exo_options),
    "field_fdpo": by_objective("f_divergence_dpo", hyper=f_divergence_options),
    "field_hinge": by_objective("hinge"),
    "field_ipo_norm": by_objective("ipo_per_token"),
    "field_kto": by_objective("kto", inputs=UNPAIRED, extra=kto_fields),
    "field_ld_dpo": by_objective("ld_dpo"),
    "field_mpo": by_objective("mpo", hyper=mpo_options, extra=one_token_mean(mpo, "generation_weight")),
    "field_nca_pair": by_objective("nca_pair"),
    "field_orpo": by_objective(
        switch("nll_scope", {"response": "orpo", "prompt_and_response": "orpo_with_prompt"}),
        extra=orpo_fields,
        constant=("policy_prompt_logps",),
    ),
    "field_robust": by_objective("robust_dpo"),
    "field_rpo": by_objective("rpo", extra=one_token_mean(rpo, "nll_weight")),
    "field_sft": by_objective("sft", extra=one_token_mean(sft)),
    "field_sigmoid_norm": by_objective("length_normalized_dpo"),
    "field_simpo": by_objective("simpo"),
    "field_slic": by_objective("slic", extra=one_token_mean(slic, "lam")),
    "field_sppo_hard": by_objective("sppo_hard"),
    "field_tpo": by_objective(
        switch("variant", {"sum": "tpo", "length_normalised": "tpo_length_normalised"}),
        hyper=tpo_options,
        extra=tpo_fields,
    ),
    "field_wpo": by_objective(
        switch("clamp", {True: "wpo", False: "wpo_uncapped"}, default=True),
        extra=wpo_fields,
        constant=("policy_chosen_token_log_sum_sq", "policy_rejected_token_log_sum_sq"),
        inputs=LOG_SUM_SQ,
    ),
    "ilr_dpo": by_objective("length_regularized_dpo"),
    "ilr_dpo_selection": by_rule("best_worst"),
    "inpo": by_objective(
        switch("target", {"half": "inpo", "winrate": "inpo_win_rates"}, default="half"), extra=inpo_fields
    ),
    "length_bias_ld_dpo": by_objective(
        switch("ld_on_reference", {True: "ld_dpo", False: "ld_dpo_policy_only"}, default=True)
    ),
    "length_bias_length_normalized_dpo": by_objective("length_normalized_dpo"),
    "length_bias_simpo": by_objective("simpo"),
    "mcts_dpo": by_objective(
        switch(
            "loss",
            {"conservative": "mcts_dpo", "plain": "mcts_dpo_plain", "ipo": "mcts_dpo_ipo"},
            default="conservative",
        ),
        extra=mcts_dpo_fields,
    ),
    "mipo": by_objective("mipo", extra=mipo_fields),
    "mrpo": by_objective(
        switch("orientation", {"paper": "mrpo", "official": "mrpo_official"}, default="paper"), extra=mrpo_fields
    ),
    "odpo": by_objective(
        switch(
            "f",
            {
                "log": "odpo",
                "log_ratio": "odpo_log_ratio",
                "identity": "odpo_identity",
                "constant": "odpo_constant",
            },
            default="log",
        ),
        extra=odpo_fields,
    ),
    "online_dpo": by_objective(
        online_objective, hyper={"method": None, "kl": None}, inputs=RESPONSE, make=reference_sample
    ),
    "rlhf_ppo": by_objective("ppo", inputs=RESPONSE, extra=ppo_fields),
    "rlhf_reward_model": by_objective(comparison, inputs=COMPARISONS),
    "rlhf_reward_model_ranked": by_objective(
        switch(
            "form", {"plackett_luce": "ranked_rewards", "pairwise": "ranked_rewards_by_pairs"}, default="plackett_luce"
        ),
        inputs=COMPARISONS,
    ),
    "rlhf_rloo": rloo_case,
    "sapo": by_objective(
        switch("loss", {"sigmoid": "dpo", "hinge": "hinge", "orpo": "orpo"}, default="sigmoid"), hyper=sapo_options
    ),
    "selm": by_objective("selm"),
    "sopo": by_objective(
        switch("form", {"separate": "sopo", "joint": "sopo_joint"}, default="separate"),
        hyper={"C": "weight_constant"},
        extra=sopo_fields,
    ),
    "spo": by_objective("spo", inputs=DEGREES, extra=spo_fields),
    "sppo": by_objective(
        switch("variant", {"win": "sppo", "pair": "sppo_pair", "hard": "sppo_pair"}, default="win"),
        hyper={"reduce_sides": "sides"},
        inputs={"pair_probs": "prob_chosen_wins"},
        make=sure_labels,
    ),
    "step_dpo": by_objective("step_dpo", make=one_prefix),
    "tdpo": by_objective(
        TDPO,
        hyper=tdpo_options,
        inputs={"chosen_seq_kl": "policy_chosen_seq_kl", "rejected_seq_kl": "policy_rejected_seq_kl"},
    ),
    "tdpo_logits": by_objective(
        TDPO,
        hyper=tdpo_options,
        inputs={
            "policy_chosen_token_logits": "policy_chosen_logits",
            "policy_rejected_token_logits": "policy_rejected_logits",
            "ref_chosen_token_logits": "ref_chosen_logits",
            "ref_rejected_token_logits": "ref_rejected_logits",
            "chosen_labels": "chosen_token_ids",
            "rejected_labels": "rejected_token_ids",
        },
        make=tdpo_from_logits,
    ),
}
"""File stem -> what computes its cases."""


def shipped_vectors() -> Path:
    """The folder of the files that come with the package."""
    return Path(str(files("prefloop.testing") / "vectors"))


def verify_folder(folder: Path) -> dict[str, FileResult]:
    """Every vector file of a folder, by stem.

    Raises:
        DataError: there is no such folder, it holds no vector files, or one of them cannot be read.
    """
    paths = sorted(folder.glob("*.json"))
    if not paths:
        found = "has no *.json files" if folder.is_dir() else "no such folder"
        raise DataError(f"{folder}: {found}. Expected a folder of vector files, such as methods/vectors.")
    return {path.stem: verify_file(path) for path in paths}


def verify_file(path: Path) -> FileResult:
    """Runs each case of a file through the function that its stem stands for.

    Raises:
        DataError: the file cannot be read.
    """
    compute = METHODS.get(path.stem)
    if compute is None:
        return FileResult("unknown", 0.0, {})
    computed: dict[str, Fields] = {}
    errors: dict[str, float] = {}
    for case in _cases(path):
        where = f"{path.name}: {case.name}"
        if case.op is not None and not isinstance(compute, ByOperation):
            raise DataError(f"{where}: op is '{case.op}', expected none.")
        computed[case.name] = compute(case, where)
        if case.expected:
            errors[case.name] = relative_error(computed[case.name], case.expected)
    failed = tuple(name for name, error in errors.items() if error > TOLERANCE)
    status: Status = "computed" if not errors else "fail" if failed else "pass"
    return FileResult(status, max(errors.values(), default=0.0), computed, failed)


def _cases(path: Path) -> tuple[VectorCase, ...]:
    try:
        cases = VectorFile.model_validate(json.loads(path.read_text(encoding="utf-8"))).cases
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise DataError(f"{path}: not a vector file: {where}: {first['msg']}. Expected method, kind, cases.") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {error}. Expected a vector file.") from error
    if len({case.name for case in cases}) < len(cases) or not cases:
        raise DataError(
            f"{path}: {'case names repeat' if cases else 'no cases'}. Expected cases with names of their own."
        )
    return cases


def relative_error(computed: Any, expected: Any) -> float:
    """Largest error of anything in a result; `WRONG` where what must be equal exactly is not."""
    if isinstance(expected, dict) and isinstance(computed, dict):
        if expected.keys() - computed.keys():
            return WRONG
        return max((relative_error(computed[key], value) for key, value in expected.items()), default=0.0)
    if isinstance(expected, list) and isinstance(computed, list):
        if len(expected) != len(computed):
            return WRONG
        return max(map(relative_error, computed, expected), default=0.0)
    if isinstance(computed, float) and isinstance(expected, int | float) and not isinstance(expected, bool):
        # Infinities are equal, and have no difference.
        error = 0.0 if computed == expected else abs(computed - expected) / max(abs(expected), SMALLEST_SCALE)
        return error if isfinite(error) else WRONG
    return 0.0 if type(computed) is type(expected) and computed == expected else WRONG
