"""Worlds small enough to enumerate: a table in the place of a language model, and what is known to come of it."""

from prefloop.worlds.bandit import Bandit, apart
from prefloop.worlds.claims import Claim, claims
from prefloop.worlds.games import prompted_optimum, self_play_optimum, soft_policy_iteration
from prefloop.worlds.minimise import NoMinimumError, minimise
from prefloop.worlds.solve import PopulationLoss, population_loss
from prefloop.worlds.stage import Played, World, play
from prefloop.worlds.table import TabularPolicy, arms, language, of_lengths

__all__ = [
    "Bandit",
    "Claim",
    "NoMinimumError",
    "Played",
    "PopulationLoss",
    "TabularPolicy",
    "World",
    "apart",
    "arms",
    "claims",
    "language",
    "minimise",
    "of_lengths",
    "play",
    "population_loss",
    "prompted_optimum",
    "self_play_optimum",
    "soft_policy_iteration",
]
