"""How precisely numbers are computed: what a device knows, and which precision a model's layers pass in."""

import torch

WITHOUT_FLOAT64 = frozenset({"mps"})
"""Devices that know no float64."""


def widest(device: torch.device) -> torch.dtype:
    """The precision in which log-probabilities are added up: float64 where the device knows it."""
    return torch.float32 if device.type in WITHOUT_FLOAT64 else torch.float64
