"""Identities of prompts, groups, digests and seeds."""

from pathlib import Path

import pytest

from prefloop.records import (
    Example,
    Judgment,
    Member,
    Message,
    Prompt,
    Response,
    canonical,
    content_of,
    digest,
    grouped,
    seed_for,
)

QUESTION = (Message(role="user", content="How are you?"),)


def answer(name: str, prompt: Prompt, text: str = "Fine.", token_ids: tuple[int, ...] | None = None) -> Response:
    return Response(
        response_id=name,
        prompt_id=prompt.prompt_id,
        root_id=prompt.root_id,
        step="samples",
        text=text,
        token_ids=token_ids,
        finish_reason="stop",
    )


def test_what_the_model_sees_decides_the_id_of_a_prompt() -> None:
    plain = Prompt.of(QUESTION)
    assert Prompt.of(QUESTION, source="b.jsonl:9", answer="42", numbers={"x": 1.0}).prompt_id == plain.prompt_id
    others = [
        Prompt.of((Message(role="user", content="How are you!"),)),
        Prompt.of((Message(role="system", content="How are you?"),)),
        Prompt.of(QUESTION, prefix_ids=(1,)),
        Prompt.of(QUESTION, tools=({"name": "clock"},)),
        Prompt.of((*QUESTION, *QUESTION)),
    ]
    assert len({plain.prompt_id, *(other.prompt_id for other in others)}) == 6


def test_the_id_of_a_prompt_is_the_same_on_every_machine() -> None:
    assert Prompt.of(QUESTION).prompt_id == "d8aea59281ac0e14"


def test_a_prompt_is_its_own_root_unless_it_was_derived() -> None:
    root = Prompt.of(QUESTION)
    assert root.root_id == root.prompt_id
    derived = Prompt.of(QUESTION, prefix_ids=(4,), root_id=root.root_id)
    assert (derived.root_id, derived.prompt_id != root.prompt_id) == (root.root_id, True)


def test_length_is_in_tokens_and_in_words_where_only_text_is_known() -> None:
    prompt = Prompt.of(QUESTION)
    assert answer("a", prompt, "one two three", (7, 8)).num_tokens == 2
    assert answer("a", prompt, "one two three").num_tokens == 3


def test_groups_gather_everything_about_a_root_in_the_order_of_the_prompts() -> None:
    first, second = Prompt.of(QUESTION), Prompt.of((Message(role="user", content="Why?"),))
    derived = Prompt.of(QUESTION, prefix_ids=(1,), root_id=first.root_id)
    answers = [answer("s", second), answer("f", first), answer("d", derived)]
    said = [Judgment(judge="x", kind="score", subjects=(name,), values=(1.0,)) for name in ("d", "s", "f")]
    example = Example(example_id="e", prompt=derived, members=(), why="test")
    one, other = grouped([first, second, derived, first], answers, said, [example])
    assert (one.root, one.prompts, other.prompts) == (first, (first, derived), (second,))
    assert [response.response_id for response in one.responses] == ["f", "d"]
    assert [judgment.subjects for judgment in one.judgments] == [("d",), ("f",)]
    assert (one.examples, other.examples) == ((example,), ())
    assert one.prompt_of("d") == derived
    assert other.text("s") == "Fine."


def test_a_group_without_answers_is_still_a_group() -> None:
    (group,) = grouped([Prompt.of(QUESTION)])
    assert (group.responses, group.judgments) == ((), ())


def test_an_example_knows_its_members_by_role() -> None:
    members = tuple(Member(role=role, response_id=role, text="x") for role in ("chosen", "rejected"))
    example = Example(example_id="e", prompt=Prompt.of(QUESTION), members=members, why="test")
    assert example.member("rejected").response_id == "rejected"


def test_the_order_of_keys_does_not_change_a_digest() -> None:
    assert digest({"a": 1, "b": [1.5, None]}) == digest({"b": [1.5, None], "a": 1})
    assert canonical({"b": "ż", "a": 1}) == '{"a":1,"b":"\\u017c"}'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": {1, 2}}, Path("x")])
def test_what_cannot_be_written_the_same_way_twice_is_refused(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        digest(value)


def test_a_seed_is_its_words_and_nothing_else() -> None:
    assert seed_for(1, "samples", 0) == seed_for(1, "samples", 0)
    assert len({seed_for(1, "a"), seed_for(1, "b"), seed_for("1", "a"), seed_for(1, "a", 0), seed_for("1a")}) == 5
    assert all(0 <= seed_for(number) < 2**63 for number in range(200))


def test_content_names_every_file_below_a_folder(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c.txt").write_bytes(b"x")
    (tmp_path / "a.txt").write_bytes(b"x")
    of_x = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    assert content_of(tmp_path) == {"a.txt": of_x, "b/c.txt": of_x}
    assert content_of(tmp_path / "a.txt") == {".": of_x}
