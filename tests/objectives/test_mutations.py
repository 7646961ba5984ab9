"""A formula with one operator, sign or constant changed is seen by a published number or a test."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "mutate_objectives.py"


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mutate_objectives", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutate_objectives"] = module
    spec.loader.exec_module(module)
    return module


SOURCE = '''
def loss(x: float, y: float = 2.0) -> float:
    """Not 3 + 4."""
    return -(x - 0.5 * y) if x > 1 else y
'''


def test_a_mutant_changes_one_operator_sign_or_constant_of_the_body() -> None:
    mutants = list(script().mutants_of("loss.py", SOURCE, 100, 0))
    assert sorted(mutant.change for mutant in mutants) == [
        "`-(x - 0.5 * y)` -> `x - 0.5 * y`",
        "`0.5 * y` -> `0.5 + y`",
        "`0.5 * y` -> `0.5 / y`",
        "`0.5 * y` -> `1.5 * y`",
        "`x - 0.5 * y` -> `x + 0.5 * y`",
        "`x > 1` -> `x <= 1`",
        "`x > 1` -> `x > 2`",
        "`x > 1` -> `x >= 1`",
    ]
    assert len({mutant.source for mutant in mutants} | {ast.unparse(ast.parse(SOURCE))}) == len(mutants) + 1


def test_the_seed_says_which_are_drawn() -> None:
    drawn = [[m.change for m in script().mutants_of("loss.py", SOURCE, 3, seed)] for seed in (0, 0, 1, 2, 3)]
    assert drawn[0] == drawn[1]
    assert any(each != drawn[0] for each in drawn)


def test_a_fault_of_the_script_is_not_a_mutant_that_was_seen() -> None:
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        script().in_a_child(lambda: 1 / 0)
    assert script().in_a_child(lambda: [None, "survived"]) == [None, "survived"]


@pytest.mark.slow
def test_nearly_every_mutant_of_the_objectives_is_seen_by_a_published_number_or_a_test() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
