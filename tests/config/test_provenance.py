"""Every value that holds, and where it comes from."""

from pathlib import Path

import pytest

from prefloop.cli.recipes import copy_command, diff_command, list_command, show_command
from prefloop.config import load_recipe, shipped_recipes
from prefloop.errors import RecipeError


def test_each_value_names_the_file_that_gave_it_last() -> None:
    origins = show_command("quickstart.tiny", ["samples.num_samples=2", "policy.lora.alpha=4"])["origins"]

    assert origins["block"] == "loop"
    assert origins["policy.objective.beta"] == "ilr_dpo"
    assert origins["policy.objective.alpha.length_ratio"] == "quickstart"
    assert origins["title"] == "quickstart"
    assert origins["policy.lora.r"] == "quickstart.tiny"
    assert origins["policy.lora.alpha"] == "--set"
    assert origins["samples.num_samples"] == "--set"
    assert origins["samples.top_p"] == "default"
    assert origins["pairs.min_margin"] == "default"
    assert origins["evaluation.max_new_tokens"] == "as samples"
    assert origins["evaluation.judge.length_bias"] == "as judgments"


def test_names_of_other_tools_are_known_by_ours(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: loop\npolicy: {num_train_epochs: 2}\n")

    shown = show_command(str(file), [])

    assert shown["origins"]["policy.epochs"] == "mine.yaml"
    assert shown["recipe"]["policy"]["epochs"] == 2


@pytest.mark.parametrize("name", [name for name in shipped_recipes() if name != "offline"])
def test_what_is_shown_is_the_same_recipe(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_command(name, [])
    file = tmp_path / "shown.yaml"
    file.write_text(capsys.readouterr().out)

    shown, recipe = load_recipe(str(file)).recipe, load_recipe(name).recipe

    assert [shown.step(step) for step in shown.names()] == [
        _with_options(recipe.step(step), shown.step(step)) for step in recipe.names()
    ]
    assert shown.model_dump(exclude={"steps"}) == recipe.model_dump(exclude={"steps"})


def _with_options(step: object, shown: object) -> object:
    """A step with the defaults of its rule or objective written out, which the shown one has."""
    if hasattr(step, "rule"):
        return step.model_copy(update={"options": {**shown.options, **step.options}})
    if hasattr(step, "objective"):
        options = {**shown.objective.options, **step.objective.options}
        return step.model_copy(update={"objective": step.objective.model_copy(update={"options": options})})
    return step


def test_a_recipe_that_lacks_something_is_shown_with_what_it_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    problem = "recipe offline: data.source is missing and has no default."

    assert show_command("offline", [])["problem"] == problem

    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == f"# Not ready to run: {problem}"
    assert second.startswith("name: offline ")
    assert show_command("loop", [])["problem"] is None


def test_comments_stand_in_one_column(capsys: pytest.CaptureFixture[str]) -> None:
    show_command("loop", ["title=short"])

    lines = capsys.readouterr().out.splitlines()
    assert len({line.rindex("# ") for line in lines if "# " in line}) == 1


def test_a_difference_has_both_values_and_ignores_what_recipes_are_called() -> None:
    found = diff_command("quickstart", "quickstart_plain")["differences"]

    by_key = {line["key"]: line for line in found}
    assert by_key.keys() == {
        "policy.objective.name",
        "policy.objective.alpha.length_ratio",
        "pairs.length_penalty",
        "monitors.length.action",
    }
    assert by_key["policy.objective.name"] == {
        "key": "policy.objective.name",
        "a": "length_regularized_dpo",
        "b": "dpo",
        "a_from": "ilr_dpo",
        "b_from": "quickstart_plain",
    }
    assert by_key["policy.objective.alpha.length_ratio"]["b_from"] is None


def test_names_count_where_nothing_else_differs(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: loop\n")

    assert [line["key"] for line in diff_command("loop", str(file))["differences"]] == ["name"]
    assert diff_command("loop", "loop")["differences"] == []


def test_the_list_has_papers_titles_and_twins() -> None:
    items = {item["name"]: item for item in list_command()}

    assert items["quickstart"] == {
        "name": "quickstart",
        "paper": "arXiv:2406.11817",
        "title": "Quickstart - three rounds of length-regularised iterative DPO",
        "tiny": "quickstart.tiny",
    }
    assert not [name for name in items if name.endswith(".tiny")]


def test_a_copy_can_be_edited_and_run_and_is_never_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    copy_command("quickstart", file)

    first, second, *_ = file.read_text().splitlines()
    schema = first.removeprefix("# yaml-language-server: $schema=")
    assert (tmp_path / schema).resolve().name == "recipe.schema.json"
    assert (tmp_path / schema).is_file()
    assert second.startswith("# The quickstart:")
    ours, theirs = load_recipe(str(file)).recipe, load_recipe("quickstart").recipe
    assert ours.name == "mine"
    assert ours.model_dump(exclude={"name"}) == theirs.model_dump(exclude={"name"})
    with pytest.raises(RecipeError, match=r"mine\.yaml: exists already and is not overwritten\. Name another file\."):
        copy_command("loop", file)
    with pytest.raises(RecipeError, match=r"'quikstart' is not a shipped recipe\. Did you mean 'quickstart'\?"):
        copy_command("quikstart", tmp_path / "other.yaml")
