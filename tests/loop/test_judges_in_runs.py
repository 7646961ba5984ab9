"""Judges of every kind as steps of a run: what is asked again, what a mistake says before the run starts."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from unittest.mock import ANY

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner

from prefloop.cli.app import app
from prefloop.config import load_recipe
from prefloop.errors import DataError, ModelError, PrefloopError, RecipeError, ResumableError
from prefloop.judging import OPEN, Answers, Ask, RewardModel, Verdict
from prefloop.loop import RunResult, plan_recipe
from prefloop.loop.journal import Journal
from prefloop.policy import ChatCodec, PolicyFiles, Workbench, resolve_model
from prefloop.records import Example, Judgment, Message, Response, read_folder
from prefloop.report.judges import judges_table
from prefloop.report.read import read_run
from prefloop.testing import CompletionsServer

from .conftest import SMALL

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


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """builtin:tiny with a head that makes a score of what it has read."""
    folder, source = tmp_path_factory.mktemp("rewards") / "tiny-reward", resolve_model("builtin:tiny").directory
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    config = AutoConfig.from_pretrained(source)
    config.num_labels = 1
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return folder


def test_a_reward_model_judges_a_round_and_its_evaluation(small_run: SmallRun, reward_model: Path) -> None:
    result = small_run(f"judgments.judge={{type: reward_model, model: {reward_model}}}")
    found = values(result.run)
    assert len(set(found.values())) > len(found) / 2
    assert None not in found.values()
    summary = json.loads((result.run / "round-00/summary.json").read_text())
    assert summary["judges"][0].startswith("reward_model:tiny-reward:")
    assert small_run(f"judgments.judge={{type: reward_model, model: {reward_model}}}").made == ()

    moved = reward_model.with_name("elsewhere").joinpath("tiny-reward")
    shutil.copytree(reward_model, moved)
    judged = small_run(f"judgments.judge={{type: reward_model, model: {moved}}}", name="moved", until="judgments")
    assert values(judged.run) == found
    assert str(moved) not in (judged.run / "round-00/judgments/part-00000.jsonl").read_text()


def test_a_policy_named_as_reward_model_is_refused_before_the_run(small_run: SmallRun, tmp_path: Path) -> None:
    directory = resolve_model("builtin:tiny").directory
    with pytest.raises(ModelError, match=r"recipe loop\.tiny: evaluation-initial-judgments: .* is a LlamaForCausalLM"):
        small_run(f"judgments.judge={{type: reward_model, model: {directory}}}")
    assert not (tmp_path / "run").exists()


LOGGED = """
from pathlib import Path

def score(prompt, response):
    with Path("calls").open("a") as calls:
        calls.write(repr((prompt, response)) + "\\n")
    return len(response)
