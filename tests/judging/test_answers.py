"""Answers that are kept: nobody is asked twice, never more than the budget allows, and a kill loses nothing."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import pytest
from pydantic import JsonValue

from prefloop.errors import DataError, ResumableError
from prefloop.judging import Answers, Ask, Budget, Price, Remembering, Taken, Verdict
from prefloop.judging.answers import FILE, key_of
from prefloop.records import Message, Prompt

from .conftest import PROMPT, answer

OTHER = Prompt.of((Message(role="user", content="And now?"),))


@dataclass(frozen=True)
class Counting:
    """Scores by length, writes down what it was asked, and says nothing about `?`, or nothing valid about `!`."""

    asked: list[str] = field(default_factory=list[str])
    name: str = "test:counting"
    kind: Literal["score"] = "score"

    def judge(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Verdict]]:
        for number in reversed(range(len(asks))):
            text = asks[number].subjects[0].text
            self.asked.append(text)
            if text != "?":
                yield number, Verdict((None if text == "!" else float(len(text)),), f"said {text}", 7, 2)

    def seen(self, ask: Ask) -> JsonValue:
        return [ask.prompt.messages[0].content, *(subject.text for subject in ask.subjects)]


def asks_of(*texts: str, prompt: Prompt = PROMPT) -> list[Ask]:
    return [Ask(prompt, (answer(text, prompt, name=f"{number}"),)) for number, text in enumerate(texts)]


def said(
    judge: Counting, run: Path, *texts: str, price: float = 0.0, budget: Budget | None = None
) -> dict[str, object]:
    with Answers.of_run(run) as answers:
        asked = Remembering(judge, answers, "judgments", Price(price), budget or Budget())
        found = dict(asked.judge(asks_of(*texts)))
    return {text: found[number].values[0] for number, text in enumerate(texts) if number in found}


def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    judge = Counting()
    assert said(judge, tmp_path, "a", "bb") == {"a": 1.0, "bb": 2.0}
    assert said(judge, tmp_path, "bb", "ccc", "a") == {"bb": 2.0, "ccc": 3.0, "a": 1.0}
    assert judge.asked == ["bb", "a", "ccc"]


def test_the_whole_verdict_is_kept(tmp_path: Path) -> None:
    with Answers.of_run(tmp_path) as answers:
        fresh = dict(Remembering(Counting(), answers, "judgments").judge(asks_of("a", "!")))
    with Answers.of_run(tmp_path) as answers:
        assert dict(Remembering(Counting(), answers, "judgments").judge(asks_of("a", "!"))) == fresh
    assert fresh == {0: Verdict((1.0,), "said a", 7, 2), 1: Verdict((None,), "said !", 7, 2)}


def test_the_same_question_twice_is_asked_once(tmp_path: Path) -> None:
    judge = Counting()
    assert said(judge, tmp_path, "a", "bb", "a") == {"a": 1.0, "bb": 2.0}
    assert sorted(judge.asked) == ["a", "bb"]


def test_what_stays_open_is_asked_again(tmp_path: Path) -> None:
    judge = Counting()
    assert said(judge, tmp_path, "a", "?") == {"a": 1.0}
    said(judge, tmp_path, "a", "?")
    assert sorted(judge.asked) == ["?", "?", "a"]


def test_another_judge_prompt_answer_order_or_repeat_is_another_question() -> None:
    one, two = answer("a"), answer("b")
    asks = [
        Ask(PROMPT, (one, two)),
        Ask(PROMPT, (two, one)),
        Ask(PROMPT, (one,)),
        Ask(PROMPT, (one,), repeat=1),
        Ask(OTHER, (one,)),
    ]
    keys = [key_of(Counting(name=name), ask) for ask in asks for name in ("test:v1", "test:v2")]
    assert len(set(keys)) == len(keys)
    renamed = one.model_copy(update={"response_id": "another", "policy": "another"})
    assert key_of(Counting(), Ask(PROMPT, (one,))) == key_of(Counting(), Ask(PROMPT, (renamed,)))


def test_calls_stop_before_the_one_that_would_exceed_the_limit(tmp_path: Path) -> None:
    judge, budget = Counting(), Budget(max_calls=3)
    said(judge, tmp_path, "a", "bb", budget=budget)
    with pytest.raises(ResumableError) as raised:
        said(judge, tmp_path, "a", "ccc", "dddd", "eeeee", budget=budget)
    assert str(raised.value) == (
        "judgments: judgments.max_calls is 3, and 3 calls for $0.00 were made; 2 more answers are needed now, at most "
        "2 calls for $0.00. Raise the limit and run the same command again."
    )
    assert raised.value.exit_code == 75
    assert judge.asked == ["bb", "a", "ccc"]
    assert said(judge, tmp_path, "a", "bb", "ccc", budget=budget) == {"a": 1.0, "bb": 2.0, "ccc": 3.0}
    assert said(judge, tmp_path, "dddd", "eeeee", budget=Budget(max_calls=5)) == {"dddd": 4.0, "eeeee": 5.0}
    assert judge.asked == ["bb", "a", "ccc", "eeeee", "dddd"]


@pytest.mark.parametrize(("max_cost", "calls"), [(0.0, 0), (0.09, 0), (0.1, 1), (0.3, 3), (0.39, 3), (0.4, 4)])
def test_calls_stop_before_the_one_that_would_cost_too_much(tmp_path: Path, max_cost: float, calls: int) -> None:
    judge, budget = Counting(), Budget(max_cost=max_cost)
    texts = ("a", "bb", "ccc", "dddd")
    if calls < len(texts):
        with pytest.raises(ResumableError, match=rf"judgments\.max_cost is \${max_cost:g}, and {calls} calls"):
            said(judge, tmp_path, *texts, price=0.1, budget=budget)
    else:
        said(judge, tmp_path, *texts, price=0.1, budget=budget)
    assert len(judge.asked) == calls
    with Answers.of_run(tmp_path) as answers:
        assert answers.cost == pytest.approx(0.1 * calls)
        assert answers.calls == calls


def test_an_ask_of_several_calls_is_counted_and_paid_as_so_many(tmp_path: Path) -> None:
    """Four at most, three taken: of nine calls the first ask may take four, the second as many, the third not."""

    class Asking(Counting):
        def judge(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Verdict]]:
            for number, verdict in super().judge(asks):
                yield number, replace(verdict, calls=3)

    price, judge = Price(call=0.1, most=lambda _ask: Taken(4)), Asking()
    with Answers.of_run(tmp_path) as answers:
        with pytest.raises(ResumableError) as raised:
            dict(Remembering(judge, answers, "judgments", price, Budget(max_calls=9)).judge(asks_of("a", "bb", "ccc")))
        assert (answers.calls, answers.cost, len(judge.asked)) == (6, pytest.approx(0.6), 2)
        assert "is 9, and 6 calls for $0.60 were made; 1 more answers are needed now, at most 4 calls for $0.40" in str(
            raised.value
        )
        found = dict(Remembering(judge, answers, "judgments", price).judge(asks_of("a", "bb", "ccc")))
        assert [one.calls for one in found.values()] == [3, 3, 3]
        assert len(judge.asked) == 3


def test_answers_of_versions_that_counted_no_calls_are_one_call_each(tmp_path: Path) -> None:
    judge = Counting()
    said(judge, tmp_path, "a", "bb", price=0.5)
    with Answers.of_run(tmp_path) as answers:
        answers.connection.execute("alter table answers drop column calls")
    assert said(judge, tmp_path, "a", "bb", "ccc", price=0.5) == {"a": 1.0, "bb": 2.0, "ccc": 3.0}
    with Answers.of_run(tmp_path) as answers:
        assert (answers.calls, answers.cost) == (3, 1.5)


def test_many_answers_are_found_again(tmp_path: Path) -> None:
    judge, asks = Counting(), asks_of(*(f"{number}" for number in range(1200)))
    with Answers.of_run(tmp_path, survives_power_loss=False) as answers:
        asked = Remembering(judge, answers, "judgments")
        assert dict(asked.judge(asks)) == dict(asked.judge(asks))
    assert len(judge.asked) == 1200


def test_a_file_that_is_something_else_is_said(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("not a database, but long enough to be taken for the beginning of one\n" * 40)
    with pytest.raises(DataError, match=r"answers\.sqlite: not the answers of judges \(file is not a database\)"):
        said(Counting(), tmp_path, "a")


CHILD = """
import os, signal, sys
from pathlib import Path
from test_answers import Counting, said

class Dying(Counting):
    def judge(self, asks):
        for number, verdict in super().judge(asks):
            with open(Path(sys.argv[1]) / "log", "a") as log:
                log.write(asks[number].subjects[0].text + "\\n")
            if number == int(sys.argv[2]):
                os.kill(os.getpid(), signal.SIGKILL)
            yield number, verdict

said(Dying(), Path(sys.argv[1]), *"abcdef", price=0.5)
"""


@pytest.mark.crash
def test_a_process_that_is_killed_while_it_judges_has_paid_nothing_for_nothing(tmp_path: Path) -> None:
    """Killed after the call about `d` and before its answer could be kept: that one alone is asked again."""
    code = CHILD.replace("from test_answers", "from tests.judging.test_answers")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["src", "."])}

    def run(at: int) -> int:
        command = [sys.executable, "-c", code, str(tmp_path), str(at)]
        return subprocess.run(command, env=environment, check=False).returncode

    assert run(3) == -signal.SIGKILL
    assert run(-1) == 0
    assert (tmp_path / "log").read_text().split() == [*"fed", *"dcba"]
    with Answers.of_run(tmp_path) as answers:
        assert (answers.calls, answers.cost) == (6, 3.0)
