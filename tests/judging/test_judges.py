"""Judges on planted answers, and how what they say is recorded."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal

import pytest
from pydantic import TypeAdapter

from prefloop.config import JudgeConfig, ShorterJudge, VaderJudge
from prefloop.errors import ResumableError
from prefloop.judging import Ask, Verdict, ask_each, judgments, make_judge
from prefloop.records import Message, Prompt, Response

PROMPT = Prompt.of((Message(role="user", content="How was it?"),))
OTHER = Prompt.of((Message(role="user", content="And now?"),))


def response(text: str, tokens: int = 4, name: str = "r", prompt: Prompt = PROMPT) -> Response:
    return Response(
        response_id=name,
        prompt_id=prompt.prompt_id,
        root_id=prompt.root_id,
        step="samples",
        text=text,
        token_ids=(0,) * tokens,
        finish_reason="stop",
    )


def compound(valence: float) -> float:
    """VADER's normalisation of a sentence's summed valences, to the four digits that it reports."""
    return round(valence / math.sqrt(valence**2 + 15), 4)


LOVE, GOOD, HORRIBLE = compound(3.2), compound(1.9), compound(-2.5)


def score(text: str, tokens: int = 4, **config: object) -> float:
    judge = make_judge(VaderJudge.model_validate({"type": "vader", **config}))
    ((number, verdict),) = judge.judge([Ask(PROMPT, (response(text, tokens),))])
    assert number == 0
    (value,) = verdict.values
    assert value is not None
    return value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I love it.", LOVE),
        ("I love it. The day was horrible.", (LOVE + HORRIBLE) / 2),
        ("I love it!  It has a door.\nThe day was horrible.", (compound(3.2 + 0.292) + 0 + HORRIBLE) / 3),
        ("  The food was good.  ", GOOD),
        ("It costs 3.5 dollars, good.", GOOD),
        ("It has a door.", 0.0),
        ("", 0.0),
        ("   ", 0.0),
    ],
)
def test_the_score_is_the_mean_over_sentences(text: str, expected: float) -> None:
    assert score(text) == pytest.approx(expected, abs=1e-12)


def test_repeating_a_sentence_leaves_the_sentence_score_and_raises_the_text_score() -> None:
    once, thrice = "The food was good.", "The food was good. " * 3
    assert score(thrice) == score(once)
    assert score(once, unit="text") == score(once)
    assert score(thrice, unit="text") == compound(3 * 1.9)


def test_the_planted_bias_is_added_a_token() -> None:
    assert score("The food was good.", tokens=5, length_bias=0.02) == pytest.approx(GOOD + 0.1, abs=1e-12)
    assert score("The food was good.", tokens=50, length_bias=-0.01) == pytest.approx(GOOD - 0.5, abs=1e-12)


def test_negation_turns_the_sentiment_but_not_the_bias() -> None:
    assert score("The food was good.", tokens=5, negate=True, length_bias=0.02) == pytest.approx(-GOOD + 0.1)


@pytest.mark.parametrize(
    ("config", "truth"),
    [
        ({"type": "vader"}, None),
        ({"type": "vader", "unit": "text"}, None),
        ({"type": "vader", "length_bias": 0.02}, {"type": "vader"}),
        ({"type": "vader", "negate": True, "unit": "text"}, {"type": "vader", "unit": "text"}),
        ({"type": "shorter"}, None),
    ],
)
def test_the_truth_is_the_judge_without_its_planted_flaws(
    config: dict[str, object], truth: dict[str, object] | None
) -> None:
    judge = TypeAdapter[VaderJudge | ShorterJudge](JudgeConfig).validate_python(config)
    assert judge.truth() == (None if truth is None else VaderJudge.model_validate(truth))


def test_the_name_says_everything_that_decides_the_score() -> None:
    lexicon = version("nltk-vader-sentiment")
    names = [
        make_judge(VaderJudge(type="vader")).name,
        make_judge(VaderJudge(type="vader", unit="text", length_bias=0.02, negate=True)).name,
        make_judge(ShorterJudge(type="shorter")).name,
    ]
    assert names == [
        f"rule:vader:sentence:{lexicon}",
        f"rule:vader:text:length_bias=0.02:negate:{lexicon}",
        "rule:shorter",
    ]


def test_shorter_is_minus_the_tokens_of_each_answer() -> None:
    asks = [Ask(PROMPT, (response("a", 3), response("b", 9))), Ask(PROMPT, (response("c", 1),))]
    assert list(make_judge(ShorterJudge(type="shorter")).judge(asks)) == [
        (0, Verdict(values=(-3.0, -9.0))),
        (1, Verdict(values=(-1.0,))),
    ]


def test_every_answer_is_asked_about_alone_under_its_own_prompt() -> None:
    answers = [response("a", name="a"), response("b", name="b", prompt=OTHER), response("c", name="c")]
    asks = ask_each([PROMPT, OTHER], answers)
    assert [(ask.prompt, ask.subjects) for ask in asks] == [
        (PROMPT, (answers[0],)),
        (OTHER, (answers[1],)),
        (PROMPT, (answers[2],)),
    ]


@dataclass(frozen=True)
class Backwards:
    """Answers the last ask first, cannot score the one that says `?`, and leaves some asks open."""

    open_asks: frozenset[int] = frozenset()
    name: str = "test:backwards"
    kind: Literal["score"] = "score"

    def judge(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Verdict]]:
        for number in reversed(range(len(asks))):
            text = asks[number].subjects[0].text
            if number not in self.open_asks:
                value = None if text == "?" else float(len(text))
                yield number, Verdict(values=(value,), raw=f"said {text}", tokens_in=3, tokens_out=1)


def test_judgments_come_in_the_order_of_the_asks_and_keep_what_was_said() -> None:
    asks = ask_each([PROMPT], [response("one", name="a"), response("?", name="b"), response("three", name="c")])
    recorded = list(judgments(Backwards(), asks))
    assert [(found.subjects, found.values, found.raw) for found in recorded] == [
        (("a",), (3.0,), "said one"),
        (("b",), (None,), "said ?"),
        (("c",), (5.0,), "said three"),
    ]
    assert {(found.judge, found.kind, found.tokens_in, found.tokens_out) for found in recorded} == {
        ("test:backwards", "score", 3, 1)
    }


def test_an_ask_without_a_verdict_stops_the_run_and_can_be_resumed() -> None:
    asks = ask_each([PROMPT], [response("x", name=name) for name in "abcd"])
    with pytest.raises(ResumableError) as raised:
        list(judgments(Backwards(frozenset({1, 2})), asks))
    assert str(raised.value) == "test:backwards: 2 of 4 answers have no verdict. Run the same command again."
    assert raised.value.exit_code == 75
