"""A frozen reference that stays loaded while a policy is trained: for what its cached numbers cannot say."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import PreTrainedModel

TRAINED = "default"
"""peft's name for the adapter that is trained."""
REFERENCE = "reference"
"""The name of a frozen adapter that lies beside it."""


@dataclass(frozen=True)
class LiveReference:
    """A reference, often the very weights that are trained, with another adapter or none."""

    model: PreTrainedModel | PeftModel
    adapter: Literal["own", "off", "reference"] = "own"
    """`off` and `reference` turn the trained adapter off, or change it for the frozen one, for as long as it takes."""

    @contextmanager
    def active(self) -> Generator[PreTrainedModel | PeftModel, None, None]:
        """The model as the reference has it, without gradient; afterwards it is the policy again."""
        layers = [module for module in self.model.modules() if isinstance(module, BaseTunerLayer)]
        try:
            for layer in layers:
                if self.adapter == "off":
                    layer.enable_adapters(enabled=False)
                elif self.adapter == "reference":
                    layer.set_adapter(REFERENCE, inference_mode=True)
            with torch.no_grad():
                yield self.model
        finally:
            for layer in layers:
                if self.adapter == "off":
                    layer.enable_adapters(enabled=True)
                elif self.adapter == "reference":
                    layer.set_adapter(TRAINED)
