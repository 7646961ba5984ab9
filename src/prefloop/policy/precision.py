"""How precisely numbers are computed: what a device knows, and which precision a model's layers pass in."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from prefloop.config import Precision

WITHOUT_FLOAT64 = frozenset({"mps"})
"""Devices that know no float64."""


def widest(device: torch.device) -> torch.dtype:
    """The precision in which log-probabilities are added up: float64 where the device knows it."""
    return torch.float32 if device.type in WITHOUT_FLOAT64 else torch.float64


@contextmanager
def layers_in(model: PreTrainedModel, precision: Precision) -> Generator[None]:
    """A model's layers compute in a precision while this lasts.

    Its weights keep their values, and the head stays as it is: it reads the last hidden states in float32. bfloat16 is
    autocast's, so that norms, softmax and the stream between the layers stay float32. On a GPU the head multiplies in
    TF32, with three more bits than bfloat16 (plain float32 takes longer for the head than bfloat16 for all layers).
    """
    if precision == "float32":
        yield
        return
    body = model.base_model
    forward = body.forward

    def mixed(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(model.device.type, torch.bfloat16):
            output = forward(*args, **kwargs)
        output.last_hidden_state = output.last_hidden_state.float()
        return output

    products = torch.backends.cuda.matmul
    before = products.fp32_precision
    products.fp32_precision = "tf32"
    try:
        with replaced_forward(body, mixed), _frozen_in_bfloat16(body):
            yield
    finally:
        products.fp32_precision = before


@contextmanager
def _frozen_in_bfloat16(body: nn.Module) -> Generator[None]:
    """Frozen linear layers are held in bfloat16 while this lasts, if that is what their weights were rounded to before.

    So published checkpoints are. autocast would make the same numbers again in every pass, and autograd would keep them
    beside the float32 weights until gradients are taken.
    """
    frozen = [
        layer
        for layer in body.modules()
        if isinstance(layer, nn.Linear) and not layer.weight.requires_grad and _is_rounded(layer.weight)
    ]
    _hold(frozen, torch.bfloat16)
    try:
        yield
    finally:
        _hold(frozen, torch.float32)


def _is_rounded(weight: Tensor) -> bool:
    """Whether float32 weights lose nothing in bfloat16."""
    return weight.dtype == torch.float32 and torch.equal(weight.bfloat16().float(), weight)


def _hold(layers: Sequence[nn.Linear], dtype: torch.dtype) -> None:
    with torch.inference_mode(mode=False), torch.no_grad():
        for layer in layers:
            layer.weight.data = layer.weight.to(dtype)


@contextmanager
def replaced_forward(module: nn.Module, forward: Callable[..., Any]) -> Generator[None]:
    """A module computes something else while this lasts."""
    own = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own
