"""Suites as files, the second turn, opponents on file, answers for other tools, and `prefloop evaluate run`."""

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch

from prefloop.cli.evaluate_run import RunOptions, evaluate_run_command, suite_of
from prefloop.config import read_suite, shipped_suites, suite_with
from prefloop.data import next_turn, read_answers, with_references
from prefloop.data.formats import find_format
from prefloop.errors import DataError, RecipeError
from prefloop.evaluation import (
    Answers,
    Question,
    best_of_each,
    comparisons,
    conversations,
    evaluate_mt_bench,
    judge_requests,
    meet,
    worth_of_choosing,
)
from prefloop.evaluation.arena_hard import markdown_metadata, read_battles
from prefloop.evaluation.scoreboard import together
from prefloop.pairing import pair_messages, preference_messages, verdict_messages
from prefloop.policy import ChatCodec, PolicyFiles, Workbench, resolve_model
from prefloop.records import Judgment, Message, Prompt, Response, read_records
from prefloop.testing import CompletionsServer

SHARED = Path(__file__).parents[3] / "shared" / "data"
TWO = {
    "question_id": 101,
    "category": "reasoning",
    "turns": ["Which is first?", "And last?"],
    "reference": ["The first.", ""],
}


def question() -> Prompt:
    return find_format("turns", "test").read(TWO, "questions.jsonl:1").prompt


def answer(prompt: Prompt, text: str, number: int = 0) -> Response:
    return Response(
        response_id=f"{prompt.prompt_id}-{number}-{text}",
        prompt_id=prompt.prompt_id,
        root_id=prompt.root_id,
        step="samples",
        text=text,
        finish_reason="stop",
        index=number,
    )


def two_turns(first: str, second: str) -> Answers:
    asked = next_turn(question(), answer(question(), first))
    assert asked is not None
    said = answer(asked, second)
    return Answers((answer(question(), first), said), {"judge": {}}, {said.response_id: 2})


def options(folder: Path, suite: str, *changes: str, **given: Any) -> RunOptions:
    named: dict[str, Any] = {"judge": None, "prompts": None, "references": None, "against": (), **given}
    return RunOptions(
        suite,
        "builtin:tiny",
        changes=("max_new_tokens=24", *changes),
        folder=folder,
        bootstrap=100,
        seed=0,
        threads=1,
        **named,
    )


def test_questions_of_two_turns_keep_ids_category_and_references() -> None:
    prompt = question()
    assert prompt.labels == {"question_id": "101", "category": "reasoning"}
    assert prompt.answer == "The first."
    assert prompt.later is not None
    assert [(turn.content, turn.answer) for turn in prompt.later] == [("And last?", None)]


def test_arena_hards_turns_and_alpaca_evals_instructions_are_read() -> None:
    arena = find_format("turns", "test").read({"question_id": "a1", "turns": [{"content": "Write."}]}, "q:1").prompt
    alpaca = (
        find_format("instructions", "test").read({"instruction": "Sum.", "input": "1 2", "dataset": "d"}, "q:1").prompt
    )
    assert (arena.messages[0].content, arena.later) == ("Write.", None)
    assert (alpaca.messages[0].content, alpaca.labels) == ("Sum.\n\n1 2", {"dataset": "d"})


def test_the_second_turn_follows_the_policys_own_answer() -> None:
    asked = next_turn(question(), answer(question(), "Mine."))
    assert asked is not None
    assert [(one.role, one.content) for one in asked.messages] == [
        ("user", "Which is first?"),
        ("assistant", "Mine."),
        ("user", "And last?"),
    ]
    assert asked.root_id == question().prompt_id
    assert (asked.labels or {})["turn"] == "2"
    assert next_turn(asked, answer(asked, "x")) is None


