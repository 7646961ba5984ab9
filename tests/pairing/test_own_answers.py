"""Rules that set the policy's own answers beside given ones, or its answers to two instructions."""

from collections.abc import Callable
from math import exp

import pytest

from prefloop.pairing import instructed, own_answer, prompted, self_play, worst_of_k
from prefloop.pairing.prompted import gap_mixture, gap_schedule
from prefloop.pairing.recommendation import Recommendation, first_item, self_play_rows
from prefloop.pairing.worst_of_k import cosine_of_words, worst_of_k_samples
from prefloop.records import Example, Group, Judgment, Message, Prompt

Build = Callable[..., Group]
Read = Callable[..., list[str]]
GIVEN = ["given", "given", "greedy"]


def ranked(*ranks: float | None) -> Judgment:
    return Judgment(judge="ranker", kind="ranking", subjects=("a", "b", "c"), values=ranks)


def test_best_against_worst_of_a_given_pair_and_the_own_answer(build: Build, read: Read) -> None:
    """c is the own answer; among equals it comes first."""

    def made(*ranks: float | None) -> list[str]:
        return read(list(own_answer(build([None] * 3, steps=GIVEN, extra=[ranked(*ranks)]))))

    assert made(2, 3, 1) == ["c>b"]
    assert made(1, 2, 3) == ["a>c"]
    assert made(1, 3, 2) == ["a>b"]
    assert made(1, 2, 1) == ["c>b"]
    assert made(2, 1, 2) == ["b>c"]
    assert made(1, 1, 1) == ["tie"]
    assert made(1, 2, None) == ["own answer without rank"]
    assert made(None, None, 1) == ["fewer than two ranked answers"]


def test_the_own_answer_is_a_third_member_and_the_example_says_where_it_stands(build: Build) -> None:
    said = []
    for ranks in ((2, 3, 1), (1, 2, 3), (1, 3, 2)):
        (example,) = own_answer(build([None] * 3, steps=GIVEN, extra=[ranked(*ranks)]))
        assert isinstance(example, Example)
        assert [member.role for member in example.members] == ["chosen", "rejected", "response"]
        assert example.member("response").response_id == "c"
        said.append(example.why)
    assert said == [
        "own_answer: own answer is the best of 3",
        "own_answer: own answer is the worst of 3",
        "own_answer: own answer is between best and worst of 3",
    ]


def test_without_ranks_wins_decide_and_what_the_data_set_said_does_not(build: Build, read: Read) -> None:
    def wins(first: str, second: str, value: float | None, judge: str = "ranker") -> Judgment:
        return Judgment(judge=judge, kind="preference", subjects=(first, second), values=(value,))

    given = wins("a", "b", 1.0, "dataset:pairs")
    asked = [wins("a", "b", 0.2), wins("c", "a", 0.9), wins("b", "c", 0.6)]
    (example,) = own_answer(build([None] * 3, steps=GIVEN, extra=[given, *asked]))
    assert isinstance(example, Example)
    assert read([example]) == ["b>a"]
    assert example.member("chosen").numbers["win_rate"] == pytest.approx((0.8 + 0.6 + 0.5) / 3)
    without = [given, asked[0], wins("c", "a", None), asked[2]]
    assert read(list(own_answer(build([None] * 3, steps=GIVEN, extra=without)))) == ["own answer without rank"]
    assert read(list(own_answer(build([1.0, 2.0, 3.0], steps=GIVEN, extra=without)))) == ["c>a"]


def test_there_must_be_one_own_answer(build: Build, read: Read) -> None:
    for steps in (["given"] * 3, ["given", "greedy", "greedy"]):
        group = build([None] * 3, steps=steps, extra=[ranked(1, 2, 3)])
        assert read(list(own_answer(group))) == ["not exactly one own answer"]


def test_a_given_answer_meets_the_worst_sample_with_the_smallest_cosine(build: Build, read: Read) -> None:
    steps = ["given", "samples", "samples", "samples"]
    cosines = Judgment(
        judge="embedding", kind="score", aspect="cosine_to_chosen", subjects=("b", "c", "d"), values=(0.5, 0.9, None)
    )
    (example,) = worst_of_k(build([None, 1.0, 0.2, 0.2], steps=steps, extra=[cosines]))
    assert isinstance(example, Example)
    assert read([example]) == ["a>c"]
    assert example.numbers == {"similarity": 0.5}
    assert [member.numbers for member in example.members] == [{}, {"score": 0.2}]
    assert read(list(worst_of_k(build([3.0, None], steps=steps)))) == ["no scored sample"]
    assert read(list(worst_of_k(build([3.0, 1.0], steps=["s", "s"])))) == ["no given answer"]
    assert read(list(worst_of_k(build([3.0, 1.0], steps=steps, texts=["x", "x"])))) == ["same text"]


def test_a_sample_at_the_threshold_is_not_bad() -> None:
    assert [worst_of_k_samples([0.5, 0.5], [0.1, 0.2], tau).use_rejected for tau in (0.4, 0.5, 0.6)] == [
        False,
        False,
        True,
    ]
    assert worst_of_k_samples([0.5, 0.5], [0.3, 0.2], 1.0).rejected == 0


