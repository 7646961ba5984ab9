"""Tokenised examples on disk."""

import json
from pathlib import Path

import pytest

from prefloop.policy import ChatCodec, EncodingSettings
from prefloop.records import Example, Member, Message, Prompt
from prefloop.training import TokensOnDisk, left_out, tokenised, tokens, write_tokens

UNCUT = EncodingSettings(max_length=512)
MESSAGES = (Message(role="user", content="How are you?"),)


def example(number: int, chosen: str, rejected: str, **changed: object) -> Example:
    members = tuple(
        Member(role=role, response_id=f"{role}-{number}", text=text, numbers=numbers, marked=((0, 1),))
        for role, text, numbers in (("chosen", chosen, {"score": 1.5}), ("rejected", rejected, {}))
    )
    given = {"example_id": f"e{number}", "prompt": Prompt.of(MESSAGES), "members": members, "why": "test", **changed}
    return Example.model_validate(given)


EXAMPLES = [
    example(0, "I love it.", "No."),
    example(1, "Good morning.", "I am sad.", weight=0.5, numbers={"margin": 2.0}),
    example(2, "Yes! " * 300, "No."),
    example(3, "It is a beautiful day.", "It is bad.", numbers={"margin": -1.0}),
]


@pytest.mark.parametrize("per_file", [1, 2, 100])
def test_what_is_read_is_what_was_written(
    codec: ChatCodec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, per_file: int
) -> None:
    """However many examples a file holds, and in whatever order they are asked for."""
    monkeypatch.setattr(tokens, "EXAMPLES_PER_FILE", per_file)
    counts = write_tokens(tmp_path, EXAMPLES, codec, UNCUT)
    expected, reasons = tokenised(EXAMPLES, codec, UNCUT)
    found = TokensOnDisk(tmp_path)
    assert counts == {"examples": 3, **reasons} == {"examples": 3, "too_long": 1}
    assert found[:] == expected
    assert [found[number] for number in (2, 0)] == [expected[2], expected[0]]
    assert found.example_ids == ["e0", "e1", "e3"]


def test_answers_of_a_role_that_occurs_several_times_are_told_apart_by_rank(codec: ChatCodec, tmp_path: Path) -> None:
    texts = ("I love it.", "Good morning.", "No.")
    members = tuple(
        Member(role="ranked", response_id=text, text=text, numbers={"score": float(rank)})
        for rank, text in enumerate(texts)
    )
    ranking = Example(example_id="r", prompt=Prompt.of(MESSAGES), members=members, why="test")
    write_tokens(tmp_path, [ranking], codec, UNCUT)
    ((expected,), _) = tokenised([ranking], codec, UNCUT)
    found = TokensOnDisk(tmp_path, ("ranked",))[0]
    assert found == expected
    assert list(found.rows) == ["ranked.0", "ranked.1", "ranked.2"]
    assert len({row.answer_ids for row in found.rows.values()}) == 3
    assert [found.member_numbers[key]["score"] for key in found.rows] == [0.0, 1.0, 2.0]


def test_only_the_answers_that_are_asked_for_are_read(codec: ChatCodec, tmp_path: Path) -> None:
    write_tokens(tmp_path, EXAMPLES, codec, UNCUT)
    whole, chosen = TokensOnDisk(tmp_path)[1], TokensOnDisk(tmp_path, ("chosen",))[1]
    assert dict(chosen.rows) == {"chosen": whole.rows["chosen"]}
    rejected = TokensOnDisk(tmp_path, ("rejected",))[1]
    assert dict(rejected.rows) == {"rejected": whole.rows["rejected"]}


def test_what_was_left_out_is_named_with_its_reason(codec: ChatCodec, tmp_path: Path) -> None:
    write_tokens(tmp_path, EXAMPLES, codec, UNCUT)
    assert [(one.example_id, one.reason) for one in left_out(tmp_path)] == [("e2", "too_long")]


def test_what_is_said_of_an_example_can_be_read_without_the_tokens(codec: ChatCodec, tmp_path: Path) -> None:
    write_tokens(tmp_path, EXAMPLES[:1], codec, UNCUT)
    (line,) = (tmp_path / "part-00000.jsonl").read_text().splitlines()
    said = json.loads(line)
    chosen = codec.response_ids("I love it.", finished=True)
    assert said["prompt_tokens"] == len(codec.prompt_ids(Prompt.of(MESSAGES)))
    assert said["members"][0] == {
        "role": "chosen",
        "response_id": "chosen-0",
        "tokens": len(chosen),
        "counted": len(chosen),
        "numbers": {"score": 1.5},
    }


def test_the_same_examples_give_the_same_bytes(codec: ChatCodec, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_tokens(tmp_path / name, EXAMPLES, codec, UNCUT)
    one, two = ({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two
    assert set(one) == {"left-out.jsonl", "part-00000.jsonl", "part-00000.safetensors"}
