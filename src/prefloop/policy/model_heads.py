"""Linear heads beside the language-model head: an answer's reward, a value before each token, an answer's classes."""

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from prefloop.policy.head import precise
from prefloop.policy.precision import widest

HEADS_FILE = "heads.safetensors"
"""Beside the model directory of a policy, which stays an ordinary language model."""

PREFIX = "heads."
"""Before the names of their weights among those that are trained."""

Heads = Mapping[str, nn.Linear]
"""By the functional that each computes: `rewards`, `token_values` or `head_logits`."""
OF_TOKENS = frozenset({"token_values"})
"""Functionals whose head reads the state before each token; the others' read the state at the answer's last token."""


def new_heads(outputs: Mapping[str, int], width: int, seed: int, device: torch.device) -> dict[str, nn.Linear]:
    """Heads that have learnt nothing.

    A reward's weights are normal with deviation 1 / sqrt(width + 1) (arXiv:2009.01325), and it has no bias, as in the
    sequence classifiers of transformers. The others are 0: every value is 0, every class as likely as the next.

    Args:
        outputs: how many numbers each gives, by functional.
        width: of the hidden states.
        seed: of the reward's weights; no other random number is changed.
        device: that they are held on.
    """
    found: dict[str, nn.Linear] = {}
    for name, count in outputs.items():
        head = nn.Linear(width, count, bias=name != "rewards")
        nn.init.zeros_(head.weight)
        if name == "rewards":
            generator = torch.Generator().manual_seed(seed)
            nn.init.normal_(head.weight, std=(width + 1) ** -0.5, generator=generator)
        else:
            nn.init.zeros_(head.bias)
        found[name] = head.to(device)
    return found


def heads_of(
    file: Path | None, outputs: Mapping[str, int], width: int, seed: int, device: torch.device
) -> dict[str, nn.Linear]:
    """The heads that a policy has in a file; those that are not there are new ones."""
    found = new_heads(outputs, width, seed, device)
    kept = {} if file is None else load_file(file)
    with torch.no_grad():
        for name, head in found.items():
            for part, parameter in head.named_parameters():
                if (tensor := kept.get(f"{name}.{part}")) is not None and tensor.shape == parameter.shape:
                    parameter.copy_(tensor)
    return found


def write_heads(heads: Heads, file: Path) -> None:
    """Writes heads as `heads_of` reads them."""
    tensors = {name.removeprefix(PREFIX): tensor.detach().cpu() for name, tensor in named_parameters(heads).items()}
    save_file(tensors, file)


def named_parameters(heads: Heads) -> dict[str, nn.Parameter]:
    """What is trained of them, by name."""
    return {
        f"{PREFIX}{name}.{part}": parameter
        for name, head in heads.items()
        for part, parameter in head.named_parameters()
    }


def of_states(head: nn.Linear, states: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows outputs"]:
    """What a head says of hidden states, computed in float32 or better."""
    given = precise(states)
    parts: dict[str, Tensor] = {name: part.to(given.dtype) for name, part in head.named_parameters()}
    return nn.functional.linear(given, parts["weight"], parts.get("bias")).to(widest(states.device))
