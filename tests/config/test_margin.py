"""SimPO's margin as gamma, and as the papers' gamma over beta."""

from pathlib import Path

import pytest

from prefloop.config import compose_recipe, load_recipe
from prefloop.config.provenance import sourced
from prefloop.errors import RecipeError


def objective(*overrides: str, name: str = "simpo") -> dict[str, object]:
    return load_recipe(name, [f"policy.objective.{override}" for override in overrides]).raw["policy"]["objective"]


@pytest.mark.parametrize(("name", "beta"), [("simpo", 2), ("cpo_simpo", 10), ("alphapo", 2.5)])
def test_a_ratio_is_read_as_gamma_over_beta_and_takes_the_place_of_a_gamma(name: str, beta: float) -> None:
    made = objective("gamma_beta_ratio=0.3", name=name)

    assert made["gamma"] == 0.3 * beta
    assert "gamma_beta_ratio" not in made


def test_it_is_said_aloud() -> None:
    notes = load_recipe("simpo", ["policy.objective.gamma_beta_ratio=0.8"]).notes

    assert "policy.objective.gamma_beta_ratio 0.8 is read as gamma 1.6 (times beta 2)" in notes


@pytest.mark.parametrize("order", [1, -1])
def test_beta_counts_wherever_it_is_said(order: int) -> None:
    assert objective(*["gamma_beta_ratio=0.3", "beta=10"][::order]) == {"name": "simpo", "beta": 10, "gamma": 3.0}


def test_a_later_gamma_takes_the_place_of_a_ratio() -> None:
    assert objective("gamma_beta_ratio=0.3", "gamma=1.5")["gamma"] == 1.5


def test_both_at_once_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: simpo\npolicy: {objective: {gamma: 1, gamma_beta_ratio: 0.5}}\n")

    with pytest.raises(RecipeError) as found:
        load_recipe(str(file))
    assert str(found.value) == (
        f"{file}: policy.objective.gamma_beta_ratio and policy.objective.gamma are the same setting. Keep one."
    )


def test_without_a_beta_a_ratio_means_nothing(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "extends: offline\ndata: x.jsonl\npolicy: {objective: {name: simpo, gamma_beta_ratio: 0.5}, references: {}}\n"
    )

    with pytest.raises(RecipeError) as found:
        load_recipe(str(file))
    assert str(found.value) == (
        f"{file}: policy.objective.gamma_beta_ratio is read as gamma = gamma_beta_ratio * beta, "
        "but beta is None, expected a number. Write beta as a number, or give gamma."
    )


def test_where_the_loss_itself_takes_the_ratio_it_stays() -> None:
    assert objective("gamma_beta_ratio=0.3", name="alpha_dpo")["gamma_beta_ratio"] == 0.3


def test_the_origin_of_gamma_is_where_the_ratio_was_said() -> None:
    made = sourced(compose_recipe("simpo", ["policy.objective.gamma_beta_ratio=0.8"]), lambda _kind, _name: None)

    assert made.origins["policy.objective.gamma"] == "--set"