def test_second_answers_meet_whatever_the_first_ones_were_and_vary_with_them() -> None:
    ours, theirs = two_turns("A", "B"), two_turns("other", "C")
    ours = Answers(ours.responses, {"judge": {one.response_id: 1.0 for one in ours.responses}}, ours.turns)
    theirs = Answers(theirs.responses, {"judge": {one.response_id: 0.0 for one in theirs.responses}}, theirs.turns)
    met = meet(ours, theirs, "judge")
    assert met.preferences.tolist() == [1.0, 1.0]
    assert set(met.prompts) == {question().prompt_id}
    assert [ours.question(one).turn for one in ours.responses] == [1, 2]
    assert together([ours, theirs]).by_question().keys() == {
        Question(question().prompt_id, 1),
        Question(question().prompt_id, 2),
    }


def test_references_become_gold_answers_turn_by_turn(tmp_path: Path) -> None:
    row = {"question_id": 101, "model_id": "gpt-4", "choices": [{"index": 0, "turns": ["one", "two"]}]}
    (tmp_path / "gold.jsonl").write_text(json.dumps(row) + "\n")
    found = with_references(question(), read_answers(tmp_path / "gold.jsonl"))
    assert found.answer == "one"
    assert found.later is not None
    assert found.later[0].answer == "two"


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "Which is first?", "output": "Mine.", "generator": "m"},
        {"question_id": 101, "model_id": "m", "choices": [{"index": 0, "turns": ["Mine."]}]},
        {"question_id": "101", "model_id": "m", "choices": [{"index": 0, "turns": [{"content": "Mine."}]}]},
        {"uid": "101", "model": "m", "messages": [{"role": "assistant", "content": {"answer": "Mine."}}]},
    ],
)
def test_answers_of_other_tools_are_found(tmp_path: Path, row: dict[str, Any]) -> None:
    (tmp_path / "answers.jsonl").write_text(json.dumps(row) + "\n")
    prompt = question().model_copy(update={"labels": {"question_id": "101", "uid": "101"}})
    found = read_answers(tmp_path / "answers.jsonl")
    assert (list(found.of(prompt)), found.policy) == ([("Mine.",)], "m")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "x"}, "answers.jsonl:1: is no row of answers: its columns are text"),
        ({"choices": []}, "it has no question_id and no uid"),
        ({"uid": "1", "messages": [{"role": "user", "content": "x"}]}, "there is no assistant's turn"),
    ],
)
def test_rows_that_are_no_answers_are_named(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    (tmp_path / "answers.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError) as error:
        read_answers(tmp_path / "answers.jsonl")
    assert said in str(error.value)


def test_shipped_suites_and_files_of_ones_own(tmp_path: Path) -> None:
    assert shipped_suites() == ["alpaca_eval", "arena_hard", "everyday", "mt_bench"]
    assert [read_suite(name).table for name in shipped_suites()] == ["preferences", "battles", "win_rates", "ratings"]
    (tmp_path / "q.jsonl").write_text("")
    (tmp_path / "mine.yaml").write_text("prompts: q.jsonl\nturns: 2\njudge: vader\npool: {a: elsewhere.jsonl}\n")
    suite = read_suite(str(tmp_path / "mine.yaml"))
    assert (suite.prompts, suite.judge) == (str(tmp_path / "q.jsonl"), {"type": "vader"})  # files lie beside the suite
    assert suite.pool == {"a": "elsewhere.jsonl"}
    assert read_suite("questions.jsonl").prompts == "questions.jsonl"
    assert suite_with(suite, {"turns": 1}, "here").turns == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("turn: 2", "turn is not a setting. Did you mean 'turns'?"),
        ("turns: 3", "turns: Input should be less than or equal to 2, found 3."),
        ("- a", "found list, expected a mapping"),
        ("a: [", "not YAML"),
    ],
)
def test_wrong_suites_are_one_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(RecipeError) as error:
        read_suite(str(tmp_path / "mine.yaml"))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_what_judges_are_asked_names_their_marks_and_shows_the_answers() -> None:
    texts = [
        verdict_messages("P", "alpha", "beta"),
        preference_messages("P", "alpha", "beta"),
        pair_messages(["P"], ["alpha"], ["beta"], None, category="writing"),
        pair_messages(["P", "Q"], ["x", "alpha"], ["y", "beta"], ["r", "s"], category="math"),
    ]
    for messages, mark in zip(texts, ("[[A>>B]]", "m or M", "[[C]]", "[[C]]"), strict=True):
        assert [one["role"] for one in messages] == ["system", "user"]
        assert mark in messages[0]["content"] + messages[1]["content"]
        assert messages[1]["content"].index("alpha") < messages[1]["content"].index("beta")
    assert "answer of your own" not in verdict_messages("P", "alpha", "beta", creative=True)[0]["content"]


