"""What a call says it reuses, and why it runs steps again."""

import shutil
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from prefloop.errors import DataError
from prefloop.loop import RunResult
from prefloop.loop.forecast import as_written
from prefloop.loop.journal import FILE, Journal

pytestmark = pytest.mark.long

SmallRun = Callable[..., RunResult]


@pytest.fixture
def says(small_run: SmallRun, capfd: pytest.CaptureFixture[str]) -> Callable[..., Sequence[str]]:
    """Runs the small recipe and returns what it said between naming the model and the first step."""

    def call(*overrides: str, **options: str) -> Sequence[str]:
        capfd.readouterr()
        small_run(*overrides, **options)
        lines = [line.strip() for line in capfd.readouterr().err.splitlines()]
        return [line for line in lines if not line.startswith("model:") and not line.endswith(" s")]

    return call


def test_a_new_run_reuses_nothing_and_says_nothing(says: Callable[..., Sequence[str]]) -> None:
    assert says(until="pairs") == []


def test_an_unchanged_run_says_how_far_it_is(says: Callable[..., Sequence[str]]) -> None:
    says(until="pairs")

    assert says() == ["reuses 7 finished steps, up to round-00/pairs"]


def test_a_changed_setting_is_named_with_both_values_and_its_readers_are_counted(
    says: Callable[..., Sequence[str]],
) -> None:
    says()

    assert says("policy.learning_rate=2e-4", "policy.objective.beta=0.2") == [
        "reuses 8 finished steps, up to round-00/policy-tokens",
        "round-00/policy runs again: objective.beta default -> 0.2, learning_rate 0.001 -> 2e-4",
        "round-00/evaluation-samples runs again: it reads round-00/policy",
        "... and 3 steps that read what runs again",
        "what they replace stays in superseded/",
    ]


def test_a_value_set_back_finds_the_old_results(says: Callable[..., Sequence[str]]) -> None:
    says()
    says("policy.learning_rate=2e-4")

    assert says() == [
        "reuses 13 finished steps, up to round-00/summary.json",
        "5 of them from before a change that is taken back, round-00/policy first",
    ]


def test_what_lies_behind_until_is_not_announced(says: Callable[..., Sequence[str]]) -> None:
    says()

    assert says("pairs.min_margin=0.1", until="pairs") == [
        "reuses 6 finished steps, up to round-00/judgments",
        "round-00/pairs runs again: min_margin default -> 0.1",
        "what they replace stays in superseded/",
    ]


def test_another_seed_is_one_line(says: Callable[..., Sequence[str]]) -> None:
    says(until="samples")

    assert says("seed=3", until="samples") == [
        "setup/evaluation-prompts and 4 more run again: seed 0 -> 3",
        "what they replace stays in superseded/",
    ]


def test_a_changed_outside_file_is_named(says: Callable[..., Sequence[str]], tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(f'{{"prompt": "How is the weather in {city}?"}}\n' for city in "ABCDEF"))
    prompts = f"prompts={{data: {file}}}"
    says(prompts, until="samples")
    file.write_text(file.read_text().replace("weather", "food"))

    assert says(prompts, until="samples") == [
        "reuses 3 finished steps, up to setup/evaluation-initial-judgments",
        f"round-00/prompts runs again: data {file} changed",
        "round-00/samples runs again: it reads round-00/prompts",
        "what they replace stays in superseded/",
    ]


def test_a_deleted_folder_is_missing_and_what_read_it_stays(
    says: Callable[..., Sequence[str]], small_run: SmallRun
) -> None:
    shutil.rmtree(small_run(until="pairs").run / "round-00" / "samples")

    assert says(until="pairs") == [
        "reuses 6 finished steps, up to round-00/pairs",
        "round-00/samples runs again: missing",
    ]


def test_a_damaged_file_is_named_when_it_is_read(says: Callable[..., Sequence[str]], small_run: SmallRun) -> None:
    run = small_run(until="samples").run
    with (run / "round-00" / "samples" / "part-00000.jsonl").open("a") as shard:
        shard.write("\n")

    assert says(until="judgments") == [
        "reuses 5 finished steps, up to round-00/samples",
        "round-00/samples runs again: part-00000.jsonl is damaged",
    ]


def test_more_rounds_only_add(says: Callable[..., Sequence[str]]) -> None:
    says()

    assert says("rounds=2") == ["reuses 13 finished steps, up to round-00/summary.json"]


def test_a_journal_without_ingredients_is_an_older_versions_until_its_steps_are_seen_again(
    says: Callable[..., Sequence[str]], small_run: SmallRun
) -> None:
    run = small_run(until="samples").run
    with sqlite3.connect(run / FILE) as connection:
        connection.execute("alter table artifacts drop column made_from")

    assert says("samples.temperature=0.5", until="samples") == [
        "reuses 4 finished steps, up to round-00/prompts",
        "round-00/samples runs again: an older version made it and kept no list of what it was made from",
        "what they replace stays in superseded/",
    ]
    prompts = Journal(run, read_only=True).at("round-00/prompts")
    assert prompts is not None
    assert prompts.made_from is not None
    assert prompts.made_from["settings"]["data"] == "everyday"


@pytest.mark.parametrize(
    ("value", "text"),
    [(3e-4, "3e-4"), (0.001, "0.001"), (2.5e-7, "2.5e-7"), (5e6, "5e6"), (0.0, "0.0"), (None, "null"), ("a", "a")],
)
def test_numbers_are_written_as_people_write_them(value: object, text: str) -> None:
    assert as_written(value) == text


def test_a_journal_that_a_crash_left_empty_is_one_line(tmp_path: Path) -> None:
    (tmp_path / FILE).touch()

    with pytest.raises(DataError, match=r"not a journal \(it has no table of artifacts\)\. Move the run folder away"):
        Journal(tmp_path, read_only=True)
