"""Edited tokens, rewritten segments, corrupted answers."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given as all_of
from hypothesis import strategies as st

from prefloop.errors import RecipeError
from prefloop.pairing import (
    corrupted_numbers,
    cut_open,
    edited,
    editing,
    editing_text,
    find_rule,
    spliced,
    wrong_choices,
)
from prefloop.pairing.corrupted import NUMBER, corrupted_number, relative_edit_distance
from prefloop.pairing.edits import diff_masks, spans_of
from prefloop.pairing.segments import ReplayBuffer, segment_range, splice
from prefloop.records import Example, Group, Judgment, Message, Prompt

Build = Callable[..., Group]
Read = Callable[..., list[str]]
TOKENS = st.lists(st.integers(0, 4), max_size=8)


def test_one_edit_in_a_long_answer_marks_one_token() -> None:
    """With difflib's heuristic for popular elements it would mark half of them."""
    draw = random.Random(1)
    tokens = [draw.randrange(20) for _ in range(250)]
    chosen, rejected = diff_masks([*tokens[:100], 77, *tokens[101:]], tokens)
    assert (sum(chosen), sum(rejected), chosen[100]) == (1, 1, 1)


@all_of(TOKENS, TOKENS)
def test_what_is_not_marked_is_the_same_in_both(chosen: list[int], rejected: list[int]) -> None:
    masks = diff_masks(chosen, rejected)
    kept = [
        [token for token, mark in zip(*two, strict=True) if not mark]
        for two in zip((chosen, rejected), masks, strict=True)
    ]
    assert kept[0] == kept[1]
    assert diff_masks(chosen, chosen) == ([0] * len(chosen), [0] * len(chosen))
    ignoring = diff_masks(chosen, rejected, {0, 1})
    assert not any(mark for token, mark in zip(chosen, ignoring[0], strict=True) if token in {0, 1})
    assert sum(end - start for start, end in spans_of(masks[0])) == sum(masks[0])


def test_a_mask_as_spans() -> None:
    assert spans_of([1, 1, 0, 1, 0]) == ((0, 2), (3, 4))
    assert spans_of([0, 1]) == ((1, 2),)
    assert spans_of([]) == ()


class Letters:
    """A tokenizer of a token a letter; EOS is 0."""

    def prompt_ids(self, prompt: Prompt) -> tuple[int, ...]:
        return self.response_ids(prompt.messages[-1].content, finished=False) + prompt.prefix_ids

    def response_ids(self, text: str, *, finished: bool) -> tuple[int, ...]:
        return (*map(ord, text), *((0,) if finished else ()))

    def text_of(self, token_ids: Sequence[int]) -> str:
        return "".join(chr(token) for token in token_ids if token)


LETTERS = Letters()


def two_versions(build: Build, chosen: list[int] | None, rejected: list[int]) -> Group:
    group = build([None, None])
    old, new = group.responses
    old = old.model_copy(update={"token_ids": tuple(rejected)})
    new = new.model_copy(update={"token_ids": chosen and tuple(chosen), "parent_id": "a"})
    return replace(group, responses=(old, new))


def test_an_edited_answer_meets_what_it_was_made_of_with_marks(build: Build, read: Read) -> None:
    group = two_versions(build, [1, 2, 9, 5, 4], [1, 2, 3, 4])
    (example,) = edited(group, LETTERS)
    assert isinstance(example, Example)
    assert read([example]) == ["b>a"]
    assert [member.marked for member in example.members] == [((2, 4),), ((2, 3),)]
    assert read(list(edited(group, LETTERS, max_edited=0.3))) == ["edited too much"]
    assert read(list(edited(two_versions(build, [1, 2], [1, 2]), LETTERS))) == ["nothing was edited"]
    assert read(list(edited(build([None, None]), LETTERS))) == ["no edited answer"]
    alone = two_versions(build, [1], [2])
    assert read(list(edited(replace(alone, responses=alone.responses[1:]), LETTERS))) == ["what was edited is missing"]


