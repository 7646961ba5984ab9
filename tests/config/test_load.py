"""Recipes: what extends what, and what a value turns into."""

from pathlib import Path

import pytest

from prefloop.config import EvaluateStep, SampleStep, TrainStep, load_recipe, shipped_recipes
from prefloop.errors import RecipeError


def written(tmp_path: Path, text: str) -> str:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    return str(file)


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_loads_and_has_a_twin(name: str) -> None:
    recipe = load_recipe(name, ["data.source=pairs.jsonl"] if name == "offline" else []).recipe

    assert recipe.title
    if not name.endswith(".tiny"):
        assert f"{name}.tiny" in shipped_recipes()


def test_a_child_changes_only_what_it_says(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, "extends: ilr_dpo\nsamples: {num_samples: 3}\n")).recipe

    samples = recipe.step("samples")
    assert isinstance(samples, SampleStep)
    assert (samples.num_samples, samples.temperature, samples.max_new_tokens) == (3, 0.8, 96)


def test_choosing_another_alternative_drops_the_fields_of_the_old_one(tmp_path: Path) -> None:
    text = "extends: ilr_dpo\njudgments: {judge: shorter}\npolicy: {objective: dpo}\n"
    recipe = load_recipe(written(tmp_path, text)).recipe

    assert recipe.step("judgments").model_dump()["judge"] == {"type": "shorter"}
    policy = recipe.step("policy")
    assert isinstance(policy, TrainStep)
    assert policy.objective.model_dump() == {"name": "dpo", "options": {}}
    assert policy.references == {"ref": "round_start"}


@pytest.mark.parametrize(
    ("change", "alpha"),
    [
        ("{fitted: 0.5}", {"fitted": 0.5}),
        ("fitted", "fitted"),
        ("0", 0),
        ("{gain: 2}", {"length_ratio": 1.1, "gain": 2}),
        ("{length_ratio: 0.9}", {"length_ratio": 0.9, "gain": 3}),
    ],
)
def test_another_way_of_finding_a_number_takes_the_place_of_the_old_one(
    tmp_path: Path, change: str, alpha: object
) -> None:
    held = "extends: ilr_dpo\npolicy: {objective: {alpha: {length_ratio: 1.1, gain: 3}}}\n"
    recipe = load_recipe(written(tmp_path, held), [f"policy.objective.alpha={change}"]).recipe

    policy = recipe.step("policy")
    assert isinstance(policy, TrainStep)
    assert policy.objective.options["alpha"] == alpha


def test_a_plain_value_sets_the_main_field_of_a_step() -> None:
    recipe = load_recipe("loop", ["evaluation=everyday", "policy.lora=4", "gate=better"]).recipe

    evaluation, policy = recipe.step("evaluation"), recipe.step("policy")
    assert isinstance(evaluation, EvaluateStep)
    assert isinstance(policy, TrainStep)
    assert evaluation.suite == "everyday"
    assert policy.lora is not None
    assert policy.lora.r == 4
    assert recipe.gate.require == "better"


def test_numbers_by_round_are_resolved_and_the_last_one_holds() -> None:
    recipe = load_recipe("loop", ["policy.learning_rate={by_round: [5e-7, 3e-7]}", "rounds=3"]).recipe

    rates = [recipe.step("policy", number).model_dump()["learning_rate"] for number in range(3)]
    assert rates == [5e-7, 3e-7, 3e-7]


def test_numbers_in_scientific_notation_are_numbers(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, "extends: loop\npolicy: {learning_rate: 5e-7}\n")).recipe

    assert recipe.step("policy").model_dump()["learning_rate"] == 5e-7


def test_argument_names_of_other_tools_are_translated_aloud(tmp_path: Path) -> None:
    loaded = load_recipe(written(tmp_path, "extends: loop\npolicy: {num_train_epochs: 2}\nevaluation: everyday\n"))

    assert loaded.recipe.step("policy").model_dump()["epochs"] == 2
    assert loaded.notes == ("policy.num_train_epochs is read as policy.epochs",)


def test_a_name_of_another_tool_replaces_what_is_inherited(tmp_path: Path) -> None:
    loaded = load_recipe(written(tmp_path, "extends: ilr_dpo\npolicy: {lr: 1e-4}\n"), ["policy.train_batch_size=2"])

    policy = loaded.recipe.step("policy").model_dump()
    assert (policy["learning_rate"], policy["batch_size"]) == (1e-4, 2)
    assert loaded.notes == (
        "policy.lr is read as policy.learning_rate",
        "policy.train_batch_size is read as policy.batch_size",
    )
    with pytest.raises(RecipeError, match=r"policy\.lr and policy\.learning_rate are the same setting\. Keep one"):
        load_recipe(written(tmp_path, "extends: loop\npolicy: {lr: 1e-4, learning_rate: 1e-5}\n"))


def test_a_plain_value_of_a_step_goes_as_deep_as_it_must() -> None:
    recipe = load_recipe("loop", ["judgments=shorter", "policy=length_regularized_dpo"]).recipe

    assert recipe.step("judgments").model_dump()["judge"] == {"type": "shorter"}
    assert recipe.step("policy").model_dump()["objective"]["name"] == "length_regularized_dpo"


def test_an_evaluation_without_a_suite_is_left_out_aloud() -> None:
    loaded = load_recipe("loop")

    assert loaded.notes == ("evaluation is left out: it names no suite",)
    assert loaded.recipe.round == ("summary",)


def test_an_evaluation_is_written_out_into_the_steps_that_it_needs() -> None:
    recipe = load_recipe("ilr_dpo").recipe

    assert recipe.setup == (
        "evaluation-prompts",
        "evaluation-initial",
        "evaluation-initial-judgments",
        "evaluation-initial-truth",
    )
    assert recipe.round == ("evaluation-samples", "evaluation-judgments", "evaluation-truth", "evaluation", "summary")
    answers = recipe.step("evaluation-samples")
    assert isinstance(answers, SampleStep)
    assert (answers.temperature, answers.top_p, answers.max_new_tokens) == (1.0, 1.0, 96)
    assert recipe.step("evaluation-truth").model_dump()["judge"]["length_bias"] == 0


def test_a_recipe_that_extends_itself_says_so(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"extends: {path}\n")

    with pytest.raises(RecipeError, match="extends itself"):
        load_recipe(str(path))


def test_what_was_loaded_can_be_loaded_again(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    loaded = load_recipe("quickstart", ["samples.num_samples=2"])

    again = load_recipe(written(tmp_path, yaml.safe_dump(loaded.raw)))

    assert again.recipe.model_dump(exclude={"name"}) == loaded.recipe.model_dump(exclude={"name"})


def test_steps_that_a_recipe_lists_no_more_are_gone_with_their_settings(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "extends: loop\nblock: [prompts, samples, pairs, policy]\npairs: {rule: prompted, good: one, bad: other}\n",
        encoding="utf-8",
    )

    assert "judgments" not in load_recipe(str(file)).raw

    file.write_text(file.read_text(encoding="utf-8") + "judgments: shorter\n", encoding="utf-8")
    with pytest.raises(RecipeError, match="'judgments' is neither a recipe key nor a step"):
        load_recipe(str(file))
