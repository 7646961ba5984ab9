"""`prefloop recipes`: list, show, diff, copy."""

import os
from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from rich.table import Table

from prefloop.cli.console import output
from prefloop.config import (
    Config,
    Sourced,
    as_yaml,
    compose_recipe,
    differences,
    load_recipe,
    recipe_layers,
    shipped_recipes,
    sourced,
)
from prefloop.errors import RecipeError, did_you_mean

TWIN = ".tiny"
SCHEMA = "recipe.schema.json"


def list_command() -> list[dict[str, Any]]:
    """Lists the shipped recipes, each with its twin."""
    names = shipped_recipes()
    found = [_listed(name, names) for name in names if not name.endswith(TWIN)]
    table = Table("name", "title", "paper", "runs in seconds", box=None, pad_edge=False)
    for item in found:
        table.add_row(item["name"], item["title"], item["paper"] or "-", item["tiny"] or "-")
    output().print(table)
    return found


def show_command(spec: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Prints a recipe with every value that holds and where it comes from."""
    recipe = _sourced(spec, overrides)
    try:
        load_recipe(spec, overrides)
        problem = None
    except RecipeError as error:
        problem = str(error)
        print(f"# Not ready to run: {problem}")
    print(as_yaml(recipe), end="")
    return {"recipe": dict(recipe.values), "origins": dict(recipe.origins), "problem": problem}


def diff_command(one: str, other: str) -> dict[str, Any]:
    """Prints in which values two recipes differ."""
    found = differences(_sourced(one), _sourced(other))
    console = output()
    if found:
        table = Table("key", one, other, box=None, pad_edge=False)
        for line in found:
            table.add_row(line.key, _shown(line.a, line.a_from), _shown(line.b, line.b_from))
        console.print(table)
    else:
        console.print(f"{one} and {other} do not differ.", highlight=False, markup=False, soft_wrap=True)
    return {"a": one, "b": other, "differences": [asdict(line) for line in found]}


def copy_command(name: str, file: Path) -> dict[str, Any]:
    """Copies a shipped recipe, with the line that tells editors its schema.

    Raises:
        RecipeError: there is no such recipe, or the file exists.
    """
    if name not in shipped_recipes():
        raise RecipeError(f"'{name}' is not a shipped recipe. {did_you_mean(name, shipped_recipes())}")
    if file.exists():
        raise RecipeError(f"{file}: exists already and is not overwritten. Name another file.")
    if not file.absolute().parent.is_dir():
        raise RecipeError(f"{file}: there is no folder {file.parent}. Make it, or name another file.")
    text = (files("prefloop.recipes") / f"{name}.yaml").read_text(encoding="utf-8")
    with as_file(files("prefloop.recipes") / SCHEMA) as schema:
        where = Path(os.path.relpath(schema.resolve(), file.absolute().parent.resolve())).as_posix()
    file.write_text(f"# yaml-language-server: $schema={where}\n{text}", encoding="utf-8")
    print(f"{file}: a copy of {name}. Edit it, then: prefloop run {file}")
    return {"recipe": name, "file": str(file)}


def _listed(name: str, names: Sequence[str]) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for layer in recipe_layers(name):
        said |= layer.value
    twin = f"{name}{TWIN}"
    return {
        "name": name,
        "paper": said.get("paper"),
        "title": said.get("title"),
        "tiny": twin if twin in names else None,
    }


def _sourced(spec: str, overrides: Sequence[str] = ()) -> Sourced:
    return sourced(compose_recipe(spec, overrides), _options_of)


def _options_of(registry: str, name: str) -> type[Config] | None:
    if registry == "rule":
        from prefloop.pairing import rules

        return rules()[name].options if name in rules() else None
    from prefloop.objectives import find_objective

    return find_objective(name, "objective.name").options


def _shown(value: Any, origin: str | None) -> str:
    return "-" if origin is None else f"{'null' if value is None else value} ({origin})"
