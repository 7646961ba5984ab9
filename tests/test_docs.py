"""What the pages tell users to write is what the program takes."""

import re
from pathlib import Path

import pytest

from prefloop.config import load_recipe

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"```yaml\n(.*?)```", re.DOTALL)
PAGES = ("README.md", "docs/recipes.md")
RECIPES = [
    pytest.param(block, id=f"{page}-{number}")
    for page in PAGES
    for number, block in enumerate(BLOCK.findall((ROOT / page).read_text(encoding="utf-8")))
]


@pytest.mark.parametrize("text", RECIPES)
def test_a_recipe_on_a_page_is_one(text: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text, encoding="utf-8")

    assert load_recipe(str(file)).recipe.rounds == 3


@pytest.mark.parametrize("page", sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md")))
def test_links_between_pages_lead_somewhere(page: str) -> None:
    file = ROOT / page
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", file.read_text(encoding="utf-8")):
        assert (file.parent / target).exists(), target
