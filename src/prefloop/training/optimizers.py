"""The optimisers of a train step, and which weights they let decay."""

from collections.abc import Mapping

import torch

from prefloop.config import TrainStep

RMSPROP_SMOOTHING = 0.99
RMSPROP_EPSILON = 1e-8


def optimizer_for(parameters: Mapping[str, torch.nn.Parameter], settings: TrainStep) -> torch.optim.Optimizer:
    """A fresh optimiser: AdamW (arXiv:1711.05101), or RMSprop as DPO was published with (arXiv:2305.18290, app. B).

    RMSprop has no momentum, does not centre and divides by sqrt(v) + epsilon with v = 0.99 v + 0.01 g^2 from v = 0, so
    that its first steps are up to ten times as long as its rate says: what the warm-up is for.

    Args:
        parameters: what is trained, by name.
        settings: of the train step.
    """
    rate = settings.learning_rate
    if settings.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters.values(), lr=rate, alpha=RMSPROP_SMOOTHING, eps=RMSPROP_EPSILON)
    matrices = [parameter for parameter in parameters.values() if parameter.ndim > 1]
    others = [parameter for parameter in parameters.values() if parameter.ndim <= 1]
    return torch.optim.AdamW(
        [
            {"params": group, "weight_decay": decay}
            for group, decay in ((matrices, settings.weight_decay), (others, 0.0))
            if group
        ],
        lr=rate,
        betas=(settings.adam_beta1, settings.adam_beta2),
        eps=settings.adam_epsilon,
        fused=True,
    )
