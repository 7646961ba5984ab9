"""Checkpoints of a train step: complete or absent, and bit for bit what training held."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from prefloop.objectives import State

STATE = "state.safetensors"
PROGRESS = "progress.json"
OBJECTIVE = "objective"
"""Before the names of an objective's running statistics."""
AVERAGE = "average"
"""Before the names of weights in their moving average."""
MARGINS = "margins"
"""The name under which the margins of examples are kept."""

Metrics = dict[str, float | int]
"""One line of training.jsonl."""

T = TypeVar("T")


def computed_once(file: Path, compute: Callable[[], T]) -> T:
    """A JSON value that is computed before training begins; training that goes on after a crash finds it on disk."""
    if not file.is_file():
        aside = file.with_suffix(".writing")
        aside.write_text(json.dumps(compute()), encoding="utf-8")
        aside.rename(file)
    return json.loads(file.read_text(encoding="utf-8"))


def optimizer_tensors(
    parameters: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """The weights that are trained and what the optimiser remembers of them, by name."""
    tensors = {f"weights/{name}": parameter.detach() for name, parameter in parameters.items()}
    for name, parameter in parameters.items():
        for key, value in optimizer.state[parameter].items():
            tensors[f"{key}/{name}"] = value
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def state_tensors(state: State | None) -> dict[str, Tensor]:
    """An objective's running statistics by name."""
    fields = {} if state is None else vars(state)
    return {f"{OBJECTIVE}/{name}": torch.as_tensor(value, dtype=torch.float64) for name, value in fields.items()}


def restored_state(path: Path, like: State | None) -> State | None:
    """The statistics that `state_tensors` saved, in the types of `like`."""
    if like is None:
        return None
    tensors = load_file(path)
    found = {name: tensors[f"{OBJECTIVE}/{name}"] for name in vars(like)}
    own = {
        name: found[name] if isinstance(old, Tensor) else type(old)(found[name].item())
        for name, old in vars(like).items()
    }
    return type(like)(**own)


def restored_margins(path: Path) -> Tensor:
    """The margins that a checkpoint holds; nothing else of it is read."""
    with safe_open(path, framework="pt") as file:
        return file.get_tensor(MARGINS)


def restore(path: Path, parameters: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    """Puts weights and optimiser back as `optimizer_tensors` saved them."""
    tensors = load_file(path)
    moved = any(group.get("fused") for group in optimizer.param_groups)  # else torch counts steps on the CPU
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors.pop(f"weights/{name}"))
    tensors.pop(MARGINS, None)
    for key_and_name, tensor in tensors.items():
        key, name = key_and_name.split("/", 1)
        if key in {OBJECTIVE, AVERAGE}:
            continue
        optimizer.state[parameters[name]][key] = tensor.to(parameters[name].device if moved or key != "step" else "cpu")


def steps_at(state: Path) -> int:
    """Optimiser steps that were done when a checkpoint's state was saved."""
    return json.loads((state.parent / PROGRESS).read_text(encoding="utf-8"))["step"]


def save_checkpoint(
    folder: Path,
    step: int,
    metrics: list[Metrics],
    tensors: Mapping[str, Tensor],
    keep_last: int = 1,
    best: int | None = None,
) -> None:
    """Writes a checkpoint aside, renames it into place, and only then removes others.

    Args:
        folder: where the checkpoints of a train step lie.
        step: optimiser steps that are done.
        metrics: of these steps.
        tensors: what training holds.
        keep_last: how many stay, this one among them. Ones of later steps do not belong to this course of training.
        best: a step whose checkpoint stays besides.
    """
    aside, place = folder / "checkpoint-writing", checkpoint_at(folder, step)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    save_file(dict(tensors), aside / STATE)
    (aside / PROGRESS).write_text(json.dumps({"step": step, "metrics": metrics}), encoding="utf-8")
    for file in aside.iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    if place.exists():
        shutil.rmtree(place)
    aside.rename(place)
    up_to_here = [found for found in _checkpoints(folder) if found <= place]
    kept = {*up_to_here[-keep_last:], *([] if best is None else [checkpoint_at(folder, best)])}
    for found in {*_checkpoints(folder)} - kept:
        shutil.rmtree(found)


def checkpoint_at(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies, whether it is there or not."""
    return folder / f"checkpoint-{step:08d}"


def latest_checkpoint(folder: Path) -> tuple[Path, int, list[Metrics]] | None:
    """State file, steps done and their metrics of the newest checkpoint that can be read, if there is one."""
    for found in reversed(_checkpoints(folder)):
        try:
            progress = json.loads((found / PROGRESS).read_text(encoding="utf-8"))
            with safe_open(found / STATE, framework="pt"):  # fails where the file is shorter than it says
                return found / STATE, progress["step"], progress["metrics"]
        except (OSError, ValueError, SafetensorError):
            continue
    return None


def _checkpoints(folder: Path) -> list[Path]:
    """By step."""
    return sorted(folder.glob("checkpoint-0*"))
