"""Pairs with a teacher's answer among the student's (DNO-Prct, arXiv:2404.03715, algorithm 2)."""

from collections.abc import Iterator, Sequence
from math import nan
from typing import Annotated, Literal

from pydantic import Field

from prefloop.pairing.groups import member, pair, scores
from prefloop.pairing.registry import Dropped, rule
from prefloop.records import Example, Group

TeacherMode = Literal["dno", "restrictive", "spin"]
"""Whose answers may be chosen: both sides'; the teacher's only; the teacher's always, whatever the scores say."""


def teacher_pairs(
    scores: Sequence[float | None],
    is_teacher: Sequence[bool],
    defective: Sequence[bool],
    *,
    min_positive: float,
    margin_teacher: float,
    margin_student: float,
    mode: TeacherMode,
) -> list[tuple[int, int]]:
    """All (positive, negative) of one prompt by index, by rising positive, then negative.

    Args:
        scores: of each answer, on the judge's rubric; None or NaN for one without, which is on no side.
        is_teacher: it is the teacher's.
        defective: it repeats itself: scored 0 and never a positive.
        min_positive: score that a positive has at least.
        margin_teacher: points that a teacher's positive is ahead by at least.
        margin_student: the same for a student's.
        mode: see `TeacherMode`.
    """
    everyone = range(len(scores))
    if mode == "spin":
        return [(good, bad) for good in everyone for bad in everyone if is_teacher[good] and not is_teacher[bad]]
    # No comparison with NaN is true.
    scored = [0.0 if bad else nan if score is None else score for score, bad in zip(scores, defective, strict=True)]
    return [
        (good, bad)
        for good in everyone
        if scored[good] >= min_positive and not defective[good] and (mode == "dno" or is_teacher[good])
        for bad in everyone
        if bad != good
        and scored[good] - scored[bad] >= (margin_teacher if is_teacher[good] else margin_student)
        and not (mode == "restrictive" and is_teacher[bad])
    ]


def repeated_share(text: str, size: int = 3) -> float:
    """Share of a text's runs of so many words that have stood in it before; 0 for a text that has none."""
    words = text.split()
    runs = [tuple(words[start : start + size]) for start in range(len(words) - size + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


@rule(writes=Example, roles=("chosen", "rejected"), of_each="pair")
def teacher(
    group: Group,
    *,
    teacher: str = "given",
    min_positive: float = 5.0,
    margin_teacher: float = 2.0,
    margin_student: float = 1.0,
    max_repeated: Annotated[float, Field(ge=0, le=1)] = 1.0,
    mode: TeacherMode = "dno",
) -> Iterator[Example | Dropped]:
    """Every pair of answers that a large margin separates, the teacher's and the student's being either side.

    An answer that repeats itself counts as scored 0 and is never chosen: one that a judgment of kind `label` and aspect
    `defective` marks with 1, or whose repeated runs of three words are too many. Under `mode: spin` no score is read.

    Args:
        group: a prompt with the student's answers, the teacher's, and scores on one rubric.
        teacher: the step that made the teacher's answers; "given" where the data set brought them.
        min_positive: score that the chosen answer has at least.
        margin_teacher: points that a teacher's answer is ahead by at least.
        margin_student: points that a student's answer is ahead by at least.
        max_repeated: share of an answer's runs of three words that may have stood in it before.
        mode: `dno`: either side may be chosen; `restrictive`: the teacher's only; `spin`: the teacher's always.
    """
    scored = scores(group)
    answers = [one for one in group.responses if mode == "spin" or one.response_id in scored]
    marked = {
        subject
        for judgment in group.judgments
        if judgment.kind == "label" and judgment.aspect == "defective"
        for subject, value in zip(judgment.subjects, judgment.values, strict=True)
        if value == 1
    }
    marked |= {one.response_id for one in answers if repeated_share(one.text) > max_repeated}
    points = [scored.get(one.response_id, 0.0) for one in answers]
    taught = [one.step == teacher for one in answers]
    found = teacher_pairs(
        points,
        taught,
        [one.response_id in marked for one in answers],
        min_positive=min_positive,
        margin_teacher=margin_teacher,
        margin_student=margin_student,
        mode=mode,
    )
    if not found:
        yield Dropped("fewer than two scored answers" if len(answers) < 2 else "no pair by a large margin")
    for good, bad in found:
        if answers[good].text == answers[bad].text:
            yield Dropped("same text")
            continue
        sides = ["teacher" if taught[index] else "student" for index in (good, bad)]
        numbers = [{"score": points[index]} if answers[index].response_id in scored else {} for index in (good, bad)]
        yield pair(
            group,
            member("chosen", answers[good], **numbers[0]),
            member("rejected", answers[bad], **numbers[1]),
            why=f"teacher: {sides[0]} {points[good]:.2f} over {sides[1]} {points[bad]:.2f}",
        )
