"""An objective on the examples of a round: its arguments put together, and what it says of some of them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from prefloop.objectives import Objective, Quantity
from prefloop.objectives.quantities import FUNCTIONALS
from prefloop.objectives.registry import EXCHANGED
from prefloop.records import seed_for
from prefloop.training.columns import Column, picked
from prefloop.training.layout import CLASS_FUNCTIONALS

Scores = Mapping[str, Column]
"""What one model says of every example, in float64: always `{role}_logps`, and what the objective reads besides."""
Step = Mapping[str, Any]
"""Quantities that belong to an optimiser step as a whole, by name."""


@dataclass(frozen=True)
class LossOfPlan:
    """An objective with its hyper-parameters, and what it reads that does not change, for all examples of a round."""

    objective: Objective
    hyper: Mapping[str, Any]
    data: Mapping[str, Column]
    frozen: Mapping[str, Scores]
    """By model name of the grammar; of several by name and number, in order: `aux_ref.0`."""
    soft_labels: bool = False
    """The loss is p L(chosen, rejected) + (1 - p) L(rejected, chosen), with p of the example."""
    seed: int = 0
    """Of the random numbers that an objective may read."""
    parts: Sequence[str] = ()
    """Of each example the source of a mixture that it came from; empty where there is one source."""

    def __call__(self, indices: Sequence[int], policy: Mapping[str, Tensor], step: Step) -> Float[Tensor, " pairs"]:
        """Unreduced losses of some examples of a step, given the policy's numbers about them."""
        losses = self.objective.function(**self.values(indices, policy, step), **self.hyper)
        if not self.soft_labels:
            return losses
        turned = self.objective.function(**self.values(indices, policy, step, exchanged=EXCHANGED), **self.hyper)
        prob_chosen_wins = picked(self.data["prob_chosen_wins"], indices)
        return prob_chosen_wins * losses + (1 - prob_chosen_wins) * turned

    def values(
        self,
        indices: Sequence[int],
        policy: Mapping[str, Tensor],
        step: Step,
        exchanged: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """The objective's arguments for some examples of a step, with the numbers of other roles where exchanged."""
        return {
            quantity.name: self._value(quantity.with_roles(exchanged or {}), indices, policy, step)
            for quantity in self.objective.quantities
        }

    def _value(self, quantity: Quantity, indices: Sequence[int], policy: Mapping[str, Tensor], step: Step) -> Any:
        if quantity.model == "policy":
            return policy[quantity.of_model]
        if quantity.model is not None:
            of = [scores for name, scores in self.frozen.items() if name.partition(".")[0] == quantity.model]
            values = [picked(scores[quantity.of_model], indices) for scores in of]
            return torch.stack(values, 1) if quantity.model == "aux_ref" else values[0]
        if quantity.name in step:
            of_step = step[quantity.name]
            return of_step[list(indices)] if quantity.what.of == "example" else of_step
        return picked(self.data[quantity.name], indices)

    def of_step(self, indices: Sequence[int], number: int) -> dict[str, Any]:
        """What belongs to an optimiser step as a whole, apart from the state.

        Args:
            indices: examples of the step.
            number: of the step; decides the random numbers.
        """
        found: dict[str, Any] = {}
        for quantity in self.objective.quantities:
            if quantity.name == "uniforms":
                random = np.random.Generator(np.random.Philox(seed_for(self.seed, "uniforms", number)))
                found["uniforms"] = torch.full((len(self.data["weights"]),), torch.nan, dtype=torch.float64)
                found["uniforms"][list(indices)] = torch.from_numpy(random.random(len(indices)))
            elif quantity.functional == "state":
                continue
            elif quantity.what.of == "step":
                found[quantity.name] = self._mean_length(quantity, indices)
        return found

    def _mean_length(self, quantity: Quantity, indices: Sequence[int]) -> Tensor:
        """Mean tokens over the step; with soft labels of the answer that wins, in expectation."""
        of = quantity.functional.removeprefix("mean_").removesuffix("_length")
        lengths = picked(self.data[f"{of}_lengths"], indices)
        if self.soft_labels and of in EXCHANGED:
            prob_chosen_wins = picked(self.data["prob_chosen_wins"], indices)
            turned = picked(self.data[f"{EXCHANGED[of]}_lengths"], indices)
            lengths = prob_chosen_wins * lengths + (1 - prob_chosen_wins) * turned
        return lengths.mean()


def outputs_of(functionals: Collection[str], data: Mapping[str, Column] | None = None) -> dict[str, int]:
    """How many numbers the head of each functional gives; of classes as many as there are grades."""
    grades = [column for name, column in (data or {}).items() if name.endswith("_grades")]
    classes = 1 + max((int(torch.as_tensor(value).max()) for column in grades for value in column), default=0)
    return {
        name: classes if name in CLASS_FUNCTIONALS else 1
        for name in sorted(functionals)
        if FUNCTIONALS[name].head is not None
    }


def functionals_of(objective: Objective, model: str) -> set[str]:
    """What an objective wants one model to compute."""
    return {quantity.functional for quantity in objective.quantities if quantity.model == model}
