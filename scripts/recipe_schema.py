"""Writes the JSON Schema of recipes, which ships with them; `--check` only compares."""

import json
import sys
from pathlib import Path

from prefloop.config.schema import recipe_schema
from prefloop.objectives import objectives
from prefloop.pairing import rules

FILE = Path(__file__).parents[1] / "src" / "prefloop" / "recipes" / "recipe.schema.json"


def schema_text() -> str:
    """The schema of this version."""
    by_name = {name: one.options for one in objectives().values() for name in (one.name, *one.aliases)}
    schema = recipe_schema({name: one.options for name, one in rules().items()}, by_name)
    return json.dumps(schema, indent=0, ensure_ascii=False) + "\n"


def main() -> int:
    """Rewrites the schema, or says that it is out of date."""
    text = schema_text()
    if "--check" in sys.argv:
        old = not FILE.is_file() or FILE.read_text(encoding="utf-8") != text
        if old:
            print("src/prefloop/recipes/recipe.schema.json is out of date; run: python scripts/recipe_schema.py")
        return int(old)
    FILE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
