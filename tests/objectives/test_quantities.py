"""The grammar of parameter names, and options read off signatures."""

import re

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from prefloop.config import ScaledFit
from prefloop.errors import RecipeError
from prefloop.objectives import Quantity, find_objective, objective, parse_quantity

DPO = find_objective("dpo", "here")
REGULARIZED = find_objective("length_regularized_dpo", "here")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("policy_chosen_logps", ("policy", "chosen", "logps")),
        ("aux_ref_rejected_logps", ("aux_ref", "rejected", "logps")),
        ("prev_response_logps", ("prev", "response", "logps")),
        ("chosen_lengths", (None, "chosen", "lengths")),
        ("chosen_token_mask", (None, "chosen", "token_mask")),
        ("policy_rejected_token_log_sum_sq", ("policy", "rejected", "token_log_sum_sq")),
        ("policy_prompt_logps", ("policy", None, "prompt_logps")),
        ("prompt_lengths", (None, None, "prompt_lengths")),
        ("ranked_mask", (None, "ranked", "mask")),
        ("weights", (None, None, "weights")),
        ("mean_chosen_length", (None, None, "mean_chosen_length")),
        ("state", (None, None, "state")),
    ],
)
def test_a_name_says_model_role_and_functional(name: str, expected: tuple[str | None, str | None, str]) -> None:
    assert parse_quantity(name) == Quantity(name, *expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("policy_chosen_logp", "'policy_chosen_logp' is not a quantity. Did you mean 'logps'?"),
        ("teacher_chosen_logps", "'teacher_chosen_logps' is not a quantity."),
        ("chosen_logps", "'chosen_logps' is not a quantity: logps takes a model in front of it."),
        ("ref_chosen_lengths", "'ref_chosen_lengths' is not a quantity: lengths takes no model in front of it."),
    ],
)
def test_a_name_outside_the_grammar_is_an_error(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        parse_quantity(name)


def test_a_loss_with_a_wrong_parameter_name_cannot_be_registered() -> None:
    with pytest.raises(ValueError, match="'policy_chosen_odds' is not a quantity"):

        @objective(source="arXiv:0000.00000")
        def never_registered(policy_chosen_odds: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
            return policy_chosen_odds


def test_the_signature_says_which_models_and_roles_are_needed() -> None:
    assert (DPO.models, DPO.roles) == (("ref",), ("chosen", "rejected"))
    assert [quantity.name for quantity in REGULARIZED.quantities if quantity.gradient] == [
        "policy_chosen_logps",
        "policy_rejected_logps",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bta": 0.2}, "mine.yaml: policy.objective.bta is not an option of dpo. Did you mean 'beta'? Known: beta."),
        ({"beta": 0.0}, "mine.yaml: policy.objective.beta: Input should be greater than 0, found 0.0. dpo takes beta."),
        (
            {"beta": "much"},
            "mine.yaml: policy.objective.beta: Input should be a valid number, unable to parse string as a number, "
            "found 'much'. dpo takes beta.",
        ),
    ],
)
def test_a_wrong_option_is_an_error_that_says_where_and_what(options: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError) as raised:
        DPO.checked(options, "mine.yaml: policy.objective")
    assert str(raised.value) == message


def test_infinity_is_no_value_of_an_option() -> None:
    with pytest.raises(RecipeError, match=r"policy.objective.beta: Input should be a finite number, found inf"):
        DPO.checked({"beta": float("inf")}, "policy.objective")


@pytest.mark.parametrize(("written", "factor"), [("fitted", 1.0), ({"fitted": 0.5}, 0.5)])
def test_only_what_has_a_fit_may_be_fitted(written: object, factor: float) -> None:
    assert REGULARIZED.checked({"alpha": written}, "here").model_dump()["alpha"] == {"fitted": factor}
    assert isinstance(REGULARIZED.checked({"alpha": written}, "here").alpha, ScaledFit)
    with pytest.raises(RecipeError, match=r"here\.beta: "):
        REGULARIZED.checked({"beta": written}, "here")


@pytest.mark.parametrize("alpha", [1.5, -1.5, {"fitted": 0.0}])
def test_alpha_outside_its_range_is_an_error(alpha: object) -> None:
    with pytest.raises(RecipeError, match=r"^here\.alpha"):
        REGULARIZED.checked({"alpha": alpha}, "here")


def test_a_fit_reads_its_data_by_name() -> None:
    data = {name: np.array(values) for name, values in DATA.items()}
    shuffled = dict(reversed(data.items()))
    assert REGULARIZED.fit_on("alpha", data) == REGULARIZED.fit_on("alpha", {**shuffled, "unused": np.zeros(3)})


DATA = {"chosen_lengths": [9.0, 4.0, 7.0], "rejected_lengths": [3.0, 6.0, 5.0], "weights": [1.0, 1.0, 2.0]}


def test_a_loss_takes_no_option_by_position() -> None:
    zero = torch.zeros(1)
    with pytest.raises(TypeError):
        DPO.function(zero, zero, zero, zero, 0.1)
