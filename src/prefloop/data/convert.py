"""A data set read in any format and written in another form."""

from dataclasses import dataclass
from pathlib import Path

from prefloop.data.compressed import to_write
from prefloop.data.forms import Form, line_of
from prefloop.data.lint import LintReport, Reading
from prefloop.data.source import DataSource
from prefloop.errors import DataError

ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst")


@dataclass(frozen=True)
class Converted:
    """What became of a data set."""

    written: int
    report: LintReport
    """What was found when it was read; rows that were refused are not written."""


def convert(source: DataSource, out: Path, *, to: Form, format: str | None = None) -> Converted:
    """Writes the accepted rows of a data set to a file of JSON lines, compressed where its name ends in .gz or .zst.

    Args:
        source: the rows.
        out: the file to write; it appears when it is complete.
        to: the form.
        format: name of the source's format; None recognises it.

    Raises:
        DataError: the file exists, or cannot be written so; there is no row to write; the form cannot hold a row.
    """
    if out.exists():
        raise DataError(f"{out}: exists already and is not overwritten. Name another file.")
    if not out.name.endswith(ENDINGS):
        raise DataError(f"{out}: is written as JSON lines. Let its name end in {', '.join(ENDINGS)}.")
    if not out.absolute().parent.is_dir():
        raise DataError(f"{out}: there is no folder {out.parent}. Make it, or name another file.")
    reading = Reading(source, format=format)
    written = 0
    aside = out.with_name(f".{out.name}.part")
    try:
        with to_write(aside, out.suffix) as file:
            for given in reading:
                file.write(line_of(given, to).encode())
                written += 1
        if not written:
            raise DataError(f"{source.name}: every row is refused, nothing is written. `prefloop lint` says why.")
        aside.replace(out)
    finally:
        aside.unlink(missing_ok=True)
    return Converted(written, reading.report)
