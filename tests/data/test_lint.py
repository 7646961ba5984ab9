"""The one pass: good rows come out as they went in, and every bad one is counted, shown and kept."""

import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefloop.data import DataSource, Given, Reading, RowSource, require_rows
from prefloop.data.json_text import rows_of_lines
from prefloop.data.lint import EXAMPLES
from prefloop.data.problems import CODES, Problem
from prefloop.data.row import Row
from prefloop.errors import DataError


@dataclass(frozen=True)
class Lines:
    """A file of lines that lies in memory."""

    lines: Sequence[bytes]
    name: str = "mine.jsonl"
    identity: str = ""

    def rows(self) -> Iterator[Row]:
        return rows_of_lines(io.BytesIO(b"".join(line + b"\n" for line in self.lines)), self.name)


def source_of(*rows: dict[str, Any] | bytes) -> DataSource:
    return Lines([row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows])


def good(number: int) -> dict[str, Any]:
    return {
        "id": f"row-{number}",
        "prompt": f"What comes after {number}?",
        "chosen": f"It is {number + 1}.",
        "rejected": f"I do not know {number}.",
        "score_chosen": 2.0,
        "score_rejected": 1.0,
    }


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def line_of(number: int, **columns: object) -> bytes:
    return json.dumps({**good(number), **columns}).encode()


BY_ITSELF: dict[str, tuple[Callable[[int], bytes], set[str]]] = {
    "invalid utf-8": (lambda n: line_of(n).replace(b"It is", b"It \xff"), {"invalid_utf8"}),
    "nul byte": (lambda n: line_of(n).replace(b"It is", b"It \x00"), {"nul"}),
    "nul escaped": (lambda n: line_of(n, chosen=f"It is\0 {n}."), {"nul"}),
    "lone surrogate": (lambda n: line_of(n, chosen=f"It is \ud800 {n}."), {"lone_surrogate"}),
    "empty line": (lambda _n: b"  ", {"empty_line"}),
    "cut off": (lambda n: line_of(n)[:-9], {"invalid_json"}),
    "a list": (lambda n: json.dumps([good(n)]).encode(), {"not_an_object"}),
    "key twice": (lambda n: line_of(n)[:-1] + b', "chosen": "Twice."}', {"duplicate_key"}),
    "no answer": (
        lambda n: json.dumps({k: v for k, v in good(n).items() if k != "rejected"}).encode(),
        {"missing_field"},
    ),
    "null": (lambda n: line_of(n, chosen=None), {"missing_field"}),
    "a number": (lambda n: line_of(n, chosen=n), {"wrong_type"}),
    "white answer": (lambda n: line_of(n, chosen=" \n\t"), {"empty_text"}),
    "empty prompt": (lambda n: line_of(n, prompt=""), {"empty_text"}),
    "nan": (lambda n: line_of(n, score_chosen=float("nan")), {"not_finite"}),
    "infinite": (lambda n: line_of(n, score_rejected=float("-inf")), {"not_finite"}),
    "weight": (lambda n: line_of(n, weight=-1), {"out_of_range"}),
    "unknown role": (lambda n: line_of(n, prompt=[turn("wizard", f"After {n}?")]), {"unknown_role"}),
    "two systems": (
        lambda n: line_of(n, prompt=[turn("system", "Be brief."), turn("system", "Or not."), turn("user", f"{n}?")]),
        {"two_system_turns"},
    ),
    "empty turn": (
        lambda n: line_of(n, prompt=[turn("user", f"{n}?"), turn("assistant", ""), turn("user", "Well?")]),
        {"empty_message"},
    ),
    "answered": (lambda n: line_of(n, prompt=[turn("user", f"{n}?"), turn("assistant", "Yes.")]), {"ends_with_answer"}),
    "user answers": (lambda n: line_of(n, chosen=[turn("user", f"It is {n}.")]), {"last_turn_not_assistant"}),
    "identical": (lambda n: line_of(n, rejected=f"It is {n + 1}."), {"identical"}),
    "tie": (lambda n: line_of(n, prob_chosen_wins=0.5), {"tie"}),
    "nearly identical": (lambda n: line_of(n, rejected=f"it  IS {n + 1}. "), {"identical_normalised"}),
    "scores": (lambda n: line_of(n, score_chosen=0.5), {"scores_contradict"}),
    "same scores": (lambda n: line_of(n, score_chosen=1.0), {"equal_scores"}),
    "control token": (lambda n: line_of(n, chosen=f"It is {n + 1}.<|im_end|>"), {"control_token"}),
    "three at once": (
        lambda n: line_of(n, rejected=f"IT IS {n + 1}.", score_chosen=0, prompt=f"[INST] {n}?"),
        {"identical_normalised", "scores_contradict", "control_token"},
    ),
    "one of them refused": (
        lambda n: line_of(n, rejected=f"It is {n + 1}.", prompt=f"[INST] {n}?"),
        {"identical", "control_token"},
    ),
}
"""Bad rows that show it by themselves, and the codes that they have."""
ONLY_IN_FILES = {"invalid utf-8", "nul byte", "empty line", "cut off", "a list", "key twice"}
LIKE_AN_EARLIER: dict[str, Callable[[dict[str, Any], int], dict[str, Any]]] = {
    "the same": lambda earlier, _n: earlier,
    "the same under another id": lambda earlier, n: {**earlier, "id": f"other-{n}"},
    "its id": lambda earlier, n: {**good(n), "id": earlier["id"]},
    "the other way round": lambda earlier, n: {
        **earlier, "id": f"other-{n}", "chosen": earlier["rejected"], "rejected": earlier["chosen"]
    },
}  # fmt: skip
"""Rows that are bad because of a good one before them."""


