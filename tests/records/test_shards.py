"""Records in files: what is written comes back, and what is no record is named."""

import json
from pathlib import Path

import pytest

from prefloop.errors import DataError
from prefloop.records import (
    Example,
    Judgment,
    Member,
    Message,
    Prompt,
    Record,
    Response,
    in_pieces,
    read_folder,
    read_records,
    shard_name,
    shards_in,
    to_line,
    write_records,
)

PROMPT = Prompt.of(
    (Message(role="system", content="Be kind."), Message(role="user", content="Zażółć\n\u2028 \x00 ?")),
    source="everyday.jsonl:12",
    numbers={"difficulty": 0.1 + 0.2},
    prefix_ids=(5, 6),
)
RESPONSE = Response(
    response_id="r",
    prompt_id=PROMPT.prompt_id,
    root_id=PROMPT.root_id,
    step="samples",
    text='a "quoted" word',
    token_ids=(1, 2, 3),
    finish_reason="stop",
    given=((0, 1),),
    sum_logp=-1.0000000000000002,
    settings={"temperature": 0.8},
    seed=2**63 - 1,
)
JUDGMENT = Judgment(judge="rule:x", kind="score", subjects=("r", "s"), values=(0.25, None))
EXAMPLE = Example(
    example_id="e",
    prompt=PROMPT,
    members=(
        Member(role="chosen", response_id="r", text="a", token_ids=(1, 2), counted=((0, 1),)),
        Member(role="rejected", response_id="s", text="b", finished=False, numbers={"score": -1.5}),
    ),
    weight=0.5,
    why="because",
)


@pytest.mark.parametrize("record", [PROMPT, RESPONSE, JUDGMENT, EXAMPLE], ids=lambda record: type(record).__name__)
def test_a_record_comes_back_as_it_was(tmp_path: Path, record: Record) -> None:
    path = tmp_path / "new" / shard_name(3)
    assert write_records(path, [record, record]) == 2
    assert list(read_records(path, type(record))) == [record, record]
    assert path.read_bytes().count(b"\n") == 2


def test_writing_again_gives_the_same_bytes() -> None:
    assert to_line(EXAMPLE) == to_line(Example.model_validate_json(to_line(EXAMPLE)))


def test_an_invalid_value_stays_null_and_absent_fields_are_left_out() -> None:
    line = json.loads(to_line(JUDGMENT))
    assert line["values"] == [0.25, None]
    assert "raw" not in line


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"judge": "x", "kind": "score", "subjects": ["r"]}', "values: Field required"),
        ('{"judge": "x", "kind": "score", "subjects": ["r"], "values": ["high"]}', "values.0: Input should be a valid"),
        ('{"judge": "x", "kind": "score", "subjects": [], "values": [], "mood": 1}', "mood: Extra inputs are not"),
        ('{"judge": "x", "ki', "line: Invalid JSON: "),
    ],
)
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "judgments" / shard_name(0)
    write_records(path, [JUDGMENT])
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(DataError) as raised:
        list(read_records(path, Judgment))
    message = str(raised.value)
    assert message.startswith(f"judgments/part-00000.jsonl:2: not a Judgment: {said}")
    assert message.endswith("Was this file written by another stage or an older version?")
    assert "\n" not in message


def test_a_folder_is_read_shard_by_shard_in_order(tmp_path: Path) -> None:
    names = [shard_name(number) for number in (2, 0, 10)]
    for name in names:
        write_records(tmp_path / name, [JUDGMENT.model_copy(update={"judge": name})])
    (tmp_path / "notes.txt").write_text("not a shard", encoding="utf-8")
    assert [path.name for path in shards_in(tmp_path)] == sorted(names)
    assert [judgment.judge for judgment in read_folder(tmp_path, Judgment)] == sorted(names)
    assert [judgment.judge for judgment in read_folder(tmp_path, Judgment, shard_name(10))] == [shard_name(10)]


@pytest.mark.parametrize("count", [0, 1, 6, 7])
def test_pieces_keep_everything_in_order(count: int) -> None:
    pieces = list(in_pieces(range(count), 3))
    assert [item for piece in pieces for item in piece] == list(range(count))
    assert all(len(piece) == 3 for piece in pieces[:-1])


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        PROMPT.answer = "42"
