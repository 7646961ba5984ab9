"""The evaluation of a round on the smallest real run."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefloop.config import load_recipe
from prefloop.errors import DataError, RecipeError
from prefloop.evaluation import FrontierSettings, evaluate_frontier
from prefloop.loop import RunResult
from prefloop.records import Judgment, Prompt, Response, read_folder, write_records
from prefloop.report.frontier_read import measured_rounds, samples_of


def board(run: Path, number: int = 0) -> Mapping[str, Any]:
    return json.loads((run / f"round-{number:02d}/evaluation.json").read_text())


@pytest.mark.parametrize(
    ("lora", "start"), [("", 1e-3), ("policy.lora={r: 4, alpha: 8}", 1e-2)], ids=["all weights", "adapter"]
)
def test_kl_is_between_the_policy_that_answered_and_the_initial_one(
    small_run: Callable[..., RunResult], lora: str, start: float
) -> None:
    """The sampler says log pi of every answer on its own; the policy's own reading of them agrees to rounding."""
    run = small_run(*filter(None, (f"policy.learning_rate={start}", "policy.epochs=3", lora))).run
    kl = board(run)["kl"]
    answers = list(read_folder(run / "round-00/evaluation-samples", Response))
    assert kl["n"] == len(answers) == 5
    assert kl["value"] > 1e-4
    assert kl["by_prompt"].keys() == {one.prompt_id for one in answers}
    assert np.mean(list(kl["by_prompt"].values())) == pytest.approx(kl["value"])
    assert kl["k3"]["value"] > 0
    assert kl["k1"]["interval"][0] < kl["value"] < kl["k1"]["interval"][1]
    assert kl["cut"] == 1 - board(run)["finish_rate"]["value"]


@pytest.mark.slow
def test_an_untrained_policy_is_at_no_distance(small_run: Callable[..., RunResult]) -> None:
    kl = board(small_run("policy.learning_rate=1e-30").run)["kl"]
    assert (kl["value"], kl["k1"]["value"], kl["k3"]["value"]) == (0.0, 0.0, 0.0)


LONGER = "{type: python, compares: true, function: 'prefloop.testing.judges:longer'}"
FIRST = "{type: python, compares: true, function: 'prefloop.testing.judges:always_first'}"
COUNTS = ("win_rate", "length_controlled_winrate", "n_wins", "n_wins_base", "n_draws", "n")


def strong_answers(run: Path, file: Path) -> Path:
    """Answers on file to every held-out prompt of a run."""
    given = [
        Response(
            response_id=f"strong-{number}",
            prompt_id=one.prompt_id,
            root_id=one.root_id,
            step="given",
            text="word " * (9 + number),
            finish_reason="given",
        )
        for number, one in enumerate(read_folder(run / "setup/evaluation-prompts", Prompt))
    ]
    write_records(file, given)
    return file


def test_a_judge_of_two_meets_initial_previous_and_pool(small_run: Callable[..., RunResult], tmp_path: Path) -> None:
    """By length in characters, counted again here; answers of opponents are sampled once, and asked in both orders."""
    judge = f"evaluation.judge={LONGER}"
    strong = strong_answers(small_run(judge).run, tmp_path / "strong.jsonl")
    run = small_run(judge, f"evaluation.pool={{strong: {strong}}}", "rounds=2").run
    folders = {"initial": "setup/evaluation-initial", "previous": "round-00/evaluation-samples"}
    folders["pool"] = "setup/evaluation-pool-strong"
    ours = {one.prompt_id: one for one in read_folder(run / "round-01/evaluation-samples", Response)}
    for opponent, folder in folders.items():
        met = [(len(ours[one.prompt_id].text), len(one.text)) for one in read_folder(run / folder, Response)]
        found = board(run, 1)["against"][opponent]["judge"]
        assert (found["n_wins"], found["n_wins_base"]) == (sum(a > b for a, b in met), sum(a < b for a, b in met))
        assert found["n"] == len(met) == 5
        asked = list(
            read_folder(run / f"round-01/evaluation-{opponent.replace('pool', 'pool-strong')}-compared", Judgment)
        )
        assert len(asked) == 2 * 5
        assert {one.subjects for one in asked} == {one.subjects[::-1] for one in asked}
    assert board(run, 1)["against"]["pool"]["judge"]["members"]["strong"]["n"] == 5
    assert board(run, 1)["score"] == {}
    assert len(list(run.rglob("evaluation-initial"))) == 1
    assert not list(read_folder(run / "round-00/evaluation-previous-compared", Judgment))
    assert not board(run)["against"]["previous"].keys() - {"judge"}


