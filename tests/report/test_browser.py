"""The page in a real browser."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from prefloop.report import write_report

from .conftest import BuildRun

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--window-size=1400,2000",
)
MEASURE = """<script>
addEventListener("load", () => {
  const wide = innerWidth;
  const free = [...document.body.querySelectorAll("*")].filter((e) => !e.closest(".scroll, pre"));
  const beyond = free.filter((e) => e.getBoundingClientRect().right > wide + 0.5);
  parent.document.documentElement.dataset.measured = JSON.stringify({
    wide, scroll: document.documentElement.scrollWidth, beyond: beyond.map((e) => e.outerHTML.slice(0, 90)),
    narrowest: Math.min(...[...document.querySelectorAll("figure svg")].map((e) => e.getBoundingClientRect().width)),
  });
});
</script></body>"""


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window_and_the_console_is_silent(
    build_run: BuildRun, tmp_path: Path, width: int
) -> None:
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no Chromium on the PATH")
    page = write_report(build_run()).read_text(encoding="utf-8")
    # The page's own policy forbids scripts; the measured copy allows inline ones and still no network.
    measured = page.replace("style-src 'unsafe-inline'", "style-src 'unsafe-inline'; script-src 'unsafe-inline'")
    measured = html.escape(measured.replace("</body>", MEASURE))
    # A frame can be narrower than Chromium's smallest window.
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<!doctype html><link rel="icon" href="data:,"><iframe width="{width}" height="2000" '
        f'style="border: 0" srcdoc="{measured}"></iframe>',
        encoding="utf-8",
    )

    result = subprocess.run(
        [
            browser,
            *QUIET,
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            frame.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    found = re.search(r'data-measured="([^"]*)"', result.stdout)
    assert found is not None, result.stderr
    layout = json.loads(html.unescape(found.group(1)))
    assert layout["wide"] == width
    assert layout["scroll"] <= width
    assert layout["beyond"] == []
    assert layout["narrowest"] > 200
    assert [line for line in result.stderr.splitlines() if "CONSOLE" in line] == []
