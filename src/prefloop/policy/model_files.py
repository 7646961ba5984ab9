"""The files of a Hugging Face model directory: which ones matter, whether they are all there, and their identity."""

import json
from pathlib import Path

from prefloop.errors import ModelError
from prefloop.records import digest, file_digest

EXPECTED_MODEL = "a directory with config.json, builtin:NAME or org/name@revision"

CONVERSATION_FILES = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "additional_chat_templates/*.jinja",
)
"""What is needed to talk to a model: tokenizer, chat template, where an answer ends."""

DESCRIPTION_FILES = ("config.json", "model.safetensors.index.json", *CONVERSATION_FILES)
"""Everything that decides what a model computes and reads, except its weights."""

MODEL_FILES = (*DESCRIPTION_FILES, "model*.safetensors")
"""What is downloaded, what is hashed: the names that transformers loads, in safetensors only."""


def model_identity(directory: Path) -> str:
    """Hash of the content of the files that matter; the directory's name and place do not enter."""
    files = sorted(found for pattern in MODEL_FILES for found in directory.glob(pattern))
    return digest({file.relative_to(directory).as_posix(): file_digest(file) for file in files})


def require_config(directory: Path, spec: str) -> None:
    """A model directory has a config.json.

    Raises:
        ModelError: it is a file, is missing, or lacks config.json.
    """
    if not directory.exists():
        raise ModelError(f"{spec}: no such directory. Expected {EXPECTED_MODEL}.")
    if directory.suffix == ".gguf":
        raise ModelError(f"{spec}: is a GGUF file. Run `prefloop import-gguf {spec} OUT` and name OUT here.")
    if not (directory / "config.json").is_file():
        raise ModelError(f"{spec}: {directory} has no config.json. Expected {EXPECTED_MODEL}.")


def require_weights(directory: Path, spec: str) -> None:
    """A model directory has its weights, every shard of them, in safetensors.

    Raises:
        ModelError: weights are missing.
    """
    if missing := _missing_weights(directory):
        raise ModelError(
            f"{spec}: {directory} has no {missing[0]}. Weights are read from safetensors only; "
            f"save the model with save_pretrained, or copy the missing file."
        )


def has_weights(directory: Path) -> bool:
    """Whether every shard of the weights is there."""
    return not _missing_weights(directory)


def _missing_weights(directory: Path) -> list[str]:
    index = directory / "model.safetensors.index.json"
    shards = set(_json(index)["weight_map"].values()) if index.is_file() else {"model.safetensors"}
    return sorted(shard for shard in shards if not (directory / shard).is_file())


def require_chat_template(directory: Path, spec: str) -> None:
    """A model directory has a tokenizer with a chat template.

    Raises:
        ModelError: the tokenizer or its template is missing.
    """
    if not any((directory / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise ModelError(f"{spec}: {directory} has no tokenizer. Save one there with tokenizer.save_pretrained.")
    config = directory / "tokenizer_config.json"
    inline = config.is_file() and _json(config).get("chat_template")
    if not inline and not (directory / "chat_template.jinja").is_file():
        raise ModelError(no_chat_template(directory, spec))


def no_chat_template(directory: Path, spec: str) -> str:
    """What to say about a tokenizer that cannot format a conversation."""
    return (
        f"{spec}: the tokenizer in {directory} has no chat template. "
        f"Use an instruction-tuned model, or put its template into {directory / 'chat_template.jinja'}."
    )


def _json(file: Path) -> dict:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{file}: not valid JSON: {error}. Copy the file again.") from error
