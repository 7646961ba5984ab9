"""`prefloop verify`: published numbers, and what is said when they differ."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prefloop.cli.verify import verify_command
from prefloop.errors import DataError, RecipeError
from prefloop.testing import shipped_vectors, verify_file, verify_folder
from prefloop.testing.vectors import METHODS, relative_error
from prefloop.worlds import claims

SHIPPED = sorted(shipped_vectors().glob("*.json"))


def changed(tmp_path: Path, stem: str, change: Any) -> Path:
    """A copy of a shipped file whose first case was changed."""
    content = json.loads((shipped_vectors() / f"{stem}.json").read_text(encoding="utf-8"))
    change(content["cases"][0])
    path = tmp_path / f"{stem}.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_published_numbers_are_met(path: Path) -> None:
    result = verify_file(path)
    assert result.status == "pass"
    assert result.max_relative_error <= 1e-9
    assert len(result.cases) == 6


def test_every_entry_of_the_table_has_its_file() -> None:
    assert {path.stem for path in SHIPPED} == set(METHODS)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_case_without_expected_fields_is_computed_with_all_fields_of_the_published_one(
    tmp_path: Path, path: Path
) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    given = {"name", "op", "hyper", "inputs"}
    stripped = [{key: case[key] for key in case if key in given} for case in content["cases"]]
    (tmp_path / path.name).write_text(json.dumps({**content, "cases": stripped}), encoding="utf-8")
    result = verify_file(tmp_path / path.name)
    assert result.status == "computed"
    assert result.max_relative_error == 0
    for case in content["cases"]:
        published = {key: case[key] for key in case if key not in given}
        assert result.cases[case["name"]].keys() == published.keys()
        assert relative_error(result.cases[case["name"]], published) <= 1e-9


@pytest.mark.parametrize("field", ["loss_per_example", "grad"])
def test_a_number_that_differs_by_more_than_the_tolerance_fails(tmp_path: Path, field: str) -> None:
    def change(case: dict[str, Any]) -> None:
        values = case[field] if field == "loss_per_example" else case["grad"]["policy_rejected_logps"]
        values[1] *= 1 + 3e-9

    result = verify_file(changed(tmp_path, "dpo", change))
    assert (result.status, result.failed) == ("fail", ("case0",))
    assert result.max_relative_error == pytest.approx(3e-9, rel=0.01)


def test_a_pair_that_differs_fails(tmp_path: Path) -> None:
    def change(case: dict[str, Any]) -> None:
        case["expected"]["pairs"][0]["chosen"] = 2

    result = verify_file(changed(tmp_path, "ilr_dpo_selection", change))
    assert (result.status, result.max_relative_error) == ("fail", 1.0)


def test_a_field_that_nothing_computes_fails(tmp_path: Path) -> None:
    result = verify_file(changed(tmp_path, "dpo", lambda case: case.update(h=[1.0])))
    assert result.status == "fail"


def test_a_gap_that_is_not_above_the_margin_gives_null(tmp_path: Path) -> None:
    """Binary fractions: the gap 0.75 is exact."""

    def change(case: dict[str, Any]) -> None:
        case.update(hyper={"min_margin": 0.75, "length_penalty": 0.25})
        case.update(inputs={"prompts": [{"scores": [2.0, 1.0], "lengths": [3, 2]}]}, expected={"pairs": [None]})

    assert verify_file(changed(tmp_path, "ilr_dpo_selection", change)).status == "pass"


@pytest.mark.parametrize(
    ("computed", "expected", "error"),
    [
        (2.0, 2.0, 0.0),
        (1.0 + 1e-9, 1.0, 1e-9),
        (1e-12, 0.0, 1e-9),
        (1e-5 + 1e-12, 1e-5, 1e-9),
        (0.0, 0, 0.0),
        (1, 1, 0.0),
        (1, 2, 1.0),
        (1, True, 1.0),
        (None, None, 0.0),
        (None, {"chosen": 1}, 1.0),
        (float("nan"), 0.5, 1.0),
        ([1.0], [1.0, 2.0], 1.0),
        ({"a": 1.0, "b": 2.0}, {"a": 1.0}, 0.0),
        ({"a": 1.0}, {"a": 1.0, "b": 2.0}, 1.0),
    ],
)
def test_floats_may_differ_a_little_and_everything_else_not_at_all(computed: Any, expected: Any, error: float) -> None:
    assert relative_error(computed, expected) == pytest.approx(error, rel=1e-6)


def test_without_a_folder_the_shipped_files_and_the_claims_in_worlds_are_checked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of the claims: all of them are measured in tests/worlds."""
    kept = {name: claims()[name] for name in ("soft_labels", "any_sampler")}
    monkeypatch.setattr("prefloop.worlds.claims", lambda: kept)
    written, passed = verify_command(None)
    assert passed
    assert set(written["worlds"]) == {"dpo"}
    assert written["worlds"]["dpo"]["status"] == "pass"
    assert written["worlds"]["dpo"]["claims"].keys() == kept.keys()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*(path.stem for path in SHIPPED), "dpo"]
    assert lines[-1].startswith("dpo                          pass      claims in worlds: 2, off by at most ")
    assert json.loads(json.dumps(written)) == written