def test_rounds_are_compared_in_both_turns(small_run: Callable[..., RunResult], tmp_path: Path) -> None:
    """The second by all that came of the first question, of the round's policy and of each opponent, in both orders."""
    rows = [{"question_id": n, "category": "c", "turns": [f"How are you, {n}?", "And then?"]} for n in range(4)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "two.yaml").write_text("prompts: q.jsonl\nturns: 2\nmax_new_tokens: 16\n")
    said = ("evaluation.count=4", f"evaluation.judge={LONGER}", f"evaluation.suite={tmp_path / 'two.yaml'}", "rounds=2")
    run = small_run(*said).run
    ours = [read_folder(run / f"round-01/evaluation-samples{turn}", Response) for turn in ("", "-2")]
    first, second = ({one.root_id: one.text for one in turn} for turn in ours)
    for opponent, folder in (("initial", run / "setup"), ("previous", run / "round-00")):
        name = "evaluation-initial" if opponent == "initial" else "evaluation-samples"
        theirs = [
            {one.root_id: one.text for one in read_folder(folder / f"{name}{turn}", Response)} for turn in ("", "-2")
        ]
        gaps = [len(first[root]) - len(theirs[0][root]) for root in first]
        gaps += [gap + len(second[root]) - len(theirs[1][root]) for gap, root in zip(gaps, first, strict=True)]
        found = board(run, 1)["against"][opponent]["judge"]
        assert (found["n"], found["n_wins"], found["n_wins_base"]) == (
            8,
            *(sum(s * g > 0 for g in gaps) for s in (1, -1)),
        )


def test_rounds_are_points_of_a_frontier(small_run: Callable[..., RunResult]) -> None:
    """KL and reward of each round as its evaluation has them; initial answers give best-of-n."""
    run = small_run("evaluation.num_samples=2", "evaluation.judge={type: vader, length_bias: 0.02}").run
    for by in ("judge", "truth"):
        measured = list(measured_rounds([("m", run)], "score", by))
        found = evaluate_frontier(measured, FrontierSettings())["methods"]["m"]["points"]
        assert list(found) == ["run/initial", "run/round 1"]
        assert found["run/round 1"]["kl"]["value"] == pytest.approx(board(run)["kl"]["value"])
        assert found["run/round 1"]["reward"]["value"] == pytest.approx(board(run)["score"][by]["mean"])
        assert found["run/initial"]["reward"]["value"] == pytest.approx(board(run)["score"][by]["initial"])
    won = list(measured_rounds([(None, run)], "win_rate", "truth"))
    assert {one.method for one in won} == {"loop.tiny"}
    rates = [one.reward for one in won if one.point == "round 1"]
    assert np.mean(rates) == pytest.approx(board(run)["against"]["initial"]["truth"]["win_rate"])
    assert {len(scores) for scores in samples_of(run, "truth").values()} == {2}
    with pytest.raises(DataError, match=r"nobody called people judged it\. Known: judge, truth"):
        list(measured_rounds([(None, run)], "score", "people"))


@pytest.mark.slow
def test_a_judge_of_places_is_left_with_draws_and_the_gate_accepts(small_run: Callable[..., RunResult]) -> None:
    run = small_run(f"evaluation.judge={FIRST}").run
    found = board(run)["against"]["initial"]["judge"]
    assert (found["win_rate"], found["n_draws"], found["n"]) == (50.0, 5, 5)
    assert json.loads((run / "round-00/summary.json").read_text())["decision"] == "accepted"
    with pytest.raises(DataError, match=r"its judge compares and gives no scores\. Take the win rate: --reward"):
        list(measured_rounds([(None, run)], "score", "judge"))
    assert len(list(measured_rounds([(None, run)], "win_rate", "judge"))) == 10


@pytest.mark.slow
def test_a_judge_of_single_answers_may_be_asked_to_compare_and_keeps_its_truth(
    small_run: Callable[..., RunResult],
) -> None:
    judge = "evaluation.judge={type: vader, length_bias: 0.02}"
    two, one = (
        board(small_run(judge, f"evaluation.compares={compares}", name=compares).run)["against"]["initial"]
        for compares in ("true", "false")
    )
    for who in ("judge", "truth"):
        assert {key: two[who][key] for key in COUNTS} == {key: one[who][key] for key in COUNTS}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            ["evaluation.compares=true", "evaluation.judge=arithmetic_steps"],
            "cannot be compared: set compares to false",
        ),
    ],
)
def test_what_cannot_be_compared_is_said(changes: list[str], said: str) -> None:
    with pytest.raises(RecipeError, match=said) as error:
        load_recipe("loop.tiny", changes)
    assert "\n" not in str(error.value)
