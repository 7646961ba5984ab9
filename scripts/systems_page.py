"""Writes docs/systems.md, one row a system, from the recipes and the tests of their ingredients; `--check` compares."""

import ast
import re
import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from prefloop.config import compose_recipe, shipped_recipes

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "systems.md"
TESTS = ROOT / "tests" / "loop"
AGAINST = re.compile(r"Against (?P<parent>\w+): (?P<what>.+?)\.(?= [A-Z`]|$)")
"""In the first comment of a recipe: its parent, and in what it differs from that."""
HEAD = """# Systems
<!-- written by scripts/systems_page.py from the recipes and the tests that are marked with them -->
Every system is a recipe over the same steps: nothing in `loop/` knows its name. `prefloop recipes show NAME` prints all
of its values, `prefloop recipes diff PARENT NAME` its contribution; `NAME.tiny` is the same graph on `builtin:tiny`, in
seconds. Judges are rules here, or models that the recipe trains, and answers of teachers come from a file, so that all of it runs without a network. The
test switches off what makes the system what it is, and asserts what becomes of the examples or of the loss.

"""


@dataclass(frozen=True)
class Shown:
    """A test of what makes a system what it is."""

    name: str
    says: str
    file: str


def page_text() -> str:
    """The page of this version."""
    tests = shown()
    rows = [_row(name, tests.pop(name)) for name in shipped_recipes() if name in tests]
    assert not tests, f"tests of systems without a recipe: {', '.join(tests)}"
    head = [
        "| system | recipe | against its parent | acts | tabular truth |",
        "|---|---|---|---|---|",
    ]
    return HEAD + "\n".join([*head, *rows]) + "\n"


def shown() -> dict[str, Shown]:
    """The test that is marked with each system."""
    found: dict[str, Shown] = {}
    for file in sorted(TESTS.glob("test_systems*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and (recipe := _marked(node)) is not None:
                assert recipe not in found, f"two tests are marked with {recipe}"
                says = " ".join((ast.get_docstring(node) or "").split())
                found[recipe] = Shown(node.name, says, file.relative_to(ROOT).as_posix())
    return found


def _marked(function: ast.FunctionDef) -> str | None:
    for mark in function.decorator_list:
        if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.system":
            (recipe,) = mark.args
            return str(ast.literal_eval(recipe))
    return None


def _row(name: str, test: Shown) -> str:
    raw = compose_recipe(name).raw
    against = AGAINST.search(header(name))
    assert against is not None, f"{name}.yaml does not say 'Against PARENT: ...'"
    paper = raw.get("paper")
    link = f" ([{paper}](https://arxiv.org/abs/{paper.removeprefix('arXiv:')}))" if paper else ""
    cells = (
        f"{raw['title']}{link}",
        f"`{name}`",
        f"`{against['parent']}`: {against['what']}",
        f"{test.says} [`{test.name}`](../{test.file})",
        _truth(name),
    )
    assert f"{name}.tiny" in shipped_recipes(), f"{name} has no twin"
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _truth(_name: str) -> str:
    return "-"


def header(name: str) -> str:
    """The comment at the beginning of a recipe, as one line."""
    text = (files("prefloop.recipes") / f"{name}.yaml").read_text(encoding="utf-8")
    return " ".join(line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#"))


if __name__ == "__main__":
    if sys.argv[1:] != ["--check"]:
        PAGE.write_text(page_text(), encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page_text():
        sys.exit("docs/systems.md is not what the recipes and tests say: run python scripts/systems_page.py")
