"""Writes docs/objectives.md, the reference of all objectives, from their docstrings; `--check` only compares."""

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from prefloop.objectives import Objective, behaviour, described, objectives

PAGE = Path(__file__).parents[1] / "docs" / "objectives.md"
HEAD = """# Objectives
<!-- written by scripts/objectives_page.py from the docstrings in src/prefloop/objectives -->
Every loss is a pure function that can be called on its own:

```python
from prefloop.objectives import dpo

losses = dpo(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1)
```

It returns one loss an example, not reduced; the mean over an optimiser step, weighted by example, is what training
minimises. In a recipe: `policy: {objective: {name: dpo, beta: 0.1}, references: {ref: round_start}}`. Log-probabilities
are in nats, summed over the counted tokens of an answer, EOS included. `prefloop objectives NAME` prints the same, and
`prefloop verify` runs all of them against published numbers.

"""


def page_text() -> str:
    """The page of this version."""
    found = [one for _, one in sorted(objectives().items())]
    lines = ["| objective | what it is | reads | trained |", "|---|---|---|---|", *(_row(one) for one in found), ""]
    for one in found:
        lines += _section(one)
    return HEAD + "\n".join(lines)


def _row(one: Objective) -> str:
    reads = ", ".join(one.models) or "no reference"
    return f"| [{one.name}](#{one.name}) | {described(one).summary} | {reads} | {'no' if one.not_trained else 'yes'} |"


def _section(one: Objective) -> Iterator[str]:
    words = described(one)
    also = f" Also called {', '.join(f'`{name}`' for name in one.aliases)}." if one.aliases else ""
    yield from (f"## {one.name}", f"{words.summary} Source: {one.source}.{also}", "")
    yield from (_formula(words.formula), "", f"**Limits:** {words.limits}", "")
    yield from ("| quantity | what it is | shape | unit |", "|---|---|---|---|")
    for quantity in one.quantities:
        meaning = _cell(words.quantities[quantity.name])
        yield f"| `{quantity.name}` | {meaning} | {quantity.shape or 'one'} | {quantity.what.unit or '-'} |"
    if words.parameters:
        yield from ("", "| hyper-parameter | what it is | range | default |", "|---|---|---|---|")
    for parameter in words.parameters:
        default = "-" if parameter.default is None else parameter.default
        yield f"| `{parameter.name}` | {_cell(parameter.meaning)} | {parameter.range} | {default} |"
    if one.elsewhere:
        yield from ("", "| in | it is called | ours -> theirs | differs |", "|---|---|---|---|")
    for there in one.elsewhere:
        cells = (there.tool, f"`{_cell(there.name)}`", _cell(there.translated) or "-", _cell(there.note) or "-")
        yield f"| {' | '.join(cells)} |"
    yield from ("", " ".join(behaviour(one)), "")


def _formula(text: str) -> str:
    """The docstring's text, with its indented lines as code."""
    blocks: list[str] = []
    for paragraph in text.split("\n\n"):
        if paragraph.startswith("    "):
            blocks.append(f"```\n{textwrap.dedent(paragraph)}\n```")
        else:
            blocks.append(_outside_code(" ".join(paragraph.split())))
    return "\n\n".join(blocks)


def _outside_code(text: str) -> str:
    """Signs that Markdown would take for its own."""
    return text.replace("|", "\\|").replace("*", "\\*").replace("_", "\\_").replace("<", "&lt;")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> int:
    """Rewrites the page, or says that it is out of date."""
    text = page_text()
    if "--check" in sys.argv:
        old = not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text
        if old:
            print("docs/objectives.md is out of date; run: python scripts/objectives_page.py")
        return int(old)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
