"""The language-model head on the tokens that are asked for, a few at a time: the logits never stand in memory whole."""

from collections.abc import Callable
from typing import Any, TypedDict

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from prefloop.policy.precision import widest

LOGITS_AT_ONCE = 2**23
"""Numbers: 32 MB in float32."""


def tokens_at_once(vocab: int) -> int:
    """Tokens whose logits stand in memory together."""
    return max(1, LOGITS_AT_ONCE // vocab)


class HeadOptions(TypedDict):
    """How the head runs."""

    at_once: int
    trained: bool


Head = Callable[[Tensor], Tensor]
"""From hidden states behind the last norm to logits."""


def head_of(model: PreTrainedModel) -> Head:
    """The head as the model applies it: scaling and soft-capping included, by the names that configurations use."""
    config: Any = model.config.get_text_config()
    output = model.get_output_embeddings()
    assert output is not None
    divisor = getattr(config, "logits_scaling", None) or 1.0  # Granite
    factor = getattr(model, "logit_scale", None) or getattr(config, "logit_scale", None) or 1.0  # Cohere
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma

    def logits(hidden: Tensor) -> Tensor:
        found = output(hidden)
        if divisor != 1.0 or factor != 1.0:
            found = found * (factor / divisor)
        return found if cap is None else cap * torch.tanh(found / cap)

    return logits


def token_logps(
    head: Head, hidden: Float[Tensor, "tokens width"], ids: Int[Tensor, " tokens"], *, at_once: int, trained: bool
) -> Float[Tensor, " tokens"]:
    """Log-probability of each token from the hidden state before it: logit minus logsumexp, in float64.

    Args:
        head: of the model.
        hidden: states from which the tokens are predicted.
        ids: of the tokens.
        at_once: tokens whose logits stand in memory together.
        trained: the head has weights that are trained, so that going backward computes the logits again; otherwise the
            gradient with respect to the states is taken at once, and nothing is computed twice.
    """

    def logps(states: Tensor, targets: Tensor) -> Tensor:
        logits = _precise(head(states))
        return (logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(1)).to(widest(logits.device))

    return _in_pieces(logps, hidden, ids, size=at_once, trained=trained)


def token_concentration(
    head: Head, hidden: Float[Tensor, "tokens width"], *, at_once: int, trained: bool
) -> Float[Tensor, " tokens"]:
    """How concentrated the prediction from each hidden state is: log sum_v p_v^2, in float64."""

    def log_sum_sq(states: Tensor, _targets: Tensor) -> Tensor:
        logits = _precise(head(states))
        return ((2 * logits).logsumexp(1) - 2 * logits.logsumexp(1)).to(widest(logits.device))

    nothing = torch.zeros(len(hidden), dtype=torch.long, device=hidden.device)
    return _in_pieces(log_sum_sq, hidden, nothing, size=at_once, trained=trained)


def _precise(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _in_pieces(
    of: Callable[[Tensor, Tensor], Tensor], hidden: Tensor, ids: Tensor, *, size: int, trained: bool
) -> Tensor:
    pieces = zip(hidden.split(size), ids.split(size), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([of(states, targets) for states, targets in pieces])
    if trained:
        return torch.cat([checkpoint(of, states, targets, use_reentrant=False) for states, targets in pieces])
    return torch.cat([_AtOnce.apply(of, states, targets) for states, targets in pieces])


class _AtOnce(torch.autograd.Function):
    """A function whose values belong to one row each: its gradient by the rows is taken as it is computed."""

    @staticmethod
    def forward(ctx: Any, of: Callable[[Tensor, Tensor], Tensor], states: Tensor, targets: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        with torch.enable_grad():
            own = states.detach().requires_grad_(True)
            values = of(own, targets)
            (gradient,) = torch.autograd.grad(values.sum(), own)
        ctx.save_for_backward(gradient)
        return values.detach()

    @staticmethod
    def backward(ctx: Any, grad_values: Tensor) -> tuple[None, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (gradient,) = ctx.saved_tensors
        return None, grad_values[:, None].to(gradient.dtype) * gradient, None


def is_trained(head: nn.Module | None) -> bool:
    """Whether any weight of a head is trained."""
    return head is not None and any(parameter.requires_grad for parameter in head.parameters())