def test_requests_come_back_as_judgments(tmp_path: Path) -> None:
    prompt = question().model_copy(update={"labels": {"question_id": "7", "uid": "7", "category": "writing"}})
    ours, theirs = (conversations({prompt.prompt_id: prompt}, Answers((answer(prompt, text),), {})) for text in "ab")
    (rated,) = judge_requests("mt_bench", ("m", ours), None)
    (tmp_path / "r.jsonl").write_text(json.dumps({**rated, "judgment": "Good. Rating: [[7]]"}) + "\n")
    assert evaluate_mt_bench(tmp_path / "r.jsonl")["models"]["m"]["average"] == 7
    (played,) = judge_requests("arena_hard", ("m", ours), ("base", theirs))
    for game, label in zip(played["games"], ("[[B>A]]", "[[A>>B]]"), strict=True):
        game["judgment"] = f"I say {label}"
    (tmp_path / "g.jsonl").write_text(json.dumps(played) + "\n")
    battles = read_battles(tmp_path / "g.jsonl", baseline="base")
    assert [(one.second, one.outcome, one.weight) for one in battles] == [("m", 0.0, 1), ("m", 0.0, 3)]
    (asked,) = judge_requests("alpaca_eval", ("m", ours), ("base", theirs))
    assert (asked["output_1"], asked["output_2"], asked["preference"]) == ("b", "a", None)
    shown = asked["messages"][1]["content"]
    assert ('"a"' in shown.split('"m"')[1].split('"M"')[0]) is asked["switched"]
    (same,) = judge_requests("alpaca_eval", ("m", ours), ("base", ours))
    assert (same["messages"], same["preference"]) == (None, 1.5)
    with pytest.raises(DataError, match="Name one: --against"):
        list(judge_requests("arena_hard", ("m", ours), None))


def test_markdown_is_counted_by_kind() -> None:
    found = markdown_metadata("# a\n### b\n1. x\n- y\n* z\n**k** __l__\n```\n# no\n```")
    assert found["header_count"]["h1"] == found["header_count"]["h3"] == 1
    assert found["list_count"] == {"ordered": 1, "unordered": 2}
    assert found["bold_count"] == {"**": 1, "__": 1}


def test_a_suite_is_run_judged_and_written_for_other_tools_and_its_answers_are_opponents(tmp_path: Path) -> None:
    rows = [
        {**TWO, "question_id": 1 + n, "turns": [f"How are you, {n}?", "And then?"], "reference": []} for n in range(6)
    ]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"prompts": str(tmp_path / "q.jsonl"), "judge": "vader"}
    first = evaluate_run_command(options(tmp_path / "one", "mt_bench", **given))
    assert first["models"]["builtin:tiny"]["n"] == 12
    assert first["models"]["builtin:tiny"]["categories"].keys() == {"reasoning"}
    (line, *_) = (tmp_path / "one/fastchat/builtin_tiny.jsonl").read_text().splitlines()
    written = json.loads(line)
    assert written["question_id"] == 1
    assert len(written["choices"][0]["turns"]) == 2
    assert not (tmp_path / "one/alpaca_eval").exists()  # which has no place for two turns

    file = tmp_path / "one/fastchat/builtin_tiny.jsonl"
    again = evaluate_run_command(
        options(tmp_path / "one", "mt_bench", "table=win_rates", against=(f"before={file}",), **given)
    )
    assert again["against"]["before"]["judge"]["win_rate"] == 50  # the same answers, read back
    assert again["against"]["before"]["judge"]["n_draws"] == 12
    assert again["against"]["before"]["judge"]["clusters"] == 6


