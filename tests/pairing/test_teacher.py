"""A teacher's answer among the student's."""

from collections.abc import Callable
from math import nan

from hypothesis import given as all_of
from hypothesis import strategies as st

from prefloop.pairing import teacher
from prefloop.pairing.teacher import TeacherMode, repeated_share, teacher_pairs
from prefloop.records import Group, Judgment

Build = Callable[..., Group]
Read = Callable[..., list[str]]
POINTS = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=6)


def found(
    points: list[float], *, student: float = 1.0, taught: float = 2.0, mode: TeacherMode = "dno"
) -> list[tuple[int, int]]:
    """The last answer is the teacher's."""
    last = [index == len(points) - 1 for index in range(len(points))]
    return teacher_pairs(
        points,
        last,
        [False] * len(points),
        min_positive=5.0,
        margin_teacher=taught,
        margin_student=student,
        mode=mode,
    )


@all_of(POINTS)
def test_positives_are_good_enough_and_a_larger_margin_never_adds_pairs(points: list[float]) -> None:
    pairs = found(points)
    assert all(points[good] >= 5 and good != bad for good, bad in pairs)
    assert set(found(points, student=2.0, taught=3.0)) <= set(pairs)
    for mode in ("restrictive", "spin"):
        assert all(good == len(points) - 1 for good, _ in found(points, mode=mode))
    assert set(found(points, mode="restrictive")) <= set(pairs)
    assert len(found(points, mode="spin")) == len(points) - 1


def test_margins_are_inclusive_and_each_side_has_its_own() -> None:
    assert found([4.0, 6.0, 4.0]) == [(1, 0), (1, 2)]
    assert found([5.0, 4.0, 6.0]) == [(0, 1), (2, 1)]
    assert found([5.0, 4.0, 6.0], taught=1.0) == [(0, 1), (2, 0), (2, 1)]


def test_a_defective_answer_is_a_negative_only_and_one_without_score_neither() -> None:
    options = {"min_positive": 0.0, "margin_teacher": 0.0, "margin_student": 0.0}
    pairs = teacher_pairs([6.0, 2.0, nan, None], [False] * 4, [True, False, False, False], mode="dno", **options)
    assert pairs == [(1, 0)]
    assert teacher_pairs([6.0, 0.0], [False] * 2, [True, False], mode="dno", **options) == [(1, 0)]


def test_the_rule_knows_the_teacher_by_its_step_and_says_who_is_who(build: Build, read: Read) -> None:
    steps = ["samples", "samples", "gpt"]
    group = build([6.0, 3.0, 5.0], steps=steps)
    made = list(teacher(group, teacher="gpt"))
    assert read(made) == ["a>b", "c>b", "a>c"] or read(made) == ["a>b", "a>c", "c>b"]
    assert [getattr(one, "why", "") for one in made] == [
        "teacher: student 6.00 over student 3.00",
        "teacher: student 6.00 over teacher 5.00",
        "teacher: teacher 5.00 over student 3.00",
    ]
    assert read(list(teacher(group, teacher="gpt", mode="restrictive"))) == ["c>b"]
    assert read(list(teacher(group, teacher="gpt", margin_teacher=3.0))) == ["a>b", "a>c"]
    assert read(list(teacher(group, teacher="gpt", margin_student=2.0))) == ["a>b", "c>b"]
    assert read(list(teacher(group, teacher="gpt", min_positive=6.0))) == ["a>b", "a>c"]
    assert read(list(teacher(build([None, None, None], steps=steps), teacher="gpt", mode="spin"))) == ["c>a", "c>b"]


def test_the_rule_reads_who_repeats_itself_and_says_why_there_is_no_pair(build: Build, read: Read) -> None:
    repeats = Judgment(judge="rule:repeats", kind="label", aspect="defective", subjects=("a",), values=(1.0,))
    assert read(list(teacher(build([6.0, 4.0], extra=[repeats])))) == ["no pair by a large margin"]
    assert read(list(teacher(build([6.0, 5.0], extra=[repeats])))) == ["b>a"]
    assert read(list(teacher(build([6.0])))) == ["fewer than two scored answers"]
    assert read(list(teacher(build([6.0, 1.0], texts=["x", "x"])))) == ["same text"]


def test_how_much_of_a_text_has_stood_in_it_before() -> None:
    """Runs of three words: of eight words six, of which three are new."""
    assert repeated_share("a b c a b c a b") == 0.5
    assert repeated_share("a b c a") == 0.0
    assert repeated_share("a b c", size=2) == 0.0
    assert repeated_share("a a a", size=2) == 0.5
    assert repeated_share("a b") == repeated_share("") == 0.0


def test_an_answer_that_repeats_itself_too_often_is_never_chosen(build: Build, read: Read) -> None:
    texts = ["go go go go go go", "up we go", "no"]
    group = build([6.0, 5.0, 1.0], texts=texts)
    assert read(list(teacher(group))) == ["a>b", "a>c", "b>c"]
    assert sorted(read(list(teacher(group, max_repeated=0.5)))) == ["b>a", "b>c"]
