"""A user's own function as judge: what it is given, what it may return, and what is said when it fails."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prefloop.config import PythonJudge
from prefloop.errors import DataError, RecipeError
from prefloop.judging import Ask, check_judge, judgments, make_judge, read_from_outside
from prefloop.records import Message, Prompt

from .conftest import PROMPT, answer

Write = Callable[[str], None]
DIALOGUE = Prompt.of(
    (
        Message(role="user", content="Hi"),
        Message(role="assistant", content="Hello"),
        Message(role="user", content="Bye"),
    ),
    answer="gold",
)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes the user's module into the folder in which the command runs."""
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    yield lambda source: Path("rewards_of_mine.py").write_text(source, encoding="utf-8") and None
    sys.modules.pop("rewards_of_mine", None)
    sys.path[:] = before


def config(name: str = "score", **settings: object) -> PythonJudge:
    return PythonJudge.model_validate({"type": "python", "function": f"rewards_of_mine:{name}", **settings})


def scores(*texts: str, prompt: Prompt = PROMPT, **settings: object) -> list[float | None]:
    asks = [Ask(prompt, (answer(text, prompt, name=f"r{number}"),)) for number, text in enumerate(texts)]
    return [judgment.values[0] for judgment in judgments(make_judge(config(**settings)), asks)]


def test_it_is_given_prompt_and_answer_as_texts(write: Write) -> None:
    write("def score(prompt, response):\n    return len(prompt) + 100 * len(response)\n")
    assert scores("a", "bcd") == [111.0, 311.0]


def test_a_conversation_is_written_turn_by_turn(write: Write) -> None:
    write("def score(p, r):\n    return p == 'user: Hi\\n\\nassistant: Hello\\n\\nuser: Bye'\n")
    assert scores("x", prompt=DIALOGUE) == [1.0]


def test_records_hold_the_gold_answer(write: Write) -> None:
    write("def score(p, r):\n    return p.answer == r.text\n")
    assert scores("gold", "lead", prompt=DIALOGUE, gives="records") == [1.0, 0.0]


@pytest.mark.parametrize("returned", ["[len(r) for r in rs]", "np.array([len(r) for r in rs])", "(len(r) for r in rs)"])
def test_batches_are_lists_of_at_most_so_many(write: Write, returned: str) -> None:
    write(
        "import numpy as np\ncalls = []\n"
        f"def score(ps, rs):\n    calls.append((len(ps), list(rs)))\n    return {returned}\n"
    )
    assert scores("a", "bc", "def", "", "e", batch=2) == [1.0, 2.0, 3.0, 0.0, 1.0]
    assert sys.modules["rewards_of_mine"].calls == [(2, ["a", "bc"]), (2, ["def", ""]), (1, ["e"])]


def test_none_and_what_is_no_number_are_invalid_and_never_zero(write: Write) -> None:
    write("def score(p, r):\n    return {'none': None, 'nan': float('nan'), 'inf': float('inf')}.get(r, 2)\n")
    assert scores("none", "nan", "inf", "else") == [None, None, None, 2.0]


def test_its_own_errors_are_one_line_that_names_the_answer(write: Write) -> None:
    write("def score(p, r):\n    return half(r)\n\ndef half(r):\n    return 1 / len(r)\n")
    with pytest.raises(DataError) as raised:
        scores("a", "")
    assert str(raised.value) == (
        "judge rewards_of_mine:score: ZeroDivisionError: division by zero (rewards_of_mine.py, line 5), "
        "asked about answer r1 to mine.jsonl:3. Repair the function."
    )


def test_an_error_in_a_batch_names_its_first_answer(write: Write) -> None:
    write("def score(ps, rs):\n    raise KeyError('gone')\n")
    with pytest.raises(DataError, match=r"asked about answer r0 to mine\.jsonl:3 and 2 after it"):
        scores("a", "b", "c", batch=8)


def test_a_text_is_no_score(write: Write) -> None:
    write("def score(p, r):\n    return 'good'\n")
    with pytest.raises(DataError) as raised:
        scores("a")
    assert str(raised.value) == (
        "judge rewards_of_mine:score: returned 'good', expected a number, or None for no verdict, asked about "
        "answer r0 to mine.jsonl:3. Repair the function."
    )


@pytest.mark.parametrize(("returned", "found"), [("[1.0]", "1 values"), ("2.0", "a float"), ("'ab'", "a str")])
def test_a_batch_needs_as_many_values_as_answers(write: Write, returned: str, found: str) -> None:
    write(f"def score(ps, rs):\n    return {returned}\n")
    with pytest.raises(DataError) as raised:
        scores("a", "b", batch=2)
    assert str(raised.value) == (
        f"judge rewards_of_mine:score: returned {found}, expected a list of 2 numbers, one an answer (the first is "
        "answer r0 to mine.jsonl:3). Repair the function, or remove judge.batch."
    )


def test_its_identity_is_the_content_of_its_file(write: Write) -> None:
    write("def score(p, r):\n    return 1\n")
    one, name = read_from_outside(config()), make_judge(config()).name
    write("def score(p, r):\n    return 2\n")
    other = read_from_outside(config())
    assert list(one) == list(other) == ["rewards_of_mine:score"]
    assert one != other
    assert name == f"python:rewards_of_mine:score:{one['rewards_of_mine:score'][:12]}"
    assert make_judge(config()).name != name


def test_a_module_that_is_not_there_is_said(write: Write, tmp_path: Path) -> None:
    del write
    with pytest.raises(RecipeError) as raised:
        check_judge(config())
    assert str(raised.value) == (
        "judge.function is 'rewards_of_mine:score', but there is no module rewards_of_mine in "
        f"{tmp_path} or where Python finds modules. "
        "Expected `module:name`, as in `rewards:score` for the function score in rewards.py."
    )


def test_a_function_that_is_not_there_is_said(write: Write) -> None:
    write("import math\nfrom pathlib import Path\nLIMIT = 3\n\ndef scores(p, r):\n    return 1\n")
    with pytest.raises(RecipeError) as raised:
        check_judge(config())
    assert str(raised.value) == (
        "judge.function is 'rewards_of_mine:score', but rewards_of_mine has no function score. It has Path, scores."
    )


def test_a_module_that_cannot_be_imported_is_said(write: Write) -> None:
    write("import no_such_module_anywhere\n")
    with pytest.raises(RecipeError) as raised:
        check_judge(config())
    assert str(raised.value) == (
        "judge.function is 'rewards_of_mine:score', but importing rewards_of_mine fails: ModuleNotFoundError: "
        "No module named 'no_such_module_anywhere'. Repair the module."
    )


@pytest.mark.parametrize("name", ["rewards", "rewards.py:", ":score", "rewards:a.b", "re wards:score"])
def test_a_function_is_named_by_module_and_name(name: str) -> None:
    with pytest.raises(ValueError, match="String should match pattern"):
        PythonJudge(type="python", function=name)
