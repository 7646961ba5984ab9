"""Writes the table of claims into docs/worlds.md, a line each; `--check` only compares."""

import sys
from pathlib import Path

from prefloop.worlds import Claim, claims

PAGE = Path(__file__).parents[1] / "docs" / "worlds.md"
START, END = "<!-- claims: written by scripts/worlds_page.py -->\n", "<!-- end of claims -->"
HEAD = "| method | what holds | from |\n|---|---|---|\n"


def line(claim: Claim) -> str:
    """A claim as a line of the table."""
    within = f" (within {claim.within:.0f} {claim.unit})" if claim.unit else ""
    cells = (f"`{claim.method}`", claim.says.removesuffix(".") + within, claim.source)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|').replace('*', chr(92) + '*') for cell in cells)} |\n"


def main() -> int:
    """Rewrites the page, or says that it is out of date."""
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(START)
    _, after = rest.split(END)
    text = f"{before}{START}{HEAD}{''.join(map(line, claims().values()))}{END}{after}"
    if "--check" in sys.argv:
        if text != page:
            print("docs/worlds.md is out of date; run: python scripts/worlds_page.py")
        return int(text != page)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
