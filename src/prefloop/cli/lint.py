"""`prefloop lint`."""

from collections.abc import Iterator, Sequence
from math import exp
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefloop.cli.console import rows, say
from prefloop.cli.model_tokens import ModelTokens
from prefloop.errors import RecipeError

if TYPE_CHECKING:
    from prefloop.data.figures import Lengths, Spread
    from prefloop.data.lint import LintReport

FATES = {"refused": "left out", "warned": "used"}
STEP_OF_LENGTH = 50
"""Words for which the slope on length is spelt out."""


def lint_command(
    data: str,
    *,
    tokens: ModelTokens,
    against: Sequence[str],
    format_name: str | None,
    quarantine: Path | None,
) -> tuple[dict[str, Any], bool]:
    """Reads a data set once and says what is wrong with it; also whether every row is accepted."""
    codec = tokens.codec()
    from prefloop.data import Check, Reading, find_source, leaks_of

    source = find_source(data)
    if quarantine is not None and Path(data).exists() and quarantine.resolve() == Path(data).resolve():
        raise RecipeError(f"--quarantine {quarantine}: is the data set itself. Name another file.")
    checks: list[Check] = [leaks_of(name) for name in against]
    if codec is not None:
        from prefloop.policy.token_checks import token_checks

        checks.append(token_checks(codec, tokens.max_length, tokens.truncation or "drop"))
    reading = Reading(source, format=format_name, checks=checks, quarantine=quarantine)
    for _ in reading:
        pass
    report = reading.report
    say(said(report, quarantine))
    return report.as_json(), not report.refused


def said(report: "LintReport", quarantine: Path | None) -> Iterator[str]:
    """The report in lines."""
    from prefloop.data.problems import CODES

    yield f"{report.source}: {report.says}, {rows(report.rows)}"
    if report.unread:
        yield f"columns that are not read: {', '.join(report.unread)}"
    yield f"{report.accepted:,} accepted ({report.warned:,} of them warned), {report.refused:,} refused"
    for name, count in report.problems.items():
        code = CODES[name]
        yield ""
        yield f"{code.fate} ({FATES[code.fate]})  {name}  {rows(count)}: {code.meaning}. {code.fix}"
        yield from (f"  {one.place}  {one.detail}" for one in report.examples if one.code == name)
    if report.refused and quarantine is not None:
        yield ""
        yield f"the refused rows are in {quarantine}"
    if report.accepted:
        yield ""
        yield from _figures(report)


def _figures(report: "LintReport") -> Iterator[str]:
    figures = report.figures
    repeated = (
        f"; {rows(figures.repeated_rows)} with one of an earlier row, the most frequent in {rows(figures.most_rows)}"
    )
    yield f"prompts   {figures.prompts:,} different{repeated if figures.repeated_rows else ''}"
    if figures.lengths is not None:
        yield from _lengths(figures.lengths)
    if figures.scores is not None:
        yield f"scores    {_spread(figures.scores)}"
    if figures.margins is not None:
        yield f"margins   {_spread(figures.margins)} (better answer minus worse)"


def _lengths(lengths: "Lengths") -> Iterator[str]:
    yield (
        f"length    {lengths.pairs:,} pairs: the chosen answer has {lengths.chosen_words:.1f} words, "
        f"the rejected one {lengths.rejected_words:.1f}"
    )
    if lengths.longer_chosen is None or lengths.interval is None:
        yield "          all pairs have answers of equal length"
        return
    low, high = (100 * bound for bound in lengths.interval)
    yield (
        f"          the longer one is chosen in {100 * lengths.longer_chosen:.1f} % (95 %: {low:.1f} to {high:.1f}); "
        f"{lengths.equal:,} pairs are equally long"
    )
    if lengths.capped:
        way = "longer" if lengths.slope > 0 else "shorter"
        yield f"          the {way} one is chosen in every pair: length alone tells them apart"
    else:
        wins = 100 / (1 + exp(-lengths.slope * STEP_OF_LENGTH))
        yield (f"          slope {lengths.slope:+.4f} nats a word: {STEP_OF_LENGTH} words more win in {wins:.0f} %")


def _spread(spread: "Spread") -> str:
    quantiles = ", ".join(f"{percent} % {value:.3g}" for percent, value in spread.quantiles.items())
    sampled = " (quantiles of a sample)" if spread.sampled else ""
    return f"{spread.count:,}, mean {spread.mean:.3g}; {quantiles}{sampled}"
