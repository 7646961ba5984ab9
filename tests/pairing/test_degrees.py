"""Key phrases, and versions of an answer with ever fewer of them."""

from collections.abc import Callable

import pytest

from prefloop.pairing import Dropped, degraded, graded_versions, key_phrases
from prefloop.records import Example, Group, Judgment

Build = Callable[..., Group]
TEXT = "I like long walks by the river, and strong black coffee.\nThe river is calm; you should see it."


def words(text: str) -> list[str]:
    return [text[start:stop] for start, stop in key_phrases(text)]


def test_key_phrases_are_runs_between_function_words_and_breaks_by_their_score() -> None:
    """strong black coffee: three words of degree 3. long walks: 2 + 2. river: once alone and once before calm's break,
    degree 2 in two occurrences; the others stand alone."""
    assert words(TEXT) == ["strong black coffee", "long walks", "river", "river", "calm", "see"]


def test_a_word_in_several_phrases_scores_by_degree_over_frequency() -> None:
    """tea: (2 + 1) / 2, so that green tea has 2 + 1.5 and tea alone 1.5; well-known mint's 2 + 2 lead."""
    assert words("Green tea, tea, well-known mint") == ["well-known mint", "Green tea", "tea"]


def test_each_degree_lacks_what_the_one_before_it_lacks_and_more() -> None:
    found = graded_versions(TEXT, 4)

    # of six phrases two, three and four
    assert found == [
        (0, TEXT),
        (1, "I like by the river, and .\nThe river is calm; you should see it."),
        (2, "I like by the , and .\nThe river is calm; you should see it."),
        (3, "I like by the , and .\nThe is calm; you should see it."),
    ]
    assert graded_versions(TEXT, 4) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "Yes, I am.",
            [
                (0, "Yes, I am."),
                (2, ", I am."),
            ],
        ),
        ("It is what it is.", [(0, "It is what it is.")]),
        ("Paris", [(0, "Paris")]),
    ],
)
def test_short_answers_have_fewer_versions(text: str, found: list[tuple[int, str]]) -> None:
    """The last one's only phrase is the whole text, of which nothing would be left."""
    assert graded_versions(text, 3) == found


def test_versions_of_the_chosen_answer_stand_beside_each_given_pair(
    build: Build, prefers: Callable[..., object]
) -> None:
    group = build([None, None], texts=["Bad luck.", TEXT], extra=prefers({"ab": 0.0}))

    (one,) = degraded(group, grades=4)

    assert isinstance(one, Example)
    assert (one.member("chosen").text, one.member("rejected").text) == (TEXT, "Bad luck.")
    versions = [member for member in one.members if member.role == "degree"]
    assert [(member.numbers["grade"], member.text) for member in versions] == [
        (float(grade), text) for grade, text in graded_versions(TEXT, 4)
    ]
    assert all(member.token_ids is None and member.finished for member in versions)
    assert len({member.response_id for member in versions}) == 4
    assert one.why == "degraded: 4 of 4 degrees; given: rule:test"
    assert list(degraded(build([None, None], extra=prefers({"ab": 0.5})))) == [Dropped("tie")]


def test_every_degree_has_a_name_of_sixteen_signs(build: Callable[..., Group]) -> None:
    preference = Judgment(judge="human", kind="preference", subjects=("a", "b"), values=(1.0,))
    group = build([None] * 2, texts=["red cars and blue boats", "no"], extra=[preference])
    (example,) = degraded(group)
    assert isinstance(example, Example)
    assert {len(one.response_id) for one in example.members if one.role == "degree"} == {16}
    assert len(example.example_id) == 16
