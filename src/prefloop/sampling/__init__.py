"""Sampling: answers drawn from a policy, each with its own random numbers."""

from prefloop.sampling.cache import columns_of
from prefloop.sampling.draws import draws_for
from prefloop.sampling.local import DEFAULT_ROWS, LocalPolicies, LocalSampler
from prefloop.sampling.protocol import Answer, Draw, Sampler, SamplingSettings, Serving
from prefloop.sampling.replay import Replay, replay_identity

__all__ = [
    "DEFAULT_ROWS",
    "Answer",
    "Draw",
    "LocalPolicies",
    "LocalSampler",
    "Replay",
    "Sampler",
    "SamplingSettings",
    "Serving",
    "columns_of",
    "draws_for",
    "replay_identity",
]
