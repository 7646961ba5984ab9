"""Runs side by side: hand-counted run folders, real files, exact numbers."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from prefloop.cli.compare import compare_command
from prefloop.errors import DataError
from prefloop.evaluation import Answers, scoreboard
from prefloop.records import Judgment, Message, Prompt, Response, RoundSummary, write_records
from prefloop.report import (
    RunComparison,
    comparison_caveats,
    comparison_meaning,
    comparison_table,
    read_comparison,
    write_comparison,
)
from prefloop.report.compare_arms import arms_of
from prefloop.report.compare_read import read_runs
from prefloop.report.figures import interval
from prefloop.statistics import AnswerKl

DETECTABLE = 2.8015852  # z_0.975 + z_0.8


@dataclass(frozen=True)
class Said:
    """One answer: its tokens and what judge and truth gave it."""

    tokens: int
    judge: float
    truth: float
    finished: bool = True


@dataclass(frozen=True)
class Made:
    """A run to be written: answers by prompt, of the initial model and of each round."""

    initial: Sequence[Sequence[Said]]
    rounds: Sequence[Sequence[Sequence[Said]]]
    decisions: Sequence[str] = ("accepted",)
    name: str = "quickstart"
    seed: int = 0
    settings: dict[str, Any] | None = None
    truth: bool = True
    judge: str = "biased"
    suite: str = "question"


def one(*answers: tuple[int, float, float]) -> list[list[Said]]:
    """One answer a prompt."""
    return [[Said(*answer)] for answer in answers]


INITIAL = one((10, 0.5, 0.5), (20, 0.5, 0.5), (30, 0.5, 0.5))
FITTED = Made(INITIAL, [one((20, 0.9, 0.9), (20, 0.1, 0.1), (20, 0.5, 0.5))])
"""Against the initial answers 1, 0, 1/2 by both; at 60/60 of their length."""
PLAIN = Made(INITIAL, [one((40, 0.9, 0.9), (40, 0.9, 0.9), (40, 0.9, 0.1))], name="quickstart_plain")
"""1, 1, 0 by the truth; 1, 1, 1 by the judge; at 120/60 of their length."""


def write_run(run: Path, made: Made) -> Path:
    recipe = {
        "name": made.name,
        "seed": made.seed,
        "rounds": len(made.rounds),
        "policy": {"type": "train", "objective": {"name": made.name}},
        **(made.settings or {}),
    }
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    initial = write_answers(run / "setup", "evaluation-initial", "evaluation-initial", made.initial, made)
    for number, (answers, decision) in enumerate(zip(made.rounds, made.decisions, strict=True)):
        folder = run / f"round-{number:02d}"
        ours = write_answers(folder, "evaluation-samples", "evaluation", answers, made)
        board = scoreboard(
            ours, {"initial": initial}, [AnswerKl(0.5, 0.5, 0.5)] * len(ours.responses), seed=0, resamples=100
        )
        (folder / "evaluation.json").write_text(json.dumps(board), encoding="utf-8")
        (folder / "summary.json").write_text(summary(number, decision).model_dump_json(), encoding="utf-8")
    return run


def write_answers(folder: Path, step: str, stem: str, answers: Sequence[Sequence[Said]], made: Made) -> Answers:
    judges = {"judge": ("judgments", made.judge), **({"truth": ("truth", "true")} if made.truth else {})}
    responses: list[Response] = []
    scores: dict[str, dict[str, float]] = {judge: {} for judge in judges}
    for number, said in enumerate(answers):
        prompt = Prompt.of((Message(role="user", content=f"{made.suite} {number}"),)).prompt_id
        for index, answer in enumerate(said):
            name = f"{prompt}-{index}"
            responses.append(
                Response(
                    response_id=name,
                    prompt_id=prompt,
                    root_id=prompt,
                    step=step,
                    text="a" * answer.tokens,
                    token_ids=tuple(range(answer.tokens)),
                    finish_reason="stop" if answer.finished else "length",
                    index=index,
                )
            )
            for judge, given in scores.items():
                given[name] = answer.judge if judge == "judge" else answer.truth
    write_records(folder / step / "part-00000.jsonl", responses)
    for judge, (suffix, called) in judges.items():
        write_records(
            folder / f"{stem}-{suffix}" / "part-00000.jsonl",
            [Judgment(judge=called, kind="score", subjects=(name,), values=(v,)) for name, v in scores[judge].items()],
        )
    return Answers(tuple(responses), scores)


def summary(number: int, decision: str) -> RoundSummary:
    return RoundSummary.model_validate(
        {
            "round": number,
            "decision": decision,
            "reasons": [],
            "policies": {"initial": "a" * 64, "round_start": "b" * 64, "current": f"{number}" * 64},
            "counts": {},
            "training": {},
            "evaluation": {},
            "judges": [],
            "alerts": [],
        }
    )


def compared(tmp_path: Path, *runs: Made) -> RunComparison:
    """The comparison of runs in the folders run-0, run-1, ..."""
    return read_comparison([write_run(tmp_path / f"run-{number}", made) for number, made in enumerate(runs)])


def test_two_runs_give_the_numbers_that_are_counted_by_hand(tmp_path: Path) -> None:
    comparison = compared(tmp_path, FITTED, PLAIN)

    fitted, plain = comparison.arms
    assert fitted.last.truth is not None
    assert plain.last.truth is not None
    assert plain.last.judge is not None
    assert fitted.last.truth.value == pytest.approx(50)
    assert plain.last.truth.value == pytest.approx(200 / 3)
    assert plain.last.judge.value == pytest.approx(100)
    assert (fitted.last.length.value, plain.last.length.value) == pytest.approx((1.0, 2.0))
    assert plain.judge_over_truth is not None
    assert plain.judge_over_truth.value == pytest.approx(100 / 3)
    (against,) = comparison.against
    truth, length = against.differences["truth"], against.differences["length"]
    # by prompt: 0, 1, -1/2 of a win more; mean 1/6, standard deviation sqrt(7/12)
    assert truth.estimate.value == pytest.approx(100 / 6)
    assert truth.estimate.standard_error == pytest.approx(100 * (7 / 12) ** 0.5 / 3**0.5)
    assert truth.detectable == pytest.approx(DETECTABLE * 100 * (7 / 12) ** 0.5 / 3**0.5, rel=1e-6)
    assert length.estimate.value == pytest.approx(1.0)
    # 0.9 against 0.9, 0.9 against 0.1, 0.1 against 0.5
    assert against.duels["truth"].value == pytest.approx(50)
    assert against.duels["judge"].value == pytest.approx(100 * 2.5 / 3)
    assert (against.prompts, against.left_out, against.seeds) == (3, 0, (0,))


def test_every_sample_meets_every_sample_and_seeds_are_pooled_by_prompt(tmp_path: Path) -> None:
    two = Made([[Said(10, 0.5, 0.5), Said(10, 0.7, 0.7)]] * 2, [[[Said(10, 0.6, 0.6), Said(20, 0.9, 0.9)]] * 2])
    other = Made(INITIAL[:2], [one((20, 0.9, 0.9), (40, 0.9, 0.9))], seed=1)

    (arm,) = compared(tmp_path, two, other).arms

    assert arm.last.truth is not None
    # per prompt: 0.6 wins one of two, 0.9 both: 3 of 4 in seed 0; 1 of 1 in seed 1
    assert arm.last.truth.value == pytest.approx(100 * (3 + 3 + 1 + 1) / 10)
    assert arm.last.truth.n == 10
    # tokens: (10 + 20) * 2 + 20 + 40 over 6 answers; initially 10 * 4 + 10 + 20 over 6
    assert arm.last.length.value == pytest.approx(120 / 70)
    assert [(seed.seed, seed.measured.truth and seed.measured.truth.value) for seed in arm.seeds] == [
        (0, pytest.approx(75)),
        (1, pytest.approx(100)),
    ]
    # every answer says half a nat, exactly
    assert arm.last.kl is not None
    assert (arm.last.kl.value, arm.last.kl.standard_error) == (pytest.approx(0.5), pytest.approx(0.0, abs=1e-12))


def test_the_order_in_which_runs_are_named_changes_no_number(tmp_path: Path) -> None:
    made = [FITTED, PLAIN, replace(FITTED, seed=3, rounds=PLAIN.rounds), replace(PLAIN, seed=3)]
    runs = [write_run(tmp_path / f"run-{number}", one) for number, one in enumerate(made)]

    dump = TypeAdapter(RunComparison).dump_json
    in_order = dump(read_comparison(runs))

    assert dump(read_comparison([runs[2], runs[3], runs[1], runs[0]])) == in_order
    assert json.loads(in_order)["against"][0]["seeds"] == [0, 3]


def test_an_arm_that_another_one_only_adds_to_is_named_without_trying_all_subsets(tmp_path: Path) -> None:
    many = [{f"setting_{key}": value for key in range(40)} for value in (0, 1)]
    settings = [many[0], many[1], {**many[0], "more": 1}]

    runs = [write_run(tmp_path / str(number), replace(FITTED, settings=one)) for number, one in enumerate(settings)]
    arms = arms_of(read_runs(runs))

    assert [arm.label for arm in arms] == ["quickstart", "setting_0 1", "more 1"]


def test_the_result_of_a_run_whose_last_round_was_rolled_back_is_the_last_accepted_one(tmp_path: Path) -> None:
    better, worse = FITTED.rounds[0], one((90, 0.0, 0.0), (90, 0.0, 0.0), (90, 0.0, 0.0))
    made = replace(FITTED, rounds=[better, worse], decisions=["accepted", "rolled_back"])

    comparison = compared(tmp_path, made)

    (arm,) = comparison.arms
    assert arm.seeds[0].last_accepted == 0
    assert arm.last.length.value == pytest.approx(1.0)
    assert [(one.label, one.refused, one.measured.length.value) for one in arm.rounds] == [
        ("1", (), pytest.approx(1.0)),
        ("2", (0,), pytest.approx(4.5)),
    ]
    assert comparison_caveats(comparison) == (
        "quickstart: round 2 was not accepted; the plots show it (†), the result does not.",
    )


def test_a_run_without_an_accepted_round_counts_as_its_initial_model(tmp_path: Path) -> None:
    comparison = compared(tmp_path, replace(FITTED, decisions=["stopped"]), PLAIN)

    stopped = comparison.arms[0]
    assert stopped.last.truth is not None
    assert (stopped.last.truth.value, stopped.last.length.value) == (50, 1)
    assert stopped.last.kl is not None
    assert stopped.last.kl.value == 0
    assert comparison.against[0].differences["length"].estimate.value == pytest.approx(1.0)
    assert comparison_meaning(comparison)[0] == (
        "quickstart: no round was accepted, so it stands where it began, on its initial model."
    )


def test_a_run_in_its_second_round_is_compared_by_its_first(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", replace(FITTED, settings={"rounds": 3}))
    (run / "round-01").mkdir()

    comparison = read_comparison([run])

    assert comparison_caveats(comparison) == (
        "quickstart: 1 of 3 rounds with answers so far, of which the last accepted one is counted.",
    )


def test_without_a_truth_the_judge_with_length_controlled_makes_the_claim(tmp_path: Path) -> None:
    comparison = compared(tmp_path, replace(FITTED, truth=False), replace(PLAIN, truth=False))

    assert comparison.arms[0].last.truth is None
    assert comparison.arms[0].judge_over_truth is None
    assert set(comparison.against[0].differences) == {"judge", "length"}
    assert "by the judge with length controlled" in comparison_meaning(comparison)[0]
    assert not [line for line in comparison_table(comparison).lines if "truth" in line[0]]


def test_arms_without_a_common_seed_are_paired_by_prompt_only(tmp_path: Path) -> None:
    comparison = compared(tmp_path, FITTED, replace(PLAIN, seed=1), replace(PLAIN, seed=2))

    (against,) = comparison.against
    assert against.seeds == ()
    assert against.duels["truth"].n == 6  # the first arm's answer to each prompt meets two
    assert against.differences["truth"].estimate.value == pytest.approx(100 / 6)
    assert against.seeds_apart == 0
    assert "quickstart_plain is paired with quickstart on the same 3 prompts only, as they have no seed in common." in (
        comparison_caveats(comparison)
    )


def test_only_common_seeds_and_prompts_enter_a_difference(tmp_path: Path) -> None:
    more = replace(FITTED, seed=1, rounds=[one((90, 0, 0), (90, 0, 0), (90, 0, 0))])
    fewer = replace(PLAIN, initial=PLAIN.initial[:2], rounds=[PLAIN.rounds[0][:2]])

    comparison = compared(tmp_path, FITTED, more, fewer)

    (against,) = comparison.against
    assert (against.prompts, against.left_out, against.seeds) == (2, 1, (0,))
    # 1, 1 of plain against 1, 0 of seed 0
    assert against.differences["truth"].estimate.value == pytest.approx(50)
    # 80 tokens over 30 initially, minus 40 over 30
    assert against.differences["length"].estimate.value == pytest.approx(4 / 3)
    assert comparison_caveats(comparison)[-2:] == (
        "quickstart_plain is paired with quickstart on the same 2 prompts and seed 0; "
        "seeds that only one of them has enter its own figures alone.",
        "1 prompt that only one of quickstart_plain and quickstart answered: left out of their difference.",
    )


def test_scores_of_different_judges_are_not_compared(tmp_path: Path) -> None:
    comparison = compared(tmp_path, FITTED, replace(PLAIN, judge="more biased"))

    assert set(comparison.against[0].differences) == {"truth", "length"}
    assert set(comparison.against[0].duels) == {"truth"}
    assert comparison_caveats(comparison)[-1] == (
        "quickstart_plain and quickstart were not scored by the same judge (judge), "
        "so differences and duels by it would mean nothing and are left out."
    )


def test_several_arms_are_compared_with_the_first_and_nothing_is_adjusted(tmp_path: Path) -> None:
    comparison = compared(tmp_path, FITTED, PLAIN, replace(PLAIN, name="third"))

    assert [(one.arm, one.first) for one in comparison.against] == [
        ("quickstart_plain", "quickstart"),
        ("third", "quickstart"),
    ]
    assert "with a probability of up to 10 %, for each measure." in comparison_caveats(comparison)[-1]


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        (({"policy": {"lr": 1}}, {"policy": {"lr": 2}}), ["quickstart, lr 1", "quickstart, lr 2"]),
        (
            (
                {"policy": {"objective": {"name": "dpo"}}},
                {"policy": {"objective": {"name": "lr", "alpha": {"fitted": 0.5}}}},
            ),
            ["quickstart, objective dpo", "quickstart, objective lr"],
        ),
        (({}, {"gate": {"require": "better"}}), ["quickstart, require not set", "quickstart, require better"]),
        (
            ({"a": {"count": 1}, "b": {"count": 2}}, {"a": {"count": 2}, "b": {"count": 1}}),
            ["quickstart, a.count 1", "quickstart, a.count 2"],
        ),
        (
            ({"samples": {"temperature": {"by_round": [1, 0.7]}}}, {"samples": {"temperature": 1}}),
            ["quickstart, temperature 1, 0.7 by round", "quickstart, temperature 1"],
        ),
    ],
)
def test_arms_of_one_recipe_are_named_by_what_differs(
    tmp_path: Path, settings: tuple[dict[str, Any], ...], names: list[str]
) -> None:
    runs = [write_run(tmp_path / f"run-{n}", replace(FITTED, settings=one)) for n, one in enumerate(settings)]

    arms = arms_of(read_runs(runs))

    assert [arm.name for arm in arms] == names
    assert [arm.label for arm in arms] == [name.removeprefix("quickstart, ") for name in names]


def test_of_many_arms_each_has_a_line_on_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = [replace(FITTED, settings={"objective": {"alpha": alpha}}) for alpha in (0.1, 0.2, 0.3)]
    made.append(PLAIN)
    runs = [write_run(tmp_path / str(number), one) for number, one in enumerate(made)]
    compare_command(runs, None)
    lines = capsys.readouterr().out.splitlines()
    heading = next(number for number, line in enumerate(lines) if line.startswith(" arm "))
    arms = [line.strip().split("  ")[0] for line in lines[heading + 2 : heading + 6]]
    assert arms == ["quickstart", "quickstart, alpha 0.2", "quickstart, alpha 0.3", "quickstart_plain"]


def test_what_a_name_leaves_out_is_said_beside_it(tmp_path: Path) -> None:
    fitted = {"policy": {"objective": {"name": "lr", "alpha": "fitted"}, "lr": 0.5}}
    plain = {"policy": {"objective": {"name": "dpo"}, "lr": 0.5}}

    comparison = compared(tmp_path, replace(FITTED, settings=plain), replace(FITTED, settings=fitted))

    assert comparison.arms[1].name == "quickstart, objective lr"
    assert comparison_caveats(comparison)[0] == ("objective lr also differs in what its name leaves out: alpha fitted.")


def test_runs_that_differ_only_in_what_decides_nothing_are_one_arm(tmp_path: Path) -> None:
    policy = {"type": "train", "objective": {"name": "dpo"}}
    first = replace(FITTED, settings={"policy": policy, "title": "First", "machine": {"threads": 1}})
    second = replace(FITTED, seed=1, name="copy", settings={"policy": policy, "paper": "arXiv:2305.18290"})

    arms = arms_of(read_runs([write_run(tmp_path / "second", second), write_run(tmp_path / "first", first)]))

    assert [(arm.name, [run.seed for run in arm.runs]) for arm in arms] == [("quickstart", [0, 1])]


def test_suites_without_a_common_prompt_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as refused:
        compared(tmp_path, FITTED, replace(PLAIN, suite="riddle"))

    assert str(refused.value) == (
        f"{tmp_path}/run-1: none of its 3 held-out prompts is among the 3 of {tmp_path}/run-0, so nothing can be "
        "paired. Compare runs that were evaluated on the same suite."
    )


def test_a_run_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", FITTED)

    with pytest.raises(DataError) as refused:
        read_comparison([run, tmp_path / "run/../run"])

    assert str(refused.value) == f"{tmp_path}/run/../run: named twice. Name every run once."


def test_a_seed_that_would_count_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as refused:
        compared(tmp_path, FITTED, FITTED)

    assert str(refused.value) == (
        f"{tmp_path}/run-1: the same recipe and the same seed (0) as {tmp_path}/run-0, so its answers would count "
        "twice. Name only one of them."
    )


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as refused:
        read_comparison([tmp_path])

    assert str(refused.value) == (
        f"{tmp_path}: no recipe.yaml in it, so this is not a run folder. "
        "Name the folder that `prefloop run` made, e.g. runs/quickstart."
    )


def test_runs_that_have_nothing_to_compare_say_why(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", FITTED)
    samples = run / "round-00/evaluation-samples/part-00000.jsonl"
    for file, message in (
        (samples, "round-00 is its last accepted round, and its evaluation-samples are missing."),
        (run / "round-00/evaluation.json", "round-00 was not evaluated, so there is nothing to compare."),
        (run / "round-00/summary.json", "no round of it has ended yet."),
    ):
        file.unlink()
        with pytest.raises(DataError, match=re.escape(f"{run}: {message}")):
            read_comparison([run])


def test_answers_of_a_refused_round_may_be_gone(tmp_path: Path) -> None:
    made = replace(FITTED, rounds=[FITTED.rounds[0]] * 2, decisions=["accepted", "rolled_back"])
    run = write_run(tmp_path / "run", made)
    (run / "round-01/evaluation-samples/part-00000.jsonl").unlink()

    (arm,) = read_comparison([run]).arms

    assert [one.label for one in arm.rounds] == ["1"]


def test_a_length_controlled_rate_that_could_be_anything_is_said_to_be(tmp_path: Path) -> None:
    initial = one(*((20, 0.5 + 0.001 * number, 0.5) for number in range(60)))
    longer = one(*((40 + number, 0.9 if number else 0.1, 0.5) for number in range(60)))

    (arm,) = (comparison := compared(tmp_path, Made(initial, [longer]))).arms

    assert arm.last.controlled is not None
    assert comparison_caveats(comparison) == (
        "quickstart: its answers are so often the longer ones that length and quality can hardly be told apart: "
        f"the length-controlled win rate may lie anywhere in {interval(arm.last.controlled, 1)} %.",
    )


def test_the_command_prints_one_table_writes_one_page_and_gives_every_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, made in (("fitted", FITTED), ("plain", PLAIN)):
        write_run(tmp_path / "runs" / name, made)
    monkeypatch.chdir(tmp_path)

    result = compare_command([Path("runs/fitted"), Path("runs/plain")], None)

    printed = capsys.readouterr().out
    assert "difference that could have been detected, points" in printed
    assert "comparison: runs/compare/index.html" in printed
    assert result["against"][0]["differences"]["truth"]["estimate"]["value"] == pytest.approx(100 / 6)
    assert result["arms"][1]["rounds"][0]["measured"]["length"]["value"] == pytest.approx(2)
    page = (tmp_path / "runs/compare/index.html").read_text(encoding="utf-8")
    assert "prefloop compare runs/fitted runs/plain" in page
    assert "80 % power" in page
    assert not re.search(r"<script|src=|https?://|@import|url\(", page)
    json.dumps(result, allow_nan=False)


def test_names_from_a_recipe_are_text_on_the_page_and_folders_of_the_machine_are_not(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", replace(FITTED, name="<b>bold</b>"))
    comparison = read_comparison([run])

    first = write_comparison(comparison, [run], tmp_path / "a/page.html").read_bytes()
    again = write_comparison(comparison, [run], tmp_path / "page.html").read_bytes()

    assert first == again
    assert b"<b>bold" not in first
    assert b"&lt;b&gt;bold" in first
    assert str(tmp_path).encode() not in first


def test_one_prompt_gives_numbers_and_claims_nothing(tmp_path: Path) -> None:
    first = replace(FITTED, initial=INITIAL[:1], rounds=[FITTED.rounds[0][:1]])
    comparison = compared(tmp_path, first, replace(PLAIN, initial=INITIAL[:1], rounds=[PLAIN.rounds[0][:1]]))

    assert comparison.against[0].differences["truth"].detectable is None
    assert "without an interval, this may be chance" in comparison_meaning(comparison)[0]
    page = write_comparison(comparison, [tmp_path], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "nan" not in page.lower()
