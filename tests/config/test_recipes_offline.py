"""Recipes of offline methods: what their files may say, and that what they leave out is as in their parent."""

import re
from functools import cache
from importlib.resources import files
from typing import Any

import pytest
import yaml

from prefloop.config import compose_recipe, load_recipe, recipe_layers, shipped_recipes
from prefloop.config.load import numbers
from prefloop.config.provenance import leaves
from prefloop.loop.wiring import rehearse
from prefloop.objectives import find_objective

PIPELINES = {"dpo_avoid_topics", "dpo_dialogue", "dpo_summarization"}
"""They fine-tune first; tests/loop/test_recipes.py runs them."""
METHODS = [
    name
    for name in shipped_recipes()
    if not name.endswith(".tiny")
    and name not in {"offline", *PIPELINES}
    and recipe_layers(name)[0].where == "recipe offline"
    and compose_recipe(name).raw["pairs"]["rule"] in {"given", "unpaired", "demonstrations"}
]
"""Those that train on given answers as they are."""
MAY_SAY = {
    "method": {"extends", "paper", "title", "data", "policy"},
    "twin": {"extends", "model", "data", "policy", "evaluation", "machine"},
}
FURTHER = {
    "wpo.tiny": {"block", "samples", "judgments", "pairs"},
    "sft": {"pairs"},
    "kto": {"pairs"},
    "bco": {"pairs"},
    "apo_zero_unpaired": {"pairs"},
    "mrpo": {"block", "imitation", "contrast"},
    "mrpo.tiny": {"imitation", "contrast"},
}
"""A twin whose pairs are of its own answers, methods of single answers, one that trains its references."""
OF_DPO = {"optimizer", "schedule", "warmup_steps", "max_grad_norm"}
"""What DPO was published with, as far as it is no default; and some that came from its code."""
OF_TRAINING = {
    "method": {"objective", "loss_on", "references", "learning_rate", "batch_size", "lora", *OF_DPO},
    "twin": {"learning_rate", "batch_size", "epochs", "lora", "warmup"},
}
HEADER = re.compile(
    r"# (?P<title>[^(]+) \((?P<paper>arXiv:\d{4}\.\d{5})\).*? Differs from the paper: (?P<how>.+?)\.( |$)"
)
"""One paragraph: the title, the paper, and what is not as in the paper."""


def text_of(name: str) -> str:
    return (files("prefloop.recipes") / f"{name}.yaml").read_text(encoding="utf-8")


@cache
def resolved(name: str) -> dict[str, Any]:
    return dict(leaves(compose_recipe(name).raw))


def said(name: str) -> dict[str, Any]:
    return numbers(yaml.safe_load(text_of(name)))


def header(name: str) -> str:
    comments = [line.removeprefix("#").strip() for line in text_of(name).splitlines() if line.startswith("#")]
    return "# " + " ".join(comments)


def test_there_are_the_methods_that_train_on_given_pairs() -> None:
    assert len(METHODS) == 48
    assert {"dpo", "ipo", "simpo", "orpo", "dpop", "length_regularized_dpo", "odpo", "rebel", "tdpo2"} <= {*METHODS}


@pytest.mark.parametrize("name", METHODS)
def test_the_header_names_the_method_the_paper_and_what_differs(name: str) -> None:
    found = HEADER.match(header(name))

    assert found is not None
    assert found["paper"] == said(name)["paper"]
    assert name == "dpo" or found["title"] == said(name)["title"]


@pytest.mark.parametrize(
    ("name", "kind"), [(name, "method") for name in METHODS] + [(f"{name}.tiny", "twin") for name in METHODS]
)
def test_a_recipe_says_little(name: str, kind: str) -> None:
    own = said(name)

    assert own.keys() <= MAY_SAY[kind] | FURTHER.get(name, set())
    assert own["policy"].keys() <= OF_TRAINING[kind]
    assert own["extends"] == ("offline" if kind == "method" else name.removesuffix(".tiny"))


@pytest.mark.parametrize("name", [*METHODS, *(f"{name}.tiny" for name in METHODS)])
def test_what_a_recipe_does_not_say_is_as_in_its_parent(name: str) -> None:
    parent = str(said(name)["extends"])
    ours, theirs = resolved(name), resolved(parent)
    own_layer = dict(leaves(recipe_layers(name)[-1].value))

    differing = {key for key in {*ours, *theirs} if ours.get(key, ()) != theirs.get(key, ())}
    gone = theirs.keys() - ours.keys()
    replaced = {key for key in gone if key.startswith("policy.references.") or key == "policy.warmup_steps"}
    assert differing - replaced <= own_layer.keys()


@pytest.mark.parametrize("name", METHODS)
def test_hyper_parameters_are_those_of_the_objective(name: str) -> None:
    objective = said(name)["policy"]["objective"]
    found = find_objective(objective["name"], name)
    options = {key: value for key, value in objective.items() if key != "name"}

    if name == "preferred_ft":  # the baseline is supervised fine-tuning on sums, as all of its paper's losses are
        assert objective == {"name": "sft", "nll_reduction": "sequence_sum"}
    else:
        assert objective["name"] == name
        assert found.checked(options, name) == found.checked({}, name)


@pytest.mark.parametrize("name", METHODS)
def test_exactly_the_references_that_the_loss_reads_are_named(name: str) -> None:
    references = load_recipe(name).raw["policy"]["references"]

    trained = {"aux_ref": ["imitation", "contrast"]} if name == "mrpo" else {}
    assert references == {
        **dict.fromkeys(find_objective(said(name)["policy"]["objective"]["name"], name).models, "initial"),
        **trained,
    }


@pytest.mark.parametrize("name", METHODS)
def test_a_twin_could_be_run(name: str) -> None:
    rehearse(load_recipe(f"{name}.tiny"))
