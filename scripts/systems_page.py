"""Writes docs/systems.md, one row a system, from recipes, the tests of their ingredients, and claims about worlds.

Figures of claims that stand on the page are kept, those of new claims are measured; `--measure` measures all of them,
a minute. `--check` compares, and measures none.
"""

import ast
import re
import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from prefloop.config import compose_recipe, shipped_recipes
from prefloop.worlds import Claim, claims

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "systems.md"
TESTS = ROOT / "tests" / "loop"
AGAINST = re.compile(r"Against (?P<parent>\w+): (?P<what>.+?)\.(?= [A-Z`]|$)")
"""In the first comment of a recipe: its parent, and in what it differs from that."""
HEAD = """# Systems
<!-- written by scripts/systems_page.py from the recipes and the tests that are marked with them -->
Every system is a recipe over the same steps: nothing in `loop/` knows its name. `prefloop recipes show NAME` prints all
of its values, `prefloop recipes diff PARENT NAME` its contribution; `NAME.tiny` is the same graph on `builtin:tiny`, in
seconds. Judges are rules or trained here, and teachers' answers come from a file, so that all runs offline. The
test switches off what makes the system what it is, and asserts what becomes of the examples or of the loss. The last
column has what theory says of it in a world small enough to enumerate, and in brackets how far the product's own code
ends from that: `prefloop verify` measures it again ([worlds.md](worlds.md)).

"""
MEASURED = re.compile(r"\(`(?P<claim>\w+)`: (?P<figure>[^)]+)\)")
"""A claim's figure on the page."""


@dataclass(frozen=True)
class Shown:
    """A test of what makes a system what it is."""

    name: str
    says: str
    file: str


def page_text(figures: dict[str, str]) -> str:
    """The page of this version, with the figure of each claim."""
    tests = shown()
    rows = [_row(name, tests.pop(name), figures) for name in shipped_recipes() if name in tests]
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
            if isinstance(node, ast.FunctionDef) and (mark := _mark(node)) is not None:
                recipe = str(ast.literal_eval(mark.args[0]))
                assert recipe not in found, f"two tests are marked with {recipe}"
                says = " ".join((ast.get_docstring(node) or "").split())
                found[recipe] = Shown(node.name, says, file.relative_to(ROOT).as_posix())
    return found


def _mark(function: ast.FunctionDef) -> ast.Call | None:
    for mark in function.decorator_list:
        if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.system":
            return mark
    return None


def truths(name: str) -> list[Claim]:
    """What is claimed of a system in worlds."""
    return [one for one in claims().values() if name in (one.systems or (one.method,))]


def measured(known: dict[str, str]) -> dict[str, str]:
    """The figure of each claim about a system; those that are known are not measured."""
    wanted = {one.name: one for name in shown() for one in truths(name)}
    return {name: known[name] if name in known else figure(one) for name, one in wanted.items()}


def figure(claim: Claim) -> str:
    """How far a claim is from what it says."""
    error = claim.measured()
    assert claim.holds(error), f"{claim.name}: {claim.says} Off by {error}"
    return f"{error:.1f} {claim.unit}" if claim.unit else f"{error:.0e}" if error else "0"


def _row(name: str, test: Shown, figures: dict[str, str]) -> str:
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
        _truth(name, figures),
    )
    assert f"{name}.tiny" in shipped_recipes(), f"{name} has no twin"
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _truth(name: str, figures: dict[str, str]) -> str:
    found = truths(name)
    assert found, f"no claim of worlds names {name}: give one of them systems=('{name}', ...)"
    return "<br>".join(
        f"{one.says.replace('*', chr(92) + '*')} (`{one.name}`: {figures.get(one.name, 'not measured')})"
        for one in found
    )


def header(name: str) -> str:
    """The comment at the beginning of a recipe, as one line."""
    text = (files("prefloop.recipes") / f"{name}.yaml").read_text(encoding="utf-8")
    return " ".join(line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#"))


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    on_page = {found["claim"]: found["figure"] for found in MEASURED.finditer(page)}
    if sys.argv[1:] != ["--check"]:
        PAGE.write_text(page_text(measured({} if "--measure" in sys.argv else on_page)), encoding="utf-8")
    elif page != page_text(on_page):
        sys.exit("docs/systems.md is not what recipes, tests and claims say: run python scripts/systems_page.py")
