"""Mixtures: how much of each source, which rows, and groups that stay whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefloop.data import Collection, Given, Part, rank_in_mixture, rows_taken
from prefloop.records import Message, Prompt


def row(prompt: str, row_id: str) -> Given:
    return Given(prompt=Prompt.of((Message(role="user", content=prompt),)), row_id=row_id)


@pytest.mark.parametrize(
    ("available", "parts", "taken"),
    [
        ([10, 20], [Part(), Part()], [10, 20]),
        ([10, 20], [Part(cap=5), Part(cap=50)], [5, 20]),
        ([10, 20], [Part(weight=1), Part(weight=1)], [10, 10]),
        ([10, 20], [Part(weight=2), Part(weight=1)], [10, 5]),
        ([10, 20], [Part(weight=0.7), Part(weight=0.3)], [10, 4]),
        ([10, 20], [Part(weight=1), Part(weight=1, cap=3)], [3, 3]),
        ([10, 20, 7], [Part(weight=1), Part(weight=3), Part()], [6, 20, 7]),
        ([3], [Part(weight=5)], [3]),
        ([0, 3], [Part(weight=1), Part(weight=1)], [0, 0]),
    ],
)
def test_rows_of_each_source(available: list[int], parts: list[Part], taken: list[int]) -> None:
    assert rows_taken(available, parts) == taken


@given(st.lists(st.tuples(st.integers(1, 10**6), st.floats(0.01, 100), st.none() | st.integers(1, 10**6)), min_size=1))
def test_weights_are_proportions_and_no_row_is_taken_twice(drawn: list[tuple[int, float, int | None]]) -> None:
    available = [rows for rows, _, _ in drawn]
    taken = rows_taken(available, [Part(weight, cap) for _, weight, cap in drawn])
    limits = [rows if cap is None else min(rows, cap) for rows, _, cap in drawn]
    assert all(number <= limit for number, limit in zip(taken, limits, strict=True))
    assert any(number == limit for number, limit in zip(taken, limits, strict=True))
    scale = min(limit / weight for limit, (_, weight, _) in zip(limits, drawn, strict=True))
    for number, (_, weight, _) in zip(taken, drawn, strict=True):
        assert weight * scale - 1 < number <= weight * scale + 1e-6


def test_rows_of_one_prompt_are_one_group_wherever_they_stood() -> None:
    with Collection() as collection:
        for number, prompt in enumerate("abacab"):
            collection.add(row(prompt, str(number)), source=number % 2)
        groups = list(collection.groups())
        assert collection.size(apart=False) == (3, 6)
    assert [group.prompt.messages[0].content for group in groups] == ["a", "b", "c"]


def test_what_is_taken_depends_on_the_seed_and_not_on_the_order() -> None:
    def kept(seed: int, prompts: list[str]) -> set[str]:
        with Collection() as collection:
            for prompt in prompts:
                one = row(prompt, "")
                collection.add(one, 0, rank=rank_in_mixture(one.prompt.prompt_id, seed))
            collection.cut(0, 10)
            return {group.prompt.messages[0].content for group in collection.groups()}

    prompts = [str(number) for number in range(100)]
    assert len(kept(0, prompts)) == 10
    assert kept(0, prompts) == kept(0, prompts[::-1])
    assert kept(0, prompts) != kept(1, prompts)


def test_a_prompt_that_is_kept_apart_is_not_trained_on() -> None:
    with Collection() as collection:
        for number, (prompt, apart) in enumerate([("a", False), ("b", False), ("a", True), ("a", False)]):
            collection.add(row(prompt, str(number)), source=int(apart), apart=apart)
        assert collection.without_prompts_apart() == 2
        assert [group.prompt.messages[0].content for group in collection.groups()] == ["b"]
        assert [group.prompt.messages[0].content for group in collection.groups(apart=True)] == ["a"]
