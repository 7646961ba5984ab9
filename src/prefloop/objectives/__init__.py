"""Objectives: pure losses in one vocabulary of quantities. Importing this package registers all of them."""

from prefloop.objectives.dpo import dpo
from prefloop.objectives.length_regularized import length_regularized_dpo
from prefloop.objectives.quantities import FUNCTIONALS, MODELS, Functional, Quantity, parse_quantity
from prefloop.objectives.registry import Elsewhere, Fit, Objective, State, find_objective, objective, objectives

__all__ = [
    "FUNCTIONALS",
    "MODELS",
    "Elsewhere",
    "Fit",
    "Functional",
    "Objective",
    "Quantity",
    "State",
    "dpo",
    "find_objective",
    "length_regularized_dpo",
    "objective",
    "objectives",
    "parse_quantity",
]
