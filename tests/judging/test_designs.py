"""Designs: what is asked, in which order and when, counted by hand; and judges whose faults are known."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from prefloop.config import DesignConfig, PythonJudge, VaderJudge
from prefloop.data import next_turn
from prefloop.errors import DataError
from prefloop.judging import Apart, Ask, Judge, Kind, Verdict, asked, judgments, make_judge, most_calls, plan_of
from prefloop.judging.record import SAME
from prefloop.pairing import preferred, tournament, win_rates
from prefloop.pairing.combination import win_matrix
from prefloop.records import Example, Group, Judgment, Message, NextTurn, Prompt, Response

from .conftest import PROMPT, answer

OTHER = Prompt.of((Message(role="user", content="And now?"),))


@dataclass
class Asked:
    """Prefers the text that is later in the alphabet, says nothing about `?`, and writes down every wave."""

    waves: list[list[str]] = field(default_factory=list[list[str]])
    name: str = "test:asked"
    kind: Kind = "preference"

    def judge(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Verdict]]:
        self.waves.append(["".join(one.text for one in ask.subjects) for ask in asks])
        for number, ask in enumerate(asks):
            texts = [one.text for one in ask.subjects]
            if self.kind == "score":
                yield number, Verdict(tuple(float(ord(text)) for text in texts))
            else:
                yield number, Verdict((None if "?" in texts else float(texts[0] > texts[1]),))


def answers(texts: str, prompt: Prompt = PROMPT, step: str = "") -> list[Response]:
    return [answer(text, prompt, name=f"{step}{prompt.messages[0].content}{n}") for n, text in enumerate(texts)]


def run(judge: Judge, texts: str, other: str = "", *, seed: int = 0, **design: Any) -> list[Judgment]:
    built: Any = TypeAdapter[Any](DesignConfig).validate_python(design)
    ours = [*answers(texts), *answers(other, OTHER)]
    plan = plan_of(built, [PROMPT, OTHER], ours, (), (seed,))
    return asked(plan, lambda asks: list(judgments(judge, asks)))


def test_each_asks_about_every_answer_alone_as_often_as_it_is_told() -> None:
    judge = Asked(kind="score")
    said = run(judge, "ab", "c", type="each", repeats=2)
    assert judge.waves == [["a", "a", "b", "b", "c", "c"]]
    assert [one.repeat for one in said] == [0, 1] * 3


def test_all_pairs_ask_about_every_two_answers_of_a_prompt_in_both_orders() -> None:
    judge = Asked()
    said = run(judge, "abc", "de", type="all_pairs")
    assert judge.waves == [["ab", "ba", "ac", "ca", "bc", "cb", "de", "ed"]]
    assert [one.values for one in said] == [(0.0,), (1.0,)] * 4
    assert said[1].subjects == ("How was it?1", "How was it?0")


@dataclass
class Reader(Asked):
    """Writes down what it is shown."""

    shown: list[tuple[tuple[str, ...], tuple[str, ...]]] = field(default_factory=list[Any])

    def judge(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Verdict]]:
        for number, ask in enumerate(asks):
            question = tuple(one.content for one in ask.prompt.messages)
            self.shown.append((question, tuple(one.text for one in ask.subjects)))
            yield number, Verdict((1.0,))


def test_second_answers_meet_as_conversations_that_began_with_one_question() -> None:
    """What was asked second stands behind different answers, so that the first question is what both have in common."""
    first = PROMPT.model_copy(update={"later": (NextTurn(content="And then?"),)})
    prompts, seconds = [], []
    for side, (early, late) in {
        "ours": ("Good.", "Home."),
        "theirs": ("Bad.", "Away."),
        "silent": ("So.", " "),
    }.items():
        asked_next = next_turn(first, answer(early, first))
        assert asked_next is not None
        prompts.append(asked_next)
        seconds.append(answer(late, asked_next, name=side).model_copy(update={"root_id": first.prompt_id}))
    design: Any = TypeAdapter[Any](DesignConfig).validate_python({"type": "against", "opponents": "theirs"})
    judge = Reader()
    plan = plan_of(design, prompts, seconds[:1], seconds[1:], (0,))
    said = asked(plan, lambda asks: list(judgments(judge, asks)))
    own = "Assistant:\nGood.\n\nUser:\nAnd then?\n\nAssistant:\nHome."
    other = own.replace("Good", "Bad").replace("Home", "Away")
    question = tuple(one.content for one in PROMPT.messages)
    assert judge.shown[:2] == [(question, (own, other)), (question, (other, own))]
    assert judge.shown[2] == (question, (own, ""))
    assert [one.subjects for one in said[:2]] == [("ours", "theirs"), ("theirs", "ours")]


def test_one_order_is_drawn_by_the_seed_and_recorded() -> None:
    orders = []
    for seed in range(200):
        judge = Asked()
        (one,) = run(judge, "ab", type="all_pairs", both_orders=False, seed=seed)
        orders.append("".join(subject[-1] for subject in one.subjects))
        assert judge.waves == [["ab" if orders[-1] == "01" else "ba"]]
    assert 75 < Counter(orders)["01"] < 125
    again = run(Asked(), "ab", type="all_pairs", both_orders=False, seed=3)
    assert "".join(subject[-1] for subject in again[0].subjects) == orders[3]


def test_against_asks_about_every_answer_with_every_opponent() -> None:
    judge = Asked()
    built: Any = TypeAdapter[Any](DesignConfig).validate_python({"type": "against", "opponents": "teacher"})
    plan = plan_of(built, [PROMPT, OTHER], [*answers("ab"), *answers("d", OTHER)], answers("z", step="t"), (0,))
    said = asked(plan, lambda asks: list(judgments(judge, asks)))
    assert judge.waves == [["az", "za", "bz", "zb"]]  # the other prompt has no opponent
    assert said[0].subjects == ("How was it?0", "tHow was it?0")


def test_a_joint_ask_shows_all_answers_in_an_order_that_is_drawn_and_recorded() -> None:
    judge = Asked(kind="score")
    said = run(judge, "abcd", "e", type="joint", repeats=3)
    assert [sorted(shown) for shown in judge.waves[0]] == [list("abcd")] * 3 + [["e"]] * 3
    assert len(set(judge.waves[0][:3])) > 1
    texts = {one.response_id: one.text for one in [*answers("abcd"), *answers("e", OTHER)]}
    assert ["".join(texts[subject] for subject in one.subjects) for one in said] == judge.waves[0]
    assert [one.repeat for one in said] == [0, 1, 2] * 2
    assert all(one.values == tuple(float(ord(texts[subject])) for subject in one.subjects) for one in said)


def test_every_place_is_equally_likely_in_a_joint_ask() -> None:
    places: Counter[int] = Counter()
    for seed in range(300):
        (one,) = run(Asked(kind="score"), "abc", type="joint", seed=seed)
        places[one.subjects.index("How was it?0")] += 1
    assert all(70 < places[place] < 130 for place in range(3))


def test_a_tournament_asks_wave_by_wave_and_its_rule_finds_the_same_winner() -> None:
    """Eight and two answers: 11 comparisons and 1, each in both orders; all prompts of a wave together."""
    judge = Asked()
    said = run(judge, "cahbgdfe", "xy", type="tournament")
    assert [[pair for pair in wave if pair[0] < pair[1]] for wave in judge.waves] == [
        ["ac", "bh", "dg", "ef", "xy"],
        ["ch", "fg", "ab", "de"],
        ["gh", "ad"],
        ["ah"],
    ]
    assert [len(wave) for wave in judge.waves] == [10, 8, 4, 2]
    ours = answers("cahbgdfe")
    own = tuple(one for one in said if one.subjects[0].startswith("How"))
    (example,) = tournament(Group((PROMPT,), tuple(ours), own))
    assert isinstance(example, Example)
    assert [member.text for member in example.members] == ["h", "a"]


def test_a_comparison_without_verdict_ends_a_tournament_and_no_other() -> None:
    judge = Asked()
    run(judge, "a?cd", "wxyz", type="tournament")
    assert judge.waves[1:] == [["xz", "zx", "wy", "yw"], ["zw", "wz"]]


def test_a_tournament_of_three_is_refused() -> None:
    with pytest.raises(DataError) as raised:
        run(Asked(), "abc", type="tournament")
    assert str(raised.value) == (
        "mine.jsonl:3: has 3 answers, expected a power of two for a tournament. "
        "Set samples.num_samples to one, or another design."
    )


def test_two_answers_with_one_text_are_equal_and_nobody_is_asked() -> None:
    judge = Asked()
    said = run(judge, "aab", type="all_pairs")
    assert judge.waves == [["ab", "ba", "ab", "ba"]]
    assert [(one.values[0], one.raw) for one in said[:2]] == [(0.5, SAME), (0.5, SAME)]


@pytest.mark.parametrize("design", ["each", "joint", "all_pairs", "against", "tournament"])
@pytest.mark.parametrize("size", [2, 4, 8])
@pytest.mark.parametrize("both", [True, False])
def test_calls_are_predicted(design: str, size: int, both: bool) -> None:
    settings: dict[str, Any] = {"type": design, "repeats": 3}
    if design not in {"each", "joint"}:
        settings["both_orders"] = both
    if design == "against":
        settings["opponents"] = "teacher"
    judge = Asked(kind="preference" if "both_orders" in settings else "score")
    built: Any = TypeAdapter[Any](DesignConfig).validate_python(settings)
    plan = plan_of(built, [PROMPT], answers("abcdefgh"[:size]), answers("xyz", step="t"), (0,))
    said = asked(plan, lambda asks: list(judgments(judge, asks)))
    assert len(said) == most_calls(built, prompts=1, answers=size, opponents=3)


# A judge of single answers ------------------------------------------------------------------------------------------


def test_scores_are_compared_and_every_answer_is_scored_once() -> None:
    scores = Asked(kind="score")
    said = run(Apart(scores, compares=True), "baa", "cd", type="all_pairs")
    assert scores.waves == [["b", "a", "a", "c", "d"]]  # "aa" is one text, and asked about beside the others only
    assert [one.values[0] for one in said] == [1.0, 0.0, 1.0, 0.0, 0.5, 0.5, 0.0, 1.0]
    assert {one.kind for one in said} == {"preference"}


def test_a_tournament_by_scores_scores_every_answer_once() -> None:
    scores = Asked(kind="score")
    run(Apart(scores, compares=True), "cahb", type="tournament")
    assert scores.waves == [list("cahb"), [], []]


def test_a_joint_ask_of_single_scores_is_in_the_order_shown() -> None:
    scores = Asked(kind="score")
    (one,) = run(Apart(scores, compares=False), "abc", type="joint")
    assert [len(wave) for wave in scores.waves] == [3]
    assert one.values == tuple(float(ord("abc"[int(subject[-1])])) for subject in one.subjects)


def test_an_invalid_score_makes_the_comparison_invalid() -> None:
    @dataclass
    class Silent:
        name: str = "test:silent"
        kind: Kind = "score"

        def judge(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Verdict]]:
            for number, ask in enumerate(asks):
                yield number, Verdict((None if ask.subjects[0].text == "a" else 1.0,), "said", 5, 2)

    said = run(Apart(Silent(), compares=True), "abc", type="all_pairs", both_orders=False)
    assert sorted(str(one.values[0]) for one in said) == ["0.5", "None", "None"]
    assert sum(one.tokens_in for one in said) == 15  # three answers were read, not six


def test_vader_compares_by_its_scores() -> None:
    judge = Apart(make_judge(VaderJudge(type="vader")), compares=True)
    good, bad = answer("I love it.", name="good"), answer("The day was horrible.", name="bad")
    found = [one.values[0] for one in judgments(judge, [Ask(PROMPT, (good, bad)), Ask(PROMPT, (bad, good))])]
    assert found == [1.0, 0.0]


# Judges whose faults are known ---------------------------------------------------------------------------------------


def known(function: str) -> Judge:
    return make_judge(PythonJudge(type="python", compares=True, function=f"prefloop.testing.judges:{function}"))


def verdicts_of(function: str, texts: str = "abcdef") -> list[Judgment]:
    return run(known(function), texts, type="all_pairs")


def consistent(said: Sequence[Judgment]) -> list[bool]:
    by_order = {one.subjects: one.values[0] for one in said}
    return [by_order[pair] != by_order[pair[::-1]] for pair in by_order if pair < pair[::-1]]


@pytest.mark.parametrize(("function", "first"), [("always_first", 1.0), ("always_second", 0.0)])
def test_a_judge_of_places_is_never_consistent_and_builds_no_pair(function: str, first: float) -> None:
    said = verdicts_of(function)
    assert [one.values[0] for one in said] == [first] * 30
    assert not any(consistent(said))
    group = Group((PROMPT,), tuple(answers("abcdef")), tuple(said))
    assert [found.reason for found in preferred(group) if not isinstance(found, Example)] == ["orders disagree"] * 15
    assert [found.reason for found in preferred(group, orders="mean") if not isinstance(found, Example)] == ["tie"] * 15
    assert [getattr(found, "reason", "a pair") for found in win_rates(group)] == ["tie"]


def test_a_coin_is_consistent_half_of_the_time_and_only_then_builds_a_pair() -> None:
    said = verdicts_of("coin_flip", "abcdefghijklmnop")
    agreed = consistent(said)
    assert len(agreed) == 120
    assert 43 < sum(agreed) < 77  # 60 and three standard errors
    assert 96 < sum(one.values[0] == 1.0 for one in said) < 144
    group = Group((PROMPT,), tuple(answers("abcdefghijklmnop")), tuple(said))
    made = [found for found in preferred(group) if isinstance(found, Example)]
    assert len(made) == sum(agreed)
    by_order = {one.subjects: one.values[0] for one in said}
    for example in made:
        better, worse = (member.response_id for member in example.members)
        assert (by_order[better, worse], by_order[worse, better]) == (1.0, 0.0)


def test_a_judge_of_length_is_always_consistent() -> None:
    texts = ["a", "bb", "ccc"]
    group = [answer(text, name=text) for text in texts]
    asks = [Ask(PROMPT, pair) for pair in permutations(group, 2)]
    said = list(judgments(known("longer"), asks))
    assert all(consistent(said))
    made = [found for found in preferred(Group((PROMPT,), tuple(group), tuple(said))) if isinstance(found, Example)]
    assert [[member.text for member in one.members] for one in made] == [["bb", "a"], ["ccc", "a"], ["ccc", "bb"]]
    assert all(one.numbers == {"prob_chosen_wins": 1.0} for one in made)


@pytest.mark.parametrize(
    ("first", "second", "mean", "agree"),
    [
        (0.9, 0.2, 0.85, 0.85),
        (0.9, 0.6, 0.65, None),
        (0.5, 0.5, 0.5, 0.5),
        (1.0, 1.0, 0.5, None),
        (0.9, None, 0.9, None),
        (None, None, None, None),
    ],
)
def test_both_orders_are_averaged_or_have_to_agree(
    first: float | None, second: float | None, mean: float | None, agree: float | None
) -> None:
    said = [
        Judgment(judge="j", kind="preference", subjects=("a", "b"), values=(first,)),
        Judgment(judge="j", kind="preference", subjects=("b", "a"), values=(second,)),
    ]
    group = Group((PROMPT,), (), tuple(said))
    assert win_matrix(group).get(("a", "b")) == (None if mean is None else pytest.approx(mean))
    assert win_matrix(group, "agree").get(("a", "b")) == (None if agree is None else pytest.approx(agree))
    one_order = Group((PROMPT,), (), tuple(said[:1]))
    assert win_matrix(one_order, "agree").get(("a", "b")) == first  # nothing contradicts it


def test_a_pair_has_to_be_sure_enough() -> None:
    said = Judgment(judge="j", kind="preference", subjects=("a", "b"), values=(0.4,))
    group = Group((PROMPT,), (answer("x", name="a"), answer("y", name="b")), (said,))
    (example,) = preferred(group)
    assert isinstance(example, Example)
    assert (example.member("chosen").text, example.why) == ("y", "preferred: won with 0.60")
    (dropped,) = preferred(group, min_confidence=0.6)
    assert not isinstance(dropped, Example)
    assert dropped.reason == "not sure enough"


@pytest.mark.parametrize(("function", "value"), [("above", "1.5"), ("below", "-0.1")])
def test_a_comparing_function_returns_a_probability(
    function: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / f"compares_{function}.py").write_text(f"def better(prompt, first, second):\n    return {value}\n")
    judge = make_judge(PythonJudge(type="python", compares=True, function=f"compares_{function}:better"))
    with pytest.raises(DataError) as raised:
        run(judge, "ab", type="all_pairs")
    assert str(raised.value) == (
        f"judge compares_{function}:better: returned {value}, expected the probability that the first answer is "
        "better, from 0 to 1, asked about answers How was it?0 and How was it?1 to mine.jsonl:3. Repair the function, "
        "or remove judge.compares."
    )
