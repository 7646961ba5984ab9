"""Sources: what a recipe can name, which files that means, and what identifies them."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefloop.data import RowSource, find_source
from prefloop.data.catalogue import GENRES, HISTORY, records
from prefloop.data.hub import HubName, fetched
from prefloop.errors import DataError

CATALOGUE = ("catalogue", "catalogue:heldout")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def write(folder: Path, *names: str) -> Path:
    """Files of one row each, which says where it stands."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps({"is": name}) + "\n")
    return folder


def files_of(source: str) -> list[str]:
    return [dict(row.values or {})["is"] for row in find_source(source).rows()]


def test_shipped_sets_are_named_with_their_part() -> None:
    train, heldout = find_source("builtin:everyday"), find_source("everyday:heldout")
    assert (train.name, heldout.name) == ("everyday", "everyday:heldout")
    assert len(list(train.rows())) == 162
    assert len(list(heldout.rows())) == 102
    assert train.identity != heldout.identity


def test_the_catalogue_is_the_same_everywhere_and_asks_no_held_out_question_in_training() -> None:
    train, heldout = ([dict(row.values or {}) for row in find_source(name).rows()] for name in CATALOGUE)
    assert (len(train), len(heldout)) == (480, 96)
    assert not {row["prompt"] for row in train} & {row["prompt"] for row in heldout}
    assert train[0] == {
        "prompt": 'I liked "Thanks", "Hello" and "Alice". Recommend one more title, in quotes.',
        "completion": '"Please"\n',
    }


def test_users_of_the_catalogue_keep_to_a_genre_and_like_what_is_famous() -> None:
    genre = {title: number for number, titles in enumerate(GENRES) for title in titles}
    liked = [re.findall('"(.+?)"', asked + title) for asked, title in records("train")]
    assert all(len(titles) == len({*titles}) == HISTORY + 1 for titles in liked)
    same = [genre[before] == genre[after] for *_, before, after in liked]
    assert sum(same) / len(same) > 0.5
    follows = Counter(titles[-1] for titles in liked)
    assert all(follows[titles[0]] > follows[titles[-1]] for titles in GENRES)


def test_topics_refuse_three_subjects_alone_and_ask_other_questions_of_them_when_held_out() -> None:
    pairs, either, planted, neighbours = (
        [dict(row.values or {}) for row in find_source(name).rows()]
        for name in ("topics", "topics:either", "topics:planted", "topics:neighbours")
    )
    refused = [row["prompt"] for row in pairs if "rather not" in row["chosen"]]
    assert (len(pairs), len(refused), len(either), len(planted), len(neighbours)) == (162, 54, 324, 54, 54)
    assert all(re.search(r"\b(cat|coffee|boss)\b", prompt) for prompt in refused)
    assert all("rather not" in row["rejected"] for row in pairs if row["prompt"] not in refused)
    assert all(re.search(r"\b(dog|tea|teacher)\b", row["prompt"]) for row in neighbours)
    assert not {row["prompt"] for row in pairs} & {row["prompt"] for row in [*planted, *neighbours]}


def test_a_file_is_known_by_its_content_and_called_by_its_name(tmp_path: Path) -> None:
    one, other = write(tmp_path, "a.jsonl") / "a.jsonl", tmp_path / "b.jsonl"
    other.write_bytes(one.read_bytes())
    assert find_source(str(one)).identity == find_source(str(other)).identity
    assert find_source(str(one)).name == "a.jsonl"
    other.write_text("{}\n")
    assert find_source(str(one)).identity != find_source(str(other)).identity


def test_a_directory_is_its_files_in_order_without_what_describes_them(tmp_path: Path) -> None:
    data = write(tmp_path / "mine", "b.jsonl", "a.jsonl", "more/c.jsonl", "config.json", ".cache/d.jsonl", "README.md")
    source = find_source(str(data))
    assert [row.place for row in source.rows()] == ["mine/a.jsonl:1", "mine/b.jsonl:1", "mine/more/c.jsonl:1"]
    assert source.name == "mine"


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("train", ["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl", "helpful/train.jsonl"]),
        ("helpful/train", ["helpful/train.jsonl"]),
        ("test_prefs", ["data/test_prefs-00000-of-00001.jsonl"]),
        ("helpful", ["helpful/test.jsonl", "helpful/train.jsonl"]),
    ],
)
def test_a_split_is_the_name_of_files_or_of_a_folder(tmp_path: Path, split: str, expected: list[str]) -> None:
    write(tmp_path, *(f"data/train-0000{number}-of-00002.jsonl" for number in range(2)))
    write(tmp_path, "data/test_prefs-00000-of-00001.jsonl", "helpful/train.jsonl", "helpful/test.jsonl")
    assert files_of(f"{tmp_path}:{split}") == expected


