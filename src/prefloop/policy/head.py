"""The language-model head on the tokens that are asked for, a few at a time: the logits never stand in memory whole."""

from collections.abc import Callable, Sequence
from typing import Any, TypedDict, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from prefloop.objectives import sequential_kl
from prefloop.policy.precision import widest

LOGITS_AT_ONCE = 2**24
"""Numbers: 64 MB in float32. With half of them products by a large head are slower."""
LOGITS_AT_ONCE_ON_CUDA = 2**27
"""Numbers: 512 MB in float32. With fewer, a GPU reads the head's weights more often than it multiplies by them."""


def tokens_at_once(vocab: int, *, on_cuda: bool = False) -> int:
    """Tokens whose logits stand in memory together."""
    return max(1, (LOGITS_AT_ONCE_ON_CUDA if on_cuda else LOGITS_AT_ONCE) // vocab)


class HeadOptions(TypedDict):
    """How the head runs."""

    at_once: int
    """Tokens whose logits stand in memory together."""
    weights: Sequence[Tensor]
    """Of the head, those that are trained. Where there are any, going backward computes the logits again and adds up
    their gradients in float32 or better; otherwise the gradient by the states is taken at once, and nothing is computed
    twice."""


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
    head: Head, hidden: Float[Tensor, "tokens width"], ids: Int[Tensor, " tokens"], how: HeadOptions, *, keep: bool
) -> Float[Tensor, " tokens"]:
    """Log-probability of each token from the hidden state before it: logit minus logsumexp, in float64.

    Args:
        head: of the model.
        hidden: states from which the tokens are predicted.
        ids: of the tokens.
        how: the head runs.
        keep: as many logits as stand in memory together stay there until their gradient is taken, which takes their
            place; only those of the tokens before are computed again. For the last that is asked of a pass.
    """

    def logps(states: Tensor, targets: Tensor) -> Tensor:
        return _LogpOfToken.apply(precise(head(states)), targets)

    return _in_pieces(logps, hidden, ids, how=how, keep=keep)


def token_concentration(
    head: Head, hidden: Float[Tensor, "tokens width"], how: HeadOptions
) -> Float[Tensor, " tokens"]:
    """How concentrated the prediction from each hidden state is: log sum_v p_v^2, in float64."""
    return _in_pieces(lambda states: _widened(log_sum_sq(precise(head(states)))), hidden, how=how)


def token_entropy(head: Head, hidden: Float[Tensor, "tokens width"], how: HeadOptions) -> Float[Tensor, " tokens"]:
    """Entropy of the prediction from each hidden state: -sum_v p_v log p_v in nats, in float64."""
    return _in_pieces(lambda states: _widened(entropy(precise(head(states)))), hidden, how=how)


def token_kl(
    head: Head,
    hidden: Float[Tensor, "tokens width"],
    ref_head: Head,
    ref_hidden: Float[Tensor, "tokens ref_width"],
    how: HeadOptions,
) -> Float[Tensor, " tokens"]:
    """KL(reference || policy) of the prediction from each pair of hidden states, in nats and float64.

    The terms of TDPO's `sequential_kl` (arXiv:2404.11999). Gradient flows through the policy only.

    Args:
        head: of the policy.
        hidden: states of the policy.
        ref_head: of the reference; may be the same weights with another adapter.
        ref_hidden: the reference's states at the same tokens.
        how: the policy's head runs; as many tokens of the reference stand in memory with it.
    """

    def kl(states: Tensor, ref_states: Tensor) -> Tensor:
        with torch.no_grad():
            ref_logits = precise(ref_head(ref_states))
        each = torch.ones(len(states), 1, dtype=torch.bool, device=states.device)
        return _widened(sequential_kl(precise(head(states))[:, None], ref_logits[:, None], each))

    return _in_pieces(kl, hidden, ref_hidden.detach(), how=how)


def log_sum_sq(logits: Float[Tensor, "*tokens vocab"]) -> Float[Tensor, " *tokens"]:
    """Log sum_v p_v^2 of softmax(logits)."""
    return (2 * logits).logsumexp(-1) - 2 * logits.logsumexp(-1)


def entropy(logits: Float[Tensor, "*tokens vocab"]) -> Float[Tensor, " *tokens"]:
    """-sum_v p_v log p_v of softmax(logits), in nats; what has no chance at all (a logit of -inf) adds nothing."""
    logps = logits.log_softmax(-1)
    return -(logps.exp() * logps.masked_fill(logps.isneginf(), 0.0)).sum(-1)


