"""The schema that editors check recipes with: it takes what loads, and refuses what cannot."""

import importlib.util
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from prefloop.config import load_recipe, shipped_recipes
from prefloop.config.load import numbers
from prefloop.errors import RecipeError
from prefloop.loop.wiring import rehearse

SCHEMA = json.loads((files("prefloop.recipes") / "recipe.schema.json").read_text(encoding="utf-8"))

RIGHT = [
    "extends: loop",
    "extends: loop\nmodel: {path: mine, chat_template_kwargs: {enable_thinking: false}}\ngate: better",
    "extends: loop\nprompts: mine.jsonl\nsamples: {n: 8, temperature: 0.8}\njudgments: shorter\nevaluation: everyday",
    "extends: loop\njudgments: {judge: {type: vader, length_bias: 0.02}}",
    "extends: ilr_dpo\njudgments: {judge: {length_bias: 0.02}}",
    "extends: loop\npairs: {min_margin: 0.1}",
    "extends: loop\npairs: {rule: best_worst, length_penalty: 0.01}",
    "extends: loop\npolicy: dpo",
    "extends: loop\npolicy: {objective: dpo, lora: 8, warmup_ratio: 0.1}",
    "extends: loop\npolicy: {objective: {beta: 0.2}, learning_rate: {by_round: [5e-7, 3e-7]}}",
    "extends: loop\npolicy: {objective: {name: length_regularized_dpo, alpha: fitted}}",
    "extends: loop\npolicy: {objective: {name: length_regularized_dpo, alpha: {fitted: 0.5}}}",
    "extends: ilr_dpo\npolicy: {objective: {alpha: 0.02}, lora: null}",
    "extends: loop\nmachine: {threads: 2, rows: auto}\nmonitors: {length: {high: 1.5}}",
    "model: mine\nblock: [asked, answers]\nasked: {type: prompts, data: everyday}\nanswers: {type: sample, n: 2}",
]
WRONG = [
    "model: mine",
    "extends: loop\nrounds: many",
    "extends: loop\nrounds: 0",
    "extends: loop\nseed: -1",
    "extends: loop\npolcy: {epoks: 2}",
    "extends: loop\nsamples: {num_sample: 2}",
    "extends: loop\nsamples: {top_p: 1.5}",
    "extends: loop\npairs: {type: pear}",
    "extends: loop\njudgments: {judge: vadr}",
    "extends: loop\njudgments: {judge: {lenght_bias: 1}}",
    "extends: loop\njudgments: {judge: {type: shorter, length_bias: 1}}",
    "extends: loop\npolicy: {objective: dppo}",
    "extends: loop\npolicy: {objective: {name: dpo, bta: 1}}",
    "extends: loop\npolicy: {objective: {name: dpo, beta: -1}}",
    "extends: loop\npolicy: {objective: {name: dpo, beta: fitted}}",
    "extends: loop\npolicy: {objective: {name: dpo, alpha: 0.1}}",
    "extends: loop\npolicy: {learning_rate: {by_round: []}}",
    "extends: loop\npolicy: {learning_rate: {by_round: [0]}}",
    "extends: loop\npairs: {rule: best_wurst}",
    "extends: loop\npairs: {min_margn: 1}",
    "extends: loop\npairs: {rule: given, min_margin: 0.1}",
    "extends: loop\ngate: strict",
    "extends: loop\nsummary: {type: close}",
    "extends: loop\nsteps: {}",
]


def errors(text: str) -> list[Any]:
    return list(jsonschema.Draft7Validator(SCHEMA).iter_errors(numbers(yaml.safe_load(text))))


def test_it_is_a_schema() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_is_valid(name: str) -> None:
    assert errors((files("prefloop.recipes") / f"{name}.yaml").read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("text", RIGHT)
def test_what_loads_is_valid(text: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    load_recipe(str(file))

    assert errors(text) == []


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_not_valid(text: str) -> None:
    assert errors(text)


@pytest.mark.parametrize("text", WRONG)
def test_what_is_not_valid_does_not_run(text: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)

    with pytest.raises(RecipeError):
        rehearse(load_recipe(str(file)))


def test_the_schema_that_ships_is_this_versions() -> None:
    script = Path(__file__).parents[2] / "scripts" / "recipe_schema.py"
    spec = importlib.util.spec_from_file_location("recipe_schema", script)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    assert spec.loader is not None
    spec.loader.exec_module(module)

    assert json.loads(module.schema_text()) == SCHEMA


def test_fields_are_explained_to_the_editor() -> None:
    samples = SCHEMA["definitions"]["sample"]["anyOf"][0]["properties"]

    assert samples["num_samples"]["description"] == "Responses a prompt (K)."
    assert samples["num_samples"]["anyOf"][0]["minimum"] == 1