def test_a_suite_is_against_a_model_that_answers_once(tmp_path: Path) -> None:
    wanted = options(tmp_path, "everyday", "count=6", judge="shorter", against=("base=builtin:tiny",))
    result = evaluate_run_command(wanted)
    duel = result["against"]["base"]["judge"]
    assert duel["n"] == 6
    assert duel["n_draws"] < 6  # a model that meets itself answers anew
    made = (tmp_path / "opponents/base/answers.jsonl").stat().st_mtime_ns
    assert evaluate_run_command(wanted) == result
    assert (tmp_path / "opponents/base/run/setup/suite-base/part-00000.jsonl").stat().st_mtime_ns <= made
    outputs = json.loads((tmp_path / "alpaca_eval/model_outputs.json").read_text())
    assert outputs[0].keys() == {"dataset", "instruction", "output", "generator"}


def test_a_suite_is_answered_by_a_server_that_serves_the_model(tmp_path: Path) -> None:
    source = resolve_model("builtin:tiny")
    bench = Workbench(source, ChatCodec.load(source.directory, {}), torch.device("cpu"))
    server = CompletionsServer(bench, PolicyFiles("served", source.directory))
    with server.running() as url:
        sampler = f"{{type: server, url: '{url}', model: tiny}}"
        given = {"judge": "shorter", "sampler": sampler, "against": ("builtin:tiny",)}
        result = evaluate_run_command(options(tmp_path, "everyday", "count=3", **given))
    assert len([body for body in server.answers if '"max_tokens":24' in body]) == 3
    assert result["against"]["builtin_tiny"]["judge"]["n"] == 3  # the opponent was sampled here
    for wrong, said in (("5", "--sampler is '5', expected a sampler's type"), ("{type: server}", "sampler.url")):
        with pytest.raises(RecipeError, match=said):
            evaluate_run_command(options(tmp_path / "none", "everyday", sampler=wrong))


@pytest.mark.parametrize(
    ("suite", "given", "changes", "said"),
    [
        ("mt_bench", {}, (), "leaves its questions to you. Name their file: --prompts."),
        ("everyday", {}, ("turn=2",), "turn is not a setting. Did you mean 'turns'?"),
        ("everyday", {"judge": "vadr"}, (), "Did you mean 'vader'?"),
        ("everyday", {"against": ("a=x.jsonl", "a=y.jsonl")}, (), "a second opponent is called a."),
    ],
)
def test_what_cannot_be_run_is_said_before_anything_is_written(
    tmp_path: Path, suite: str, given: dict[str, Any], changes: tuple[str, ...], said: str
) -> None:
    with pytest.raises((RecipeError, DataError)) as error:
        evaluate_run_command(options(tmp_path / "none", suite, *changes, **given))
    assert said in str(error.value)
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suite", "prompts", "given"),
    [
        ("mt_bench", "mt_bench_question.jsonl", {"references": str(SHARED / "mt_bench_reference_gpt4.jsonl")}),
        ("arena_hard", "arena_hard_v01_question.jsonl.gz", {"against": ("base=builtin:tiny",), "judge": "longer"}),
    ],
)
def test_the_official_questions_are_run(tmp_path: Path, suite: str, prompts: str, given: dict[str, Any]) -> None:
    if not SHARED.is_dir():
        pytest.skip("the field's questions are not here")
    result = evaluate_run_command(options(tmp_path, suite, "temperature=1", prompts=str(SHARED / prompts), **given))
    assert result["questions"] == (160 if suite == "mt_bench" else 500)
    if suite == "mt_bench":
        assert len((tmp_path / "judge_requests.jsonl").read_text().splitlines()) == 160


