"""Rules and verifiers on answers whose verdict can be seen, and what is said of prompts that they cannot judge."""

import pytest
from pydantic import TypeAdapter, ValidationError

from prefloop.config import JudgeConfig
from prefloop.errors import DataError
from prefloop.judging import Ask, Judge, make_judge
from prefloop.records import Message, Prompt, Response

from .conftest import answer


def judge_of(**config: object) -> Judge:
    return make_judge(TypeAdapter[object](JudgeConfig).validate_python(config))  # type: ignore[arg-type]


def score(text: str, *, tokens: int = 4, gold: str | None = None, **config: object) -> float | None:
    prompt = Prompt.of((Message(role="user", content="How many?"),), answer=gold, source="sums.jsonl:7")
    ((number, verdict),) = judge_of(**config).judge([Ask(prompt, (answer(text, prompt, tokens=tokens),))])
    assert number == 0
    (value,) = verdict.values
    return value


def test_longer_is_the_length_in_tokens() -> None:
    assert score("a b", tokens=7, type="longer") == 7.0
    assert judge_of(type="longer").name == "rule:longer"


@pytest.mark.parametrize(
    ("unit", "shortest", "longest", "expected"),
    [
        ("tokens", 5, 9, 1.0),
        ("tokens", 5, 5, 1.0),
        ("tokens", 6, 9, 0.0),
        ("tokens", 0, 4, 0.0),
        ("words", 2, 2, 1.0),
        ("words", 3, 9, 0.0),
        ("characters", 11, 11, 1.0),
        ("characters", 12, 99, 0.0),
    ],
)
def test_a_length_window_holds_both_of_its_ends(unit: str, shortest: int, longest: int, expected: float) -> None:
    config = {"type": "length_window", "unit": unit, "shortest": shortest, "longest": longest}
    assert score("hello world", tokens=5, **config) == expected


def test_a_window_that_holds_no_length_is_refused() -> None:
    with pytest.raises(ValidationError, match="no length is at least 5 and at most 4"):
        judge_of(type="length_window", shortest=5, longest=4)


@pytest.mark.parametrize(
    ("text", "pattern", "forbidden", "expected"),
    [
        ("So it is \\boxed{4}.", r"\\boxed\{.+\}", False, 1.0),
        ("So it is 4.", r"\\boxed\{.+\}", False, 0.0),
        ("As an AI, I cannot.", "(?i)as an ai", True, 0.0),
        ("Certainly.", "(?i)as an ai", True, 1.0),
        ("yes\n", r"\Ayes\Z", False, 0.0),
    ],
)
def test_a_pattern_is_found_anywhere(text: str, pattern: str, forbidden: bool, expected: float) -> None:
    assert score(text, type="regex", pattern=pattern, forbidden=forbidden) == expected


def test_what_is_no_pattern_is_refused() -> None:
    with pytest.raises(ValidationError, match="not a regular expression: missing \\), unterminated subpattern"):
        judge_of(type="regex", pattern="(")


@pytest.mark.parametrize(
    ("text", "ignore_case", "expected"),
    [("  Paris\n", False, 1.0), ("paris", False, 0.0), ("PARIS", True, 1.0), ("Paris.", True, 0.0), ("", True, 0.0)],
)
def test_an_exact_match_is_the_gold_answer_and_nothing_else(text: str, ignore_case: bool, expected: float) -> None:
    assert score(text, gold="Paris ", type="exact_match", ignore_case=ignore_case) == expected