def test_an_editor_is_asked_about_every_given_pair_and_its_answer_stands_behind_the_question(
    build: Build, read: Read
) -> None:
    preference = Judgment(judge="dataset:x", kind="preference", subjects=("a", "b"), values=(1.0,))
    given = build([None, None], steps=["given"] * 2, texts=["a {rejected} b", "c a d"], extra=[preference])
    given = replace(given, responses=tuple(one.model_copy(update={"token_ids": None}) for one in given.responses))
    (asked,) = editing(given, template="{question}|{chosen}|{rejected}")
    assert isinstance(asked, Prompt)
    assert asked.messages[0].content == "How are you?|a {rejected} b|c a d"
    assert (asked.root_id, asked.labels) == (given.root.prompt_id, {"edits": "b"})

    answer = given.responses[1].model_copy(
        update={"response_id": "e", "prompt_id": asked.prompt_id, "step": "corrections", "text": "c i e"}
    )
    group = replace(given, prompts=(given.root, asked), responses=(*given.responses, answer))
    (example,) = edited(group, LETTERS)
    assert isinstance(example, Example)
    assert (read([example]), example.prompt) == (["e>b"], given.root)
    assert [member.token_ids for member in example.members] == [(99, 32, 105, 32, 101, 0), (99, 32, 97, 32, 100, 0)]
    assert [member.marked for member in example.members] == [((4, 5),), ((4, 5),)]
    (example,) = edited(group, LETTERS, ignored_words=())
    assert isinstance(example, Example)
    assert [member.marked for member in example.members] == [((2, 3), (4, 5)), ((2, 3), (4, 5))]
    assert example.numbers == {"edited": 4 / 12}


def test_an_editor_is_told_who_speaks_in_a_conversation() -> None:
    turns = [
        Message(role="user", content="Hi"),
        Message(role="assistant", content="Oh"),
        Message(role="user", content="Go"),
    ]
    assert editing_text(turns, "r", "c", "{question}/{rejected}/{chosen}") == "user: Hi\nassistant: Oh\nuser: Go/r/c"
    with pytest.raises(RecipeError, match=r"expected \{chosen\} in the text"):
        find_rule("editing", "pairs").checked({"template": "{question} {rejected}"}, "pairs")


@pytest.mark.parametrize(
    ("response", "prompt", "expected"),
    [(600, 200, (256, (0, 341))), (100, 50, (100, (0, 0))), (258, 9, (256, (0, 0))), (260, 9, (256, (0, 1)))],
)
def test_segments_begin_within_the_answer(response: int, prompt: int, expected: object) -> None:
    limits = {"segment_length": 256, "max_length": 2048, "max_prompt_length": 1792}
    assert segment_range(response, prompt, **limits) == expected


def test_a_long_prompt_leaves_less_room_and_never_a_negative_one() -> None:
    assert segment_range(600, 150, segment_length=20, max_length=300, max_prompt_length=200) == (20, (0, 130))
    assert segment_range(600, 900, segment_length=20, max_length=300, max_prompt_length=200) == (20, (0, 80))
    assert segment_range(600, 900, segment_length=120, max_length=300, max_prompt_length=200) == (120, (0, 0))


@all_of(st.lists(st.integers(3, 9), min_size=1, max_size=9), st.data())
def test_a_splice_keeps_what_stands_in_front_and_behind(tokens: list[int], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(tokens)))
    generated = data.draw(st.lists(st.integers(3, 9), max_size=4))
    made = splice(tokens, start, len(generated), generated, eos=2)
    assert made == tokens[:start] + generated + tokens[start + len(generated) :]
    ended = splice(tokens, start, 9, [*generated, 2, 5], eos=2)
    assert ended == [*tokens[:start], *generated, 2]
    assert splice(tokens, start, 0, [], eos=2) == tokens


@all_of(st.integers(0, 3), st.lists(st.sampled_from("abcdef"), max_size=9))
def test_a_buffer_never_holds_more_than_its_size(size: int, added: list[str]) -> None:
    buffer = ReplayBuffer(size)
    for item in added:
        buffer.add(item)
        buffer.count([item, "gone"])
    assert buffer.items == (added[-size:] if size else [])
    assert len(buffer.times_drawn) == len(buffer.items)
    if buffer.items:
        assert sum(buffer.probabilities()) == pytest.approx(1.0)


def test_edit_distances_of_words() -> None:
    assert relative_edit_distance("the answer is 4", "the answer is 5 .") == 0.4
    assert relative_edit_distance("a b c d", "b c e d") == 0.5
    assert relative_edit_distance("", " ") == 0.0


@all_of(st.lists(st.integers(0, 120), min_size=1, max_size=5), st.integers(0, 99))
def test_one_number_changes_and_never_the_final_one(numbers: list[int], seed: int) -> None:
    text = " plus ".join(map(str, numbers))
    made = corrupted_number(text, random.Random(seed))
    if made is None:
        assert all(number == numbers[-1] for number in numbers)
        return
    found = NUMBER.findall(made)
    changed = [index for index, (old, new) in enumerate(zip(numbers, found, strict=True)) if str(old) != new]
    assert len(changed) == 1
    assert changed[0] < len(numbers) - 1
    assert len(found[changed[0]]) == len(str(numbers[changed[0]]))
    assert len(made) == len(text)