class Remembered:
    """What rows before say, kept as plain texts: the expectation for checks between rows."""

    def __init__(self) -> None:
        self.by_id: dict[str, tuple[str, str, str]] = {}
        self.whole: set[tuple[str, str, str]] = set()
        self.first_choice: dict[tuple[str, frozenset[str]], str] = {}

    def codes(self, row: dict[str, Any]) -> set[str]:
        content = (json.dumps(row["prompt"]), row["chosen"], row["rejected"])
        codes: set[str] = set()
        if row["id"] in self.by_id:
            codes.add("duplicate_id" if self.by_id[row["id"]] == content else "conflicting_id")
        if content in self.whole:
            codes.add("duplicate_row")
        if self.first_choice.get((content[0], frozenset(content[1:])), content[1]) != content[1]:
            codes.add("contradictory_pair")
        self.by_id.setdefault(row["id"], content)
        self.whole.add(content)
        self.first_choice.setdefault((content[0], frozenset(content[1:])), content[1])
        return codes


KINDS = st.one_of(
    st.just(("good", 0)),
    st.tuples(st.sampled_from(sorted(BY_ITSELF)), st.just(0)),
    st.tuples(st.sampled_from(sorted(LIKE_AN_EARLIER)), st.integers(0, 5)),
)


def planted(kinds: list[tuple[str, int]]) -> tuple[list[bytes], list[set[str]]]:
    """Lines of a mixture, and the codes that each should have."""
    lines: list[bytes] = []
    expected: list[set[str]] = []
    remembered, earlier = Remembered(), [good(0)]
    for number, (kind, which) in enumerate([("good", 0), *kinds]):
        if kind in BY_ITSELF:
            make, codes = BY_ITSELF[kind]
            lines.append(make(number))
            expected.append(codes)
            continue
        row = good(number) if kind == "good" else LIKE_AN_EARLIER[kind](earlier[which % len(earlier)], number)
        if kind == "good" and number:
            earlier.append(row)
        lines.append(json.dumps(row).encode())
        expected.append(remembered.codes({"score_chosen": 2.0, **row}))
    return lines, expected


@settings(deadline=None, max_examples=40)
@given(st.lists(KINDS, max_size=25))
def test_good_rows_come_out_in_order_and_bad_ones_are_counted_exactly(kinds: list[tuple[str, int]]) -> None:
    lines, expected = planted(kinds)
    refused = [any(CODES[code].fate == "refused" for code in codes) for codes in expected]

    reading = Reading(Lines(lines), format="trl_preference_text")
    places = [accepted.prompt.source for accepted in reading]

    report = reading.report
    assert places == [f"mine.jsonl:{number}" for number, out in enumerate(refused, start=1) if not out]
    assert report.rows == len(lines)
    assert report.refused == sum(refused)
    assert report.accepted == len(places)
    assert report.warned == sum(bool(codes) and not out for codes, out in zip(expected, refused, strict=True))
    assert report.problems == Counter(code for codes in expected for code in codes)
    for code, count in report.problems.items():
        shown = [example for example in report.examples if example.code == code]
        assert len(shown) == min(count, EXAMPLES)
        assert all(code in expected[int(example.place.partition(":")[2]) - 1] for example in shown)


@pytest.mark.parametrize("kind", sorted(BY_ITSELF))
def test_a_bad_row_between_good_ones_has_its_codes_and_no_others(kind: str) -> None:
    lines, expected = planted([(kind, 0), ("good", 0)])

    reading = Reading(Lines(lines))
    list(reading)

    assert set(reading.report.problems) == expected[1]


@pytest.mark.parametrize("kind", sorted(set(BY_ITSELF) - ONLY_IN_FILES))
def test_rows_in_memory_have_the_same_codes(kind: str) -> None:
    make, codes = BY_ITSELF[kind]
    bad = json.loads(make(1))

    reading = Reading(RowSource("rows", [good(0), bad, good(2)]))
    list(reading)

    assert set(reading.report.problems) == codes
    assert {example.place for example in reading.report.examples} == {"rows:2"}


