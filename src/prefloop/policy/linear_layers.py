"""Products of linear layers on a CPU by oneDNN, where torch takes MKL: with gradient, or by packed weights.

Measured on an AMD processor, where MKL is slower (benchmarks/results/sampling_speed.md and train_speed.md).
"""

import platform
from collections import Counter
from collections.abc import Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import Linear as AdaptedLinear
from torch import Tensor, nn
from torch.nn.functional import embedding, linear
from transformers import PreTrainedModel

from prefloop.config import Precision
from prefloop.policy.added_gradients import gradient_of
from prefloop.policy.precision import layers_in, replaced_forward

ADDED_IN_A_ROW = 1024
"""Numbers that a product with gradient adds up by oneDNN, which adds them one behind the other. MKL adds up blocks:
of 2,048 random ones and more it is 2.5e-7 off in float32, where oneDNN is 5.7e-7 (benchmarks/results/float32.md)."""
_ROWS = 64
"""Rows of a product that blocks are chosen for. It hardly matters: blocks for 1,024 are as fast with 16."""


@contextmanager
def packed_weights(model: PreTrainedModel, precision: Precision = "float32") -> Generator[None]:
    """The linear layers of a model multiply by weights in oneDNN's blocks while this lasts; no gradient passes.

    A product otherwise puts the weights into an order of its own every time, which with few rows takes longer than to
    multiply by them: from 1 to 128 rows blocks are 1.3 to 6 times as fast. They stand in memory instead of the weights;
    those of a layer that shares its weights, as a tied head does with the embedding, stand beside them, and so do
    weights that lose something in bfloat16. Afterwards every weight is bit for bit what it was.

    Args:
        model: kinds derived from nn.Linear stay as they are. Elsewhere than on an x86 CPU nothing is packed, and
            weights are rounded to bfloat16 once instead of by every pass.
        precision: in which the layers compute (`layers_in`); the head multiplies in float32.
    """
    uses = Counter(id(weight) for module in model.modules() for weight in module.parameters(recurse=False))
    head = model.get_output_embeddings()
    with layers_in(model, precision), ExitStack() as packed:
        for layer in _layers(model):
            its_own = "float32" if layer is head else precision
            packed.enter_context(multiplying_in(its_own, layer, alone=uses[id(layer.weight)] == 1))
        yield


def multiplying_in(precision: Precision, layer: nn.Linear, *, alone: bool) -> AbstractContextManager[None]:
    """A linear layer multiplies in a precision, by packed weights where there are any.

    Args:
        precision: of the product. bfloat16 is for layers under autocast, which rounds what they read.
        layer: of a model on one device.
        alone: nothing else reads its weight.
    """
    if precision == "bfloat16":
        return _rounded(layer, alone=alone)
    return _packed(layer, layer.weight, alone=alone) if _is_float32(layer.weight) else nullcontext()


def differentiable_products(model: nn.Module) -> AbstractContextManager[Any]:
    """The same layers multiply by oneDNN, forward and for the gradient of their input, while this lasts.

    Where an output is the sum of more than `ADDED_IN_A_ROW` numbers, it stays torch's own, which is more exact.
    Gradients of their weights, and of embeddings, can be added up where they stand (`added_gradients`).
    """
    replaced = ExitStack()
    for layer in _layers(model):
        if _is_float32(layer.weight):
            replaced.enter_context(replaced_forward(layer, partial(_product_of, layer)))
    for layer in model.modules():
        if type(layer) is AdaptedLinear and _is_frozen_float32(layer.base_layer):
            replaced.enter_context(replaced_forward(layer, partial(_adapted_product_of, layer)))
    for layer in model.modules():
        if type(layer) is nn.Embedding and _is_float32(layer.weight) and not layer.sparse and layer.max_norm is None:
            replaced.enter_context(replaced_forward(layer, partial(_rows_of, layer)))
    return replaced


def _layers(model: nn.Module) -> list[nn.Linear]:
    return [layer for layer in model.modules() if type(layer) is nn.Linear and layer.weight.numel()]


def _is_float32(weight: Tensor) -> bool:
    """Where oneDNN multiplies; elsewhere weights stay with torch."""
    return weight.dtype == torch.float32 and _on_x86(weight)


def _is_frozen_float32(layer: nn.Module) -> bool:
    return type(layer) is nn.Linear and _is_float32(layer.weight) and not layer.weight.requires_grad


def _on_x86(weight: Tensor) -> bool:
    known = torch.backends.mkldnn.is_available() and platform.machine() in {"x86_64", "AMD64"}
    return known and weight.device.type == "cpu"


@contextmanager
def _packed(layer: nn.Linear, weight: Tensor, *, alone: bool) -> Generator[None]:
    """A layer multiplies by a weight in blocks, which stands instead of its own if nothing else reads that."""
    with _changing():
        blocks = _ONEDNN._reorder_linear_weight(weight.detach(), _ROWS)
        if alone:
            layer.weight.data = torch.empty(0, dtype=weight.dtype)
    try:
        with replaced_forward(layer, partial(_product, weight=blocks, bias=layer.bias)):
            yield
    finally:
        if alone:
            with _changing():
                layer.weight.data = blocks.to_dense()


