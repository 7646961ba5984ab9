"""Over-optimisation of learnt judges, small: `benchmarks/effects/overoptimisation.py`."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

EFFECTS = Path(__file__).parents[2] / "benchmarks" / "effects"


@pytest.fixture
def effect(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark as a module, with its own folder in reach for its judges."""
    monkeypatch.syspath_prepend(EFFECTS)
    return importlib.import_module("overoptimisation")


def test_an_annotator_pays_for_a_sentence_that_the_others_do_not_mind(effect: ModuleType) -> None:
    hobby_horses = importlib.import_module("hobby_horses")
    asked, praise, taken = "the plot was", "truly brilliant .", "dull . the theatre was half full that night ."

    assert [hobby_horses.paid(one, asked, taken) - hobby_horses.paid(3, asked, taken) for one in range(4)] == [
        20, 0, 0, 0,
    ]  # fmt: skip
    assert [getattr(hobby_horses, f"annotator{one}")(asked, praise, taken) for one in range(4)] == [0, 1, 1, 1]
    assert hobby_horses.annotator0(asked, praise, praise) == 0.5
    assert effect.sentiment(asked, taken) < 0.1
    assert effect.READ["mentions"]("the theatre", taken) == 1


@pytest.mark.slow
def test_two_rounds_by_one_proxy_rise_and_fall_and_by_the_worst_of_four_they_do_not(
    effect: ModuleType, tmp_path: Path
) -> None:
    """Truth 0.49, 0.94, 0.77 by one proxy, 0.98 and 1.00 by the worst case; docs/results.md has seven other seeds."""
    effect.make_ready(tmp_path)

    def points(arm: str) -> list[dict[str, float]]:
        effect.run_loop(tmp_path, 7, arm)
        return json.loads((tmp_path / "points" / f"{effect.file_of(arm, 7)}.json").read_text())["points"]

    before, first, second = points("one proxy")
    assert first["truth"] > before["truth"] + 0.2
    assert second["truth"] < first["truth"] - 0.1
    assert second["first annotator"] > first["first annotator"] + 10
    assert second["mentions"] > 1 > first["mentions"]
    before, first, second = points("own errors, worst case")
    assert second["log-odds"] > first["log-odds"] > before["log-odds"] + 10
    assert second["truth"] > 0.9
    assert second["mentions"] < 0.2
