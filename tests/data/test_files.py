"""Files of rows: every kind reads alike, and what is wrong with a line is said with its place."""

import csv
import gzip
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from backports import zstd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

import prefloop.data.csv_file
import prefloop.data.json_document
import prefloop.data.json_text
from prefloop.data import find_source
from prefloop.data.files import rows_of_file
from prefloop.data.row import Row
from prefloop.errors import DataError

Values = dict[str, Any]


def read(path: Path) -> list[Row]:
    return list(rows_of_file(path, path.name))


def codes(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    return [tuple(problem.code for problem in row.problems) for row in rows]


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


# --- The same rows in every kind of file ---


def json_lines(rows: Sequence[Values]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def write_csv(path: Path, rows: Sequence[Values], delimiter: str = ",") -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter=delimiter)
        table.writerow(rows[0])
        for row in rows:
            cells = [row[name] for name in rows[0]]
            table.writerow(json.dumps(cell) if isinstance(cell, list | bool) else cell for cell in cells)


def write_saved(folder: Path, rows: Sequence[Values]) -> None:
    """As `datasets.save_to_disk` does, in two files."""
    folder.mkdir()
    cut = len(rows) // 2
    names = [f"data-{number:05d}-of-00002.arrow" for number in range(2)]
    schema = pa.Table.from_pylist(list(rows)).schema
    for name, part in zip(names, (rows[:cut], rows[cut:]), strict=True):
        with pa.ipc.new_stream(folder / name, schema) as file:
            file.write_table(pa.Table.from_pylist(list(part), schema=schema))
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text("{}")


def write_footed(path: Path, rows: Sequence[Values]) -> None:
    table = pa.Table.from_pylist(list(rows))
    with pa.ipc.new_file(path, table.schema) as file:
        file.write_table(table)


WRITERS: dict[str, Callable[[Path, Sequence[Values]], object]] = {
    "rows.jsonl": lambda path, rows: path.write_bytes(json_lines(rows)),
    "rows.jsonl.gz": lambda path, rows: path.write_bytes(gzip.compress(json_lines(rows))),
    "rows.jsonl.zst": lambda path, rows: path.write_bytes(zstd.compress(json_lines(rows))),
    "rows.json": lambda path, rows: path.write_text(json.dumps(rows, indent=1), encoding="utf-8"),
    "wrapped.json": lambda path, rows: path.write_text(json.dumps({"version": 1, "data": rows})),
    "lines.json": lambda path, rows: path.write_bytes(json_lines(rows)),
    "rows.parquet": lambda path, rows: parquet.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=3),
    "rows.csv": write_csv,
    "rows.tsv": lambda path, rows: write_csv(path, rows, "\t"),
    "footed.arrow": write_footed,
    "saved": write_saved,
}

texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=12).filter(
    lambda text: (
        any(char.isalpha() for char in text) and text.strip() not in ("nan", "inf", "infinity", "true", "false")
    )
)
messages = st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": texts}), min_size=1, max_size=2)
pairs = st.lists(
    st.fixed_dictionaries(
        {
            "prompt": messages,
            "chosen": texts.map(lambda text: f"a{text}"),
            "rejected": texts.map(lambda text: f"b{text}"),
            "score": st.floats(-1e6, 1e6),
            "votes": st.integers(-(2**53), 2**53),
            "checked": st.booleans(),
        }
    ),
    min_size=2,
    max_size=6,
)


