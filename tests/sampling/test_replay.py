from pathlib import Path

import pytest

from prefloop.data import find_source
from prefloop.errors import DataError
from prefloop.records import Message, Prompt, Response, write_records
from prefloop.sampling import Replay, replay_identity


def prompt(name: str) -> Prompt:
    message = Message(role="user", content=name)
    return Prompt(prompt_id=name, root_id=f"root of {name}", messages=(message,), source=f"prompts.jsonl:{name}")


def response(name: str, index: int) -> Response:
    text = f"answer {index} to {name}"
    return Response(
        response_id=text, prompt_id=name, root_id=name, step="old", text=text, finish_reason="stop", index=index, seed=9
    )


def test_answers_come_by_prompt_and_index_whatever_their_order(tmp_path: Path) -> None:
    write_records(tmp_path / "part-00000.jsonl", [response("ä", 1), response("b", 0), response("ä", 0)])
    write_records(tmp_path / "part-00001.jsonl", [response("b", 2), response("b", 1)])

    found = list(Replay.load(str(tmp_path)).of([prompt("b"), prompt("ä")], 2, "samples"))

    wanted = [("b", 0), ("b", 1), ("ä", 0), ("ä", 1)]
    of_now = {"step": "samples"}
    assert found == [
        response(name, index).model_copy(update={**of_now, "root_id": f"root of {name}"}) for name, index in wanted
    ]


def test_a_missing_answer_is_said_with_its_prompt(tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    write_records(file, [response("b", 0)])
    with pytest.raises(DataError) as error:
        list(Replay.load(str(file)).of([prompt("b")], 2, "samples"))
    assert str(error.value) == (
        f"sampler.file {file}: has 1 answers to prompt b (prompts.jsonl:b), expected 2, index 0 and up. Lower "
        "num_samples, or replay samples of these prompts; each round's may be named as {by_round: [...]}."
    )


def test_what_holds_no_response_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no responses"):
        Replay.load(str(tmp_path))
    with pytest.raises(DataError, match="nothing: there is no such file"):
        Replay.load(str(tmp_path / "nothing"))


def test_its_identity_is_its_content_and_not_its_place(tmp_path: Path) -> None:
    for name, index in (("one", 0), ("two", 0), ("other", 1)):
        write_records(tmp_path / name / "part-00000.jsonl", [response("b", index)])
    one, two, other = (replay_identity(str(tmp_path / name)) for name in ("one", "two", "other"))
    assert one == two != other
    assert replay_identity(str(tmp_path / "one" / "part-00000.jsonl")) == one


def test_a_shipped_set_of_answers_is_found_by_what_was_asked() -> None:
    rows = [dict(row.values or {}) for row in find_source("everyday_corrections").rows()]
    replay = Replay.load("builtin:everyday_corrections")
    found = list(replay.of([prompt(row["instruction"]) for row in rows], 1, "corrections"))
    assert [one.text for one in found] == [row["output"] for row in rows]
    assert {(one.step, one.policy) for one in found} == {("corrections", "everyday_corrections")}
    assert replay_identity("builtin:everyday_corrections") == find_source("everyday_corrections").identity
    with pytest.raises(DataError, match=r"sampler\.file everyday_corrections: has 0 answers to turn 1"):
        list(replay.of([prompt("something else")], 1, "corrections"))