def test_messages_before_the_question_stand_before_it() -> None:
    prompt = Prompt.of((Message(role="system", content="Be brief."), Message(role="user", content="Hi")))
    (one,) = conversations({prompt.prompt_id: prompt}, Answers((answer(prompt, "a"),), {}))
    assert one.asked == "system: Be brief.\n\nuser: Hi"


def test_settings_inside_settings_are_laid_over_the_suites(tmp_path: Path) -> None:
    wanted = options(tmp_path, "mt_bench", "temperatures.math=1e-1", "temperature=1", prompts=str(tmp_path / "none"))
    with pytest.raises((RecipeError, DataError)):  # there is no such file; what was asked is checked before
        evaluate_run_command(wanted)
    suite = suite_of(wanted)
    assert (suite.temperatures or {})["math"] == 0.1
    assert (suite.temperatures or {})["stem"] == 0.1
    assert suite.temperature == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"changes": ("count",)}, "--set count: expected KEY.KEY=VALUE, for example --set num_samples=2."),
        ({"changes": ("a..b=1",)}, "--set a..b=1: expected KEY.KEY=VALUE"),
        ({"changes": ("count=[",)}, "--set ...=[: not YAML"),
        ({"judge": "[1]"}, "--judge is '[1]', expected a judge's type, or a mapping such as '{type: vader}'."),
        ({"judge": "{"}, "--judge {: not YAML"),
    ],
)
def test_what_is_no_setting_and_no_judge_is_one_line(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    wanted = replace(options(tmp_path, "everyday"), **given)
    with pytest.raises(RecipeError) as error:
        suite_of(wanted)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("against", "content", "said"),
    [
        ("none.jsonl", None, "none.jsonl: there is no such file. Name a file of answers, or a model."),
        ("a.jsonl", "xx\n", "a.jsonl:1: not a Response"),
        ("a.jsonl", "", "a.jsonl: has no responses"),
        ("a.jsonl", '{"index": 1}\n', "a.jsonl:1: is no row of answers: its columns are index."),
    ],
)
def test_opponents_that_cannot_be_read_are_said_before_anything_is_sampled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], against: str, content: str | None, said: str
) -> None:
    if content is not None:
        (tmp_path / against).write_text(content)
    with pytest.raises(DataError) as error:
        evaluate_run_command(options(tmp_path / "out", "everyday", judge="vader", against=(str(tmp_path / against),)))
    assert said in str(error.value)
    assert (capsys.readouterr().err, (tmp_path / "out").exists()) == ("", False)


def test_a_table_that_needs_an_opponent_says_so_at_once(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"battles are against somebody\. Name an opponent: --against"):
        suite_of(options(tmp_path, "everyday", "table=battles", judge="vader"))


@pytest.mark.parametrize("table", ["win_rates", "preferences", "battles"])
def test_a_judge_of_two_that_looks_at_length_agrees_with_one_of_single_answers(tmp_path: Path, table: str) -> None:
    """Its verdicts in both orders are those of scores, and opponents answer once."""
    common: dict[str, Any] = {"against": ("base=builtin:tiny",)}
    one = options(tmp_path / "one", "everyday", "count=5", f"table={table}", judge="longer", **common)
    scored = evaluate_run_command(one)
    two = "{type: python, compares: true, function: 'prefloop.testing.judges:longer'}"
    sampled = tmp_path / "one/opponents/base/answers.jsonl"
    again = {"against": (f"base={sampled}",), "judge": two}
    compared = evaluate_run_command(
        options(tmp_path / "one", "everyday", "count=5", f"table={table}", "compares=true", **again)
    )
    if table == "battles":
        assert compared["models"] == scored["models"]
        return
    rates = [found["against"]["base"] for found in (scored, compared)]
    rates = [one.get("judge", one) for one in rates]
    assert rates[1]["n_wins"] + rates[1]["n_wins_base"] > 0
    for key in ("win_rate", "length_controlled_winrate", "n_wins", "n_wins_base", "n_draws"):
        assert rates[0][key] == rates[1][key], key


