"""A policy written for other tools: whole, or an adapter whose base they find."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from prefloop.errors import DataError
from prefloop.policy.capped_attention import attention_of
from prefloop.policy.source import ModelSource, resolve_model

ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class Exported:
    """What was written."""

    kind: Literal["adapter", "merged", "full"]
    base: str | None
    """Of an adapter, as other tools find it: `org/name` or a directory of this machine."""


def export_policy(policy: Path, out: Path, *, merged: bool = False, base: str | None = None) -> Exported:
    """Writes a policy as other tools load it: whole, or an adapter whose base they find.

    Args:
        policy: a model directory, or an adapter's.
        out: the directory to write; it appears when it is complete.
        merged: an adapter becomes a whole model.
        base: of an adapter, as a recipe names models; None: what the adapter says.

    Raises:
        DataError: `out` is there already, or `policy` is no policy.
        ModelError: the base cannot be had.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: is there already. Name a directory that is new or empty.")
    is_adapter = (policy / ADAPTER_CONFIG).is_file()
    if not is_adapter and not (policy / "config.json").is_file():
        raise DataError(f"{policy}: no policy, it has neither {ADAPTER_CONFIG} nor config.json.")
    aside = out.with_name(f".{out.name}.writing")
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(policy, aside)
    written = Exported("full", None)
    if is_adapter:
        source = resolve_model(base or _base_of(policy))
        written = _merged(aside, source) if merged else _with_findable_base(aside, source)
    if out.is_dir():
        out.rmdir()
    aside.rename(out)
    return written


def _base_of(adapter: Path) -> str:
    """The base that an adapter names, as a recipe would."""
    config = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    name, revision = config["base_model_name_or_path"], config.get("revision")
    return f"{name}@{revision}" if revision and not Path(name).exists() else name


def _with_findable_base(directory: Path, source: ModelSource) -> Exported:
    """An adapter whose base is named as peft and transformers look for it: no `builtin:`, no `@revision`."""
    file = directory / ADAPTER_CONFIG
    config = json.loads(file.read_text(encoding="utf-8"))
    name = source.name.partition("@")[0] if source.revision else str(source.directory.absolute())
    config |= {"base_model_name_or_path": name, "revision": source.revision}
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return Exported("adapter", name)


def _merged(directory: Path, source: ModelSource) -> Exported:
    """The adapter in a directory becomes a whole model: float32, as it was trained."""
    model = _with_adapter(source, directory)
    for file in (*directory.glob("adapter_*"), *directory.glob("README.md")):
        file.unlink()
    generation = directory / "generation_config.json"
    kept = generation.read_bytes() if generation.is_file() else None
    model.save_pretrained(directory)
    if kept is not None:
        generation.write_bytes(kept)
    return Exported("merged", None)


@dataclass(frozen=True)
class WholePolicy:
    """A policy in memory, for tools that take a model of transformers."""

    model: Any
    """In float32, an adapter merged into its base."""
    directory: Path
    """Where its tokenizer and chat template are."""


def whole_policy(spec: str) -> WholePolicy:
    """A model as recipes name it, or an adapter's directory, whole.

    Raises:
        ModelError: it, or the base of the adapter, cannot be had.
    """
    directory = Path(spec).expanduser()
    if not (directory / ADAPTER_CONFIG).is_file():
        source = resolve_model(spec)
        return WholePolicy(_base(source), source.directory)
    source = resolve_model(_base_of(directory))
    has_tokenizer = (directory / "tokenizer_config.json").is_file()
    return WholePolicy(_with_adapter(source, directory), directory if has_tokenizer else source.directory)


def _base(source: ModelSource) -> Any:
    return AutoModelForCausalLM.from_pretrained(
        source.directory,
        dtype=torch.float32,
        local_files_only=True,
        attn_implementation=attention_of(source.directory),
    ).eval()


def _with_adapter(source: ModelSource, adapter: Path) -> Any:
    return PeftModel.from_pretrained(_base(source), str(adapter)).merge_and_unload().eval()
