"""What files mean by their names and flags, where no published case shows it."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prefloop.testing import shipped_vectors, verify_file


def computed(tmp_path: Path, stem: str, change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """The fields of a shipped file's first case, changed."""
    content = json.loads((shipped_vectors() / f"{stem}.json").read_text(encoding="utf-8"))
    case = {key: content["cases"][0][key] for key in ("name", "hyper", "inputs")}
    change(case)
    (tmp_path / f"{stem}.json").write_text(json.dumps({**content, "cases": [case]}), encoding="utf-8")
    return verify_file(tmp_path / f"{stem}.json").cases["case0"]


def test_exo_without_smoothing_means_a_thousandth(tmp_path: Path) -> None:
    without, with_it = (
        computed(tmp_path, "field_exo_pair", lambda case, value=value: case["hyper"].update(label_smoothing=value))
        for value in (0.0, 1e-3)
    )
    assert without == with_it


@pytest.mark.parametrize(
    ("stem", "flag", "default"),
    [
        ("dpo_ipo", "length_normalized", False),
        ("dpop", "penalty_scaling", "inside_beta"),
        ("length_bias_ld_dpo", "ld_on_reference", True),
        ("tdpo", "variant", "tdpo2"),
    ],
)
def test_a_flag_that_is_left_out_has_the_pages_default(tmp_path: Path, stem: str, flag: str, default: object) -> None:
    left_out = computed(tmp_path, stem, lambda case: case["hyper"].pop(flag, None))
    assert left_out == computed(tmp_path, stem, lambda case: case["hyper"].update({flag: default}))


def test_rankings_of_different_lengths_are_padded_and_their_gradients_cut(tmp_path: Path) -> None:
    ranked = {
        "policy_ranked_logps": [[-3.0, -4.0, -9.0], [-2.0, -2.0]],
        "ref_ranked_logps": [[-3.0, -4.0, -9.0], [-1.0] * 2],
    }
    found = computed(tmp_path, "dpo_plackett_luce", lambda case: case.update(inputs=ranked))
    assert found["loss_per_example"] == pytest.approx([math.log(6), math.log(2)])
    assert [len(row) for row in found["grad"]["policy_ranked_logps"]] == [3, 2]


@pytest.mark.parametrize(
    ("stem", "weight"), [("field_sft", None), ("field_rpo", "nll_weight"), ("field_slic", "lam"), ("field_mpo", None)]
)
def test_a_token_mean_stands_in_every_example_as_one_number(tmp_path: Path, stem: str, weight: str | None) -> None:
    """What an example's loss has beyond that of no likelihood is the same for all of them."""

    def without(case: dict[str, Any]) -> None:
        case["hyper"]["nll_reduction"] = "token_mean"
        if stem == "field_mpo":
            case["hyper"]["weights"] = [*case["hyper"]["weights"][:2], 0.0]
        elif weight:
            case["hyper"][weight] = 0.0

    whole = computed(tmp_path, stem, lambda case: case["hyper"].update(nll_reduction="token_mean"))
    rest = computed(tmp_path, stem, without) if stem != "field_sft" else {"loss_per_example": [0.0] * 9}
    terms = [a - b for a, b in zip(whole["loss_per_example"], rest["loss_per_example"], strict=False)]
    assert terms[0] > 0
    assert terms == pytest.approx([terms[0]] * len(terms), rel=1e-12)
