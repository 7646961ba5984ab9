"""Gradients of weights that are added up where they stand, instead of being made aside and handed to autograd.

A gradient is as large as its weight: made aside, it is written, read and added once more; that of a tied embedding
begins with zeros for all its rows, however few tokens there are.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

_ADDING: ContextVar[bool] = ContextVar("gradients are added up where they stand", default=False)


@contextmanager
def added_gradients() -> Generator[None]:
    """Backward passes add to `weight.grad` themselves where they can, while this lasts.

    For `backward()` alone: `torch.autograd.grad` of such a weight would be given nothing.
    """
    token = _ADDING.set(True)
    try:
        yield
    finally:
        _ADDING.reset(token)


def gradient_of(weight: Tensor, made: Callable[[], Tensor], add_to: Callable[[Tensor], object]) -> Tensor | None:
    """The gradient of a weight for autograd, or None where it has been added already.

    Args:
        weight: the leaf itself, no detached one.
        made: makes the gradient.
        add_to: adds it to another one, in place.
    """
    if not (_ADDING.get() and weight.is_leaf):
        return made()
    if weight.grad is None:
        weight.grad = made()
    else:
        add_to(weight.grad)
    return None
