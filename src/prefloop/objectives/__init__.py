"""Objectives: pure losses in one vocabulary of quantities. Importing this package registers all of them."""

from prefloop.objectives.dpo import dpo
from prefloop.objectives.length_regularized import length_regularized_dpo
from prefloop.objectives.quantities import EXAMPLE_QUANTITIES, FUNCTIONALS, MODELS, Quantity, parse_quantity
from prefloop.objectives.registry import Fit, Objective, find_objective, objective, objectives

__all__ = [
    "EXAMPLE_QUANTITIES",
    "FUNCTIONALS",
    "MODELS",
    "Fit",
    "Objective",
    "Quantity",
    "dpo",
    "find_objective",
    "length_regularized_dpo",
    "objective",
    "objectives",
    "parse_quantity",
]
