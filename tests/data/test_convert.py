"""Data sets written in another form and read again."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from prefloop.cli.convert import convert_command
from prefloop.data import find_source
from prefloop.data.convert import Converted, convert
from prefloop.data.formats import find_format, formats
from prefloop.data.formats.assembly import Answer, judged_answers, judged_pair
from prefloop.data.forms import Form, line_of
from prefloop.data.given import Given, given_response
from prefloop.errors import DataError
from prefloop.records import Message, Prompt

PLACE = "pairs.jsonl:1"
PAIR = {"prompt": "How are you?", "chosen": "Fine.", "rejected": "Go away."}
FORMAT_OF: dict[tuple[str, str], str] = {
    ("trl", "pair"): "trl_preference",
    ("trl", "label"): "trl_unpaired",
    ("trl", "answer"): "trl_completion",
    ("trl", "prompt"): "prompts",
    ("ultrafeedback", "pair"): "ultrafeedback_binarized",
    ("ultrafeedback", "ratings"): "ultrafeedback",
}

words = st.text(st.characters(codec="utf-8", exclude_characters="\0<"), min_size=1).filter(str.strip)
numbers = st.floats(-1e6, 1e6)
user = words.map(lambda text: Message(role="user", content=text))
assistant = words.map(lambda text: Message(role="assistant", content=text))
call: dict[str, Any] = {"type": "function", "function": {"name": "switch", "arguments": {"on": True}}}
used_tool = st.sampled_from(
    [
        (
            Message(role="assistant", content="", tool_calls=(call,)),
            Message(role="tool", content="ok", name="switch", tool_call_id="c1"),
        )
    ]
)


@st.composite
def prompts(draw: st.DrawFn, one_turn: bool) -> Prompt:
    system = draw(st.one_of(st.just(()), words.map(lambda text: (Message(role="system", content=text),))))
    earlier = () if one_turn else draw(st.one_of(st.just(()), st.tuples(user, assistant)))
    last = (draw(user),) if one_turn else (draw(user), *draw(st.one_of(st.just(()), used_tool)))
    tools: tuple[dict[str, Any], ...] = draw(st.sampled_from([(), ({"name": "switch"},)]))
    return Prompt.of((*system, *earlier, *last), source=PLACE, answer=draw(st.none() | words), tools=tools)


def beside(draw: st.DrawFn) -> dict[str, Any]:
    weight, margin = draw(st.none() | st.floats(0.01, 100)), draw(st.none() | numbers)
    return {"id": draw(st.none() | words), "weight": weight, "margin": margin}


@st.composite
def pairs(draw: st.DrawFn) -> Given:
    texts = draw(st.lists(words, min_size=2, max_size=2, unique=True))
    answers = [Answer(text, draw(st.sampled_from(["", "large", "small"]))) for text in texts]
    scores = draw(st.none() | st.tuples(numbers, numbers))
    sure = draw(st.floats(0.501, 1))
    return judged_pair(draw(prompts(one_turn=False)), answers, sure, scores, beside(draw), PLACE)


@st.composite
def rated(draw: st.DrawFn) -> Given:
    texts = draw(st.lists(words, min_size=1, max_size=4))
    answers = [Answer(text, "large" if len(text) % 2 else "") for text in texts]
    aspects = draw(st.sets(st.sampled_from(["overall", "fine_grained", "honesty", "helpfulness"])))
    ratings = st.tuples(numbers, *[st.none() | numbers] * (len(texts) - 1))
    said = {("score", aspect): draw(ratings) for aspect in sorted(aspects)}
    return judged_answers(draw(prompts(one_turn=True)), answers, said, beside(draw), PLACE)


def labelled(draw: st.DrawFn) -> Given:
    said = {("label", "overall"): [draw(st.sampled_from([0.0, 1.0]))]}
    return judged_answers(draw(prompts(one_turn=False)), [Answer(draw(words))], said, beside(draw), PLACE)


def answered(draw: st.DrawFn) -> Given:
    return judged_answers(draw(prompts(one_turn=False)), [Answer(draw(words))], {}, beside(draw), PLACE)


def alone(draw: st.DrawFn) -> Given:
    return judged_answers(draw(prompts(one_turn=False)), [], {}, beside(draw), PLACE)


ROWS: dict[str, st.SearchStrategy[Given]] = {
    "pair": pairs(),
    "ratings": rated(),
    "label": st.composite(labelled)(),
    "answer": st.composite(answered)(),
    "prompt": st.composite(alone)(),
}


def canonical(row: Given) -> Given:
    """The row with its judgments in one order."""
    return row.model_copy(update={"judgments": tuple(sorted(row.judgments, key=lambda one: (one.kind, one.aspect)))})


@pytest.mark.parametrize(("form", "kind"), FORMAT_OF)
@settings(max_examples=15, deadline=None)
@drawn(data=st.data())
def test_what_a_form_can_hold_comes_back_from_it(form: Form, kind: str, data: st.DataObject) -> None:
    row = data.draw(ROWS[kind])
    written = json.loads(line_of(row, form))
    again = find_format(FORMAT_OF[form, kind], "test").read(written, PLACE)
    assert canonical(again) == canonical(row)


@pytest.mark.parametrize("kind", ROWS)
@settings(max_examples=8, deadline=None)
@drawn(data=st.data())
def test_our_own_form_holds_everything(kind: str, data: st.DataObject) -> None:
    row = data.draw(ROWS[kind])
    assert find_format("prefloop", "test").read(json.loads(line_of(row, "prefloop")), PLACE) == row


@pytest.mark.parametrize("name", formats())
def test_the_example_of_every_format_survives_our_own_form(name: str) -> None:
    one = formats()[name]
    row = one.read(json.loads(one.example), PLACE)
    assert find_format("prefloop", "test").read(json.loads(line_of(row, "prefloop")), PLACE) == row


def pair_of(sure: float | None = 1.0, **columns: Any) -> Given:
    prompt = Prompt.of((Message(role="user", content="How are you?"),), source=PLACE)
    made = judged_pair(prompt, [Answer("Fine."), Answer("Go away.")], 1.0, (8.0, 2.0), columns, PLACE)
    preference = made.judgments[0].model_copy(update={"values": (sure,)})
    return made.model_copy(update={"judgments": (preference, made.judgments[1])})


def test_a_score_of_minus_zero_is_zero() -> None:
    row = pair_of()
    zeros = row.judgments[1].model_copy(update={"values": (0.0, -0.0)})
    row = row.model_copy(update={"judgments": (row.judgments[0], zeros)})
    again = find_format(FORMAT_OF["ultrafeedback", "pair"], "test").read(
        json.loads(line_of(row, "ultrafeedback")), PLACE
    )
    assert [one.values for one in again.judgments if one.kind == "score"] == [(0.0, 0.0)]


def test_the_better_answer_is_written_as_chosen() -> None:
    row = json.loads(line_of(pair_of(0.25, margin=1.5, weight=2.0), "trl"))
    assert row == {
        "prompt": [{"role": "user", "content": "How are you?"}],
        "chosen": [{"role": "assistant", "content": "Go away."}],
        "rejected": [{"role": "assistant", "content": "Fine."}],
        "prob_chosen_wins": 0.75,
        "weight": 2.0,
        "margin": -1.5,
        "score_chosen": 2.0,
        "score_rejected": 8.0,
    }


def test_ratings_are_written_as_ultrafeedback_has_them() -> None:
    prompt = Prompt.of((Message(role="user", content="How are you?"),), source=PLACE)
    said = {("score", "honesty"): [4.0, None], ("score", "overall"): [8.5, 2.0]}
    row = judged_answers(prompt, [Answer("Fine.", "large"), Answer("Go away.")], said, {}, PLACE)
    assert json.loads(line_of(row, "ultrafeedback")) == {
        "instruction": "How are you?",
        "models": ["large", ""],
        "completions": [
            {"model": "large", "response": "Fine.", "annotations": {"honesty": {"Rating": "4"}}, "overall_score": 8.5},
            {"model": "", "response": "Go away.", "annotations": {"honesty": {"Rating": "N/A"}}, "overall_score": 2.0},
        ],
    }


def test_a_rating_of_minus_zero_keeps_its_sign() -> None:
    prompt = Prompt.of((Message(role="user", content="How are you?"),), source=PLACE)
    row = judged_answers(prompt, [Answer("Fine.")], {("score", "honesty"): [-0.0]}, {}, PLACE)
    (completion,) = json.loads(line_of(row, "ultrafeedback"))["completions"]
    assert completion["annotations"] == {"honesty": {"Rating": "-0"}}


def test_a_thinking_part_is_written_before_its_answer() -> None:
    prompt = Prompt.of((Message(role="user", content="2 + 3?"),), source=PLACE)
    row = Given(prompt=prompt, responses=(given_response(prompt, "<think>\nAdd.\n</think>\n\n5"),))
    (turn,) = json.loads(line_of(row, "trl"))["completion"]
    assert turn["content"] == "<think>\nAdd.\n</think>\n\n5"


def ranked() -> Given:
    one = formats()["ranked_responses"]
    return one.read(json.loads(one.example), PLACE)


def of_two_turns() -> Given:
    one = formats()["hh_prompts"]
    prompt = one.read(json.loads(one.example), PLACE).prompt
    return judged_answers(prompt, [Answer("Fine.")], {("score", "overall"): [1.0]}, {}, PLACE)


def sampled() -> Given:
    row = pair_of()
    first = row.responses[0].model_copy(update={"token_ids": (1, 2), "sum_logp": -3.5})
    return row.model_copy(update={"responses": (first, row.responses[1])})


def cut() -> Given:
    row = pair_of()
    first = row.responses[0].model_copy(update={"finish_reason": "length"})
    return row.model_copy(update={"responses": (first, row.responses[1])})


def beginning_given() -> Given:
    row = pair_of()
    return row.model_copy(update={"prompt": row.prompt.model_copy(update={"prefix_ids": (5,)})})


@pytest.mark.parametrize(
    ("form", "make", "what"),
    [
        ("trl", ranked, "3 answers with rankings"),
        ("ultrafeedback", ranked, "3 answers with rankings"),
        ("trl", lambda: pair_of(None), "a tie"),
        ("trl", lambda: pair_of(0.5), "a tie"),
        ("ultrafeedback", of_two_turns, "a prompt of more than one turn"),
        ("trl", of_two_turns, "1 answers with scores"),
        ("trl", sampled, "response.token_ids"),
        ("ultrafeedback", cut, "response.finish_reason"),
        ("trl", beginning_given, "prompt.prefix_ids"),
    ],
)
def test_what_a_form_cannot_hold_is_an_error(form: Form, make: Callable[[], Given], what: str) -> None:
    with pytest.raises(DataError) as error:
        line_of(make(), form)
    assert str(error.value) == (
        f"{PLACE}: {form} cannot hold {what}. Convert with --to prefloop, which holds everything."
    )


def converted(tmp_path: Path, out: str, rows: list[Any], **options: Any) -> Converted:
    source = tmp_path / "pairs.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return convert(find_source(str(source)), tmp_path / out, **options)


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "jsonl.zst"])
def test_a_file_is_written_and_reads_again(tmp_path: Path, ending: str) -> None:
    done = converted(tmp_path, f"out.{ending}", [PAIR, {**PAIR, "prompt": "Who are you?"}], to="ultrafeedback")
    assert (done.written, done.report.says) == (2, "plain-text TRL preference")
    again = convert(find_source(str(tmp_path / f"out.{ending}")), tmp_path / "again.jsonl", to="trl")
    assert (again.written, again.report.says) == (2, "UltraFeedback-binarized preference")
    assert json.loads((tmp_path / "again.jsonl").read_text().splitlines()[1])["prompt"][0]["content"] == "Who are you?"


def test_equal_rows_are_equal_bytes_when_compressed(tmp_path: Path) -> None:
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        converted(tmp_path, name, [PAIR], to="trl")
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes()).endswith(b"\n")


def test_refused_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    done = converted(tmp_path, "out.jsonl", [PAIR, {**PAIR, "chosen": " "}], to="trl")
    assert (done.written, done.report.refused, done.report.problems) == (1, 1, {"empty_text": 1})


@pytest.mark.parametrize(
    ("out", "rows", "expected"),
    [
        ("pairs.jsonl", [PAIR], "exists already and is not overwritten. Name another file."),
        ("out.csv", [PAIR], "is written as JSON lines. Let its name end in .jsonl, .jsonl.gz, .jsonl.zst."),
        ("none/out.jsonl", [PAIR], "there is no folder"),
        ("out.jsonl", [{**PAIR, "chosen": " "}], "pairs.jsonl: every row is refused, nothing is written."),
        ("out.jsonl", [PAIR, {**PAIR, "chosen": "Well.", "prob_chosen_wins": 0.75, "tools": [{}], "x": 1}], None),
    ],
)
def test_a_file_that_cannot_be_written_is_an_error_and_nothing_is_left(
    tmp_path: Path, out: str, rows: list[Any], expected: str | None
) -> None:
    if expected is None:
        assert converted(tmp_path, out, rows, to="trl").written == 2
        return
    with pytest.raises(DataError) as error:
        converted(tmp_path, out, rows, to="trl")
    assert expected in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.jsonl"]


def test_the_command_says_what_it_read_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "pairs.jsonl", tmp_path / "out.jsonl"
    rows = [{**PAIR, "source": "web"}, {**PAIR, "chosen": " "}]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    result = convert_command(str(source), out, "trl", None)
    assert capsys.readouterr().out.splitlines() == [
        "pairs.jsonl: plain-text TRL preference, 2 rows",
        "columns that are not read, and not written: source",
        "pairs.jsonl: of 2 rows 1 refused (empty_text 1)",
        f"{out}: 1 row in the form trl",
    ]
    assert {key: result[key] for key in ("to", "written", "rows", "accepted", "refused")} == {
        "to": "trl",
        "written": 1,
        "rows": 2,
        "accepted": 1,
        "refused": 1,
    }


def test_a_row_that_the_form_cannot_hold_leaves_no_file(tmp_path: Path) -> None:
    rated_row = {"prompt": "How are you?", "responses": ["a", "b"], "scores": [1, 2]}
    with pytest.raises(DataError, match=r"pairs.jsonl:1: trl cannot hold 2 answers with scores"):
        converted(tmp_path, "out.jsonl", [rated_row], to="trl")
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.jsonl"]
