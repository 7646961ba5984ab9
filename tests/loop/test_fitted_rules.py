"""A rule whose constant is found on the whole set of a round."""

import json
from collections.abc import Callable

import numpy as np
import pytest

from prefloop.loop import RunResult
from prefloop.pairing import Dropped, SetConstant, find_rule
from prefloop.records import Example, Judgment, Prompt, Response, grouped, read_folder

pytestmark = pytest.mark.long

SmallRun = Callable[..., RunResult]
BIASED = "judgments.judge={type: vader, length_bias: 0.05}"


def test_the_charge_on_length_is_fitted_on_the_rounds_answers_and_stands_beside_the_pairs(small_run: SmallRun) -> None:
    run = small_run("rounds=1", BIASED, "pairs={rule: length_corrected, alpha: fitted}").run / "round-00"

    found = json.loads((run / "pairs" / "fitted.json").read_text())["alpha"]
    examples = list(read_folder(run / "pairs", Example))
    gaps = [
        len(example.member("chosen").token_ids or ()) - len(example.member("rejected").token_ids or ())
        for example in examples
    ]
    assert found["figures"]["pairs"] == len(examples)
    assert found["figures"]["mean_length_gap"] == pytest.approx(np.mean(gaps))
    assert abs(found["figures"]["mean_length_gap"]) < abs(found["figures"]["mean_length_gap_at_zero"])
    assert found["factor"] == 1.0
    groups = grouped(
        read_folder(run / "prompts", Prompt),
        read_folder(run / "samples", Response),
        read_folder(run / "judgments", Judgment),
    )
    rule = find_rule("length_corrected", "it")
    options = rule.checked({"alpha": found["value"]}, "it")
    made = [one for group in groups for one in rule.apply(group, options) if not isinstance(one, Dropped)]
    assert made == examples


def test_a_rule_whose_numbers_are_given_writes_none(small_run: SmallRun) -> None:
    run = small_run("rounds=1", BIASED, "pairs={rule: length_corrected, alpha: 0.05}").run
    assert not (run / "round-00" / "pairs" / "fitted.json").exists()
    assert all("0.05 a unit of length" in one.why for one in read_folder(run / "round-00" / "pairs", Example))


def test_a_warning_of_a_fitted_constant_stands_in_the_summary(
    small_run: SmallRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = find_rule("length_corrected", "it")
    monkeypatch.setitem(rule.fit, "alpha", lambda _groups, _options: SetConstant(0.01, warning="Take care."))  # pyright: ignore[reportArgumentType]
    run = small_run("rounds=1", BIASED, "pairs={rule: length_corrected, alpha: {fitted: 2.0}}").run
    summary = json.loads((run / "round-00" / "summary.json").read_text())
    assert "Take care." in summary["reasons"]
    assert json.loads((run / "round-00" / "pairs" / "fitted.json").read_text())["alpha"]["value"] == 0.02