@given(rows=pairs)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_same_rows_read_equal_from_every_kind_of_file(
    rows: list[Values], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    for name, write in WRITERS.items():
        write(folder / name, rows)
        found = list(find_source(str(folder / name)).rows())
        assert [row.values for row in found] == rows, name
        assert codes(found) == [()] * len(rows)
        if name != "saved":
            assert [row.place for row in found] == [f"{name}:{number + 1}" for number in range(len(rows))]


# --- What can be wrong with a line ---

BAD_LINES = [
    (b'{"a": "\xff"}', "invalid_utf8", "0xFF at byte 8 of the line"),
    (b'{"a": "x\0"}', "nul", "byte 9 of the line"),
    (rb'{"a": [{"b": "x\u0000"}]}', "nul", "in a[0].b at character 2"),
    (rb'{"a": "\ud83d"}', "lone_surrogate", "U+D83D in a at character 1"),
    (rb'{"a\udc00": 1}', "lone_surrogate", "U+DC00 in a key at character 2"),
    (b"", "empty_line", "nothing but white space"),
    (b" \t", "empty_line", "nothing but white space"),
    (b'{"a" 1}', "invalid_json", "Expecting ':' delimiter at column 6"),
    (b'{"a": 1} x', "invalid_json", "x behind the value, at column 9"),
    (b"[" * 200_000, "invalid_json", "nested too deeply"),
    (b'{"a": ' + b"1" * 5000 + b"}", "invalid_json", "Exceeds the limit (4300 digits) for integer string conver..."),
    (b"[1]", "not_an_object", "found a list"),
    (b'"a"', "not_an_object", "found a text"),
    (b"null", "not_an_object", "found null"),
    (b'{"a": 1, "a": 2}', "duplicate_key", "a"),
    (b'{"a": {"b": 1, "c": 2, "b": 1}}', "duplicate_key", "b"),
]


@pytest.mark.parametrize(("line", "code", "detail"), BAD_LINES)
def test_a_bad_line_is_a_row_with_a_problem_between_good_ones(
    line: bytes, code: str, detail: str, tmp_path: Path
) -> None:
    first, bad, last = read(written(tmp_path / "rows.jsonl", b'{"a": 1}\n' + line + b"\n" + b'{"a": 2}\n'))
    assert (first.values, last.values) == ({"a": 1}, {"a": 2})
    assert (bad.place, bad.values) == ("rows.jsonl:2", None)
    assert [(problem.code, problem.detail) for problem in bad.problems] == [(code, detail)]


def test_a_last_line_that_is_cut_off_is_said_to_be(tmp_path: Path) -> None:
    _, cut = read(written(tmp_path / "rows.jsonl", b'{"a": 1}\n{"a": "Once upon'))
    assert cut.problems[0].detail == "cut off after 16 characters"
    assert cut.original == '{"a": "Once upon'


def test_only_the_first_row_is_warned_of_a_byte_order_mark_and_it_is_read(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbf{"a": 1}\n{"a": 2}\n'
    for name in ("rows.jsonl", "rows.json"):
        rows = read(written(tmp_path / name, content))
        assert [row.values for row in rows] == [{"a": 1}, {"a": 2}]
        assert codes(rows) == [("byte_order_mark",), ()]
    assert codes(read(written(tmp_path / "rows.csv", b"\xef\xbb\xbfa,b\n1,2\n3,4\n"))) == [("byte_order_mark",), ()]
    assert codes(read(written(tmp_path / "list.json", b'\xef\xbb\xbf[{"a": 1}]'))) == [("byte_order_mark",)]


def test_a_not_a_number_comes_through_for_later_checks(tmp_path: Path) -> None:
    (row,) = read(written(tmp_path / "rows.jsonl", b'{"score": NaN}\n'))
    assert str(row.values) == "{'score': nan}"


def test_a_line_that_is_too_long_is_not_kept_and_the_next_one_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (prefloop.data.json_text, prefloop.data.csv_file):
        monkeypatch.setattr(module, "LONGEST_LINE", 20)
    just_fits = b'{"a": "' + b"x" * 11 + b'"}\n'
    assert len(just_fits) == 21
    rows = read(written(tmp_path / "rows.jsonl", just_fits + b'{"a": "' + b"x" * 3_000_000 + b'"}\n{"a": 1}\n'))
    assert codes(rows) == [(), ("line_too_long",), ()]
    assert len(rows[1].original) <= 200
    assert rows[2].values == {"a": 1}
    table = read(written(tmp_path / "rows.csv", b"a,b\n" + b"x" * 3_000_000 + b",y\n1,2\n"))
    assert codes(table) == [("line_too_long",), ()]


def test_an_element_of_a_json_document_that_is_too_long_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefloop.data.json_document, "LONGEST_LINE", 100)
    monkeypatch.setattr(prefloop.data.json_document, "PIECE", 16)
    rows = read(written(tmp_path / "rows.json", b'[{"a": 1}, {"a": "' + b"x" * 1000 + b'"}]'))
    assert codes(rows) == [(), ("line_too_long",)]


# --- JSON documents ---


@pytest.mark.parametrize("piece", [1, 2, 7, 65536])
def test_a_document_is_read_the_same_in_pieces_of_any_size(
    piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefloop.data.json_document, "PIECE", piece)
    rows = [{"a": 12, "b": [1.5e3, None]}, {"a": 'x]}\\"é'}, {}]
    for text in (json.dumps(rows), json.dumps({"n": 123, "rows": rows, "to": {"x": []}}), " [ ] ", ""):
        found = read(written(tmp_path / "rows.json", text.encode()))
        assert [row.values for row in found] == (rows if "12" in text else [])


@pytest.mark.parametrize(
    ("text", "good", "detail"),
    [
        (b'[{"a": 1}, {"a"', 1, "cut off after 4 characters"),
        (b'[{"a": 1}', 1, "expected , or ], found the end of the file"),
        (b'[{"a": 1}, {"a": 2} {"a": 3}]', 2, "expected , or ], found '{'"),
        (b'{"data": [{"a": 1}, {"a"]}', 1, "Expecting ':' delimiter at column 5"),
        (b'[{"a": 1}] x', 1, "'x' behind the end of the document"),
    ],
)
def test_a_document_that_breaks_gives_its_rows_and_one_that_says_where(
    text: bytes, good: int, detail: str, tmp_path: Path
) -> None:
    rows = read(written(tmp_path / "rows.json", text))
    assert codes(rows) == [()] * good + [("invalid_json",)]
    assert (rows[-1].place, rows[-1].problems[0].detail) == (f"rows.json:{good + 1}", detail)


def test_a_bad_element_of_a_document_has_the_code_of_a_bad_line(tmp_path: Path) -> None:
    text = rb'[{"a": 1}, 3, {"a": 1, "a": 2}, {"a": "\ud800"}, {"a": "' + b'\xff"}, {"a": 2}]'
    rows = read(written(tmp_path / "rows.json", text))
    assert codes(rows) == [(), ("not_an_object",), ("duplicate_key",), ("lone_surrogate",), ("invalid_utf8",), ()]
    assert rows[4].original == r'{"a": "\xff"}'


def test_a_document_with_several_lists_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.json", b'{"prompt": ["a"], "chosen": ["b"]}')
    with pytest.raises(
        DataError,
        match=r"^rows\.json: found an object with the lists prompt, chosen, expected a list of objects, or an object "
        r"that holds one\. Write one JSON object a line, as \.jsonl\.$",
    ):
        read(path)


# --- CSV ---


def csv_rows(tmp_path: Path, text: bytes) -> list[Row]:
    return read(written(tmp_path / "rows.csv", text))


def test_cells_of_csv_are_texts_unless_their_whole_column_is_something_else(tmp_path: Path) -> None:
    rows = csv_rows(
        tmp_path,
        b"id,score,ok,prompt,answer\n"
        b'007,1.5,true,"[{""role"": ""user""}]",5\n'
        b"008,,false,\"[{'role': 'user', 'name': None}]\",no\n"
        b'009,nan,true,broken,""\n',
    )
    values = [dict(row.values or {}) for row in rows]
    assert str(values[2].pop("score")) == "nan"
    assert values == [
        {"id": "007", "score": 1.5, "ok": True, "prompt": [{"role": "user"}], "answer": "5"},
        {"id": "008", "ok": False, "prompt": [{"role": "user"}], "answer": "no"},
        {"id": "009", "ok": True, "prompt": "broken", "answer": ""},
    ]


def test_rows_of_csv_are_counted_by_rows_and_keep_their_text(tmp_path: Path) -> None:
    rows = csv_rows(tmp_path, b'a,b\n"one\ntwo",x\ny,z\n')
    assert [(row.place, row.original) for row in rows] == [("rows.csv:1", '"one\ntwo",x'), ("rows.csv:2", "y,z")]


@pytest.mark.parametrize(
    ("line", "code", "detail"),
    [
        (b"a\0,b", "nul", "in x at character 2"),
        (b"\xff,b", "invalid_utf8", "0xFF at character 1 of the row"),
        (b"", "empty_line", "nothing but white space"),
        (b"a", "invalid_csv", "1 cells under 2 columns"),
        (b"a,b,c", "invalid_csv", "3 cells under 2 columns"),
        (b'"a"b,c', "invalid_csv", "',' expected after '\"'"),
    ],
)
def test_a_bad_row_of_csv_stands_between_good_ones(line: bytes, code: str, detail: str, tmp_path: Path) -> None:
    first, bad, last = csv_rows(tmp_path, b"x,y\n1,one\n" + line + b"\n2,two\n")
    assert [row.values is None for row in (first, bad, last)] == [False, True, False]
    assert [(problem.code, problem.detail) for problem in bad.problems] == [(code, detail)]


def test_a_column_that_stands_twice_refuses_every_row(tmp_path: Path) -> None:
    assert codes(csv_rows(tmp_path, b"a,a\n1,2\n3,4\n")) == [("duplicate_key",)] * 2
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    parquet.write_table(table, tmp_path / "rows.parquet")
    assert codes(read(tmp_path / "rows.parquet")) == [("duplicate_key",)]


def test_a_header_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^rows\.csv: the header cannot be read: 0xFF at character 1"):
        csv_rows(tmp_path, "a,b\n1,2\n".encode("utf-16"))


# --- Parquet and Arrow ---


def test_bad_characters_in_parquet_have_the_codes_of_lines(tmp_path: Path) -> None:
    raw = pa.array([b"fine", b"\xff", b"x\0", b"\xed\xa0\x80", None], type=pa.binary())
    texts = pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())
    parquet.write_table(pa.table({"text": texts, "number": [1, 2, 3, 4, 5]}), tmp_path / "rows.parquet")
    rows = read(tmp_path / "rows.parquet")
    assert codes(rows) == [(), ("invalid_utf8",), ("nul",), ("invalid_utf8",), ()]
    assert rows[0].values == {"text": "fine", "number": 1}
    assert rows[1].original == r'{"text": "\\xff", "number": 2}'
    assert rows[4].values == {"number": 5}


