"""The page of a comparison: one HTML file that loads nothing."""

import os
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from prefloop.report import compare_plots, compare_table, compare_wording
from prefloop.report.compare import DRAWS, RunComparison
from prefloop.report.page import whole_intervals
from prefloop.report.plots import svg
from prefloop.report.read import without_folders


def comparison_path(runs: Sequence[Path]) -> Path:
    """Where the page goes if nobody says: beside the first run."""
    return runs[0].parent / "compare/index.html"


def write_comparison(comparison: RunComparison, runs: Sequence[Path], target: Path) -> Path:
    """Writes the page and returns its path.

    Args:
        comparison: of the runs.
        runs: as they were named, for the command on the page.
        target: the file; folders above it are made.
    """
    page = comparison_page(comparison, runs)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_suffix(f".{os.getpid()}.writing")
    aside.write_text(page, encoding="utf-8", newline="\n")
    aside.replace(target)
    return target


def comparison_page(comparison: RunComparison, runs: Sequence[Path]) -> str:
    """The whole page. The same runs give the same bytes."""
    here = Path(__file__).parent
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=FileSystemLoader(here)
    )
    tracks = compare_plots.against_length(comparison)
    return environment.get_template("compare.html.j2").render(
        css=Markup((here / "page.css").read_text(encoding="utf-8")),
        comparison=comparison,
        whole_intervals=whole_intervals,
        title=compare_wording.comparison_title(comparison),
        meaning=compare_wording.comparison_meaning(comparison),
        caveats=compare_wording.comparison_caveats(comparison),
        table=compare_table.comparison_table(comparison),
        rounds=compare_table.rounds_table(comparison),
        seeds=compare_table.seeds_table(comparison),
        tracks=[(plot, compare_plots.svg_of(plot, tracks)) for plot in tracks],
        by_round=[(plot, svg(plot)) for plot in compare_plots.by_round(comparison)],
        looks=compare_plots.LOOKS,
        marker=compare_plots.marker,
        command=f"prefloop compare {' '.join(without_folders(str(run)) for run in runs)}",
        draws=DRAWS,
    )
