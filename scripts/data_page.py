"""Writes the tables of formats and reason codes into docs/data.md, from their registries; `--check` only compares."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from prefloop.data.formats import Format, formats
from prefloop.data.formats.assembly import ABOUT_PAIR
from prefloop.data.formats.fields import ABOUT_PROMPT
from prefloop.data.problems import CODES

PAGE = Path(__file__).parents[1] / "docs" / "data.md"


def format_lines() -> Iterator[str]:
    """A line a format, then an example of each."""
    yield "| format | what it is | columns it needs | columns it reads where they are there |"
    yield "|---|---|---|---|"
    for one in formats().values():
        needs = ", ".join(_column(one, column) for column in one.columns)
        yield f"| `{one.name}` | {one.says} | {needs} | {', '.join(_beside(one))} |"
    pairs = ", ".join(f"`{column}`" for column in sorted(ABOUT_PAIR - ABOUT_PROMPT))
    yield ""
    yield f"Those of prompts are {', '.join(f'`{column}`' for column in sorted(ABOUT_PROMPT))};"
    yield f"those of pairs are these and {pairs}."
    yield ""
    yield "One row of each:"
    for one in formats().values():
        yield from ("", f"`{one.name}`", "```json", json.dumps(json.loads(one.example), ensure_ascii=False), "```")


def code_lines() -> Iterator[str]:
    """A line a reason code."""
    yield "| code | what becomes of the row | what it means | what to do |"
    yield "|---|---|---|---|"
    for name, code in CODES.items():
        yield f"| `{name}` | {code.fate} | {code.meaning} | {code.fix} |"


TABLES: Mapping[str, Callable[[], Iterator[str]]] = {"formats": format_lines, "codes": code_lines}


def main() -> int:
    """Rewrites the tables, or says that they are out of date."""
    page = PAGE.read_text(encoding="utf-8")
    written = page
    for name, lines in TABLES.items():
        start, end = f"<!-- {name}: written by scripts/data_page.py -->\n", f"<!-- end of {name} -->"
        head, rest = written.split(start)
        written = head + start + "\n".join([*lines(), ""]) + end + rest.split(end)[1]
    if "--check" in sys.argv:
        if written != page:
            print("docs/data.md: the tables are out of date; run: python scripts/data_page.py")
        return int(written != page)
    PAGE.write_text(written, encoding="utf-8")
    return 0


def _beside(one: Format) -> Iterator[str]:
    """The columns that a format may have, those of every pair and of every prompt as one word."""
    rest = one.optional - one.columns.keys()
    for columns, word in ((ABOUT_PAIR, "those of pairs"), (ABOUT_PROMPT, "those of prompts")):
        if columns - one.columns.keys() <= rest:
            yield word
            rest -= columns
    yield from (_column(one, column) for column in sorted(rest))


def _column(one: Format, column: str) -> str:
    return " or ".join(f"`{name}`" for name in (column, *one.also.get(column, ())))


if __name__ == "__main__":
    sys.exit(main())