def test_what_is_no_number_by_itself_is_left_alone() -> None:
    assert NUMBER.findall("x2 3.5 v1.2.3 7% 12, (4) 5.") == ["3.5", "12", "4", "5"]
    assert corrupted_number("no number", random.Random(0)) is None
    assert corrupted_number("only 4", random.Random(0)) is None
    assert corrupted_number("only 4", random.Random(0), "any") not in (None, "only 4")


def test_a_right_answer_meets_its_corrupted_copy(build: Build, read: Read) -> None:
    text = "Two apples at 15 cents make 30 cents and three pears at 20 make 60, in all 90."
    group = build([None], steps=["given"], texts=[text])
    (example,) = corrupted_numbers(group)
    assert isinstance(example, Example)
    assert example.member("chosen").text == text
    wrong = example.member("rejected")
    assert (wrong.token_ids, example.numbers) == (None, {"edit_distance": pytest.approx(1 / 18)})
    assert wrong.text.endswith("in all 90.")
    assert [one for one in corrupted_numbers(group)] == [example]
    others = {
        made.member("rejected").text
        for seed in range(9)
        for made in corrupted_numbers(group, seed=seed)
        if isinstance(made, Example)
    }
    assert len(others) > 3
    many = [one for one in corrupted_numbers(group, copies=5) if isinstance(one, Example)]
    assert len({one.example_id for one in many}) == len(many) > 1
    assert any(
        not made.member("rejected").text.endswith("90.")
        for seed in range(20)
        for made in corrupted_numbers(group, numbers="any", seed=seed)
        if isinstance(made, Example)
    )
    assert read(list(corrupted_numbers(group, max_distance=0.05))) == ["edit distance too large"]
    assert read(list(corrupted_numbers(build([None], steps=["given"], texts=["word"])))) == ["no number to change"]
    assert read(list(corrupted_numbers(build([None])))) == ["no given answer"]


def test_the_right_choice_meets_each_wrong_one(build: Build, read: Read) -> None:
    def choices(*values: float | None) -> Group:
        names = tuple("abc"[: len(values)])
        said = Judgment(judge="dataset:arc", kind="label", subjects=names, values=values)
        return build([None] * len(values), extra=[said], texts=["the sun", "the moon", "a the sun"][: len(values)])

    made = list(wrong_choices(choices(1.0, 0.0, 0.0)))
    assert read(made) == ["a>b", "a>c"]
    assert [one.numbers["edit_distance"] for one in made if isinstance(one, Example)] == [0.5, pytest.approx(1 / 3)]
    assert read(list(wrong_choices(choices(1.0, 1.0, 0.0)))) == ["not exactly one right choice"]
    assert read(list(wrong_choices(choices(1.0, None)))) == ["no wrong choice"]
    assert read(list(wrong_choices(choices(0.0, 0.0)))) == ["not exactly one right choice"]


def demonstrated(build: Build, text: str) -> Group:
    group = build([None], steps=["given"], texts=[text])
    (given,) = group.responses
    return replace(group, responses=(given.model_copy(update={"token_ids": None, "finish_reason": "given"}),))


def test_demonstrations_are_cut_evenly_where_a_segment_fits(build: Build) -> None:
    group = demonstrated(build, "abcdefghijk")  # 12 tokens with EOS: 0 to 5 may come before a segment of 4
    starts: list[int] = []
    for seed in range(600):
        (made,) = cut_open(group, LETTERS, segment_length=4, seed=seed)
        assert isinstance(made, Prompt)
        assert made.prefix_ids == LETTERS.response_ids("abcdefghijk", finished=True)[: len(made.prefix_ids)]
        assert made.root_id == group.root.prompt_id
        starts.append(len(made.prefix_ids))
    assert {*starts} == {0, 1, 2, 3, 4, 5}
    assert all(60 < starts.count(start) < 140 for start in range(6))
    (room,) = cut_open(group, LETTERS, segment_length=4, max_length=16)  # of which the prompt has 12
    (short,) = cut_open(group, LETTERS, segment_length=12)
    assert isinstance(room, Prompt)
    assert isinstance(short, Prompt)
    assert room.prefix_ids == short.prefix_ids == ()