def test_a_judge_of_places_gives_draws_only_since_both_orders_are_shown(tmp_path: Path) -> None:
    judge = "{type: python, compares: true, function: 'prefloop.testing.judges:always_first'}"
    found = evaluate_run_command(
        options(tmp_path, "everyday", "count=4", "compares=true", judge=judge, against=("base=builtin:tiny",))
    )
    assert (found["against"]["base"]["judge"]["win_rate"], found["against"]["base"]["judge"]["n_draws"]) == (50.0, 4)
    assert found["against"]["base"]["judge"]["unjudged"] == 0


def test_verdicts_become_our_preference_whoever_was_shown_first() -> None:
    ours = Answers((answer(question(), "a"),), {})
    mine, theirs = ours.responses[0].response_id, "other"

    def said(first: str, second: str, value: float | None) -> Judgment:
        return Judgment(judge="j", kind="preference", subjects=(first, second), values=(value,))

    assert comparisons(ours, []) is None
    assert comparisons(ours, [said(mine, theirs, 0.9), said(theirs, mine, 0.4)]) == {
        (mine, theirs): pytest.approx(0.75)
    }
    assert comparisons(ours, [said(mine, theirs, 0.9), said(theirs, mine, None)]) == {(mine, theirs): 0.9}
    assert comparisons(ours, [said(mine, theirs, None)]) == {}


def test_ratings_are_not_compared() -> None:
    with pytest.raises(RecipeError, match="here: compares is of two answers, and the table is of ratings of one: "):
        suite_with(read_suite("everyday"), {"compares": True, "table": "ratings"}, "here")


def test_both_turns_are_compared_the_second_by_what_came_of_the_first_question(tmp_path: Path) -> None:
    """A judge of two who likes the longer text: of first answers the longer one wins, of second ones the longer
    conversation, by hand from the answers; twice as many meetings as questions."""
    rows = [
        {**TWO, "question_id": 1 + n, "turns": [f"How are you, {n}?", "And then?"], "reference": []} for n in range(6)
    ]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    suite = tmp_path / "two.yaml"
    suite.write_text("prompts: q.jsonl\nturns: 2\ncompares: true\nmax_new_tokens: 24\n")
    judge = "{type: python, compares: true, function: 'prefloop.testing.judges:longer'}"
    found = evaluate_run_command(options(tmp_path / "run", str(suite), judge=judge, against=("base=builtin:tiny",)))
    sides = [tmp_path / "run/answers.jsonl", tmp_path / "run/opponents/base/answers.jsonl"]
    lengths: list[dict[tuple[str, int], int]] = []
    for file in sides:
        by_root: dict[str, list[str]] = {}
        for one in read_records(file, Response):
            by_root.setdefault(one.root_id, []).append(one.text)
        lengths.append({(root, 1): len(texts[0]) for root, texts in by_root.items()})
        lengths[-1] |= {(root, 2): sum(map(len, texts)) for root, texts in by_root.items()}
    won = [np.sign(lengths[0][key] - lengths[1][key]) / 2 + 0.5 for key in lengths[0]]
    duel = found["against"]["base"]["judge"]
    assert (duel["n"], duel["unjudged"]) == (12, 0)
    assert duel["win_rate"] == pytest.approx(100 * np.mean(won))
    assert 0 < duel["n_wins"] < 12


