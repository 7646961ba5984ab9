"""Products of linear layers on a CPU by oneDNN, where torch takes MKL: float32, with gradient or by packed weights.

Measured on an AMD processor, where MKL is slower (benchmarks/results/sampling_speed.md and train_speed.md).
"""

import platform
from collections import Counter
from collections.abc import Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from prefloop.policy.precision import replaced_forward

_ROWS = 64
"""Rows of a product that blocks are chosen for. It hardly matters: blocks for 1,024 are as fast with 16."""


@contextmanager
def packed_weights(model: nn.Module) -> Generator[None]:
    """The linear layers of a model multiply by weights in oneDNN's blocks while this lasts; no gradient passes.

    A product otherwise puts the weights into an order of its own every time, which with few rows takes longer than to
    multiply by them: from 1 to 128 rows blocks are 1.3 to 6 times as fast. They stand in memory instead of the weights;
    those of a layer that shares its weights, as a tied head does with the embedding, stand beside them. Afterwards
    every weight is bit for bit what it was.

    Args:
        model: layers that are not float32 on an x86 CPU, and kinds derived from nn.Linear, stay as they are.
    """
    uses = Counter(id(weight) for module in model.modules() for weight in module.parameters(recurse=False))
    with ExitStack() as packed:
        for layer in _layers(model):
            packed.enter_context(_packed(layer, alone=uses[id(layer.weight)] == 1))
        yield


def differentiable_products(model: nn.Module) -> AbstractContextManager[Any]:
    """The same layers multiply by oneDNN, forward and for the gradient of their input, while this lasts."""
    replaced = ExitStack()
    for layer in _layers(model):
        replaced.enter_context(replaced_forward(layer, partial(_product_of, layer)))
    return replaced


def _layers(model: nn.Module) -> list[nn.Linear]:
    if not torch.backends.mkldnn.is_available() or platform.machine() not in {"x86_64", "AMD64"}:
        return []
    layers = [layer for layer in model.modules() if type(layer) is nn.Linear and layer.weight.numel()]
    return [one for one in layers if (one.weight.device.type, one.weight.dtype) == ("cpu", torch.float32)]


@contextmanager
def _packed(layer: nn.Linear, *, alone: bool) -> Generator[None]:
    with _changing():
        blocks = _ONEDNN._reorder_linear_weight(layer.weight.detach(), _ROWS)
        if alone:
            layer.weight.data = torch.empty(0)
    try:
        with replaced_forward(layer, partial(_product, weight=blocks, bias=layer.bias)):
            yield
    finally:
        if alone:
            with _changing():
                layer.weight.data = blocks.to_dense()


def _product_of(layer: nn.Linear, rows: Tensor) -> Tensor:
    return _Product.apply(rows, layer.weight, layer.bias)


class _Product(torch.autograd.Function):
    """rows @ weight.T + bias. The gradient of the weight stays MKL's, which is as fast there."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(rows, weight)
        return _product(rows, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        rows, weight = ctx.saved_tensors
        for_rows, for_weight, for_bias = ctx.needs_input_grad
        each = grad.flatten(0, -2)
        return (
            _product(grad, weight.t(), None) if for_rows else None,
            each.t() @ rows.flatten(0, -2) if for_weight else None,
            each.sum(0) if for_bias else None,
        )


_ONEDNN: Any = torch.ops.mkldnn
"""What torch's compiler calls where it freezes weights; there is no public name for a product by packed ones."""


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return _ONEDNN._linear_pointwise(rows, weight, bias, "none", [], "")


@contextmanager
def _changing() -> Generator[None]:
    """Weights are changed as they are between passes, whatever goes on around."""
    with torch.inference_mode(mode=False), torch.no_grad():
        yield
