"""Judges of every kind as steps of a run: what is asked again, what a mistake says before the run starts."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prefloop.errors import RecipeError
from prefloop.loop import RunResult
from prefloop.records import Judgment, Response, read_folder

SmallRun = Callable[..., RunResult]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Writes the module in which a judge's function stands, where the command runs."""
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)

    def write(source: str) -> None:
        Path("scores_of_mine.py").write_text(source, encoding="utf-8")
        sys.modules.pop("scores_of_mine", None)

    yield write
    sys.modules.pop("scores_of_mine", None)
    sys.path[:] = before


def values(run: Path) -> dict[str, float | None]:
    return {one.subjects[0]: one.values[0] for one in read_folder(run / "round-00/judgments", Judgment)}


def test_a_function_judges_a_round_and_what_changes_in_its_file_is_judged_again(
    small_run: SmallRun, module: Callable[[str], None]
) -> None:
    mine = ("judgments.judge={type: python, function: 'scores_of_mine:score'}", "evaluation.suite=null")
    module("def score(prompt, response):\n    return len(response)\n")
    first = small_run(*mine, until="judgments")
    answers = {one.response_id: one.text for one in read_folder(first.run / "round-00/samples", Response)}
    assert values(first.run) == {name: float(len(text)) for name, text in answers.items()}

    assert small_run(*mine, until="judgments").made == ()

    module("def score(prompt, response):\n    return -len(response)\n")
    again = small_run(*mine, until="judgments")
    assert again.made == ("round-00/judgments",)
    assert values(again.run) == {name: -float(len(text)) for name, text in answers.items()}


def test_a_function_that_is_not_there_is_said_before_the_run_folder_exists(
    small_run: SmallRun, module: Callable[[str], None], tmp_path: Path
) -> None:
    module("def scores(prompt, response):\n    return 1\n")
    with pytest.raises(RecipeError) as raised:
        small_run("judgments.judge={type: python, function: 'scores_of_mine:score'}", "evaluation.suite=null")
    assert str(raised.value) == (
        "recipe loop.tiny: judgments: judge.function is 'scores_of_mine:score', but scores_of_mine has no function "
        "score. It has scores."
    )
    assert not (tmp_path / "run").exists()
