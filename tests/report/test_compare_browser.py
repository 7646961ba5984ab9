"""The page of a comparison in a real browser."""

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from prefloop.report import read_comparison, write_comparison

from .test_browser import BROWSERS, MEASURE, QUIET
from .test_compare import FITTED, PLAIN, write_run


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window_and_the_console_is_silent(tmp_path: Path, width: int) -> None:
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no Chromium on the PATH")
    made = (FITTED, PLAIN, replace(PLAIN, name="a_recipe_with_a_name_that_is_far_longer_than_anybody_should_choose"))
    runs = [write_run(tmp_path / f"run-{number}", one) for number, one in enumerate(made)]
    page = write_comparison(read_comparison(runs), runs, tmp_path / "page.html").read_text(encoding="utf-8")
    # The page's own policy forbids scripts; the measured copy allows inline ones and still no network.
    measured = page.replace("style-src 'unsafe-inline'", "style-src 'unsafe-inline'; script-src 'unsafe-inline'")
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<!doctype html><link rel="icon" href="data:,"><iframe width="{width}" height="2000" style="border: 0" '
        f'srcdoc="{html.escape(measured.replace("</body>", MEASURE))}"></iframe>',
        encoding="utf-8",
    )

    result = subprocess.run(
        [browser, *QUIET, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", frame.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    found = re.search(r'data-measured="([^"]*)"', result.stdout)
    assert found is not None, result.stderr
    layout = json.loads(html.unescape(found.group(1)))
    assert layout["scroll"] <= width
    assert layout["beyond"] == []
    assert layout["narrowest"] > 200
    assert [line for line in result.stderr.splitlines() if "CONSOLE" in line] == []
