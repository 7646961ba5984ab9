"""Sampling: answers drawn from a policy, each with its own random numbers."""

from prefloop.sampling.cache import columns_of
from prefloop.sampling.components import PASSED_AT_ONCE, Component
from prefloop.sampling.draws import draws_for
from prefloop.sampling.endpoints import Patience, Pool, authorization
from prefloop.sampling.kept_answers import KeptAnswers
from prefloop.sampling.local import DEFAULT_ROWS, DEFAULT_ROWS_ON_GPU, LEAST_ROWS, LocalPolicies, LocalSampler
from prefloop.sampling.protocol import Answer, Draw, Sampler, SamplingSettings, Serving
from prefloop.sampling.publication import Restart
from prefloop.sampling.replay import Replay, replay_identity
from prefloop.sampling.server import PROBE_TOKENS, PROBES, ServerPolicies

__all__ = [
    "DEFAULT_ROWS",
    "DEFAULT_ROWS_ON_GPU",
    "LEAST_ROWS",
    "PASSED_AT_ONCE",
    "PROBES",
    "PROBE_TOKENS",
    "Answer",
    "Component",
    "Draw",
    "KeptAnswers",
    "LocalPolicies",
    "LocalSampler",
    "Patience",
    "Pool",
    "Replay",
    "Restart",
    "Sampler",
    "SamplingSettings",
    "ServerPolicies",
    "Serving",
    "authorization",
    "columns_of",
    "draws_for",
    "replay_identity",
]
