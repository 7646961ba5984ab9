"""The data step: sources mixed, groups by prompt, validation apart, refused rows kept and counted."""

import json
from pathlib import Path
from typing import Any

import pytest

from prefloop.config import DataStep, LoadedRecipe, Recipe, load_recipe
from prefloop.errors import DataError, RecipeError
from prefloop.loop import Progress, run_recipe
from prefloop.loop.data_set import data_set, survey
from prefloop.records import read_folder
from prefloop.records.nouns import Judgment, Prompt, Response


def written(file: Path, *rows: dict[str, Any] | str) -> Path:
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return file


def pair(prompt: object, answer: object = "") -> dict[str, Any]:
    return {"prompt": f"Question {prompt}?", "chosen": f"Yes {answer}.", "rejected": "No."}


def loaded(*overrides: str) -> LoadedRecipe:
    return load_recipe("dpo.tiny", ["evaluation.suite=null", *overrides])


def recipe(*overrides: str) -> Recipe:
    return loaded(*overrides).recipe


def counts_of(made: Recipe, folder: Path | None = None) -> tuple[dict[str, int], list[str], list[str]]:
    """What is counted, and the prompts of both sides."""
    settings = made.step("data")
    assert isinstance(settings, DataStep)
    with data_set("data", settings, made, folder) as found:
        sides = [
            [group.prompt.messages[-1].content for group in found.groups(validation=side)] for side in (False, True)
        ]
        return {name: count for name, count in found.counts.items() if count}, sides[0], sides[1]


def test_refused_rows_are_left_out_counted_and_kept(tmp_path: Path) -> None:
    file = written(tmp_path / "pairs.jsonl", pair(1), '{"prompt"', pair(2), {"prompt": "x", "chosen": "y"})
    counts, prompts, _ = counts_of(recipe(f"data={file}"), tmp_path)
    assert prompts == ["Question 1?", "Question 2?"]
    assert counts == {
        "rows": 4,
        "refused": 2,
        "refused: invalid_json": 1,
        "refused: missing_field": 1,
        "prompts": 2,
        "pairs": 2,
    }
    kept = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_text().splitlines()]
    assert [line["place"] for line in kept] == ["pairs.jsonl:2", "pairs.jsonl:4"]


def test_without_a_usable_row_it_ends_before_anything_runs(tmp_path: Path) -> None:
    file = written(tmp_path / "pairs.jsonl", "{", "[")
    with pytest.raises(
        DataError,
        match=rf"data: pairs\.jsonl: all of its 2 rows are refused \(invalid_json 2\)\. `prefloop lint {file}`",
    ):
        run_recipe(loaded(f"data={file}"), tmp_path / "run", Progress())
    assert not (tmp_path / "run").exists()


def test_sources_are_mixed_by_weight_and_cap_and_counted(tmp_path: Path) -> None:
    written(tmp_path / "a.jsonl", *(pair(f"a{number}") for number in range(20)))
    written(tmp_path / "b.jsonl", *(pair(f"b{number}") for number in range(20)))
    sources = f"[{{source: {tmp_path}/a.jsonl, weight: 2}}, {{source: {tmp_path}/b.jsonl, weight: 1, cap: 5}}]"
    counts, prompts, _ = counts_of(recipe(f"data.sources={sources}"))
    assert counts["rows of a.jsonl"] == 10
    assert counts["rows of b.jsonl"] == 5
    assert counts["left out: mixture"] == 25
    assert [prompt[9] for prompt in prompts] == ["a"] * 10 + ["b"] * 5
    other = counts_of(recipe(f"data.sources={sources}", "seed=1"))[1]
    assert (len(other), other == prompts) == (15, False)


def test_parts_of_a_mixture_are_known_by_name_and_may_not_contradict_each_other(tmp_path: Path) -> None:
    denied = {**pair(1), "chosen": "No.", "rejected": "Yes ."}
    for folder, row in (("one", pair(1)), ("two", denied)):
        (tmp_path / folder).mkdir()
        written(tmp_path / folder / "a.jsonl", row, pair(folder))
    sources = f"[{{source: {tmp_path}/one/a.jsonl}}, {{source: {tmp_path}/two/a.jsonl}}]"
    loaded_recipe = recipe(f"data.sources={sources}")
    settings = loaded_recipe.step("data")
    assert isinstance(settings, DataStep)
    with data_set("data", settings, loaded_recipe) as found:
        assert [group.prompt.part for group in found.groups()] == ["1. a.jsonl", "1. a.jsonl", "2. a.jsonl"]
        assert found.counts["rows of 2. a.jsonl"] == 2
        assert found.counts["warned: contradictory_pair"] == 1
        (example,) = found.reports[1].examples
    assert (example.place, example.detail) == ("a.jsonl:1", "the opposite of a.jsonl:1")