@pytest.mark.parametrize(
    ("text", "gold", "expected"),
    [
        ("3 and 4 make 7.", "#### 7", 1.0),
        ("3 and 4 make 8.", "#### 7", 0.0),
        ("It costs $1,250.00.", "#### 1250", 1.0),
        ("That is 1,250,000 in all", "#### 1250000", 1.0),
        ("The numbers are 1, 2,3", "3", 1.0),
        ("#### 12\nLet me know by 5 pm.", "#### 12", 1.0),
        (r"so \boxed{12}, which is less than 20", "12", 1.0),
        (r"#### 5 and then \boxed{12}", "12", 1.0),
        ("#### nothing, so 6", "6", 1.0),
        ("10-4", "4", 1.0),
        ("f(3)-4", "4", 1.0),
        ("it fell to -4", "-4", 1.0),
        ("it fell to \N{MINUS SIGN}4", "-4", 1.0),
        ("it fell to -4", "4", 0.0),
        ("a debt of -$5", "-5", 1.0),
        ("a half, .5", "0.50", 1.0),
        ("about 62 %", "62", 1.0),
        (r"\$18", "18", 1.0),
        ("I do not know", "7", 0.0),
        ("", "7", 0.0),
    ],
)
def test_the_number_at_the_end_is_compared_as_a_number(text: str, gold: str, expected: float) -> None:
    assert score(text, gold=gold, type="final_number") == expected


@pytest.mark.parametrize("kind", ["exact_match", "final_number"])
def test_a_prompt_without_gold_answer_cannot_be_verified(kind: str) -> None:
    with pytest.raises(DataError) as raised:
        score("7", type=kind)
    assert str(raised.value) == (
        f"sums.jsonl:7: has no gold answer, which judge {kind} compares with. "
        "Give every prompt one, or choose another judge."
    )


def test_a_gold_answer_without_number_is_said() -> None:
    with pytest.raises(DataError) as raised:
        score("7", gold="seven", type="final_number")
    assert str(raised.value) == (
        "sums.jsonl:7: its gold answer 'seven' has no number. judge final_number needs one; "
        "use exact_match, or repair the prompt set."
    )


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"type": "length_window", "longest": 9}, "rule:length_window:0-9:tokens"),
        ({"type": "length_window", "shortest": 2, "longest": 9, "unit": "words"}, "rule:length_window:2-9:words"),
        ({"type": "regex", "pattern": "a+"}, "rule:regex:a+"),
        ({"type": "regex", "pattern": "a+", "forbidden": True}, "rule:regex:forbidden:a+"),
        ({"type": "exact_match"}, "rule:exact_match"),
        ({"type": "exact_match", "ignore_case": True}, "rule:exact_match:ignore_case"),
        ({"type": "final_number"}, "rule:final_number"),
    ],
)
def test_a_rules_name_says_everything_that_decides_its_score(config: dict[str, object], name: str) -> None:
    assert judge_of(**config).name == name


def test_thoughts_are_no_part_of_what_is_judged() -> None:
    prompt = Prompt.of((Message(role="user", content="How many?"),), answer="4")
    said = Response.model_validate(
        {**answer("It is 4", prompt, tokens=6).model_dump(), "thinking": "5?", "num_thinking": 2}
    )
    asks = [Ask(prompt, (said,))]
    assert [one.values for _, one in judge_of(type="final_number").judge(asks)] == [(1.0,)]
    assert [one.values for _, one in judge_of(type="length_window", longest=4).judge(asks)] == [(1.0,)]


@pytest.mark.parametrize("kind", ["exact_match", "final_number"])
def test_a_verdict_on_a_final_answer_is_a_score_or_a_label(kind: str) -> None:
    assert judge_of(type=kind).kind == "score"
    assert judge_of(type=kind, says="label").kind == "label"


def test_a_rubric_gives_a_point_for_everything_that_holds() -> None:
    points = [
        {"type": "length_window", "longest": 6},
        {"type": "regex", "pattern": "thank"},
        {"type": "regex", "pattern": "never", "forbidden": True},
    ]
    assert score("thank you", tokens=6, type="rubric", points=points) == 3.0
    assert score("thank you", tokens=7, type="rubric", points=points) == 2.0
    assert score("you never", tokens=7, type="rubric", points=points) == 0.0
    name = judge_of(type="rubric", points=points).name
    assert name.startswith("rule:rubric+length_window")
    assert name != judge_of(type="rubric", points=points[:2]).name
    with pytest.raises(ValidationError, match="at least 1 item"):
        judge_of(type="rubric", points=[])
