"""Language models as judges: the same verdicts in this process and behind a server, read strictly, paid once."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import exp, inf, log
from pathlib import Path
from typing import Any

import pytest
import torch

from prefloop.config import JudgeServer, LlmJudge, LlmStepsJudge, Shown
from prefloop.errors import RecipeError, ResumableError
from prefloop.judging import Answers, Ask, Budget, Llm, LlmSteps, Price, Remembering, Verdict, judgments
from prefloop.judging.chat import LocalChat, Question, Said, ServerChat, logps_of
from prefloop.judging.judge_prompt import judge_prompt
from prefloop.judging.llm import AGAIN, EMPTY
from prefloop.judging.record import SAME
from prefloop.policy import ChatCodec, PolicyFiles, TokenRow, Workbench, resolve_model, score_rows
from prefloop.policy.passed_tokens import passed_tokens
from prefloop.records import Message, Prompt
from prefloop.testing import CompletionsServer, Faults

from .conftest import PROMPT, answer

NOTHING = re.compile("")
SHOWS: dict[str, Shown] = {
    "additive": "one",
    "additive_at_once": "one",
    "six_points_at_once": "all",
    "compare": "two",
    "compare_at_once": "two",
    "six_points_jointly": "all",
}


@dataclass
class Scripted:
    """Says what a function says of the messages, and counts."""

    says: Callable[[tuple[Message, ...]], str]
    asked: list[Question] = field(default_factory=list[Question])
    control: re.Pattern[str] = NOTHING
    logps: dict[str, float] | None = None

    def answers(
        self, questions: Sequence[Question], temperature: float, max_new_tokens: int
    ) -> Iterator[tuple[int, Said]]:
        del temperature, max_new_tokens
        for number in reversed(range(len(questions))):
            self.asked.append(questions[number])
            yield number, Said(self.says(questions[number].messages), 100, 10, self.logps)


def judge(chat: Any, prompt: str = "additive", **settings: Any) -> Llm:
    config = LlmJudge.model_validate({"type": "llm", "server": {"url": "http://x", "model": "m"}, **settings})
    return Llm(config, judge_prompt(prompt, SHOWS[prompt]), "m", lambda: chat)


def ask(*texts: str, repeat: int = 0) -> Ask:
    return Ask(PROMPT, tuple(answer(text, name=text) for text in texts), repeat)


def verdicts(judge: Llm, *asks: Ask) -> list[Verdict]:
    found = dict(judge.judge(asks))
    return [found[number] for number in range(len(asks))]


def fenced_in(messages: Sequence[Message], name: str) -> str:
    found = re.search(rf"<<{name} (\w+)>>\n(.*)\n<<end of {name} \1>>", messages[1].content, re.DOTALL)
    assert found is not None
    return found[2]


def test_a_score_is_read_behind_its_reason() -> None:
    chat = Scripted(lambda messages: f"Good.\n\n**Score:** {len(fenced_in(messages, 'answer'))}/5")
    (one, two) = verdicts(judge(chat), ask("abc"), ask("abcd"))
    assert (one.values, two.values) == ((3.0,), (4.0,))
    assert (one.raw, one.tokens_in, one.tokens_out) == ("Good.\n\n**Score:** 3/5", 100, 10)
    assert judge(chat).kind == "score"


def test_what_cannot_be_read_is_asked_once_more_and_then_invalid() -> None:
    chat = Scripted(
        lambda messages: "Score: 4" if len(messages) == 4 and fenced_in(messages, "answer") == "b" else "Hm."
    )
    first, second = verdicts(judge(chat), ask("a"), ask("b"))
    assert (first.values, second.values) == ((None,), (4.0,))
    assert (first.raw, second.raw) == (f"Hm.{AGAIN}Hm.", f"Hm.{AGAIN}Score: 4")
    assert (second.tokens_in, second.tokens_out) == (200, 20)
    assert len(chat.asked) == 4
    again = chat.asked[-1]
    assert [turn.role for turn in again.messages] == ["system", "user", "assistant", "user"]
    assert again.messages[2].content == "Hm."
    assert again.messages[3].content.startswith("That could not be read.")
    assert again.seed != chat.asked[0].seed


def test_both_orders_of_a_comparison_are_two_questions() -> None:
    chat = Scripted(
        lambda messages: "[[A]]" if fenced_in(messages, "answer A") > fenced_in(messages, "answer B") else "[[B]]"
    )
    found = verdicts(judge(chat, "compare"), ask("x", "y"), ask("y", "x"))
    assert [one.values for one in found] == [(0.0,), (1.0,)]
    assert judge(chat, "compare").kind == "preference"


def test_a_choice_is_a_probability_where_there_is_one_and_else_a_letter() -> None:
    chat = Scripted(lambda _messages: "A", logps={"A": -1.0, "B": -2.0})
    (found,) = verdicts(judge(chat, "compare_at_once"), ask("x", "y"))
    assert found.values == (pytest.approx(1 / (1 + exp(-1))),)
    assert chat.asked[0].choices == ("A", "B")
    (found,) = verdicts(judge(Scripted(lambda _messages: "**B**"), "compare_at_once"), ask("x", "y"))
    assert found.values == (0.0,)


def test_a_score_of_one_digit_is_its_expectation_where_there_are_probabilities_and_else_the_digit() -> None:
    """Three to one for 4 against 2: 3.5, whatever share other words have."""
    logps = {**dict.fromkeys("0135", -inf), "2": log(0.1), "4": log(0.3)}
    chat = Scripted(lambda _messages: "4", logps=logps)
    (found,) = verdicts(judge(chat, "additive_at_once"), ask("x"))
    assert found.values == (pytest.approx(3.5),)
    assert chat.asked[0].choices == tuple("012345")
    for said, score in [("**2**", 2.0), ("6", None), ("-3", None), ("4/5", None), ("12", None)]:
        chat = Scripted(lambda _messages, said=said: said)
        assert verdicts(judge(chat, "additive_at_once"), ask("x"))[0].values == (score,)
        assert len(chat.asked) == 1 + (score is None)


def test_all_answers_are_scored_side_by_side_one_digit_each() -> None:
    """Three questions whose beginnings are alike, up to the label; what is unread of one is asked again of it alone."""
    points = {"1": "5", "2": "hm", "3": "0"}

    def says(messages: tuple[Message, ...]) -> str:
        assert [fenced_in(messages, f"answer {label}") for label in points] == ["x", "y", "z"]
        asked_about = re.findall(r"does answer (\d) get", messages[1].content)[0]
        return points[asked_about] if len(messages) == 2 else "6"

    chat = Scripted(says)
    (found,) = verdicts(judge(chat, "six_points_at_once"), ask("x", "y", "z"))
    assert found.values == (5.0, 6.0, 0.0)
    assert found.raw == f"1: 5\n2: hm{AGAIN}6\n3: 0"
    assert (found.tokens_in, found.tokens_out) == (400, 40)
    assert [len(one.messages) for one in chat.asked] == [2, 2, 2, 4]
    texts = [one.messages[1].content.rpartition("does answer")[0] for one in chat.asked]
    assert len(set(texts)) == 1
    assert len({one.seed for one in chat.asked}) == 4
    assert verdicts(judge(Scripted(lambda _m: "6"), "six_points_at_once"), ask("x", ""))[0].values == (6.0, 0.0)
    bounds = [judge(chat, name).most(ask("x", "y", "z")) for name in ("six_points_at_once", "six_points_jointly")]
    assert bounds[0].tokens_out == 3 * bounds[1].tokens_out
    assert [one.calls for one in bounds] == [6, 2]
    assert found.calls == 4


def test_all_answers_are_scored_in_one_context() -> None:
    chat = Scripted(lambda _messages: "Score of answer 2: 5\nScore of answer 1: 1\nScore of answer 3: 0")
    (found,) = verdicts(judge(chat, "six_points_jointly"), ask("x", "y", "z"))
    assert found.values == (1.0, 5.0, 0.0)
    assert len(chat.asked) == 1


def test_of_a_joint_answer_what_can_be_read_is_kept() -> None:
    chat = Scripted(lambda _messages: "Score of answer 2: 5")
    (found,) = verdicts(judge(chat, "six_points_jointly"), ask("x", "y"))
    assert found.values == (None, 5.0)
    assert len(chat.asked) == 2


def test_an_answer_that_says_nothing_has_the_lowest_score_and_loses_unasked() -> None:
    chat = Scripted(lambda _messages: "Score: 5")
    assert verdicts(judge(chat), ask(" \n")) == [Verdict((0.0,), EMPTY, calls=0)]
    compared = judge(Scripted(lambda _messages: "[[A]]"), "compare")
    found = verdicts(compared, ask("", "x"), ask("x", ""), ask("", " "))
    assert [one.values for one in found] == [(0.0,), (1.0,), (0.5,)]
    joint = judge(Scripted(lambda _messages: "Score of answer 1: 6\nScore of answer 2: 6"), "six_points_jointly")
    assert verdicts(joint, ask("x", ""))[0].values == (6.0, 0.0)
    assert verdicts(joint, ask("", ""))[0] == Verdict((0.0, 0.0), EMPTY, calls=0)
    assert chat.asked == []


def test_repeats_are_other_questions_about_the_same() -> None:
    chat = Scripted(lambda _messages: "Score: 3")
    verdicts(judge(chat, temperature=1.0), ask("x"), ask("x", repeat=1))
    assert chat.asked[0].seed != chat.asked[1].seed
    assert chat.asked[0].messages != chat.asked[1].messages  # another mark


# Kept -----------------------------------------------------------------------------------------------------------------


def paid(run: Path, chat: Any, *asks: Ask, budget: Budget | None = None, **settings: Any) -> list[Verdict]:
    asked = judge(chat, **settings)
    config = asked.config
    price = Price(config.price, config.price_in / 1e6, config.price_out / 1e6, asked.most)
    with Answers.of_run(run) as answers:
        found = dict(Remembering(asked, answers, "judgments", price, budget or Budget()).judge(asks))
        return [found[number] for number in sorted(found)]


@pytest.mark.parametrize(
    ("change", "calls"),
    [
        ({}, 1),
        ({"max_new_tokens": 99}, 2),
        ({"temperature": 0.5}, 2),
        ({"prompt": "compare_at_once"}, 2),
        ({"price": 1.0}, 1),
    ],
)
def test_an_answer_is_kept_by_judge_template_settings_texts_order_and_repeat(
    change: dict[str, Any], calls: int, tmp_path: Path
) -> None:
    chat = Scripted(lambda _messages: "[[A]] A"[:5])
    paid(tmp_path, chat, ask("x", "y"), prompt="compare")
    paid(tmp_path, chat, ask("x", "y"), **{"prompt": "compare", **change})
    assert len([one for one in chat.asked if len(one.messages) == 2]) == calls


def test_order_repeat_and_text_are_other_answers(tmp_path: Path) -> None:
    chat = Scripted(lambda _messages: "[[A]]")
    for one in [ask("x", "y"), ask("y", "x"), ask("x", "y", repeat=1), ask("x", "z"), ask("x", "y")]:
        paid(tmp_path, chat, one, prompt="compare")
    assert len(chat.asked) == 4


def test_tokens_are_paid_as_they_come_and_no_call_exceeds_the_budget(tmp_path: Path) -> None:
    """100 tokens in and 10 out at $1000 and $2000 a million: 12 cents a call, whatever it might have cost."""
    chat = Scripted(lambda _messages: "Score: 3")
    prices = {"price_in": 1000.0, "price_out": 2000.0, "max_new_tokens": 10}
    asks = [ask(f"answer {number}") for number in range(100)]
    bound = judge(chat).most(asks[0]).tokens_in * 1e-3 + 20 * 2e-3
    with pytest.raises(ResumableError, match=r"judgments\.max_cost is \$10, and (\d+) calls for \$(\S+) were made; "):
        paid(tmp_path, chat, *asks, budget=Budget(max_cost=10.0), **prices)
    with Answers.of_run(tmp_path) as answers:
        assert answers.cost == pytest.approx(0.12 * answers.calls)
        assert 10 - bound - 0.5 < answers.cost <= 10  # as near as a call's bound allows
        calls = answers.calls
    assert calls == len(chat.asked)
    paid(tmp_path, chat, *asks, budget=Budget(max_cost=30.0), **prices)
    assert len(chat.asked) == 100


def test_a_bound_on_tokens_holds_for_a_real_tokenizer() -> None:
    codec = ChatCodec.load(resolve_model("builtin:tiny").directory, {})
    one = ask("\N{SNOWMAN} \U0001f600 ~~~~ zzzz qqqq")
    asked = judge(Scripted(lambda _messages: ""))
    messages = asked.prompt.messages(one, NOTHING)
    assert len(codec.prompt_ids(Prompt.of(messages))) <= asked.most(one).tokens_in - asked.config.max_new_tokens


# Real models ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench() -> Workbench:
    source = resolve_model("builtin:tiny")
    return Workbench(source, ChatCodec.load(source.directory, {}), torch.device("cpu"))


@pytest.fixture(scope="module")
def local(bench: Workbench) -> LocalChat:
    return LocalChat(bench, PolicyFiles(bench.source.identity, bench.source.directory), 2048)


def server_of(bench: Workbench, **settings: Any) -> CompletionsServer:
    return CompletionsServer(bench, PolicyFiles(bench.source.identity, bench.source.directory), **settings)


def behind(url: str, **settings: Any) -> ServerChat:
    return ServerChat(JudgeServer.model_validate({"url": url, "model": "tiny", "deadline_s": 5.0, **settings}))


QUESTIONS = [
    Question((Message(role="user", content=text),), seed, choices)
    for seed, (text, choices) in enumerate(
        [("How was it?", ()), ("A or B?", ("A", "B")), ("And the food?", ()), ("B or A?", ("A", "B"))]
    )
]


def test_a_local_choice_is_the_models_own_probability(local: LocalChat, bench: Workbench) -> None:
    found = dict(local.answers(QUESTIONS, 0.0, 8))
    codec = bench.codec
    ids = codec.prompt_ids(Prompt.of(QUESTIONS[1].messages))
    for letter in "AB":
        own = codec.response_ids(letter, finished=False)
        with bench.for_scoring(local.policy) as model:
            (expected,) = score_rows(model, [TokenRow(ids, own, (True,) * len(own))], 2048)
        logps = found[1].logps
        assert logps is not None
        assert logps[letter] == pytest.approx(expected, abs=1e-5)
    assert found[0].logps is None
    assert found[0].tokens_out <= 8


def test_one_digit_of_a_local_model_is_weighted_by_its_own_probabilities(local: LocalChat, bench: Workbench) -> None:
    """From the log-probability of every digit behind every question, each alone; read once, together, as a tree."""
    config = LlmJudge(type="llm", model="builtin:tiny")
    own = Llm(config, judge_prompt("six_points_at_once", "all"), "tiny", lambda: local)
    asked = ask("I love it.", "It is bad.", "So it goes.")
    codec, expected = bench.codec, list[float]()
    with bench.for_scoring(local.policy) as model:
        for label in "123":
            ids = codec.prompt_ids(Prompt.of(own.prompt.messages(asked, local.control, label)))
            rows = [TokenRow(ids, codec.response_ids(digit, finished=False), (True,)) for digit in "0123456"]
            weights = [exp(one) for one in score_rows(model, rows, 2048)]
            expected.append(sum(digit * weight for digit, weight in enumerate(weights)) / sum(weights))
        with passed_tokens(model) as passed:
            (found,) = verdicts(own, asked)
    assert found.values == pytest.approx(expected, abs=1e-4)
    assert len(set(expected)) == 3
    assert len(ids) < passed() < 2 * len(ids)  # what the three questions begin with passes once, digits with them


def test_a_server_and_this_process_say_the_same(local: LocalChat, bench: Workbench) -> None:
    with server_of(bench).running() as url:
        theirs = dict(behind(url).answers(QUESTIONS, 0.0, 8))
    ours = dict(local.answers(QUESTIONS, 0.0, 8))
    for number in (0, 2):
        assert theirs[number].text == ours[number].text
        assert theirs[number].tokens_in == ours[number].tokens_in
    for number in (1, 3):
        got, own = theirs[number].logps, ours[number].logps
        if got is not None:  # the letters are among the likely tokens
            assert own is not None
            assert {name: got[name] for name in got if got[name] > -50} == pytest.approx(
                {name: own[name] for name in got if got[name] > -50}, abs=1e-4
            )


@pytest.mark.parametrize("lacking", [{"lacks": frozenset({"logprobs"})}, {"false_logps": -1.0}, {"false_logps": 0.01}])
def test_probabilities_that_cannot_be_believed_are_not_used(bench: Workbench, lacking: dict[str, Any]) -> None:
    with server_of(bench, says=lambda _messages: "A", **lacking).running() as url:
        (found,) = (said for _, said in behind(url).answers(QUESTIONS[1:2], 0.0, 8))
    assert found.logps is None
    (verdict,) = verdicts(judge(Scripted(lambda _messages: found.text or ""), "compare_at_once"), ask("x", "y"))
    assert verdict.values == (1.0,)


@pytest.mark.parametrize(
    ("top", "expected"),
    [
        ([("A", -0.1), ("B", -3.0)], {"A": -0.1, "B": -3.0}),
        ([(" A", -1.0), ("A", -1.0), ("B", -3.0)], {"A": -1.0 + 0.6931471805599453, "B": -3.0}),
        ([("A", -0.1), ("x", -3.0)], {"A": -0.1, "B": float("-inf")}),
        ([("x", -0.1), ("y", -3.0)], None),
        ([("A", 0.5), ("B", -3.0)], None),
        ([("A", 0.0), ("B", 0.0)], None),
        ([("A", float("nan")), ("B", -1.0)], None),
        ([], None),
    ],
)
def test_log_probabilities_are_believed_where_they_can_be(
    top: list[tuple[str, float]], expected: dict[str, float] | None
) -> None:
    found = logps_of([{"token": token, "logprob": logp} for token, logp in top], ("A", "B"))
    assert found == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize("kind", ["too_many_requests", "error", "cut", "garbage", "empty", "error_object"])
def test_a_server_with_faults_gives_every_answer_in_the_end(bench: Workbench, kind: str) -> None:
    server = server_of(bench, says=lambda messages: messages[0].content, faults=Faults(0.4, (kind,), seed=1))
    plain = [Question((Message(role="user", content=f"{number}"),), number) for number in range(12)]
    with server.running() as url:
        found = dict(behind(url, deadline_s=60.0, concurrency=4).answers(plain, 0.0, 4))
    assert {number: said.text for number, said in found.items()} == {number: f"{number}" for number in range(12)}
    assert Counter(json.loads(body)["messages"][0]["content"] for body in server.answers).most_common(1)[0][1] == 1


def test_a_question_that_a_server_refuses_is_invalid_where_others_were_answered(bench: Workbench) -> None:
    server = server_of(bench, says=lambda _messages: "Score: 3", longest_prompt=4000)
    with server.running() as url:
        asked = judge(behind(url, concurrency=1))
        found = verdicts(asked, ask("short"), ask("long " * 4000))
        assert [one.values for one in found] == [(3.0,), (None,)]
        assert "maximum context length is 4000 tokens" in str(found[1].raw)
        with pytest.raises(RecipeError, match=r"refused with 400: .*Check judge\.server\.url, model and key\."):
            verdicts(judge(behind(url)), ask("long " * 4000))


def test_what_is_too_long_for_a_local_model_is_invalid(local: LocalChat) -> None:
    (found,) = verdicts(judge(local, max_new_tokens=4), ask("word " * 9000))
    assert found.values == (None,)
    assert re.fullmatch(r"\d+ tokens, the model has positions for \d+", str(found.raw))


def test_the_key_of_a_server_is_said_by_its_setting(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(
        RecipeError, match=r"judge\.server\.key names the environment variable JUDGE_KEY, which is not set"
    ):
        list(behind("http://127.0.0.1:1", key="JUDGE_KEY").answers(QUESTIONS[:1], 0.0, 4))
    monkeypatch.setenv("JUDGE_KEY", "secret")
    server = server_of(bench, says=lambda _messages: "x")
    with server.running() as url:
        list(behind(url, key="JUDGE_KEY").answers(QUESTIONS[:1], 0.0, 4))
    assert server.headers == ["Bearer secret"]


def test_a_local_judge_compares_in_both_orders(local: LocalChat) -> None:
    config = LlmJudge(type="llm", model="builtin:tiny")
    own = Llm(config, judge_prompt("compare_at_once", "two"), "tiny", lambda: local)
    said = list(judgments(own, [ask("I love it.", "It is bad."), ask("It is bad.", "I love it."), ask("x", "x")]))
    assert all(one.values[0] is not None and 0 < one.values[0] < 1 for one in said)
    assert said[2].raw == SAME
    assert said[0].values[0] == pytest.approx(said[0].values[0])
    again = list(judgments(own, [ask("I love it.", "It is bad.")]))
    assert again[0].values[0] == pytest.approx(said[0].values[0], abs=1e-5)


# Right or wrong, step by step -----------------------------------------------------------------------------------------


def test_a_letters_own_share_cancels_where_it_is_asked_with_the_letters_exchanged() -> None:
    """Log-odds of 4 for A whatever it means, and of 1 for right: 1 is left."""

    def logps(messages: tuple[Message, ...]) -> dict[str, float]:
        means_right = "A" if "A if it is right" in messages[1].content else "B"
        return {"A": 4.0 + (means_right == "A") - 9.0, "B": (means_right == "B") - 9.0}

    @dataclass
    class Biased(Scripted):
        def answers(
            self, questions: Sequence[Question], temperature: float, max_new_tokens: int
        ) -> Iterator[tuple[int, Said]]:
            del temperature, max_new_tokens
            for number, question in enumerate(questions):
                yield number, Said("A", 100, 1, logps(question.messages))

    config = LlmJudge(type="llm", model="m")
    own = Llm(config, judge_prompt("last_step_at_once", "one"), "m", lambda: Biased(lambda _messages: ""))
    (found,) = verdicts(own, ask("4+4=8"))
    assert found.values == (pytest.approx(1 / (1 + exp(-1))),)
    assert found.tokens_in == 200
    text = Scripted(lambda _messages: "A")
    own = Llm(config, judge_prompt("last_step_at_once", "one"), "m", lambda: text)
    assert verdicts(own, ask("4+4=8"))[0].values == (0.5,)  # A for right and A for wrong
    unread = Scripted(lambda _messages: "hm")
    own = Llm(config, judge_prompt("last_step_at_once", "one"), "m", lambda: unread)
    assert verdicts(own, ask("4+4=8"))[0].values == (None,)


def test_every_step_is_judged_by_the_solution_up_to_its_end(bench: Workbench) -> None:
    """The last step is shown last, and nothing of what follows; spans are those of the lines."""
    seen: list[str] = []

    @dataclass
    class Right:
        name: str = "llm:m:last_step"
        kind: str = "score"

        def judge(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Verdict]]:
            for number, one in reversed(list(enumerate(asks))):
                seen.append(one.subjects[0].text)
                yield number, Verdict((0.1 * len(one.subjects[0].text.splitlines()),), tokens_in=7)

    ids = bench.codec.response_ids("4+4=8\n8+1=9\nA: 9", finished=True)
    solution = answer("4+4=8\n8+1=9\nA: 9", name="s").model_copy(update={"token_ids": ids})
    config = LlmStepsJudge(type="llm_steps", model="m", steps="lines")
    last_step: Any = Right()
    judge = LlmSteps(config, last_step, bench.codec.text_of)
    (found,) = dict(judge.judge([Ask(PROMPT, (solution,))])).values()
    assert sorted(seen, key=len) == ["4+4=8", "4+4=8\n8+1=9", "4+4=8\n8+1=9\nA: 9"]
    assert found.values == pytest.approx((0.1, 0.2, 0.3))
    assert [bench.codec.text_of(ids[start:end]).strip() for start, end in found.spans] == ["4+4=8", "8+1=9", "A: 9"]
    assert found.tokens_in == 21
    assert judge.name == "llm_steps:m:last_step:lines"
