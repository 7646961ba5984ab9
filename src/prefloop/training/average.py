"""A moving average of the weights that are trained, and how it becomes a policy of its own."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from prefloop.policy import PolicyFiles, Trainable, Workbench
from prefloop.training.checkpoint import AVERAGE
from prefloop.training.request import TrainRequest


class MovingAverage:
    """average <- decay * average + (1 - decay) * weights, after every optimiser step (arXiv:2405.20830, section 3).

    Of an adapter its two factors are averaged, each by itself.
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        """Begins at some weights, which are copied.

        Args:
            weights: by the names of the parameters that are trained.
            decay: what the old average weighs. At 0 the average is the policy, at 1 it stays where it began.
        """
        self.weights = {name: weight.detach().clone() for name, weight in weights.items()}
        self.decay = decay

    def take(self, parameters: Mapping[str, Tensor]) -> float:
        """Moves on to the weights of a step; returns how far they are from it then, as a Euclidean distance."""
        with torch.no_grad():
            for name, average in self.weights.items():
                average.lerp_(parameters[name], 1 - self.decay)
            gaps = [(parameters[name] - average).norm() for name, average in self.weights.items()]
        return float(torch.stack(gaps).norm())

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of it."""
        return {f"{AVERAGE}/{name}": weight for name, weight in self.weights.items()}

    def restore(self, state: Path) -> None:
        """Puts it back to where it was when a checkpoint was saved."""
        with safe_open(state, framework="pt") as file:
            for name, weight in self.weights.items():
                weight.copy_(file.get_tensor(f"{AVERAGE}/{name}"))

    def save(self, trainable: Trainable, directory: Path) -> None:
        """Writes the average as a policy. The model that was trained has its weights afterwards."""
        with torch.no_grad():
            for name, parameter in trainable.parameters().items():
                parameter.copy_(self.weights[name])
        trainable.save(directory)


def average_at_start(request: TrainRequest, bench: Workbench) -> dict[str, Tensor] | None:
    """The weights of the average that training goes on with; None where it begins at the start policy."""
    if request.average is None or request.settings.ema_decay is None:
        return None
    with bench.for_scoring(request.average, quantize=request.quantize) as model:
        return {name: weight.clone() for name, weight in model.named_parameters() if _is_trained(name, request.average)}


def _is_trained(name: str, policy: PolicyFiles) -> bool:
    return policy.adapter is None or "lora_" in name