@pytest.mark.parametrize(
    ("error", "said"), [(2e-6, "2.0e-06"), (math.nan, "infinitely far"), (math.inf, "infinitely far")]
)
def test_a_claim_that_does_not_hold_fails_and_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: float, said: str
) -> None:
    wrong = replace(claims()["soft_labels"], error=lambda: error)
    monkeypatch.setattr("prefloop.worlds.claims", lambda: {"right": claims()["soft_labels"], "wrong": wrong})
    monkeypatch.setattr("prefloop.testing.verify_folder", lambda _folder: {})
    written, passed = verify_command(None)
    assert not passed
    assert written["worlds"]["dpo"]["status"] == "fail"
    assert capsys.readouterr().out.endswith(f"off by at most {said}; fails: soft_labels\n")
    assert json.loads(json.dumps(written)) == written


def test_a_file_that_no_function_answers_for_is_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(shipped_vectors() / "dpo.json", tmp_path / "dpo.json")
    shutil.copy(shipped_vectors() / "dpo.json", tmp_path / "telepathy.json")
    written, passed = verify_command(tmp_path)
    assert not passed
    assert written["files"]["telepathy"] == {"status": "unknown", "max_relative_error": 0.0, "cases": {}}
    assert written["files"]["dpo"]["status"] == "pass"
    assert set(written) == {"files"}
    assert "telepathy                    unknown   no function answers for this file" in capsys.readouterr().out


def test_a_file_that_differs_makes_it_fail_and_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed(tmp_path, "dpo", lambda case: case.update(loss=0.0))
    _, passed = verify_command(tmp_path)
    assert not passed
    assert "; differs: case0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "dpo.json: cannot be read as JSON: "),
        ("[]", "dpo.json: not a vector file: file: Input should be a valid dictionary"),
        ('{"cases": [{"name": "a"}]}', "dpo.json: not a vector file: cases.0.inputs: Field required. Expected method,"),
        ('{"cases": []}', "dpo.json: no cases. Expected cases with names of their own."),
        ('{"cases": [{"name": "a", "inputs": {}}]}', "dpo.json: a: inputs cannot be read ('policy_chosen_logps')."),
        ('{"cases": [{"name": "a", "op": "x", "inputs": {}}]}', "dpo.json: a: op is 'x', expected none."),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "dpo.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError) as raised:
        verify_folder(tmp_path)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_hyper_parameter_that_the_method_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"dpo\.json: case0\.gamma is not an option of dpo\."):
        verify_folder(changed(tmp_path, "dpo", lambda case: case["hyper"].update(gamma=1.0)).parent)


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such folder\. Expected a folder of vector files"):
        verify_folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"has no \*\.json files"):
        verify_folder(tmp_path)
