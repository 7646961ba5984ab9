"""Norms and gates that keep what their gradient needs and nothing more.

Autograd keeps what every single operation read. Of a norm (RMSNorm, arXiv:1910.07467) what it reads is enough, of a
gate (SwiGLU, arXiv:2002.05202) both of its inputs. Forward they say bit for bit what the model's own say.
"""

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from prefloop.policy.precision import replaced_forward

OF_GATE = ("gate_proj", "up_proj", "down_proj", "act_fn")
"""What models call the parts of a feed-forward layer with a gate."""


@contextmanager
def lean_layers(model: nn.Module) -> Generator[None]:
    """The norms and gates of a model in float32 keep less while this lasts; those of other kinds stay as they are."""
    with ExitStack() as replaced:
        for module in model.modules():
            if is_norm(module) and module.weight.dtype == torch.float32:
                replaced.enter_context(replaced_forward(module, partial(_normed, module)))
            elif is_gated(module):
                replaced.enter_context(replaced_forward(module, partial(_gated, module)))
        yield


def is_norm(module: nn.Module) -> bool:
    """Whether a module is an RMSNorm as Llama has it; found out with other weights, its own are not read."""
    weight = getattr(module, "weight", None)
    if not type(module).__name__.endswith("RMSNorm") or not isinstance(weight, Tensor) or weight.dim() != 1:
        return False
    given = torch.linspace(-2, 3, 7 * len(weight)).unflatten(0, (7, -1))
    other = torch.linspace(0.5, 2, len(weight))
    settings = {name: value for name, value in vars(module).items() if isinstance(value, float | int | tuple)}
    return _says(
        module, SimpleNamespace(weight=other, **settings), given, lambda: _Norm.apply(given, other, _eps(module))
    )


def is_gated(module: nn.Module) -> bool:
    """Whether a module is a feed-forward layer with a SiLU gate; found out with other weights, its own are not read."""
    if not all(hasattr(module, name) for name in OF_GATE):
        return False
    given = torch.linspace(-4, 4, 60).unflatten(0, (5, -1))
    gate, up, down = (partial(torch.mul, other=factor) for factor in (3.0, -2.0, 0.7))
    stand_in = SimpleNamespace(gate_proj=gate, up_proj=up, down_proj=down, act_fn=module.act_fn)
    return _says(module, stand_in, given, lambda: down(_Gate.apply(gate(given), up(given))))


def _says(module: nn.Module, stand_in: SimpleNamespace, given: Tensor, expected: Callable[[], Tensor]) -> bool:
    """Whether a module's forward, as it stands in its class, says what is expected."""
    with torch.no_grad(), torch.device("cpu"):
        try:
            return torch.equal(type(module).forward(stand_in, given), expected())
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError):
            return False


def _eps(module: Any) -> float:
    """What is added to the mean of squares, by the names that models have for it."""
    return module.variance_epsilon if hasattr(module, "variance_epsilon") else module.eps


def _normed(module: nn.Module, states: Tensor) -> Tensor:
    return _Norm.apply(states, module.weight, _eps(module))


def _gated(module: Any, states: Tensor) -> Tensor:
    return module.down_proj(_Gate.apply(module.gate_proj(states), module.up_proj(states)))


class _Norm(torch.autograd.Function):
    """weight * states / sqrt(mean of their squares + eps)."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, eps: float) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        inverse = torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + eps)
        ctx.save_for_backward(states, weight, inverse)
        return (states * inverse).mul_(weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        states, weight, inverse = ctx.saved_tensors
        normed = states * inverse
        for_weight = (grad * normed).flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        weighted = grad * weight
        along = (weighted * normed).mean(-1, keepdim=True)
        return weighted.sub_(normed.mul_(along)).mul_(inverse), for_weight, None


class _Gate(torch.autograd.Function):
    """silu(gate) * up."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(gate, up)
        return silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        gate, up = ctx.saved_tensors
        return torch.ops.aten.silu_backward(grad * up, gate), silu(gate).mul_(grad)
