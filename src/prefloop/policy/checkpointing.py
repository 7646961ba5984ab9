"""Gradient checkpointing (arXiv:1604.06174): layers keep what they read, and compute the rest again going backward."""

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import Cache, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from prefloop.errors import ModelError
from prefloop.policy.precision import replaced_forward
from prefloop.policy.tree_attention import as_now


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The layers of a model that can be computed again."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


@contextmanager
def recomputed_layers(model: PreTrainedModel) -> Generator[None]:
    """Each layer of a model is computed twice while this lasts, and keeps nothing in between; numbers stay the same.

    Raises:
        ModelError: transformers marks no layers of this model.
    """
    layers = layers_of(model)
    if not layers:
        raise ModelError(
            f"machine.gradient_checkpointing: transformers marks no layers of {type(model).__name__} that could be "
            "computed again. Set it to false and lower machine.tokens_per_batch."
        )
    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(replaced_forward(layer, partial(_recomputed, model, layer.forward)))
        yield


def _recomputed(model: PreTrainedModel, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    for cache in (given for given in (*args, *kwargs.values()) if isinstance(given, Cache)):
        forward = _from_the_same_cache(forward, cache)
    # PyTorch itself brings back autocast and random numbers; attention along a forest is ours.
    return checkpoint(forward, *args, use_reentrant=False, context_fn=lambda: (nullcontext(), as_now(model)), **kwargs)


def _from_the_same_cache(forward: Callable[..., Any], cache: Cache) -> Callable[..., Any]:
    """A layer that finds the cache as it was when it ran first, since it writes into it."""
    before = [dict(vars(layer)) for layer in cache.layers]

    def again(*args: Any, **kwargs: Any) -> Any:
        for layer, held in zip(cache.layers, before, strict=True):
            vars(layer).update(held)
        return forward(*args, **kwargs)

    return again
