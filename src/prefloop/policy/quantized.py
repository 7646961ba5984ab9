"""A frozen base in 4 bits (QLoRA, arXiv:2305.14314), by bitsandbytes."""

from importlib.util import find_spec
from typing import Literal

import torch
from transformers import BitsAndBytesConfig

from prefloop.config import Precision
from prefloop.errors import ModelError

Quantize = Literal["nf4"] | None

BITS = 4.127
"""Of a weight: its own 4, and its share of scales that are quantised themselves (section 3 of the paper)."""


def require_quantizer(device: str) -> None:
    """What 4 bits need is there.

    Raises:
        ModelError: bitsandbytes is not installed, or the device is no CUDA GPU.
    """
    if find_spec("bitsandbytes") is None:
        raise ModelError(
            "policy.lora.quantize is nf4, but bitsandbytes is not installed. Install prefloop[qlora], or leave "
            "quantize out."
        )
    if device != "cuda":
        raise ModelError(
            f"policy.lora.quantize is nf4, which needs a CUDA GPU, but models are held on {device}. Leave quantize "
            "out, or run where there is one."
        )


def quantization(precision: Precision) -> BitsAndBytesConfig:
    """NormalFloat of 4 bits with double quantisation; products are computed in the precision of the layers."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if precision == "bfloat16" else torch.float32,
    )
