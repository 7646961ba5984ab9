"""Sampling: answers drawn from a policy, each with its own random numbers."""

from prefloop.sampling.cache import columns_of
from prefloop.sampling.draws import draws_for
from prefloop.sampling.local import DEFAULT_ROWS, LocalSampler
from prefloop.sampling.protocol import Answer, Draw, Sampler, SamplingSettings

__all__ = [
    "DEFAULT_ROWS",
    "Answer",
    "Draw",
    "LocalSampler",
    "Sampler",
    "SamplingSettings",
    "columns_of",
    "draws_for",
]