@pytest.mark.parametrize(
    ("written", "length", "made", "finished"),
    [
        ("XY", 2, "abXYefg", True),
        ("XYZ", 2, "abXYefg", True),
        ("X\0", 2, "abX", True),
        ("XYZ", 4, "abXYZg", True),
        ("XYZ", 99, "abXYZ", False),
    ],
)
def test_a_segment_takes_the_place_of_as_many_tokens_as_could_be_written(
    build: Build, written: str, length: int, made: str, finished: bool
) -> None:
    group = demonstrated(build, "abcdefg")
    prompt = Prompt.of(group.root.messages, root_id=group.root.prompt_id, prefix_ids=tuple(map(ord, "ab")))
    sampled = group.responses[0].model_copy(
        update={
            "response_id": "s",
            "prompt_id": prompt.prompt_id,
            "step": "segments",
            "token_ids": tuple(map(ord, f"ab{written}")),
            "finish_reason": "length",
            "settings": {"max_new_tokens": length},
        }
    )
    (example,) = spliced(replace(group, prompts=(group.root, prompt), responses=(*group.responses, sampled)), LETTERS)
    assert isinstance(example, Example)
    chosen, rejected = example.member("chosen"), example.member("rejected")
    assert (chosen.text, rejected.text, rejected.finished) == ("abcdefg", made, finished)
    assert rejected.token_ids == LETTERS.response_ids(made, finished=finished)
    assert (example.prompt, example.numbers) == (group.root, {"start": 2.0})


def test_a_segment_that_is_the_old_one_teaches_nothing_and_belongs_to_what_begins_so(build: Build, read: Read) -> None:
    group = demonstrated(build, "abcd")
    again = group.responses[0].model_copy(
        update={
            "response_id": "s", "step": "segments", "settings": {"max_new_tokens": 2}, "token_ids": (97, 98, 99, 100, 0)
        }
    )  # fmt: skip
    assert read(list(spliced(replace(group, responses=(*group.responses, again)), LETTERS))) == ["same text"]
    other = Prompt.of(group.root.messages, root_id=group.root.prompt_id, prefix_ids=(98,))
    foreign = again.model_copy(update={"prompt_id": other.prompt_id, "token_ids": (98, 99)})
    of_both = replace(group, prompts=(group.root, other), responses=(*group.responses, foreign))
    assert list(spliced(of_both, LETTERS)) == []
    assert read(list(spliced(group, LETTERS))) == ["no rewritten segment"]
    assert read(list(cut_open(replace(group, responses=(foreign,)), LETTERS))) == ["no given answer"]


def test_a_buffer_is_drawn_from_by_how_often_each_was_drawn_before() -> None:
    buffer = ReplayBuffer(3, ["a", "b", "c"], [0, 1, 3])
    first = [buffer.draw(1, random.Random(seed))[0] for seed in range(4000)]
    for place, chance in enumerate(buffer.probabilities()):
        assert abs(first.count(place) / 4000 - chance) < 4 * (chance * (1 - chance) / 4000) ** 0.5
    assert buffer.draw(9, random.Random(0)) == [0, 1, 2]
    assert len({*buffer.draw(2, random.Random(1))}) == 2


def test_a_changed_digit_makes_no_leading_zero() -> None:
    """Of 12 the first digit becomes 2 to 9, the second any other; before a point a zero may stand."""
    made = {corrupted_number("12", random.Random(seed), "any") for seed in range(400)}
    assert made == {f"{first}2" for first in range(2, 10)} | {f"1{second}" for second in range(10) if second != 2}
    fractions = {corrupted_number("1.5", random.Random(seed), "any") for seed in range(400)}
    assert "0.5" in fractions


def test_a_pair_may_be_as_far_apart_as_asked_and_its_answers_have_names(build: Build) -> None:
    """One of four words differs."""
    group = build([None], steps=["given"], texts=["3 and 4: 7"])
    (example,) = corrupted_numbers(group, max_distance=0.25)
    assert isinstance(example, Example)
    names = [example.example_id, example.member("rejected").response_id]
    assert [len(name) for name in names] == [16, 16]


def test_a_given_answer_whose_tokens_are_known_is_no_rewritten_segment(read: Read, build: Build) -> None:
    given = build([None, None], steps=["given", "given"])
    assert all(one.token_ids for one in given.responses)
    assert read(list(spliced(given, LETTERS))) == ["no rewritten segment"]