def test_a_share_of_the_prompts_is_kept_apart_with_all_of_their_rows(tmp_path: Path) -> None:
    file = written(tmp_path / "pairs.jsonl", *(pair(number % 40, number) for number in range(120)))
    counts, trained, held = counts_of(recipe(f"data={file}", "data.validation.share=0.25"))
    assert not set(trained) & set(held)
    assert len(trained) + len(held) == 40
    assert 3 < len(held) < 17  # two standard errors of 40 draws at 0.25
    assert (counts["pairs"], counts["validation pairs"]) == (3 * len(trained), 3 * len(held))


def test_prompts_of_a_validation_source_are_not_trained_on(tmp_path: Path) -> None:
    file = written(tmp_path / "pairs.jsonl", *(pair(number) for number in range(5)))
    held_file = written(tmp_path / "held.jsonl", pair(3, "other"), pair(9))
    counts, trained, held = counts_of(recipe(f"data={file}", f"data.validation.source={held_file}"))
    assert trained == [f"Question {number}?" for number in (0, 1, 2, 4)]
    assert held == ["Question 3?", "Question 9?"]
    assert counts["left out: prompt of validation"] == 1


def test_a_share_that_keeps_nothing_is_an_error(tmp_path: Path) -> None:
    file = written(tmp_path / "pairs.jsonl", pair(1))
    with pytest.raises(
        DataError,
        match=r"^data\.validation leaves none of 1 prompts for validation\. Choose another share or source\.$",
    ):
        counts_of(recipe(f"data={file}", "data.validation.share=0.001"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.source=[{source: a, wight: 2}]", "data.source.wight is not a setting. Did you mean 'weight'?"),
        ("data.source=[{source: a, cap: 0}]", "data.source.cap: Input should be greater than or equal to 1, found 0."),
        ("data.validation={share: 1.5}", "data.validation.share: Input should be less than 1, found 1.5."),
        ("data.validation={share: 0.1, source: a}", "data.validation.share is not a setting."),
        ("data={source: [{source: a}], format: trl}", "data: in a list of sources `format` stands beside"),
    ],
)
def test_a_wrong_setting_says_where(override: str, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        recipe(override)
    assert message in str(error.value)


def test_what_the_plan_expects_is_what_comes(tmp_path: Path) -> None:
    file = written(tmp_path / "pairs.jsonl", *(pair("x" * number, number) for number in range(1, 301)))
    made = recipe(f"data={file}")
    settings = made.step("data")
    assert isinstance(settings, DataStep)
    found = survey("data", settings, made)
    assert (found.prompts, found.pairs, found.answers) == (300, 300, 600)
    assert [len(group.prompt.messages[-1].content) for group in found.longest[:3]] == [310, 309, 308]
    assert len(found.longest) == len(found.longest_prompts) == 256


def test_a_run_trains_on_one_side_and_measures_the_other(tmp_path: Path) -> None:
    rows = [pair(number % 12, number) for number in range(24)]
    file = written(tmp_path / "pairs.jsonl", *rows, "{")
    run = run_recipe(loaded(f"data={file}", "data.validation.share=0.3"), tmp_path / "run", Progress()).run / "round-00"

    sides = [list(read_folder(run / "data" / part / "prompts", Prompt)) for part in (".", "validation")]
    assert len({prompt.prompt_id for side in sides for prompt in side}) == 12
    for part, prompts in zip((".", "validation"), sides, strict=True):
        assert len(list(read_folder(run / "data" / part / "judgments", Judgment))) == 2 * len(prompts)
        assert len(list(read_folder(run / "data" / part / "responses", Response))) == 3 * len(prompts)
    validation = json.loads((run / "policy" / "validation.json").read_text())
    assert validation["examples"] == 2 * len(sides[1])
    counts = json.loads((run / "summary.json").read_text())["counts"]
    assert counts["data"]["refused: invalid_json"] == 1
    assert counts["pairs"]["validation examples"] == counts["policy"]["validation examples"] == 2 * len(sides[1])
    assert counts["policy"]["validation loss, before"] == pytest.approx(0.693147, abs=1e-5)
    assert counts["policy"]["validation loss, after"] == validation["after"]["loss"]


def test_a_count_takes_disjoint_parts_of_one_shuffle_round_by_round(tmp_path: Path) -> None:
    """Two of five prompts a round; the third round uses the shuffle up and begins another."""
    file = written(tmp_path / "pairs.jsonl", *(pair(number) for number in range(5)))
    few = [f"data={{source: {file}, count: 2}}", "rounds=3", "policy.epochs=1"]
    run = run_recipe(loaded(*few), tmp_path / "run", Progress(), until="round-02/data").run
    asked = [
        [one.messages[-1].content for one in read_folder(run / f"round-0{number}" / "data" / "prompts", Prompt)]
        for number in range(3)
    ]
    assert [len(prompts) for prompts in asked] == [2, 2, 2]
    assert not set(asked[0]) & set(asked[1])
    assert set(asked[2]) - set(asked[0]) - set(asked[1])
