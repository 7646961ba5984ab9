"""Over-optimisation of learnt judges, small: what the best of many is worth by one proxy and by the worst of four."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

EFFECTS = Path(__file__).parents[2] / "benchmarks" / "effects"


@pytest.fixture
def effect(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark as a module, with its own folder in reach for what its recipe names."""
    monkeypatch.syspath_prepend(EFFECTS)
    spec = importlib.util.spec_from_file_location("overoptimisation", EFFECTS / "overoptimisation.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "overoptimisation", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_best_of_many_falls_by_one_proxy_and_cautious_scores_end_above_it(
    effect: ModuleType, tmp_path: Path
) -> None:
    """Seed 0, gold scores of the best of 16 and of 128 answers: 0.449 and 0.381 by one proxy, 0.509 and 0.500 where
    disagreement is charged for, 0.507 and 0.446 by the worst case. docs/results.md has more seeds."""
    effect.run_best_of_n(tmp_path, 0)
    found = json.loads((tmp_path / "points" / "best-of-n-0.json").read_text())
    at = {n: place for place, n in enumerate(found["best_of"])}
    change = {way: by[at[128]] - by[at[16]] for way, by in found["gold"].items()}
    assert change["gold"] > 0.1
    assert change["one proxy"] < -0.03
    assert change["own errors, uncertainty-weighted"] > -0.03
    best = {way: by[at[128]] for way, by in found["gold"].items()}
    assert best["own errors, uncertainty-weighted"] > best["one proxy"] + 0.05
    assert best["own errors, worst case"] > best["one proxy"] + 0.03
