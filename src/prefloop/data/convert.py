"""A data set read in any format and written in another form."""

import gzip
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from prefloop.data.forms import Form, line_of
from prefloop.data.lint import LintReport, Reading
from prefloop.data.source import DataSource
from prefloop.errors import DataError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

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
        with _opened(aside, out.suffix) as file:
            for given in reading:
                file.write(line_of(given, to).encode())
                written += 1
        if not written:
            raise DataError(f"{source.name}: every row is refused, nothing is written. `prefloop lint` says why.")
        aside.replace(out)
    finally:
        aside.unlink(missing_ok=True)
    return Converted(written, reading.report)


@contextmanager
def _opened(path: Path, ending: str) -> Generator[BinaryIO]:
    """A file that is compressed as its ending says, and safe on the disk when it is closed."""
    with path.open("wb") as file:
        match ending:
            case ".gz":
                # No time and no name inside, so that the same rows are the same bytes.
                with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
                    yield cast("BinaryIO", packed)
            case ".zst":
                with zstd.ZstdFile(file, "wb") as packed:
                    yield cast("BinaryIO", packed)
            case _:
                yield file
        file.flush()
        os.fsync(file.fileno())
