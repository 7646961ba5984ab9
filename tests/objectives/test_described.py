"""What the command and the reference page say of an objective."""

import json
import re

import pytest

from prefloop.cli.objectives import objectives_command
from prefloop.errors import RecipeError
from prefloop.objectives import Elsewhere, Objective, behaviour, described, facts, find_objective, objectives

EVERY = pytest.mark.parametrize("objective", objectives().values(), ids=objectives())


@EVERY
def test_every_part_of_a_docstring_is_found(objective: Objective) -> None:
    words = described(objective)
    assert words.summary.endswith(".")
    assert re.search(r"^ {4}.* = ", words.formula, re.MULTILINE)
    assert words.limits
    assert all(words.quantities.values())
    assert all(parameter.meaning and parameter.range for parameter in words.parameters)


@EVERY
def test_its_facts_are_json(objective: Objective) -> None:
    assert json.loads(json.dumps(facts(objective)))["name"] == objective.name


def test_a_description_has_the_words_of_the_docstring() -> None:
    words = described(find_objective("dpo", "here"))
    assert words.summary == "Negative log-likelihood of the preferences under the implicit reward."
    assert words.formula == (
        "With rho(y) = log pi(y|x) - log pi_ref(y|x), in nats:\n\n"
        "    loss = -log sigmoid(beta * (rho(chosen) - rho(rejected)))"
    )
    assert words.quantities["ref_chosen_logps"] == "the same under the frozen reference; no gradient."
    (beta,) = words.parameters
    assert (beta.name, beta.range, beta.default) == ("beta", "> 0", 0.1)


@pytest.mark.parametrize(
    ("name", "parameter", "expected"),
    [
        ("simpo", "label_smoothing", ">= 0, < 0.5"),
        ("length_regularized_dpo", "alpha", ">= -1.0, <= 1.0, or fitted"),
        ("rpo", "nll_reduction", "token_mean or sequence_mean or sequence_sum"),
        ("mrpo", "weights", "adaptive or a list of numbers"),
        ("ppo", "whiten_advantages", "False or True"),
        ("alphapo", "alpha", "any number"),
    ],
)
def test_a_range_is_said_in_words(name: str, parameter: str, expected: str) -> None:
    found = {one.name: one.range for one in described(find_objective(name, "here")).parameters}
    assert found[parameter] == expected


def test_parameters_elsewhere_are_translated_in_a_line() -> None:
    there = Elsewhere("TRL", "x", {"beta": "beta", "lam": "alpha", "gamma": "gamma = gamma_beta_ratio * beta"})
    assert there.translated == "beta, lam -> alpha, gamma = gamma_beta_ratio * beta"


def test_what_training_has_to_know_is_said_in_sentences() -> None:
    assert behaviour(find_objective("beta_dpo", "here")) == [
        "While the policy is its reference, the loss, in the mean over a step, is 0.693147 at the defaults.",
        "Examples depend on each other: a whole optimiser step is computed at once.",
        "It keeps running statistics from step to step.",
        "Labels cannot be softened: beta and the drawn pairs follow from the gaps of chosen over rejected answers in "
        "the whole step.",
    ]


def test_the_command_lists_all_and_tells_everything_about_one(capsys: pytest.CaptureFixture[str]) -> None:
    everything = objectives_command(None)
    assert [one["name"] for one in everything] == sorted(objectives())
    capsys.readouterr()
    one = objectives_command("sigmoid")
    assert one == facts(find_objective("dpo", "here"))
    said = capsys.readouterr().out
    for part in ("arXiv:2305.18290 eq. 7", "also called sigmoid", "[pairs]", "pref_beta", "Limits: ", "> 0"):
        assert part in said


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(RecipeError, match=r"^the objective is 'simp0', which is not registered. Did you mean 'simpo'"):
        objectives_command("simp0")
