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
from prefloop.objectives import mpo, rpo, sft, slic
from prefloop.testing.cases import Compute, Fields, VectorCase, by_objective, by_rule, switch
from prefloop.testing.readings import (
    exo_options,
    f_divergence_options,
    mpo_options,
    one_token_mean,
    tdpo_from_logits,
    tdpo_options,
)

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
    "dpo": by_objective("dpo"),
    "dpo_cdpo": by_objective("conservative_dpo"),
    "dpo_robust": by_objective("robust_dpo"),
    "dpo_ipo": by_objective(switch("length_normalized", {False: "ipo", True: "ipo_per_token"}, default=False)),
    "dpo_reference_free": by_objective("reference_free_dpo"),
    "dpo_f_divergence": by_objective("f_divergence_dpo"),
    "dpo_plackett_luce": by_objective("plackett_luce_dpo"),
    "dpop": by_objective(
        switch("penalty_scaling", {"inside_beta": "dpop", "outside_beta": "dpop_outside_beta"}, default="inside_beta"),
        hyper={"lambda": "lam"},
    ),
    "field_discopop": by_objective("discopop"),
    "field_exo_pair": by_objective("exo_pair", hyper=exo_options),
    "field_fdpo": by_objective("f_divergence_dpo", hyper=f_divergence_options),
    "field_hinge": by_objective("hinge"),
    "field_ipo_norm": by_objective("ipo_per_token"),
    "field_ld_dpo": by_objective("ld_dpo"),
    "field_mpo": by_objective("mpo", hyper=mpo_options, extra=one_token_mean(mpo, "generation_weight")),
    "field_robust": by_objective("robust_dpo"),
    "field_rpo": by_objective("rpo", extra=one_token_mean(rpo, "nll_weight")),
    "field_sft": by_objective("sft", extra=one_token_mean(sft)),
    "field_sigmoid_norm": by_objective("length_normalized_dpo"),
    "field_simpo": by_objective("simpo"),
    "field_slic": by_objective("slic", extra=one_token_mean(slic, "lam")),
    "ilr_dpo": by_objective("length_regularized_dpo"),
    "length_bias_ld_dpo": by_objective(
        switch("ld_on_reference", {True: "ld_dpo", False: "ld_dpo_policy_only"}, default=True)
    ),
    "length_bias_length_normalized_dpo": by_objective("length_normalized_dpo"),
    "length_bias_simpo": by_objective("simpo"),
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
    "ilr_dpo_selection": by_rule("best_worst"),
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
        if case.op is not None:
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
        error = abs(computed - expected) / max(abs(expected), SMALLEST_SCALE)
        return error if isfinite(error) else WRONG
    return 0.0 if type(computed) is type(expected) and computed == expected else WRONG