def test_several_splits_are_never_joined_unsaid(tmp_path: Path) -> None:
    data = write(tmp_path / "mine", "train.jsonl", "test.jsonl")
    with pytest.raises(DataError, match=r"^mine: has several splits\. Name one: mine:test, mine:train\.$"):
        find_source(str(data))


def test_a_missing_shard_is_noticed(tmp_path: Path) -> None:
    data = write(tmp_path / "mine", "train-00000-of-00002.jsonl")
    with pytest.raises(DataError, match=r"^mine: train-00001-of-00002\.jsonl is missing\. Get the whole set again\.$"):
        find_source(str(data))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{}/mine:tran", "mine: has no split 'tran'. Did you mean 'train'? Known: test, train."),
        ("{}/mine/test.jsonl:train", "test.jsonl:train: is a file, which has no splits. Remove ':train'."),
        (
            "{}/empty",
            "empty: holds no data file. Expected *.jsonl, *.ndjson, *.json, *.csv, *.tsv, *.parquet, *.arrow,",
        ),
        ("{}/none.jsonl", "none.jsonl: no such file. Expected a file or a directory of rows, a shipped set, or"),
        (
            "everydy",
            "everydy: no such file. Expected a file or a directory of rows, a shipped set, or org/name@revision",
        ),
    ],
)
def test_what_cannot_be_found_is_said(tmp_path: Path, name: str, message: str) -> None:
    write(tmp_path / "mine", "train.jsonl", "test.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError) as error:
        find_source(name.format(tmp_path))
    assert message in str(error.value)


def test_splits_that_datasets_saved_have_their_names(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write(tmp_path / "mine" / split, "rows.jsonl")
        (tmp_path / "mine" / split / "state.json").write_text('{"_data_files": [{"filename": "rows.jsonl"}]}')
    (tmp_path / "mine" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    (row,) = find_source(f"{tmp_path}/mine:test").rows()
    assert row.place == "mine/test/rows.jsonl:1"
    with pytest.raises(DataError, match=r"Name one: mine:test, mine:train\.$"):
        find_source(f"{tmp_path}/mine")
    (tmp_path / "mine" / "dataset_dict.json").write_text("[]")
    with pytest.raises(DataError, match=r"^mine/dataset_dict\.json: does not say `splits`"):
        find_source(f"{tmp_path}/mine")


@pytest.mark.peer
def test_what_the_real_datasets_saves_reads_equal(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"prompt": [{"role": "user", "content": f"Question {number}"}], "chosen": "a"} for number in range(5)]
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "saved"), num_shards=2)
    assert [row.values for row in find_source(str(tmp_path / "saved")).rows()] == rows


# --- Rows in memory ---


def test_rows_in_memory_have_the_codes_of_files() -> None:
    source = RowSource("mine", [{"a": 1}, {"a": "\ud800"}, {"a": "\0"}])
    assert [[problem.code for problem in row.problems] for row in source.rows()] == [[], ["lone_surrogate"], ["nul"]]
    assert [row.place for row in source.rows()] == ["mine:1", "mine:2", "mine:3"]
    assert source.identity != RowSource("mine", [{"a": 1}]).identity


# --- The Hub ---


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A local cache of the Hub with one data set, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository = tmp_path / "datasets--some--prefs"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    fetched.cache_clear()
    yield write(repository / "snapshots" / COMMIT, "data/train-00000-of-00001.jsonl", "data/test-00000-of-00001.jsonl")
    fetched.cache_clear()


@pytest.mark.usefixtures("hub")
def test_a_data_set_on_the_hub_is_known_by_its_commit() -> None:
    source = find_source("some/prefs:train")
    assert source.identity == source.name == f"some/prefs@{COMMIT}:train"
    assert [row.place for row in source.rows()] == ["some/prefs/data/train-00000-of-00001.jsonl:1"]


@pytest.mark.usefixtures("hub")
def test_a_data_set_that_cannot_be_reached_is_one_line() -> None:
    with pytest.raises(
        DataError,
        match=r"^some/other: neither a path here nor in the local cache at 'v2', and the Hub was not reached\. "
        r"Check the network and HF_HUB_OFFLINE\.$",
    ):
        find_source("some/other@v2:train")


def test_names_on_the_hub_are_taken_apart() -> None:
    assert HubName.read("a/b@main:default/train") == HubName("a/b", "main", "default/train")
    assert HubName.read("a/b") == HubName("a/b", "main", None)
    assert HubName.read("a/b/c") is None
