"""Objectives: pure losses in one vocabulary of quantities. Importing this package registers all of them."""

from prefloop.objectives.discopop import discopop
from prefloop.objectives.dpo import dpo
from prefloop.objectives.dpop import dpop, dpop_outside_beta
from prefloop.objectives.exo import exo_pair
from prefloop.objectives.f_divergence import f_divergence_dpo
from prefloop.objectives.hinge import hinge, slic
from prefloop.objectives.ipo import ipo, ipo_per_token
from prefloop.objectives.ld_dpo import ld_dpo, ld_dpo_policy_only
from prefloop.objectives.length_normalized import length_normalized_dpo, simpo
from prefloop.objectives.length_regularized import length_regularized_dpo
from prefloop.objectives.noisy_labels import conservative_dpo, robust_dpo
from prefloop.objectives.plackett_luce import plackett_luce_dpo
from prefloop.objectives.quantities import FUNCTIONALS, MODELS, Functional, Quantity, parse_quantity
from prefloop.objectives.reference_free import reference_free_dpo
from prefloop.objectives.registry import Elsewhere, Fit, Objective, State, find_objective, objective, objectives
from prefloop.objectives.tdpo import sequential_kl, tdpo1, tdpo2
from prefloop.objectives.with_likelihood import mpo, rpo, sft

__all__ = [
    "FUNCTIONALS",
    "MODELS",
    "Elsewhere",
    "Fit",
    "Functional",
    "Objective",
    "Quantity",
    "State",
    "conservative_dpo",
    "discopop",
    "dpo",
    "dpop",
    "dpop_outside_beta",
    "exo_pair",
    "f_divergence_dpo",
    "find_objective",
    "hinge",
    "ipo",
    "ipo_per_token",
    "ld_dpo",
    "ld_dpo_policy_only",
    "length_normalized_dpo",
    "length_regularized_dpo",
    "mpo",
    "objective",
    "objectives",
    "parse_quantity",
    "plackett_luce_dpo",
    "reference_free_dpo",
    "robust_dpo",
    "rpo",
    "sequential_kl",
    "sft",
    "simpo",
    "slic",
    "tdpo1",
    "tdpo2",
]
