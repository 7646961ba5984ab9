"""Random values of whatever an objective reads, consistent with each other."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prefloop.objectives import Objective, Quantity, choices

PAIRS = 7
SIZES = {"chosen": 5, "rejected": 7, "response": 6, "gold": 4, "kl": 3, "ranked": 4, "sampled": 4, "degree": 4}
"""Tokens of the longest answer, by role."""
RANKS, MODELS, VOCAB, CLASSES = 3, 2, 4, 3

Values = dict[str, Any]


def shape_of(quantity: Quantity) -> tuple[int, ...]:
    """Numbers for the dimensions that a signature writes."""
    known = {"pairs": PAIRS, "ranks": RANKS, "models": MODELS, "vocab": VOCAB, "classes": CLASSES}
    sizes = {**known, **{f"{role}_tokens": size for role, size in SIZES.items()}}
    return tuple(sizes[word] for word in quantity.shape.split())


def quantities(objective: Objective, hyper: Mapping[str, Any], dtype: torch.dtype = torch.float64) -> Values:
    """Values of what the objective reads; those that the policy computes take gradient.

    They are exact in float32. Answers have one token at least, and those of an example with tokens two.
    """
    generator = torch.Generator().manual_seed(0)
    lengths = {
        role: torch.cat([torch.tensor([size]), torch.randint(2, size + 1, (PAIRS - 1,), generator=generator)])
        for role, size in SIZES.items()
    }
    values: Values = {}
    for quantity in objective.quantities:
        if quantity.functional == "state":
            continue
        role = quantity.role or "chosen"
        mask = torch.arange(SIZES[role]) < lengths[role][:, None]
        uniform = torch.rand(shape_of(quantity), generator=generator, dtype=torch.float32).double()
        value = _MADE.get(quantity.functional, _itself)(_Draw(role, uniform, mask, lengths[role]))
        value = value.float().to(dtype) if quantity.what.kind == "float" else value
        values[quantity.name] = value.requires_grad_() if quantity.gradient else value
    if objective.state is not None:
        values["state"] = objective.updated(objective.state.initial(hyper), values, hyper)
    return values


def _itself(drawn: "_Draw") -> Tensor:
    return drawn.uniform


@dataclass(frozen=True)
class _Draw:
    """What a value is made of."""

    role: str
    uniform: Tensor
    """In the shape of the quantity."""
    mask: Tensor
    """Tokens that the answer has."""
    lengths: Tensor
    """Of the answer, in tokens."""

    def masked(self, values: Tensor) -> Tensor:
        """Values of tokens, 0 behind the end."""
        return values.masked_fill(~self.mask, 0.0)


_MADE: Mapping[str, Callable[[_Draw], Tensor]] = {
    "logps": lambda drawn: -30 * drawn.uniform - 0.01,
    "prompt_logps": lambda drawn: -30 * drawn.uniform - 0.01,
    "token_logps": lambda drawn: drawn.masked(-3 * drawn.uniform),
    "token_log_sum_sq": lambda drawn: drawn.masked(-3 * drawn.uniform),
    "token_values": lambda drawn: drawn.masked(4 * drawn.uniform - 2),
    "seq_kl": lambda drawn: 5 * drawn.uniform,
    "entropy": lambda drawn: 5 * drawn.uniform,
    "token_entropy": lambda drawn: drawn.masked(3 * drawn.uniform),
    "rewards": lambda drawn: 4 * drawn.uniform - 2,
    "logits": lambda drawn: 4 * drawn.uniform - 2,
    "head_logits": lambda drawn: 4 * drawn.uniform - 2,
    "lengths": lambda drawn: drawn.lengths.double().view(-1, *[1] * (drawn.uniform.ndim - 1)).expand_as(drawn.uniform),
    "prompt_lengths": lambda drawn: (1 + 9 * drawn.uniform).floor(),
    "mean_chosen_length": lambda drawn: 2 + 3 * drawn.uniform,
    "token_mask": lambda drawn: drawn.mask,
    "token_ids": lambda drawn: (5 * drawn.uniform).floor().long(),
    "diff_mask": lambda drawn: (drawn.uniform < 0.5) & drawn.mask,
    "prefix_lengths": lambda drawn: (2 * drawn.uniform).floor().long(),
    "scores": lambda drawn: drawn.uniform + 0.1 + (drawn.role in {"chosen", "response"}),
    "visits": lambda drawn: (1 + 20 * drawn.uniform).floor(),
    "labels": lambda drawn: drawn.uniform < drawn.uniform.median(),
    "grades": lambda drawn: (CLASSES * drawn.uniform).floor().long(),
    "mask": lambda drawn: torch.arange(RANKS) < 2 + (drawn.uniform[:, :1] < 0.5),
    "similarity": lambda drawn: 2 * drawn.uniform - 1,
    "margin": lambda drawn: drawn.uniform + 0.1,
}
"""By functional; what is not here is a number in [0, 1)."""


def variants(objective: Objective) -> Iterator[dict[str, Any]]:
    """The defaults, and every other choice of a hyper-parameter that is a choice."""
    defaults = objective.options().model_dump()
    yield defaults
    for name, field in objective.options.model_fields.items():
        for choice in choices(field.annotation):
            if choice != defaults[name]:
                yield {**defaults, name: choice}


def at_extremes(objective: Objective, values: Values, gap: float) -> Iterator[tuple[str, Values]]:
    """What models compute, one quantity after the other moved by a gap, as far as its kind allows.

    Log-probabilities fall, entropies rise, the rest does both; of an answer's tokens it is the first that moves.
    """
    for quantity in (quantity for quantity in objective.quantities if quantity.what.source == "model"):
        falls_only = quantity.functional.endswith("logps") or quantity.functional == "token_log_sum_sq"
        rises_only = quantity.functional in {"seq_kl", "entropy", "token_entropy"}
        for step in (-gap,) * (not rises_only) + (gap,) * (not falls_only):
            moved = values[quantity.name].detach().clone()
            if quantity.what.shape.startswith("pairs tokens"):
                moved[:, 0] += step
            else:
                moved += step
            yield f"{quantity.name} {step:+.0f}", {**values, quantity.name: moved.requires_grad_(quantity.gradient)}
