"""The page: one HTML file that loads nothing."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from prefloop.report import curves, figures, wording
from prefloop.report.judges import judges_table
from prefloop.report.meaning import meaning
from prefloop.report.plots import Plot, svg
from prefloop.report.provenance import figures_from, how_to_repeat
from prefloop.report.read import read_run, without_folders
from prefloop.report.table import TABLE_CAPTION, round_rows, text_table
from prefloop.report.usable import usable_pairs
from prefloop.report.validation import reward_models_table, validation_table
from prefloop.report.view import RunView

_INTERVAL = re.compile(r"\([^()\s]+(?: to |\N{EN DASH})[^()\s]+\)")
LONGEST_TEXT = 1500
"""Characters of an answer or a prompt on the page; longer ones are cut and say so."""
LONGEST_RECIPE = 30_000
MOST_STAGES = 500
"""Lines of the table of stages."""


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
    plots = {
        "win_rates": curves.win_rates(run),
        "measures": curves.measures(run),
        "scatter": curves.scatter(run),
        "training": curves.training(run),
    }
    return environment.get_template("page.html.j2").render(
        css=Markup((here / "page.css").read_text(encoding="utf-8")),
        run=run,
        cut=cut,
        whole_intervals=whole_intervals,
        recipe_text=cut(run.recipe_text, LONGEST_RECIPE),
        stages=run.stages[:MOST_STAGES],
        count=figures.count,
        decimals=figures.fixed,
        title=run.recipe.title or run.recipe.name or "A run of prefloop",
        model=without_folders(run.recipe.model_path),
        headline=wording.headline(run),
        notes=wording.notes(run),
        **{group: list(map(drawn, found)) for group, found in plots.items()},
        meaning=meaning(run),
        pairs=usable_pairs(run),
        validation=validation_table(run),
        reward_models=reward_models_table(run),
        judged=judges_table(run),
        table=text_table(round_rows(run)),
        caption=TABLE_CAPTION,
        rounds=wording.round_texts(run),
        figures_from=figures_from(run, [plot for group in plots.values() for plot in group]),
        repeat=how_to_repeat(run),
    )


def drawn(plot: Plot) -> Drawn:
    """A plot with its SVG."""
    return Drawn(plot, svg(plot))


def cut(text: str, longest: int = LONGEST_TEXT) -> str:
    """A text that is short enough for the page."""
    if len(text) <= longest:
        return text
    return f"{text[:longest]} … (cut here; {len(text):,} characters in all)"


def whole_intervals(text: str) -> Markup:
    """A text in which no line breaks inside an interval or before a percent sign."""
    joined = text.replace(" %", "\N{NO-BREAK SPACE}%")
    return Markup(_INTERVAL.sub(r'<span class="keep">\g<0></span>', str(escape(joined))))