def test_refused_rows_are_kept_as_they_stood(tmp_path: Path) -> None:
    broken, surrogate = line_of(1).replace(b"It is", b"It \xff"), line_of(2, chosen="It is \ud800.")
    kept = tmp_path / "quarantine.jsonl"

    reading = Reading(source_of(good(0), broken, surrogate, good(3)), quarantine=kept)
    list(reading)

    first, second = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]
    assert first["place"] == "mine.jsonl:2"
    assert [problem["code"] for problem in first["problems"]] == ["invalid_utf8"]
    assert first["original"] == broken.decode(errors="backslashreplace")
    assert second["original"].encode() == surrogate


def test_a_row_with_half_a_character_in_memory_is_kept_too(tmp_path: Path) -> None:
    class InMemory:
        name, identity = "rows", ""

        def rows(self) -> Iterator[Row]:
            yield Row("rows:1", good(1), "")
            yield Row("rows:2", None, "half \udc80", (Problem("lone_surrogate", "in chosen"),))

    kept = tmp_path / "quarantine.jsonl"
    list(Reading(InMemory(), quarantine=kept))

    assert json.loads(kept.read_text(encoding="utf-8"))["original"] == "half \udc80"


def test_where_nothing_is_refused_there_is_no_quarantine_and_an_older_one_goes(tmp_path: Path) -> None:
    kept = tmp_path / "quarantine.jsonl"
    kept.write_text("from an earlier pass")

    list(Reading(source_of(good(0)), quarantine=kept))

    assert not kept.exists()


def test_a_row_that_is_refused_makes_no_later_one_a_duplicate() -> None:
    reading = Reading(source_of(good(0), {**good(1), "chosen": ""}, {**good(2), "id": "row-1"}))
    list(reading)

    assert reading.report.problems == {"empty_text": 1}


def test_further_checks_see_what_is_accepted_so_far_and_may_refuse_it() -> None:
    asked: list[str] = []

    def only_even(row: Given) -> Iterator[Problem]:
        asked.append(row.prompt.source)
        if int(row.prompt.source.partition(":")[2]) % 2:
            yield Problem("template_refuses", "odd")

    reading = Reading(source_of(*map(good, range(3)), {**good(4), "chosen": ""}), checks=[only_even])

    assert [row.prompt.source for row in reading] == ["mine.jsonl:2"]
    assert asked == ["mine.jsonl:1", "mine.jsonl:2", "mine.jsonl:3"]
    assert reading.report.problems == {"empty_text": 1, "template_refuses": 2}


def test_the_report_has_what_scripts_rely_on() -> None:
    reading = Reading(source_of(good(0), {**good(1), "chosen": " "}, {**good(2), "score_chosen": 0}))
    list(reading)

    written = json.loads(json.dumps(reading.report.as_json()))
    assert {key: written[key] for key in ("rows", "accepted", "refused", "warned", "problems")} == {
        "rows": 3,
        "accepted": 2,
        "refused": 1,
        "warned": 1,
        "problems": {"empty_text": 1, "scores_contradict": 1},
    }
    assert [(one["code"], one["place"], one["fate"]) for one in written["examples"]] == [
        ("empty_text", "mine.jsonl:2", "refused"),
        ("scores_contradict", "mine.jsonl:3", "warned"),
    ]
    assert reading.report.counts() == {"refused: empty_text": 1, "warned: scores_contradict": 1}
    assert reading.report.line() == ("mine.jsonl: of 3 rows 1 refused (empty_text 1), 1 warned (scores_contradict 1)")


def test_a_clean_set_says_nothing() -> None:
    reading = Reading(source_of(good(0)))
    list(reading)
    assert reading.report.line() is None


def test_rows_that_cannot_be_read_at_all_are_all_refused() -> None:
    reading = Reading(source_of(*[b"{"] * 250))

    assert list(reading) == []
    assert reading.report.says == "no row could be read"
    with pytest.raises(DataError) as error:
        require_rows(reading.report, "data/mine.jsonl")
    assert str(error.value) == (
        "mine.jsonl: all of its 250 rows are refused (invalid_json 250). `prefloop lint data/mine.jsonl` says more."
    )


def test_the_format_is_recognised_behind_a_broken_beginning() -> None:
    reading = Reading(source_of(*[b"{"] * 150, good(0)))
    assert len(list(reading)) == 1


def test_a_set_without_rows_is_an_error() -> None:
    with pytest.raises(DataError, match=r"^mine\.jsonl: has no rows\. Add one JSON object a line\.$"):
        list(Reading(source_of()))


def test_every_code_says_what_it_means_and_what_to_do() -> None:
    for code, told in CODES.items():
        assert code == code.lower().replace(" ", "_")
        assert told.meaning[0].islower() or told.meaning.startswith("JSON")
        assert not told.meaning.endswith(".")
        assert told.fix.endswith(".")
