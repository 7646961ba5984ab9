"""The page: one HTML file that loads nothing."""

import os
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from prefloop.report import curves, figures, wording
from prefloop.report.plots import Plot, svg
from prefloop.report.read import COMPARISONS, read_run, without_folders
from prefloop.report.table import round_rows, text_table
from prefloop.report.view import RunView

LONGEST_ANSWER = 6000
"""Characters of an answer or prompt on the page; longer ones are cut and say so."""


@dataclass(frozen=True)
class Drawn:
    """A plot and its picture."""

    plot: Plot
    picture: Markup


def write_report(run: Path) -> Path:
    """Writes `report/index.html` of a run, finished or not, and returns its path.

    Raises:
        DataError: the folder is no run, or one of its files is not what it must be.
    """
    page = page_of(read_run(run))
    target = run / "report/index.html"
    target.parent.mkdir(exist_ok=True)
    aside = target.with_suffix(f".{os.getpid()}.writing")
    aside.write_text(page, encoding="utf-8", newline="\n")
    aside.replace(target)
    return target


def page_of(run: RunView) -> str:
    """The whole page. The same run gives the same bytes."""
    here = Path(__file__).parent
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=FileSystemLoader(here)
    )
    win_rates = curves.win_rates(run)
    return environment.get_template("page.html.j2").render(
        css=Markup((here / "page.css").read_text(encoding="utf-8")),
        run=run,
        cut=cut,
        count=figures.count,
        decimals=figures.fixed,
        title=run.recipe.title or run.recipe.name or "A run of prefloop",
        model=without_folders(run.recipe.model_path),
        headline=wording.headline(run),
        notes=wording.notes(run),
        win_rates=None if win_rates is None else drawn(win_rates),
        measures=[drawn(plot) for plot in curves.measures(run)],
        training=[drawn(plot) for plot in curves.training(run)],
        table=text_table(round_rows(run)),
        rounds=wording.round_texts(run),
        comparisons_wanted=COMPARISONS,
    )


def drawn(plot: Plot) -> Drawn:
    """A plot with its SVG."""
    return Drawn(plot, svg(plot))


def cut(text: str) -> str:
    """A text that is short enough for the page."""
    if len(text) <= LONGEST_ANSWER:
        return text
    return f"{text[:LONGEST_ANSWER]} … (cut here; {len(text):,} characters in all)"
