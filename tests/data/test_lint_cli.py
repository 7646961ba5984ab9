"""`prefloop lint` as a user meets it."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from prefloop.cli.app import app
from prefloop.cli.lint import lint_command
from prefloop.cli.model_tokens import ModelTokens
from prefloop.errors import DataError, PrefloopError, RecipeError

RUNNER = CliRunner()


def written(folder: Path, *rows: dict[str, Any] | str, name: str = "pairs.jsonl") -> str:
    file = folder / name
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(file)


def pair(number: int, **columns: object) -> dict[str, Any]:
    return {
        "prompt": f"What comes after {number}?",
        "chosen": f"It is {number + 1}.",
        "rejected": "I do not know.",
        "score_chosen": 2,
        "score_rejected": 1,
        "annotator": "me",
        **columns,
    }


def test_everything_is_said_about_a_set(tmp_path: Path) -> None:
    data = written(tmp_path, pair(1), pair(2, chosen=" "), '{"prompt"', pair(4, score_chosen=0), pair(1))

    result = RUNNER.invoke(app, ["lint", data])

    assert result.exit_code == 1
    assert result.output == (
        "pairs.jsonl: plain-text TRL preference with scores, 5 rows\n"
        "columns that are not read: annotator\n"
        "3 accepted (2 of them warned), 2 refused\n"
        "\n"
        "refused (left out)  invalid_json  1 row: the line is not JSON, or it is cut off. Write one JSON object a "
        "line.\n"
        "  pairs.jsonl:3  Expecting ':' delimiter at column 10\n"
        "\n"
        "refused (left out)  empty_text  1 row: a prompt or an answer is empty or only white space. Fill it in or "
        "remove it.\n"
        "  pairs.jsonl:2  chosen is ' '\n"
        "\n"
        "warned (used)  scores_contradict  1 row: the rejected answer has the higher score. Exchange them, or see "
        "why.\n"
        "  pairs.jsonl:4  0 against 1\n"
        "\n"
        "warned (used)  duplicate_row  1 row: the same prompt and answers stand in an earlier row. Remove one of "
        "them.\n"
        "  pairs.jsonl:5  the same as pairs.jsonl:1\n"
        "\n"
        "prompts   2 different; 1 row with one of an earlier row, the most frequent in 2 rows\n"
        "length    3 pairs: the chosen answer has 3.0 words, the rejected one 4.0\n"
        "          the longer one is chosen in 0.0 % (95 %: 0.0 to 56.1); 0 pairs are equally long\n"
        "          the shorter one is chosen in every pair: length alone tells them apart\n"
        "scores    6, mean 1.17; 0 % 0, 5 % 0.25, 25 % 1, 50 % 1, 75 % 1.75, 95 % 2, 100 % 2\n"
        "margins   3, mean 0.333; 0 % -1, 5 % -0.8, 25 % 0, 50 % 1, 75 % 1, 95 % 1, 100 % 1 (better answer minus "
        "worse)\n"
    )


def test_a_set_with_warnings_alone_is_accepted(tmp_path: Path) -> None:
    result = RUNNER.invoke(app, ["lint", written(tmp_path, pair(1), pair(1)), "--json", "-"])

    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert {key: told[key] for key in ("rows", "accepted", "refused", "warned", "problems")} == {
        "rows": 2,
        "accepted": 2,
        "refused": 0,
        "warned": 1,
        "problems": {"duplicate_row": 1},
    }


def test_prompts_are_checked_as_well(tmp_path: Path) -> None:
    result = RUNNER.invoke(app, ["lint", written(tmp_path, {"prompt": "Why?"}, {"prompt": "Why?"}, {"prompt": ""})])

    assert result.exit_code == 1
    assert "pairs.jsonl: prompts, 3 rows" in result.output
    assert "duplicate_row" in result.output


def test_shipped_sets_are_clean(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("everyday", "everyday:heldout", "everyday_pairs", "everyday_scored_pairs"):
        told, accepted = lint_command(
            name, tokens=ModelTokens(), against=["everyday:heldout"] if "heldout" not in name else [],
            format_name=None, quarantine=None,
        )  # fmt: skip
        assert accepted
        assert told["problems"] == {}
    assert "162 rows" in capsys.readouterr().out


def test_evaluation_prompts_are_refused(tmp_path: Path) -> None:
    evaluation = written(tmp_path, {"prompt": "What comes after 2?"}, name="eval.jsonl")

    result = RUNNER.invoke(app, ["lint", written(tmp_path, pair(1), pair(2)), "--against", evaluation])

    assert result.exit_code == 1
    assert "  pairs.jsonl:2  the same as eval.jsonl:1\n" in result.output


def test_refused_rows_are_kept_where_a_user_says(tmp_path: Path) -> None:
    kept = tmp_path / "refused.jsonl"

    result = RUNNER.invoke(app, ["lint", written(tmp_path, pair(1), pair(2, chosen="")), "--quarantine", str(kept)])

    assert result.exit_code == 1
    assert f"the refused rows are in {kept}" in result.output
    (line,) = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]
    assert json.loads(line["original"]) == pair(2, chosen="")


def lint(data: str, **options: Any) -> tuple[dict[str, Any], bool]:
    nothing: dict[str, Any] = {
        "tokens": ModelTokens(),
        "against": [],
        "format_name": None,
        "quarantine": None,
    }
    return lint_command(data, **{**nothing, **options})


def test_the_data_set_is_not_overwritten_by_its_refused_rows(tmp_path: Path) -> None:
    data = written(tmp_path, pair(1, chosen=""))
    with pytest.raises(RecipeError, match=r"is the data set itself\. Name another file\.$"):
        lint(data, quarantine=tmp_path / "." / "pairs.jsonl")
    assert Path(data).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (ModelTokens(max_length=100), "--max-length: is about a model's tokens. Name one with --model."),
        (
            ModelTokens("builtin:tiny", truncation="drop"),
            "--truncation: says what becomes of rows that are too long. Give --max-length as well.",
        ),
        (
            ModelTokens("builtin:tiny", template_kwargs="enable_thinking"),
            "--template-kwargs: enable_thinking is no JSON object. Write it like '{\"enable_thinking\": false}'.",
        ),
    ],
)
def test_an_option_that_would_have_no_effect_is_an_error(tokens: ModelTokens, message: str) -> None:
    with pytest.raises(RecipeError) as raised:
        lint("everyday", tokens=tokens)
    assert str(raised.value) == message


def test_a_setting_that_the_template_never_reads_is_an_error() -> None:
    with pytest.raises(PrefloopError, match=r"chat_template_kwargs\.enable_thinking has no effect"):
        lint("everyday", tokens=ModelTokens("builtin:tiny", template_kwargs='{"enable_thinking": false}'))


def test_a_file_that_is_not_there_is_one_line() -> None:
    with pytest.raises(DataError, match=r"^missing\.jsonl: "):
        lint("missing.jsonl")


def test_a_format_may_be_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="format 'trl' is not known"):
        lint(written(tmp_path, pair(1)), format_name="trl")


def test_with_a_model_its_tokens_are_checked_too(tmp_path: Path) -> None:
    data = written(tmp_path, pair(1), pair(2, chosen="It is three. " * 20), pair(3, chosen="Four.<|im_end|>"))

    told, accepted = lint_command(
        data, tokens=ModelTokens("builtin:tiny", 60), against=[], format_name=None, quarantine=None
    )  # fmt: skip

    assert not accepted
    assert told["problems"] == {"control_token": 1, "too_long": 1}
    told, accepted = lint(data, tokens=ModelTokens("builtin:tiny", 60, "cut_response"))
    assert accepted
    assert told["problems"] == {"control_token": 1, "cut": 1}