def _rounded(layer: nn.Linear, *, alone: bool) -> AbstractContextManager[None]:
    """A layer multiplies by its weight in bfloat16."""
    with _changing():
        weight = layer.weight.to(torch.bfloat16)
    if _on_x86(weight) and _ONEDNN._is_mkldnn_bf16_supported():
        return _packed(layer, weight, alone=alone and layer.weight.dtype == weight.dtype)
    return replaced_forward(layer, partial(linear, weight=weight, bias=layer.bias))


def _rows_of(layer: nn.Embedding, ids: Tensor) -> Tensor:
    return _Rows.apply(ids, layer.weight, layer.padding_idx)


def _product_of(layer: nn.Linear, rows: Tensor) -> Tensor:
    return _Product.apply(rows, layer.weight, layer.bias)


class _Product(torch.autograd.Function):
    """rows @ weight.T + bias. The gradient of the weight stays MKL's, which is as fast there."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(rows)
        ctx.weight = weight  # the leaf itself: what is saved comes back detached where layers are computed again
        return _exact_product(rows, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (rows,), weight = ctx.saved_tensors, ctx.weight
        for_rows, for_weight, for_bias = ctx.needs_input_grad
        each = grad.flatten(0, -2)
        return (
            _exact_product(grad, weight.t(), None) if for_rows else None,
            _of_weight(weight, each.t(), rows.flatten(0, -2)) if for_weight else None,
            each.sum(0) if for_bias else None,
        )


def _adapted_product_of(layer: AdaptedLinear, rows: Tensor) -> Tensor:
    """By one plain adapter at once; what peft has besides (several, DoRA, dropout, switched off) stays its own."""
    (name, *others), base = layer.active_adapters or [""], layer.base_layer
    plain = name in layer.lora_A and name not in layer.lora_variant and type(layer.lora_dropout[name]) is nn.Identity
    if others or not plain or layer.merged or layer.disable_adapters:
        return type(layer).forward(layer, rows)
    inner, outer = layer.lora_A[name].weight, layer.lora_B[name].weight
    return _AdaptedProduct.apply(rows, base.weight, base.bias, inner, outer, layer.scaling[name])


class _AdaptedProduct(torch.autograd.Function):
    """rows @ weight.T + bias + scale * rows @ inner.T @ outer.T: LoRA (arXiv:2106.09685, eq. 3) with weight frozen.

    The adapter's products are added where the layer's own stand, forward and back: as operations of their own they are
    written, scaled and added in passes over memory.
    """

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None, inner: Tensor, outer: Tensor, scale: float
    ) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        within = _exact_product(rows, inner, None)
        ctx.save_for_backward(rows, within, weight, inner, outer)
        ctx.scale = scale
        result = _exact_product(rows, weight, bias)
        result.flatten(0, -2).addmm_(within.flatten(0, -2), outer.t(), alpha=scale)
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None, Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        rows, within, weight, inner, outer = ctx.saved_tensors
        each = grad.flatten(0, -2)
        for_within = (each @ outer).mul_(ctx.scale)
        for_rows = None
        if ctx.needs_input_grad[0]:
            for_rows = _exact_product(grad, weight.t(), None)
            for_rows.flatten(0, -2).addmm_(for_within, inner)
        for_inner = for_within.t() @ rows.flatten(0, -2)
        for_outer = (each.t() @ within.flatten(0, -2)).mul_(ctx.scale)
        return for_rows, None, None, for_inner, for_outer, None


def _of_weight(weight: Tensor, each: Tensor, rows: Tensor) -> Tensor | None:
    return gradient_of(weight, lambda: each @ rows, lambda total: total.addmm_(each, rows))


class _Rows(torch.autograd.Function):
    """Rows of an embedding."""

    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight: Tensor, padding: int | None) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(ids)
        ctx.weight, ctx.padding = weight, padding
        return embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor | None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (ids,), weight = ctx.saved_tensors, ctx.weight
        rows, which = grad.flatten(0, -2), ids.flatten()
        if ctx.padding is not None:
            rows = rows.masked_fill((which == ctx.padding)[:, None], 0)

        def add_to(total: Tensor) -> Tensor:
            return total.index_add_(0, which, rows)

        return None, gradient_of(weight, lambda: add_to(torch.zeros_like(weight)), add_to), None


_ONEDNN: Any = torch.ops.mkldnn
"""What torch's compiler calls where it freezes weights; there is no public name for a product by packed ones."""


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    rounded = None if bias is None else bias.to(weight.dtype)
    return _ONEDNN._linear_pointwise(rows.to(weight.dtype), weight, rounded, "none", [], "")


def _exact_product(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return _product(rows, weight, bias) if weight.shape[1] <= ADDED_IN_A_ROW else linear(rows, weight, bias)


@contextmanager
def _changing() -> Generator[None]:
    """Weights are changed as they are between passes, whatever goes on around."""
    with torch.inference_mode(mode=False), torch.no_grad():
        yield
