"""Data in a run: nothing that lint refuses is used, evaluation prompts stay out, and --strict stops before anything."""

import json
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from prefloop.cli.run import run_command
from prefloop.config import DataStep, LoadedRecipe, load_recipe
from prefloop.data import Reading, find_source
from prefloop.errors import CheckFailedError
from prefloop.loop import Progress, run_recipe
from prefloop.loop.journal import Journal
from prefloop.loop.reading import held_out, left_out, reading_of, require_clean, sources_of
from prefloop.policy import ChatCodec, resolve_model


def written(folder: Path, *rows: dict[str, Any], name: str = "pairs.jsonl") -> Path:
    file = folder / name
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return file


def pair(number: int, **columns: object) -> dict[str, Any]:
    return {
        "prompt": f"What comes after {number}?",
        "chosen": f"It is {number + 1}.",
        "rejected": "I do not know.",
        **columns,
    }


def offline(data: Path, *overrides: str) -> LoadedRecipe:
    """Pairs without an evaluation, unless the overrides bring one."""
    return load_recipe("dpo.tiny", [f"data.source={data}", *(overrides or ("evaluation.suite=null",))])


EVALUATED = "evaluation.suite=everyday"


def codec() -> ChatCodec:
    return ChatCodec.load(resolve_model("builtin:tiny").directory, {})


def heldout_question() -> str:
    return next(iter(Reading(find_source("everyday:heldout")))).prompt.messages[-1].content


def test_a_clean_set_passes(tmp_path: Path) -> None:
    require_clean(offline(written(tmp_path, pair(1), pair(2))), codec())


@pytest.mark.parametrize(
    ("bad", "line"),
    [
        (pair(2, chosen=""), "1 refused (empty_text 1)"),
        (pair(1), "1 warned (duplicate_row 1)"),
    ],
)
def test_strict_fails_before_anything_is_there(tmp_path: Path, bad: dict[str, Any], line: str) -> None:
    data = written(tmp_path, pair(1), bad)

    with pytest.raises(CheckFailedError) as error:
        run_command(
            "dpo.tiny", tmp_path / "run", [f"data.source={data}", "evaluation.suite=null"], None, None, strict=True
        )

    assert error.value.exit_code == 1
    assert str(error.value) == (
        f"recipe dpo.tiny: data: --strict: pairs.jsonl: of 2 rows {line}. "
        f"`prefloop lint {data} --model builtin:tiny --max-length 2048` says more."
    )
    assert not (tmp_path / "run").exists()


def test_strict_sees_what_training_would_leave_out(tmp_path: Path) -> None:
    data = written(tmp_path, pair(1), pair(2, chosen="It is three. " * 20))
    cut = ("policy.max_length=60", "policy.truncation=cut_response")

    with pytest.raises(CheckFailedError, match=r"of 2 rows 1 refused \(too_long 1\)"):
        require_clean(offline(data, "evaluation.suite=null", "policy.max_length=60"), codec())
    with pytest.raises(CheckFailedError, match=r"of 2 rows 1 warned \(cut 1\)"):
        require_clean(offline(data, "evaluation.suite=null", *cut), codec())
    require_clean(offline(data, "evaluation.suite=null", "policy.max_length=600"), codec())


def test_strict_looks_at_prompts_too(tmp_path: Path) -> None:
    data = written(tmp_path, {"prompt": "Why?"}, {"prompt": "Why?"})

    with pytest.raises(CheckFailedError, match=r"of 2 rows 1 warned \(duplicate_row 1\)"):
        require_clean(load_recipe("loop.tiny", [f"prompts.data={data}"]), codec())


def test_a_loop_keeps_its_evaluation_prompts_out() -> None:
    recipe = load_recipe("loop.tiny", ["evaluation.suite=everyday"]).recipe

    assert held_out("prompts", recipe) == ("everyday:heldout",)
    assert held_out("evaluation-prompts", recipe) == ()
    assert held_out("prompts", load_recipe("loop.tiny", ["evaluation.suite=null"]).recipe) == ()


def test_evaluation_prompts_are_refused_in_the_data_of_an_offline_recipe(tmp_path: Path) -> None:
    data = written(tmp_path, pair(1), {**pair(2), "prompt": heldout_question()})
    loaded = offline(data, EVALUATED)

    reading = reading_of("data", find_source(str(data)), loaded.recipe)
    list(reading)

    assert reading.report.problems == {"eval_prompt": 1}
    with pytest.raises(CheckFailedError, match=r"eval_prompt 1.*--against everyday:heldout"):
        require_clean(loaded, codec())


def test_a_suite_belongs_to_the_identity_of_data_only_where_it_takes_rows_from_it(tmp_path: Path) -> None:
    clean = written(tmp_path, pair(1))
    leaky = written(tmp_path, pair(1), {**pair(2), "prompt": heldout_question()}, name="leaky.jsonl")

    def taken(data: Path, *overrides: str) -> Mapping[str, str]:
        recipe = offline(data, *overrides).recipe
        settings = recipe.step("data")
        assert isinstance(settings, DataStep)
        return left_out("data", settings, recipe)

    assert taken(clean, EVALUATED) == {}
    assert taken(leaky) == {}
    assert list(taken(leaky, EVALUATED)) == ["evaluation prompts in"]


def test_every_source_of_a_mixture_and_of_validation_is_read(tmp_path: Path) -> None:
    settings = DataStep.model_validate(
        {"type": "data", "source": [{"source": "a", "format": "f"}, {"source": "b"}], "validation": {"source": "c"}}
    )
    assert sources_of(settings) == (("a", "f"), ("b", None), ("c", None))

    good, bad = written(tmp_path, pair(1), name="good.jsonl"), written(tmp_path, pair(2), pair(2), name="bad.jsonl")
    recipe = load_recipe("dpo.tiny", [f"data.source=[{{source: {good}}}, {{source: {bad}}}]", "evaluation.suite=null"])
    with pytest.raises(CheckFailedError, match=r"--strict: bad\.jsonl: of 2 rows 1 warned"):
        require_clean(recipe, codec())


def test_a_run_leaves_out_what_is_refused_counts_it_and_keeps_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = written(tmp_path, pair(1), pair(2, chosen=""), pair(1), {**pair(4), "prompt": heldout_question()}, pair(5))
    run = tmp_path / "run"

    run_recipe(offline(data, EVALUATED, "evaluation.count=2"), run, Progress(), until="data")

    with closing(Journal(run, read_only=True)) as journal:
        entry = journal.at("round-00/data")
    assert entry is not None
    counts = {code: number for code, number in entry.counts.items() if ": " in code}
    assert counts == {"refused: empty_text": 1, "refused: eval_prompt": 1, "warned: duplicate_row": 1}
    assert entry.counts["pairs"] == 3
    kept = (run / "round-00" / "data" / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["place"] for line in kept] == ["pairs.jsonl:2", "pairs.jsonl:4"]
    assert (
        "round-00/data: pairs.jsonl: of 5 rows 2 refused (empty_text 1, eval_prompt 1), 1 warned (duplicate_row 1)\n"
    ) in capsys.readouterr().err