def test_what_only_other_rows_have_is_left_out(tmp_path: Path) -> None:
    rows = [{"m": [{"role": "user"}]}, {"m": [{"role": "tool", "name": "f"}]}, {"score": 1}]
    parquet.write_table(
        pa.Table.from_pylist(rows, schema=pa.Table.from_pylist(rows[1:] + rows[:1]).schema), tmp_path / "a.parquet"
    )
    assert [row.values for row in read(tmp_path / "a.parquet")][:2] == rows[:2]


def test_dates_decimals_maps_and_json_are_read_as_json_has_them(tmp_path: Path) -> None:
    table = pa.table(
        {
            "when": pa.array([0], pa.date32()),
            "price": pa.array(["1.50"]).cast(pa.decimal128(5, 2)),
            "map": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
            "tools": pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"x": [1]}'])),
        }
    )
    parquet.write_table(table, tmp_path / "rows.parquet")
    (row,) = read(tmp_path / "rows.parquet")
    assert row.values == {"when": "1970-01-01", "price": 1.5, "map": {"a": 1}, "tools": {"x": [1]}}
    assert json.loads(row.original) == row.values


# --- Files that are damaged as a whole ---


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.jsonl.zst", "rows.parquet", "footed.arrow"])
def test_a_damaged_file_is_an_error_that_says_after_which_row(name: str, tmp_path: Path) -> None:
    rows = [{"a": f"{number:x}" * 50} for number in range(5000)]
    WRITERS[name](tmp_path / name, rows)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=rf"^{name}: is damaged after row \d+: .*\. Get the file again\.$"):
        read(tmp_path / name)


def test_gzip_in_several_members_is_read_to_its_end(tmp_path: Path) -> None:
    both = gzip.compress(b'{"a": 1}\n') + gzip.compress(b'{"a": 2}\n')
    assert len(read(written(tmp_path / "rows.jsonl.gz", both))) == 2


def test_lines_are_not_cut_at_other_signs_that_end_them(tmp_path: Path) -> None:
    text = io.StringIO('{"a": "x\u2028y\x85z"}\n').read()
    assert [row.values for row in read(written(tmp_path / "a.jsonl", text.encode()))] == [{"a": "x\u2028y\x85z"}]
