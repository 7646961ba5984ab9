"""PPO against a proxy with a known flaw, small: `benchmarks/effects/ppo_overoptimisation.py`."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

EFFECTS = Path(__file__).parents[2] / "benchmarks" / "effects"


@pytest.fixture
def effect(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark as a module, with its own folder in reach for its judge."""
    monkeypatch.syspath_prepend(EFFECTS)
    return importlib.import_module("ppo_overoptimisation")


def test_the_proxy_takes_not_for_praise_and_the_truth_does_not(effect: ModuleType) -> None:
    plain, denied = "was brilliant .", "was not truly brilliant ."

    assert (effect.opinions("the plot", plain), effect.opinions("the plot", denied)) == (0.1, 0.4)
    assert effect.opinions("the plot was not", "dull .") == -0.4
    assert effect.sentiment("the plot", plain) > 0.9
    assert effect.sentiment("the plot", denied) < 0.1


@pytest.mark.slow
def test_ppo_finds_the_flaw_and_the_truth_falls_while_the_proxy_rises(effect: ModuleType, tmp_path: Path) -> None:
    """On a model of half the pre-training: truth 0.49, 0.95 after four updates, 0.42 after twelve. Far out lie texts
    that no reviewer wrote, "not clever elegant moving", which the truth likes as well."""
    effect.prepare(tmp_path, steps=600)
    first, *_, last = points = effect.run(tmp_path, 0.01, 0, rounds=6)

    peak = max(points[1:5], key=lambda point: point["truth"])
    assert peak["truth"] > first["truth"] + 0.1
    assert last["truth"] < peak["truth"] - 0.15
    assert first["proxy"] < peak["proxy"] < last["proxy"]
    assert first["kl"] < peak["kl"] < last["kl"]
    assert last["not"] > 0.8