"""
PAID = "judgments.judge={type: python, function: 'scores_of_mine:score', price: 0.5}"


def calls() -> list[str]:
    return Path("calls").read_text().splitlines() if Path("calls").is_file() else []


def test_a_budget_stops_the_run_before_the_call_that_exceeds_it_and_more_money_goes_on(
    small_run: SmallRun, module: Callable[[str], None], tmp_path: Path
) -> None:
    module(LOGGED)
    with pytest.raises(ResumableError) as raised:
        small_run(PAID, "judgments.max_cost=3.6", "evaluation.suite=null", until="judgments")
    assert len(calls()) == 7
    said = r"judgments: judgments\.max_cost is \$3\.6, and 7 calls for \$3\.50 were made; (\d+) more answers are needed"
    found = re.match(said, str(raised.value))
    assert found is not None
    left = int(found[1])

    done = small_run(PAID, f"judgments.max_calls={7 + left}", "evaluation.suite=null", until="judgments")
    assert len(calls()) == len(set(calls())) == 7 + left
    assert len(values(done.run)) == 18
    assert done.made == ("round-00/judgments",)

    more = "judgments.max_calls=100"
    assert small_run(PAID, more, "evaluation.suite=null", until="judgments").made == ()  # a limit is no part of it
    with Answers.of_run(tmp_path / "run") as answers:
        assert (answers.calls, answers.cost) == (7 + left, 0.5 * (7 + left))


def test_answers_survive_what_they_were_asked_for(small_run: SmallRun, module: Callable[[str], None]) -> None:
    """A step that is made again asks nobody again."""
    module(LOGGED)
    first = small_run(PAID, "evaluation.suite=null", until="judgments")
    before, paid = values(first.run), len(calls())
    shutil.rmtree(first.run / "round-00/judgments")
    again = small_run(PAID, "evaluation.suite=null", until="judgments")
    assert again.made == ("round-00/judgments",)
    assert values(again.run) == before
    assert len(calls()) == paid


@pytest.mark.parametrize(
    ("judge", "limit", "said"),
    [
        ("{type: vader}", "max_calls=3", "judge vader costs nothing: remove max_calls and max_cost"),
        ("{type: python, function: 'a:b'}", "max_cost=3", "max_cost counts nothing, since the judge has no price"),
    ],
)
def test_a_limit_that_limits_nothing_is_refused(small_run: SmallRun, judge: str, limit: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        small_run(f"judgments.judge={judge}", f"judgments.{limit}", "evaluation.suite=null")


def test_an_evaluation_is_held_to_the_loops_budget_unless_its_judge_is_its_own() -> None:
    limits = ("judgments.max_calls=90", "judgments.max_cost=5", "evaluation.suite=everyday")
    own = "evaluation.judge={type: vader}"
    held, free = (load_recipe("loop.tiny", (PAID, *limits, *more)).recipe for more in ((), (own,)))
    found = [recipe.step("evaluation-judgments", 0) for recipe in (held, free)]
    assert [(step.max_calls, step.max_cost) for step in found] == [(90, 5.0), (None, None)]  # type: ignore[attr-defined]


def test_the_plan_says_calls_and_price(module: Callable[[str], None], tmp_path: Path) -> None:
    module(LOGGED)
    loaded = load_recipe("loop.tiny", (PAID, *SMALL))
    plan = plan_recipe(loaded, tmp_path / "run")
    priced = {step.path: (step.at_most["judge_calls"], step.price) for step in plan.steps if step.price is not None}
    assert priced == {
        "setup/evaluation-initial-judgments": (5, 2.5),
        "round-00/judgments": (18, 9.0),
        "round-00/evaluation-judgments": (5, 2.5),
    }
    assert calls() == []


def test_people_judge_a_round(small_run: SmallRun, tmp_path: Path) -> None:
    human = ("judgments.judge={type: human, question: Good, price: 0.1}", "evaluation.suite=null")
    with pytest.raises(ResumableError) as raised:
        small_run(*human, until="judgments")
    run = tmp_path / "run"
    lines = [json.loads(line) for line in (run / OPEN).read_text().splitlines()]
    assert str(raised.value) == (
        f"round-00/judgments: {len(lines)} answers wait for a person in {run / OPEN}. Fill in `values`, read them with "
        f"`prefloop judge {run} --answers FILE`, and run the same command again."
    )
    answered = tmp_path / "answered.jsonl"

    def fill(some: int) -> str:
        given = [
            {**line, "values": [1 + len(line["answers"][0]) % 5 if n < some else None]} for n, line in enumerate(lines)
        ]
        answered.write_text("".join(json.dumps(line) + "\n" for line in given))
        result = CliRunner().invoke(app, ["judge", str(run), "--answers", str(answered)])
        assert result.exit_code == 0
        return " ".join(result.stdout.split())

    assert f"4 answers read, {len(lines) - 4} are still open." in fill(4)
    with pytest.raises(ResumableError, match=f"{len(lines) - 4} answers wait for a person"):
        small_run(*human, until="judgments")
    assert len((run / OPEN).read_text().splitlines()) == len(lines) - 4
    lines = lines[4:]
    assert f"{len(lines)} answers read, none is open; run the recipe again to go on." in fill(len(lines))

    done = small_run(*human, until="judgments")
    answers = {one.response_id: one.text for one in read_folder(done.run / "round-00/samples", Response)}
    assert values(done.run) == {name: float(1 + len(text) % 5) for name, text in answers.items()}
    assert not (run / OPEN).exists()

    with pytest.raises(DataError, match="no ask waits for a person"):
        CliRunner().invoke(app, ["judge", str(run), "--answers", str(answered)], catch_exceptions=False)


def test_people_are_not_asked_beyond_the_budget(small_run: SmallRun, tmp_path: Path) -> None:
    human = ("judgments.judge={type: human, price: 0.1}", "evaluation.suite=null", "judgments.max_cost=0.5")
    with pytest.raises(ResumableError, match=r"judgments\.max_cost is \$0\.5, and 0 calls for \$0\.00 were made"):
        small_run(*human, until="judgments")
    assert not (tmp_path / "run" / OPEN).exists()


def test_waves_change_no_score_and_are_not_judged_again(
    small_run: SmallRun, reward_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = f"judgments.judge={{type: reward_model, model: {reward_model}}}"
    whole = small_run(judge, "evaluation.suite=null", until="judgments", name="whole")
    monkeypatch.setattr("prefloop.loop.steps.judge.WAVE", 5)
    real, judged = RewardModel.judge, list[int]()

    def dying(self: RewardModel, asks: Sequence[Ask]) -> Iterator[tuple[int, Verdict]]:
        judged.append(len(asks))
        if len(judged) == 3:
            raise KeyboardInterrupt
        return real(self, asks)

    monkeypatch.setattr(RewardModel, "judge", dying)
    with pytest.raises(KeyboardInterrupt):
        small_run(judge, "evaluation.suite=null", until="judgments")
    done = small_run(judge, "evaluation.suite=null", until="judgments")
    assert judged == [5, 5, 5, 5, 3]
    assert values(done.run) == pytest.approx(values(whole.run), abs=1e-5)


def said_in(run: Path, step: str = "round-00/judgments") -> list[Judgment]:
    return list(read_folder(run / step, Judgment))


FIRST = "{type: python, compares: true, function: 'prefloop.testing.judges:always_first'}"
NO_SUITE = "evaluation.suite=null"


def test_a_rule_compares_all_pairs_in_a_run_and_the_plan_knows_how_often_it_is_asked(
    small_run: SmallRun, tmp_path: Path
) -> None:
    """Three answers to each of six prompts: 18 scores, and 36 comparisons of them."""
    asked = ("judgments.design=all_pairs", "pairs.rule=preferred", NO_SUITE)
    (planned,) = (
        s for s in plan_recipe(load_recipe("loop.tiny", (*SMALL, *asked)), tmp_path).steps if s.type == "judge"
    )
    assert planned.at_most["judge_calls"] == 18

    done = small_run(*asked, until="pairs")
    scored = small_run(NO_SUITE, until="judgments", name="scored")
    scores = values(scored.run)
    compared = said_in(done.run)
    assert len(compared) == 36
    texts = {one.response_id: one.text for one in read_folder(done.run / "round-00/samples", Response)}
    for one in compared:
        first, second = (scores[subject] for subject in one.subjects)
        assert first is not None
        assert second is not None
        same = texts[one.subjects[0]] == texts[one.subjects[1]]
        assert one.values == (0.5 if same or first == second else float(first > second),)
    for example in read_folder(done.run / "round-00/pairs", Example):
        better, worse = (scores[member.response_id] for member in example.members)
        assert better is not None
        assert worse is not None
        assert better > worse


def test_no_pair_is_built_from_a_judge_that_prefers_what_is_shown_first(small_run: SmallRun) -> None:
    asked = (f"judgments.judge={FIRST}", "judgments.design=all_pairs", NO_SUITE)
    with pytest.raises(DataError, match=r"no usable pair in 6 prompts \(orders disagree \d+"):
        small_run(*asked, "pairs.rule=preferred", until="pairs")


def test_the_summary_says_what_the_judge_is_and_the_report_shows_it(small_run: SmallRun) -> None:
    """A judge of places: 36 comparisons, none consistent, all for the first, paid a cent each."""
    paid = FIRST.replace("{", "{price: 0.01, ")
    done = small_run(f"judgments={{judge: {paid}, design: all_pairs}}", NO_SUITE, until="judgments")
    with closing(Journal(done.run, read_only=True)) as journal:
        entry = journal.at("round-00/judgments")
    assert entry is not None
    counts = dict(entry.counts)
    calls = counts["calls"]
    assert (counts["judgments"], counts["invalid"], counts["invalid_share"]) == (36, 0, 0)
    assert (counts["first_share"], counts["position_consistency"]) == (1.0, calls < 36 and (36 - calls) / 36)
    assert counts["price"] == pytest.approx(0.01 * (calls - counts["cache_hits"]))
    table = judges_table(read_run(done.run))
    assert table is not None
    (line,) = table.lines
    assert line[:3] == ("1", "judgments", str(int(calls)))
    assert line[10] == "100.0"


def test_a_tournament_of_four_in_a_run(small_run: SmallRun) -> None:
    asked = ("judgments.design={type: tournament}", "pairs.rule=tournament", "samples.num_samples=4", NO_SUITE)
    done = small_run(*asked, until="pairs")
    scores = values(small_run(NO_SUITE, "samples.num_samples=4", until="judgments", name="scored").run)
    said = said_in(done.run)
    by_prompt = {one.response_id: one.prompt_id for one in read_folder(done.run / "round-00/samples", Response)}
    for example in read_folder(done.run / "round-00/pairs", Example):
        own = [scores[name] for name, prompt in by_prompt.items() if prompt == example.prompt.prompt_id]
        assert [scores[member.response_id] for member in example.members] == [max(own), min(own)]  # type: ignore[type-var]
    assert len(said) <= 6 * 10


def test_answers_meet_those_of_the_start_policy(small_run: SmallRun) -> None:
    """Three answers of ours meet two others to each of six prompts, either of them first as often."""
    asked = (
        "block=[prompts, samples, others, judgments, pairs, policy]",
        "others={type: sample, policy: initial, reads: [prompts], num_samples: 2, max_new_tokens: 24}",
        "judgments={design: {type: against, opponents: others, both_orders: false}, reads: [samples]}",
        "pairs={rule: preferred}",
        NO_SUITE,
    )
    done = small_run(*asked, until="pairs")
    ours = {one.response_id for one in read_folder(done.run / "round-00/samples", Response)}
    theirs = {one.response_id for one in read_folder(done.run / "round-00/others", Response)}
    said = said_in(done.run)
    assert len(said) == 6 * 3 * 2
    assert all(len(ours & set(one.subjects)) == len(theirs & set(one.subjects)) == 1 for one in said)
    firsts = sum(one.subjects[0] in ours for one in said)
    assert 8 < firsts < 28
    assert small_run(*asked, until="pairs").made == ()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            ("judgments.design={type: joint, repeats: 2}",),
            "judge vader says the same every time: remove design.repeats",
        ),
        (
            (f"judgments.judge={FIRST}",),
            "cannot judge under design each as it is set: use all_pairs, against or tournament",
        ),
        (
            ("judgments.judge=arithmetic_steps", "judgments.design=all_pairs"),
            "what judge arithmetic_steps says cannot be compared: use design each",
        ),
    ],
)
def test_a_design_that_a_judge_cannot_take_is_refused(small_run: SmallRun, asked: Sequence[str], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        small_run(*asked, NO_SUITE)


def test_people_are_asked_about_single_answers_whatever_is_made_of_them(small_run: SmallRun, tmp_path: Path) -> None:
    human = ("judgments={judge: {type: human}, design: {type: all_pairs, both_orders: false}}", NO_SUITE)
    with pytest.raises(ResumableError):
        small_run(*human, until="judgments")
    lines = [json.loads(line) for line in (tmp_path / "run" / OPEN).read_text().splitlines()]
    answered = tmp_path / "answered.jsonl"
    answered.write_text("".join(json.dumps({**line, "values": [1 + n % 5]}) + "\n" for n, line in enumerate(lines)))
    assert CliRunner().invoke(app, ["judge", str(tmp_path / "run"), "--answers", str(answered)]).exit_code == 0
    done = small_run(*human, until="judgments")
    assert len(said_in(done.run)) == 18
    assert {one.values[0] for one in said_in(done.run)} <= {0.0, 0.5, 1.0}


# Language models -----------------------------------------------------------------------------------------------------

AT_ONCE = "design: {type: all_pairs}, judge: {type: llm, prompt: compare_at_once, model: 'builtin:tiny'}"


def test_a_language_model_in_this_process_compares_a_round_in_waves(
    small_run: SmallRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = (f"judgments={{{AT_ONCE}}}", "pairs={rule: win_rates}", NO_SUITE)
    whole = small_run(*asked, until="pairs", name="whole")
    said = said_in(whole.run)
    assert len(said) == 36
    assert all(one.judge.startswith("llm:builtin:tiny:") and one.values[0] is not None for one in said)
    assert {one.judge.split(":")[4] for one in said} == {"compare_at_once"}
    asked_about = [one for one in said if one.raw != "the same text"]
    assert all(one.tokens_in > 100 for one in asked_about)
    monkeypatch.setattr("prefloop.loop.steps.judge.WAVE_OF_A_LANGUAGE_MODEL", 5)
    in_waves = small_run(*asked, until="pairs")
    found = {one.subjects: one.values[0] for one in said_in(in_waves.run)}
    assert found == {one.subjects: pytest.approx(one.values[0], abs=1e-4) for one in said}


def test_the_policy_of_the_round_judges_its_own_answers(small_run: SmallRun) -> None:
    """Self-rewarding: another round has another judge; its words are no score at this size, and are said to be none."""
    asked = (
        "judgments={judge: {type: llm, policy: current, temperature: 1.0, max_new_tokens: 8}, design: {type: each, "
        "repeats: 2}}",
        "samples={num_samples: 2}",
        "prompts.count=2",
        NO_SUITE,
    )
    done = small_run(*asked, until="judgments")
    said = said_in(done.run)
    assert len(said) == 2 * 2 * 2
    assert [one.repeat for one in said] == [0, 1] * 4
    assert all(one.judge.startswith("llm:current:") for one in said)
    assert all(one.tokens_out > 0 for one in said)
    invalid = sum(one.values[0] is None for one in said)
    with closing(Journal(done.run, read_only=True)) as journal:
        entry = journal.at("round-00/judgments")
    assert entry is not None
    assert (entry.counts["invalid"], entry.counts["calls"]) == (invalid, 8 + invalid)  # asked once more


def served_judge(url: str, **more: object) -> str:
    settings = "".join(f", {name}: {value}" for name, value in more.items())
    return f"judgments.judge={{type: llm, server: {{url: '{url}', model: tiny, deadline_s: 5}}{settings}}}"


def scored_by_length(messages: tuple[Message, ...]) -> str:
    answered = re.search(r"<<answer \w+>>\n(.*)\n<<end of answer", messages[1].content, re.DOTALL)
    assert answered is not None
    return f"Score: {len(answered[1]) % 6}"


def test_a_server_judges_and_nothing_is_paid_twice(small_run: SmallRun) -> None:
    source = resolve_model("builtin:tiny")
    bench = Workbench(source, ChatCodec.load(source.directory, {}), torch.device("cpu"))
    server = CompletionsServer(bench, PolicyFiles(source.identity, source.directory), says=scored_by_length)
    with server.running() as url:
        paid = (served_judge(url, price=0.5), NO_SUITE)
        with pytest.raises(ResumableError, match=r"judgments\.max_calls is 8, and 7 calls for \$3\.50 were made"):
            small_run(*paid, "judgments.max_calls=8", until="judgments")  # an eighth ask may take two
        done = small_run(*paid, "judgments.max_calls=90", until="judgments")
        texts = {one.response_id: one.text for one in read_folder(done.run / "round-00/samples", Response)}
        assert values(done.run) == {name: float(len(text) % 6) for name, text in texts.items()}
        asked = [json.loads(body)["messages"][1]["content"] for body in server.answers]
        assert (
            len(asked)
            == len(set(asked))
            == len({(one.prompt_id, one.text) for one in read_folder(done.run / "round-00/samples", Response)})
        )
        calls = len(asked)
        shutil.rmtree(done.run / "round-00/judgments")
        small_run(*paid, until="judgments")
        assert len(server.answers) == calls
    moved = small_run(served_judge("http://127.0.0.1:1/v1", price=0.7), NO_SUITE, until="judgments")
    assert moved.made == ()  # neither the address nor the price is part of what was asked


@pytest.mark.parametrize(
    ("judge", "said"),
    [
        ("{type: llm}", "judge llm is one of model, policy and server, found none"),
        (
            "{type: llm, model: a, policy: current}",
            "judge llm is one of model, policy and server, found model and policy",
        ),
        ("{type: llm, model: 'builtin:tiny', price_in: 1}", "price_in: a model in this process costs nothing"),
        (
            "{type: llm, model: 'builtin:tiny', prompt: compare}",
            "judge.prompt compare shows two answers, but the design",
        ),
        ("{type: llm, policy: nobody}", "'nobody'"),
        ("{type: llm, model: 'builtin:none'}", "builtin:none"),
    ],
)
def test_a_language_model_that_cannot_be_asked_is_refused_before_the_run(
    small_run: SmallRun, judge: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(PrefloopError, match=re.escape(said)):
        small_run(f"judgments.judge={judge}", NO_SUITE)
    assert not (tmp_path / "run").exists()


SERVER = "server: {url: 'http://x', model: m}"
STEPWISE = "judge: {type: llm_steps, steps: lines"


@pytest.mark.parametrize(
    ("judgments", "expected", "at_most"),
    [
        (f"judge: {{type: llm, {SERVER}}}, design: all_pairs", 36, 72),
        (f"judge: {{type: llm, {SERVER}}}, design: joint", 6, 12),
        (f"judge: {{type: llm, prompt: six_points_at_once, {SERVER}}}, design: {{type: joint}}", 18, 36),
        ("judge: {type: llm, prompt: six_points_at_once, model: 'builtin:tiny'}, design: joint", 18, 18),
        (f"judge: {{type: llm, temperature: 1.0, {SERVER}}}, design: {{type: each, repeats: 2}}", 36, 72),
        (f"{STEPWISE}, expected_steps: 4, {SERVER}}}", 18 * 4 * 2, 18 * 24 * 2 * 2),
        (f"{STEPWISE}, model: 'builtin:tiny'}}", 18 * 6 * 2, 18 * 24 * 2),
    ],
)
def test_the_plan_counts_the_questions_of_a_language_model(
    judgments: str, expected: int, at_most: int, tmp_path: Path
) -> None:
    """Of six prompts with three answers each. A digit of each answer is a question, and so is each letter of a step; a
    server may be asked each twice; a step has one of the 24 tokens of an answer at least."""
    plan = plan_recipe(load_recipe("loop.tiny", (*SMALL, f"judgments={{{judgments}}}", NO_SUITE)), tmp_path)
    (step,) = (one for one in plan.steps if one.type == "judge")
    assert (step.expected["judge_calls"], step.at_most["judge_calls"]) == (expected, at_most)


def test_the_price_of_a_language_model_is_that_of_its_expected_questions(tmp_path: Path) -> None:
    """18 calls of 1500 tokens in and 100 out."""
    judge = f"{{type: llm, {SERVER}, price_in: 2.0, price_out: 10.0, max_new_tokens: 100, prompt: six_points_at_once}}"
    loaded = load_recipe("loop.tiny", (*SMALL, f"judgments={{judge: {judge}, design: joint}}", NO_SUITE))
    (step,) = (one for one in plan_recipe(loaded, tmp_path).steps if one.type == "judge")
    assert step.price == pytest.approx(18 * (1500 * 2 + 100 * 10) / 1e6)


@pytest.mark.parametrize("prompt", ["six_points_at_once", "steps"])
def test_the_questions_of_a_round_let_expect_those_of_the_next(prompt: str, small_run: SmallRun) -> None:
    """As many a step, or an answer, as were asked."""
    joint = "judge: {type: llm, prompt: six_points_at_once, model: 'builtin:tiny'}, design: joint"
    judged = f"{STEPWISE}, model: 'builtin:tiny'}}" if prompt == "steps" else joint
    few = (f"judgments={{{judged}}}", NO_SUITE, "prompts.count=2", "rounds=2")
    done = small_run(*few, until="round-00/judgments")
    said = said_in(done.run)
    calls = sum(2 * len(one.values) for one in said) if prompt == "steps" else 2 * 3
    assert sum(one.calls for one in said) == calls
    rounds = [
        one for one in plan_recipe(load_recipe("loop.tiny", (*SMALL, *few)), done.run).steps if one.type == "judge"
    ]
    assert [one.actual.get("judge_calls") for one in rounds] == [calls, None]
    assert rounds[1].expected["judge_calls"] == calls


# Limits on what servers are asked ------------------------------------------------------------------------------------


def says_what_is_asked(messages: tuple[Message, ...]) -> str:
    """A letter where two answers are shown, else a digit; of some answers only what cannot be read, at first."""
    if len(messages) == 2 and len(messages[1].content) % 4 == 0:
        return "I would rather not say."
    return "A" if "answer B" in messages[1].content else "5"


SERVED = {
    "reward_server": "judge: {type: reward_server, price: 0.5, server: SERVER}",
    "pointwise": "judge: {type: llm, prompt: additive_at_once, price: 0.5, server: SERVER}",
    "pairwise": "judge: {type: llm, prompt: compare_at_once, price: 0.5, server: SERVER}, design: all_pairs",
    "joint": "judge: {type: llm, prompt: six_points_at_once, price: 0.5, server: SERVER}, design: joint",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "limit"), [*((kind, "max_calls=13") for kind in SERVED), ("reward_server", "max_cost=6.6")]
)
def test_the_command_ends_with_75_before_a_server_is_asked_too_often_and_then_pays_nothing_twice(
    kind: str, limit: str, tmp_path: Path
) -> None:
    """At 50 cents a call both limits are thirteen calls; where an ask takes several, as many as surely fit."""
    source = resolve_model("builtin:tiny")
    bench = Workbench(source, ChatCodec.load(source.directory, {}), torch.device("cpu"))
    server = CompletionsServer(
        bench,
        PolicyFiles(source.identity, source.directory),
        says=says_what_is_asked,
        score=lambda messages: len(messages[-1].content) / 10,
        lacks=frozenset({"logprobs"}),
    )
    most_of_an_ask = {"reward_server": 1, "pointwise": 2, "pairwise": 2, "joint": 6}[kind]
    with server.running() as url:
        asked = SERVED[kind].replace("SERVER", f"{{url: '{url}', model: m, deadline_s: 5}}")

        def command(limit: str) -> tuple[int, str]:
            settings = (*SMALL, f"judgments={{{asked}}}", "pairs.rule=best_worst", NO_SUITE, f"judgments.{limit}")
            told = ["run", "loop.tiny", "--run", str(tmp_path / "run"), "--until", "judgments"]
            words = [word for one in settings for word in ("--set", one)]
            done = subprocess.run(
                [sys.executable, "-m", "prefloop", *told, *words], capture_output=True, text=True, check=False
            )
            return done.returncode, done.stderr

        code, said = command(limit)
        made = len(server.answers)
        assert code == 75, said
        assert f"{made} calls for ${made / 2:.2f} were made;" in said
        assert 13 - most_of_an_ask < made <= 13
        assert command("max_calls=1000") == (0, ANY)
    assert len(server.answers) == len(set(server.answers)) > made
    with closing(Journal(tmp_path / "run", read_only=True)) as journal:
        entry = journal.at("round-00/judgments")
    assert entry is not None
    counts = entry.counts
    assert counts["calls"] - counts["cache_hits"] == len(server.answers)
    assert counts["price"] == len(server.answers) / 2
    assert {one.values[0] is None for one in said_in(tmp_path / "run")} == {False}