def precise(logits: Tensor) -> Tensor:
    """Logits in float32 or better."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _widened(values: Tensor) -> Tensor:
    return values.to(widest(values.device))


Of = Callable[..., Tensor]
"""From rows of one tensor or several to a value of each row."""


def _in_pieces(of: Of, hidden: Tensor, *others: Tensor, how: HeadOptions, keep: bool = False) -> Tensor:
    size = how["at_once"]
    if torch.is_grad_enabled() and how["weights"]:
        return _Again.apply(of, size, keep, 1 + len(others), hidden, *others, *how["weights"])
    pieces = _pieces((hidden, *others), size)
    if not torch.is_grad_enabled():
        return torch.cat([of(*piece) for piece in pieces])
    return torch.cat([_AtOnce.apply(of, *piece) for piece in pieces])


def _pieces(rows: Sequence[Tensor], size: int) -> list[tuple[Tensor, ...]]:
    """Some rows at a time, the last as many as are allowed."""
    count = len(rows[0])
    sizes = [*([count % size] if count % size or not count else []), *[size] * (count // size)]
    return list(zip(*(tensor.split(sizes) for tensor in rows), strict=True))


class _LogpOfToken(torch.autograd.Function):
    """Logit minus logsumexp. The gradient takes the place of the logits: nothing else is as large as they are."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        total = logits.logsumexp(1, keepdim=True)
        ctx.save_for_backward(logits, total, targets)
        return _widened((logits.gather(1, targets[:, None]) - total)[:, 0])

    @staticmethod
    def backward(ctx: Any, grad_values: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        logits, total, targets = ctx.saved_tensors
        of_each = grad_values.to(logits.dtype)[:, None]
        gradient = logits.sub_(total).exp_().mul_(-of_each)  # -p of each token, and one more of the target
        return gradient.scatter_add_(1, targets[:, None], of_each), None


class _AtOnce(torch.autograd.Function):
    """A function whose values belong to one row each: its gradient by the first rows is taken as it is computed."""

    @staticmethod
    def forward(ctx: Any, of: Of, states: Tensor, *others: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        with torch.enable_grad():
            own = states.detach().requires_grad_(True)
            values = of(own, *others)
            (gradient,) = torch.autograd.grad(values.sum(), own)
        ctx.save_for_backward(gradient)
        ctx.others = len(others)
        return values.detach()

    @staticmethod
    def backward(ctx: Any, grad_values: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (gradient,) = ctx.saved_tensors
        return None, grad_values[:, None].to(gradient.dtype) * gradient, *(None,) * ctx.others


class _Again(torch.autograd.Function):
    """A function of rows and of weights: going backward computes it again, one piece after the other.

    The pieces' gradients by the weights are added up in float32 or better and rounded once, at the end.
    """

    @staticmethod
    def forward(ctx: Any, of: Of, size: int, keep: bool, num_rows: int, *tensors: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        kind = tensors[0].device.type
        ctx.of, ctx.size, ctx.num_rows = of, size, num_rows
        ctx.cast = kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
        ctx.save_for_backward(*tensors)
        *before, last = _pieces(tensors[:num_rows], size)
        values = [of(*piece) for piece in before]
        kept = _Again.computed(ctx, last) if keep else None
        ctx.kept = kept
        return torch.cat([*values, of(*last) if kept is None else kept[1].detach()])

    @staticmethod
    def computed(ctx: Any, piece: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """The states of a piece and their values, for a gradient."""
        states, *others = piece
        with torch.enable_grad(), torch.autocast(*ctx.cast):
            own = states.detach().requires_grad_(True)
            return own, ctx.of(own, *others)

    @staticmethod
    def backward(ctx: Any, grad_values: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        rows, weights = ctx.saved_tensors[: ctx.num_rows], ctx.saved_tensors[ctx.num_rows :]
        sums: dict[int, Tensor] = {}
        by_states: list[Tensor] = []
        for *piece, grads in reversed(_pieces((*rows, grad_values), ctx.size)):
            own, values = ctx.kept or _Again.computed(ctx, tuple(piece))
            ctx.kept = None
            of_states, *of_weights = torch.autograd.grad(values, (own, *weights), grads, allow_unused=True)
            del values
            by_states.insert(0, of_states)
            for number, of_piece in enumerate(cast("list[Tensor | None]", of_weights)):
                if of_piece is not None:  # else it has been added where it stands
                    sums[number] = sums[number].add_(of_piece) if number in sums else precise(of_piece)
        rounded = (sums[number].to(one.dtype) if number in sums else None for number, one in enumerate(weights))
        return *(None,) * 4, torch.cat(by_states), *(None,) * (ctx.num_rows - 1), *rounded


def trained_weights(head: nn.Module | None) -> list[Tensor]:
    """The weights of a head that are trained."""
    return [] if head is None else [parameter for parameter in head.parameters() if parameter.requires_grad]
