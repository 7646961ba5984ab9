"""Files that may be compressed: read and written by what their names end in."""

import gzip
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ENDINGS = (".gz", ".zst")
ZstdError = zstd.ZstdError


def to_read(path: Path) -> BinaryIO:
    """A file's bytes, decompressed where its name ends in .gz or .zst."""
    match path.suffix:
        case ".gz":
            return cast("BinaryIO", gzip.open(path))
        case ".zst":
            return cast("BinaryIO", zstd.open(path))
        case _:
            return path.open("rb")


@contextmanager
def to_write(path: Path, ending: str) -> Generator[BinaryIO]:
    """A file that is compressed as an ending says, and safe on the disk when it is closed."""
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
