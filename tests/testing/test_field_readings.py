"""Flags and numbers that no published case of the field's files uses, but that their pages name."""

import math
from typing import Any

import pytest

from prefloop.testing.cases import VectorCase
from prefloop.testing.vectors import METHODS, relative_error

PAIR = {
    "policy_chosen_logps": [-3.0, -5.0],
    "policy_rejected_logps": [-4.0, -2.0],
    "ref_chosen_logps": [-3.5, -5.5],
    "ref_rejected_logps": [-3.0, -2.5],
}
LENGTHS = {"chosen_lengths": [2, 4], "rejected_lengths": [3, 5]}


def computed(stem: str, hyper: dict[str, Any], inputs: dict[str, Any]) -> dict[str, Any]:
    return METHODS[stem](VectorCase(name="made up", hyper=hyper, inputs=inputs), f"{stem}.json: made up")


def test_odpo_with_a_constant_has_it_as_every_pairs_offset() -> None:
    scores = {"chosen_scores": [3.0, 2.0], "rejected_scores": [1.0, 1.0]}
    found = computed("odpo", {"beta": 0.1, "alpha": 0.7, "f": "constant"}, {**PAIR, **scores})
    assert found["offset"] == [0.7, 0.7]
    margins = (0.1 * (0.5 + 1.0), 0.1 * (0.5 - 0.5))
    assert found["loss_per_example"] == pytest.approx([math.log1p(math.exp(0.7 - margin)) for margin in margins])


def test_odpo_on_equal_scores_has_no_loss_and_an_offset_that_compares_as_equal() -> None:
    scores = {"chosen_scores": [2.0, 2.0], "rejected_scores": [2.0, 1.0]}
    found = computed("odpo", {"beta": 0.1, "alpha": 1.0, "f": "log"}, {**PAIR, **scores})
    assert found["loss_per_example"][0] == 0.0
    assert found["grad"]["policy_chosen_logps"][0] == 0.0
    assert relative_error(found["offset"], [-math.inf, 0.0]) == 0.0
    assert relative_error(found["offset"], [math.inf, 0.0]) == 1.0


@pytest.mark.parametrize("drawn", [[True, True, True], [True, False, False]])
def test_beta_dpo_draws_the_pairs_that_the_file_names(drawn: list[bool]) -> None:
    three = {name: [*values, values[0] - 1] for name, values in PAIR.items()}
    inputs = {**three, "state": {"mean": 0.1, "std": 1.0}, "selected": drawn}
    found = computed("field_beta_dpo", {"beta": 0.1, "a": 0.0, "ema": 0.9, "min_beta": 0.001}, inputs)
    losses = [loss for loss, kept in zip(found["loss_per_example"], drawn, strict=True) if kept]
    assert found["loss"] == pytest.approx(sum(losses) / len(losses))
    assert [slope != 0 for slope in found["grad"]["policy_chosen_logps"]] == drawn
    assert found["beta_used"] == 0.1


@pytest.mark.parametrize("scope", ["response", "prompt_and_response"])
@pytest.mark.parametrize("reduction", ["token_mean", "sequence_mean", "sequence_sum"])
def test_orpo_has_every_scope_and_reduction(scope: str, reduction: str) -> None:
    prompts = {"policy_prompt_logps": [-7.0, -9.0], "prompt_lengths": [4, 6]}
    free = {name: values for name, values in PAIR.items() if name.startswith("policy")}
    flags = {"lam": 0.0, "nll_scope": scope, "nll_reduction": reduction}
    found = computed("field_orpo", flags, {**free, **LENGTHS, **prompts})
    nll, tokens = ([3.0, 5.0], [2, 4]) if scope == "response" else ([10.0, 14.0], [6, 10])
    expected = {
        "token_mean": [sum(nll) / sum(tokens)] * 2,
        "sequence_mean": [nats / length for nats, length in zip(nll, tokens, strict=True)],
        "sequence_sum": nll,
    }
    assert found["loss_per_example"] == pytest.approx(expected[reduction])
    assert found["loss"] == pytest.approx(sum(expected[reduction]) / 2)
    assert found["grad"].keys() == {"policy_chosen_logps", "policy_rejected_logps"}


@pytest.mark.parametrize("reduction", ["token_mean", "sequence_mean", "sequence_sum"])
def test_tpo_has_every_reduction_of_the_gold_answer(reduction: str) -> None:
    free = {name: values for name, values in PAIR.items() if name.startswith("policy")}
    gold = {"policy_gold_logps": [-2.0, -6.0], "gold_lengths": [1, 3]}
    flags = {"variant": "length_normalised", "beta": 1.0, "gamma": 0.0, "nll_weight": 1.0, "nll_reduction": reduction}
    whole, alone = (
        computed("field_tpo", {**flags, "nll_weight": weight}, {**free, **LENGTHS, **gold}) for weight in (1.0, 0.0)
    )
    added = [a - b for a, b in zip(whole["loss_per_example"], alone["loss_per_example"], strict=True)]
    expected = {"token_mean": [2.0, 2.0], "sequence_mean": [2.0, 2.0], "sequence_sum": [2.0, 6.0]}
    assert added == pytest.approx(expected[reduction])


def test_bco_multiplies_by_given_weights_and_counts_all_rewards() -> None:
    inputs = {
        "policy_logps": [-1.0, -2.0],
        "ref_logps": [-2.0, -2.0],
        "labels": [True, False],
        "state": {"mean": 0.0, "count": 0.0},
        "weights": [2.0, 0.0],
    }
    found = computed("field_bco", {"beta": 1.0}, inputs)
    assert found["state_out"] == {"mean": 0.5, "count": 2.0}
    assert found["loss_per_example"] == pytest.approx([2 * math.log1p(math.exp(-0.5)), 0.0])