def test_the_best_of_several_is_the_judges_choice_and_the_truth_says_what_it_was_worth() -> None:
    """Two questions, four answers each, which truth and judge rank differently; expectations over all subsets."""
    asked = [question().model_copy(update={"prompt_id": name, "root_id": name}) for name in ("a", "b")]
    given = [answer(one, f"text {number}", number) for one in asked for number in range(4)]
    judged = dict(zip((one.response_id for one in given), (3.0, 1.0, 4.0, 2.0, 0.0, 0.5, 0.5, 0.1), strict=True))
    true = dict(zip((one.response_id for one in given), (1.0, 5.0, 2.0, 7.0, 1.0, 2.0, 9.0, 4.0), strict=True))
    answers = Answers(tuple(given), {"judge": judged, "truth": true})

    best = best_of_each(answers, 2)
    assert [one.text for one in best.responses] == ["text 0", "text 2", "text 1", "text 2"]
    assert best.scores["truth"] == {one.response_id: true[one.response_id] for one in best.responses}

    found = worth_of_choosing(answers, 3)
    assert (found["n"], found["questions"]) == (3, 2)
    assert found["kl_at_most"] == pytest.approx(1.0986122886681098 - 2 / 3)
    first = [
        fmean(true[max(few, key=lambda one: judged[one.response_id]).response_id] for few in combinations(given[:4], n))
        for n in (1, 2, 3)
    ]
    assert best_of_each(Answers(tuple(given[:4]), {"judge": judged, "truth": true}), 4).responses == (given[2],)
    only_first = worth_of_choosing(Answers(tuple(given[:4]), {"judge": judged, "truth": true}), 3)
    assert only_first["by_n"]["truth"] == pytest.approx(first)
    assert found["by_n"]["judge"][0] == pytest.approx(fmean(judged.values()))
    assert found["by_n"]["judge"] == sorted(found["by_n"]["judge"])


def test_a_suite_of_the_best_of_four_reports_what_choosing_is_worth(tmp_path: Path) -> None:
    folder = tmp_path / "best"
    changes = ("count=6", "best_of=4", "max_new_tokens=24")
    result = evaluate_run_command(options(folder, "everyday", *changes, judge="vader"))
    assert result["best_of"]["n"] == 4
    by_n = result["best_of"]["by_n"]["judge"]
    assert len(by_n) == 4
    assert by_n == sorted(by_n)
    assert result["answers"]["builtin:tiny"]["score"]["judge"]["value"] == pytest.approx(by_n[-1])
    assert len((folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()) == 6


def test_a_suite_takes_beams(tmp_path: Path) -> None:
    changes = ("count=3", "max_new_tokens=24", "temperature=0")
    for beams in (1, 4):
        evaluate_run_command(options(tmp_path / str(beams), "everyday", *changes, f"num_beams={beams}"))
    one, four = (
        [json.loads(line) for line in (tmp_path / name / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
        for name in ("1", "4")
    )
    assert [answer["settings"].get("num_beams") for answer in four] == [4] * 3
    assert [answer["text"] for answer in four] != [answer["text"] for answer in one]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (("best_of=2",), "best_of is 2, but nobody judges which answer is best. Name a judge."),
        (("best_of=2", "turns=2"), "best_of is for one turn, but turns is 2"),
        (("best_of=2", "num_beams=2"), "keep one of them"),
        (("num_beams=2",), "num_beams looks for the likeliest answers, but temperature is 1.0: set it to 0.0"),
        (("num_beams=2", "num_samples=3", "temperature=0"), "num_samples is 3, but 2 beams end in that many"),
    ],
)
def test_what_cannot_be_chosen_or_searched_is_said(tmp_path: Path, changes: tuple[str, ...], said: str) -> None:
    with pytest.raises(RecipeError) as error:
        evaluate_run_command(options(tmp_path / "run", "everyday", "count=1", *changes))
    assert said in str(error.value)
    assert not (tmp_path / "run").exists()
