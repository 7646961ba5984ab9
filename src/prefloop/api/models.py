"""Models in memory and as directories: the engine works on directories, a notebook has objects."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from prefloop.errors import ModelError
from prefloop.policy import resolve_model

Model = str | PathLike[str] | PreTrainedModel | PeftModel
"""A directory, `builtin:NAME`, `org/name@revision`, or a model in memory, without adapter."""
Tokenizer = PreTrainedTokenizerBase | None
"""With a chat template; None where the model is named and brings its own."""


@contextmanager
def folder_for(wanted: str | PathLike[str] | None) -> Generator[Path]:
    """The folder that somebody wants to keep, or one that is gone afterwards."""
    if wanted is not None:
        folder = Path(wanted)
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with TemporaryDirectory(prefix="prefloop-") as temporary:
        yield Path(temporary)


def directory_of(model: Model, tokenizer: Tokenizer, folder: Path, what: str = "model") -> str:
    """What a recipe calls a model; one in memory is written to a folder, with its tokenizer.

    Raises:
        ModelError: it has an adapter, or no tokenizer with a chat template comes with it.
    """
    if isinstance(model, str | PathLike):
        if tokenizer is not None:
            raise ModelError(
                f"{what} is named as {fspath(model)}, which has a tokenizer of its own. Leave out `tokenizer`, or give "
                "the model itself."
            )
        return fspath(model)
    if isinstance(model, PeftModel):
        raise ModelError(
            f"{what} has an adapter of peft on it. Give `model.merge_and_unload()`, and `lora` for a new adapter."
        )
    if not isinstance(model, PreTrainedModel):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers need no types
        raise ModelError(
            f"{what} is a {type(model).__name__}, expected a PreTrainedModel of transformers, a directory, "
            "builtin:NAME or org/name@revision."
        )
    if tokenizer is None or not getattr(tokenizer, "chat_template", None):
        missing = "no tokenizer comes with it" if tokenizer is None else "its tokenizer has no chat template"
        raise ModelError(f"{what} is in memory, but {missing}. Give `tokenizer`, with a chat template.")
    directory = folder / what
    if not (directory / "config.json").is_file():
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
    return str(directory)


def loaded(directory: Path, like: Model) -> PreTrainedModel:
    """The model of a directory, of the class of another one where that is in memory."""
    kind: Any = type(like) if isinstance(like, PreTrainedModel) else AutoModelForCausalLM
    return kind.from_pretrained(directory, dtype="auto").eval()


def tokenizer_of(model: Model, tokenizer: Tokenizer) -> PreTrainedTokenizerBase:
    """The one that was given, or the named model's own."""
    if tokenizer is not None:
        return tokenizer
    assert isinstance(model, str | PathLike)
    return AutoTokenizer.from_pretrained(resolve_model(fspath(model)).directory)


def write_rows(file: Path, rows: list[dict[str, Any]]) -> str:
    """Rows as JSON lines; returns the file's name."""
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(file)
