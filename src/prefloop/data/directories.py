"""Directories of data files: what `datasets` saved, or files side by side; and which of them a split means."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

from prefloop.data.files import READERS, ending
from prefloop.errors import DataError, did_you_mean

NO_DATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json"}
"""JSON files that describe data and hold none."""
SPLIT = re.compile(r"(?<![a-z])(train|test|val|validation|valid|dev|eval|evaluation|held_?out)(ing)?(?![a-z])", re.I)
SHARD = re.compile(r"(?P<part>.*?)-?(?P<number>\d{5})-of-(?P<count>\d{5})")


@dataclass(frozen=True)
class DataFile:
    """A file of a directory."""

    path: Path
    name: PurePosixPath
    """Its place in the directory."""
    part: str
    """What it is a part of: "train_prefs", "harmless-base/train"."""

    @property
    def shard(self) -> re.Match[str] | None:
        """Which of how many files it is, where its name says so."""
        return SHARD.match(self.name.name)


def files_of(directory: Path, split: str | None, name: str) -> tuple[DataFile, ...]:
    """The data files of a directory, in the order of their rows.

    A split is the name of files ("train" means train.jsonl, data/train-00000-of-00002.parquet, all of train/ and any
    other folder's train.jsonl) or of a folder.

    Args:
        directory: to look in.
        split: what is wanted; None takes all files, where they do not belong to several splits.
        name: what the directory is called in messages.

    Raises:
        DataError: there are no such files, or they are of several splits, or a file is missing.
    """
    found = _saved(directory, name) or _beside_each_other(directory)
    if not found:
        known = ", ".join(f"*{suffix}" for suffix in READERS)
        raise DataError(f"{name}: holds no data file. Expected {known}, the text ones perhaps as .gz or .zst.")
    parts = sorted({file.part for file in found})
    if split is None:
        words = {word[0].lower() for part in parts if (word := SPLIT.search(part))}
        if len(words) > 1:
            raise DataError(f"{name}: has several splits. Name one: {', '.join(f'{name}:{part}' for part in parts)}.")
        chosen = found
    else:
        chosen = tuple(file for file in found if _is_of(file.part, split))
        if not chosen:
            raise DataError(f"{name}: has no split '{split}'. {did_you_mean(split, parts)}")
    _require_all_shards(chosen, name)
    return chosen


def _is_of(part: str, split: str) -> bool:
    return part == split or part.startswith(f"{split}/") or part.endswith(f"/{split}")


def _beside_each_other(directory: Path) -> tuple[DataFile, ...]:
    names = (PurePosixPath(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())
    shown = (name for name in names if name.name not in NO_DATA and not any(one.startswith(".") for one in name.parts))
    return tuple(
        DataFile(directory / name, name, _part(name)) for name in sorted(shown) if ending(Path(name)) in READERS
    )


def _part(name: PurePosixPath) -> str:
    """The name of a file without `data/` in front, the number of a shard, and its ending."""
    shard = SHARD.match(name.name)
    stem = name.name.split(".")[0] if shard is None else shard["part"]
    folder = name.parent.relative_to("data") if name.parts[0] == "data" else name.parent
    return (folder / stem).as_posix()


def _saved(directory: Path, name: str) -> tuple[DataFile, ...]:
    """What `datasets.save_to_disk` wrote; empty where it did not."""
    if (directory / "dataset_dict.json").is_file():
        splits: list[str] = _described(directory / "dataset_dict.json", "splits", name)
        return tuple(
            DataFile(file.path, PurePosixPath(split) / file.name, split)
            for split in splits
            for file in _saved(directory / split, f"{name}/{split}")
        )
    if not (directory / "state.json").is_file():
        return ()
    described: list[dict[str, str]] = _described(directory / "state.json", "_data_files", name)
    names = [PurePosixPath(file["filename"]) for file in described]
    return tuple(DataFile(directory / one, one, _part(one)) for one in names)


def _described(path: Path, key: str, name: str) -> list[Any]:
    try:
        found = cast("dict[str, list[Any]]", json.loads(path.read_text(encoding="utf-8")))
        return found[key]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{name}/{path.name}: does not say `{key}`, expected what `datasets` writes. Save the set again."
        ) from error


def _require_all_shards(files: Sequence[DataFile], name: str) -> None:
    """Of files that are counted in their names, none may be missing."""
    for file in files:
        if (shard := file.shard) is None:
            continue
        siblings: Iterable[str] = (
            file.name.name.replace(f"{shard['number']}-of", f"{number:05d}-of") for number in range(int(shard["count"]))
        )
        for sibling in siblings:
            if not (file.path.parent / sibling).exists():
                raise DataError(f"{name}: {file.name.parent / sibling} is missing. Get the whole set again.")
