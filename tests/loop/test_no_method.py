"""The loop knows steps, rounds and blocks, and no method: its code names no recipe, no objective and no rule."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from prefloop.config import shipped_recipes
from prefloop.objectives import objectives
from prefloop.pairing import rules

LOOP = Path(__file__).parents[2] / "src" / "prefloop" / "loop"
OTHERWISE = {"given", "degraded", "ensemble", "rollouts", "instructed", "loop", "quickstart", "reward_model"}
"""Words that mean something else there: rows that were given, answers got worse, settings of steps, a step type."""
ADVICE = {"best_worst", "dpop", "length_regularized_dpo"}
"""What messages and remedies tell a user to take."""
OF_JUDGES = {"bradley_terry", "pair_ranker"}
"""What a judge that is trained in the run has to be trained by."""


def words(file: Path) -> Iterator[str]:
    """Of names, attributes and texts in a module's code, docstrings left out."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str() as text) if id(node) not in said:
                yield from re.findall(r"\w+", text)
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name):
                yield name
            case _:
                pass


def test_no_methods_name_occurs_in_the_loop() -> None:
    names = {name.partition(".")[0] for name in shipped_recipes()} | objectives().keys() | rules().keys()
    found = {word for file in LOOP.rglob("*.py") for word in words(file)} & names
    assert {"dice", "sppo", "siblings"} <= names
    assert found <= OTHERWISE | ADVICE | OF_JUDGES