def test_demonstrations_meet_own_answers(build: Build, read: Read) -> None:
    steps = ["given", "samples", "samples"]
    group = build([None] * 3, steps=steps, texts=['"Heat"\n', 'I say "Up", or "Jaws"', 'only "Heat"'])
    assert read(list(self_play(group))) == ["a>b", "a>c"]
    made = list(self_play(group, first_quoted=True))
    assert read(made) == ["a>b", "same text"]
    assert isinstance(made[0], Example)
    assert (made[0].member("rejected").text, made[0].member("rejected").token_ids) == ('"Up"\n', None)
    assert read(list(self_play(build([None] * 2, steps=steps), first_quoted=True))) == ["no quoted item"]
    assert read(list(self_play(build([None], steps=steps)))) == ["no own answer"]
    assert read(list(self_play(build([None], steps=["samples"])))) == ["no given answer"]


def test_rows_without_an_item_are_replaced_by_spare_ones() -> None:
    assert [first_item(text) for text in ('a "b" "c"', "none", '""', '"open')] == ['"b"\n', None, None, None]
    rows = [
        Recommendation(f"p{number}", '"A"\n', text) for number, text in enumerate(['"A"', "?", '"B"', '"C"', '"D"'])
    ]
    assert [row.prompt for row, _ in self_play_rows(rows, limit=2)] == ["p2", "p3"]
    assert [rejected for _, rejected in self_play_rows(rows, limit=9, drop_equal=False)][:2] == ['"A"\n', '"B"\n']
    assert self_play_rows(rows, limit=0) == []


def test_answers_behind_a_good_and_a_bad_instruction_are_paired_in_order(build: Build, read: Read) -> None:
    steps = ["good", "good", "bad", "bad"]
    group = build([None] * 4, steps=steps, lengths=[6, 6, 2, 1])
    assert read(list(prompted(group, good="good", bad="bad"))) == ["a>c", "lengths too different"]
    assert read(list(prompted(group, good="good", bad="bad", max_length_ratio=6.0))) == ["a>c", "b>d"]
    assert read(list(prompted(group, good="good", bad="worse"))) == ["no answer behind the bad instruction"]
    assert read(list(prompted(group, good="best", bad="bad"))) == ["no answer behind the good instruction"]
    same = build([None] * 2, steps=["good", "bad"], texts=["x", "x"])
    assert read(list(prompted(same, good="good", bad="bad"))) == ["same text"]
    (example, *_) = prompted(group, good="good", bad="bad")
    assert isinstance(example, Example)
    assert example.prompt == group.root
    assert example.why == "prompted: good against bad"


def test_a_mixture_is_a_distribution_for_every_gap_and_the_schedule_is_linear() -> None:
    for gap in (-1.0, 0.0, 0.3, 1.0, 2.5):
        assert abs(sum(exp(p) for p in gap_mixture([1.0, 2.0, -900.0], [900.0, 0.0, 3.0], gap)) - 1) < 1e-12
    assert gap_schedule(3, 1.0, 0.25) == [1.0, 0.625, 0.25]
    assert gap_schedule(1, 1.0, 0.25) == [1.0]


def test_an_instruction_stands_before_the_question_of_a_derived_prompt(build: Build, read: Read) -> None:
    group = build([None])
    (made,) = instructed(group, instruction="Answer badly.")
    assert isinstance(made, Prompt)
    assert made.messages == (Message(role="user", content="Answer badly.\n\nHow are you?"),)
    assert (made.root_id, made.prompt_id == group.root.prompt_id) == (group.root.prompt_id, False)
    (made,) = instructed(group, instruction="Answer badly.", placement="system")
    assert isinstance(made, Prompt)
    assert [message.role for message in made.messages] == ["system", "user"]
    silent = Group(prompts=(Prompt.of((Message(role="system", content="Be brief."),)),))
    assert read(list(instructed(silent, instruction="x"))) == ["no question to put an instruction before"]


def test_two_ranked_answers_are_enough(build: Build, read: Read) -> None:
    assert read(list(own_answer(build([None] * 3, steps=GIVEN, extra=[ranked(1, None, 2)])))) == ["a>c"]


def test_two_rounds_have_the_first_and_the_last_gap() -> None:
    assert gap_schedule(2, 1.0, 0.25) == [1.0, 0.25]


def test_the_cosine_of_words_counts_how_often_each_stands_there() -> None:
    """(2, 1) and (1, 3) have 5 in common, and lengths sqrt(5) and sqrt(10)."""
    assert cosine_of_words("Go, go up!", "up go up up") == pytest.approx(5 / 50**0.5)
    assert cosine_of_words("go", "GO.") == pytest.approx(1.0)
    assert cosine_of_words("go", "up") == 0.0
    assert cosine_of_words("", "up") == cosine_of_words("up", "...") == 0.0


def test_words_tell_the_least_similar_sample(build: Build) -> None:
    steps = ["given", "samples", "samples"]
    group = build([None, 1.0, 0.0], steps=steps, texts=["go up", "go", "up down left"])
    (example,) = worst_of_k(group, similarity="words")
    assert isinstance(example, Example)
    assert example.numbers["similarity"] == pytest.approx(1 / 6**0.5)
