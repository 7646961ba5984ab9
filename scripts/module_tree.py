"""Writes the list of modules into docs/design.md, one line each from its docstring; `--check` only compares."""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "design.md"
START, END = "<!-- modules: written by scripts/module_tree.py -->\n", "<!-- end of modules -->"


def module_lines() -> str:
    """A line a module, a heading line a room, in the order of the alphabet."""
    package = ROOT / "src" / "prefloop"
    lines = ["```"]
    for file in sorted(package.rglob("*.py"), key=lambda file: (file.parent.as_posix(), file.name)):
        docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        first = docstring.splitlines()[0] if docstring else ""
        name = file.relative_to(package).as_posix()
        if file.name == "__init__.py":
            name = file.parent.relative_to(package).as_posix() + "/" if file.parent != package else "prefloop/"
            lines.append(f"{name:36}{first}")
        else:
            lines.append(f"  {name:34}{first}")
    return "\n".join([*lines, "```", ""])


def main() -> int:
    """Rewrites the page, or says that it is out of date."""
    page = PAGE.read_text(encoding="utf-8")
    head, rest = page.split(START)
    tail = rest.split(END)[1]
    written = head + START + module_lines() + END + tail
    if "--check" in sys.argv:
        if written != page:
            print("docs/design.md: the list of modules is out of date; run: python scripts/module_tree.py")
        return int(written != page)
    PAGE.write_text(written, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
