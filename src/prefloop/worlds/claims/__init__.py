"""What is claimed of each method, world by world. Importing this registers all claims."""

from prefloop.worlds.claims import classical, exploration, games, judges, limits, nodes, rewards, self_play
from prefloop.worlds.claims.registry import Claim, claims

__all__ = [
    "Claim",
    "claims",
    "classical",
    "exploration",
    "games",
    "judges",
    "limits",
    "nodes",
    "rewards",
    "self_play",
]
