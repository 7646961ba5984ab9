"""In which precision the layers of a model multiply faster here: both are tried, for half a second."""

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import ceil, inf
from pathlib import Path
from typing import get_args

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from prefloop.config import Precision
from prefloop.policy.linear_layers import multiplying_in
from prefloop.policy.memory import FLOAT

SECONDS = 0.5
ROWS = 64
"""Answers that grow together in the trial."""
BEYOND_CACHES = 2**26
"""Bytes of float32 weights of each shape: a model's own never stay in a processor's caches either."""
GAIN = 1.25
"""How many times as fast products have to be in bfloat16 to be worth its rounding. They are half of a step or more."""

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
Shape = tuple[int, int]


@dataclass(frozen=True)
class Trial:
    """Seconds that all products of the layers took, for so many rows."""

    float32: float
    bfloat16: float

    @property
    def precision(self) -> Precision:
        """The one that is worth it."""
        return "bfloat16" if self.float32 > GAIN * self.bfloat16 else "float32"

    def __str__(self) -> str:
        ratio = self.float32 / self.bfloat16 if self.bfloat16 else 1
        return f"{self.precision}: products in bfloat16 are {ratio:.2f} times as fast here, {GAIN} are worth it"


def faster_precision(directory: Path, device: torch.device) -> Trial:
    """Times the linear layers of a model, head excepted, by their shapes alone: its weights are not read.

    Both precisions take turns, and the fastest turn of each counts. A model without such layers takes no time.

    Args:
        directory: of the model.
        device: where it will sample.
    """
    counts = _shapes(directory)
    tried: list[tuple[Shape, Precision]] = [(shape, precision) for shape in counts for precision in PRECISIONS]
    best = dict.fromkeys(tried, inf)
    with torch.inference_mode(), ExitStack() as multiplying:
        layers = {which: _made(which[0], counts[which[0]], device) for which in tried}
        for which in tried:
            for layer in layers[which]:
                multiplying.enter_context(multiplying_in(which[1], layer, alone=True))
        ends = time.perf_counter() + SECONDS
        while inf in best.values() or (tried and time.perf_counter() < ends):
            for shape, precision in tried:
                seconds = _seconds(layers[shape, precision], precision)
                best[shape, precision] = min(best[shape, precision], seconds)
    return Trial(*(sum((best[shape, one] * counts[shape] for shape in counts), 0.0) for one in PRECISIONS))


def _shapes(directory: Path) -> Counter[Shape]:
    """Outputs and inputs of the linear layers, and how many there are of each."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory, local_files_only=True))
    head = model.get_output_embeddings()
    layers = (layer for layer in model.modules() if type(layer) is nn.Linear and layer is not head)
    return Counter((layer.out_features, layer.in_features) for layer in layers)


def _made(shape: Shape, count: int, device: torch.device) -> list[nn.Linear]:
    """Layers of a shape, as many as a model has or as no cache holds; of ones, since a product takes as long."""
    enough = min(count, ceil(BEYOND_CACHES / (FLOAT * shape[0] * shape[1])))
    ones = torch.ones(enough, *shape, device=device)
    layers = [nn.Linear(shape[1], shape[0], bias=False, device="meta") for _ in range(enough)]
    for layer, weight in zip(layers, ones, strict=True):
        layer.weight = nn.Parameter(weight, requires_grad=False)
    return layers


def _seconds(layers: Sequence[nn.Linear], precision: Precision) -> float:
    """That one of some layers takes."""
    device = layers[0].weight.device
    rows = torch.ones(ROWS, layers[0].in_features, device=device)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        _wait(device)
        begun = time.perf_counter()
        for layer in layers:
            layer(rows)
        _wait(device)
    return (time.perf_counter() - begun) / len(layers)


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize()
