"""A world small enough to enumerate: the policy that an objective must end at is known exactly."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from prefloop.objectives import Objective, find_objective

Hyper = Mapping[str, float]


@dataclass(frozen=True)
class TabularWorld:
    """One prompt and its few answers. Every ordered pair of them is met, labelled by Bradley-Terry on the reward."""

    reward: Float[Tensor, " answers"]
    lengths: Float[Tensor, " answers"]
    """Tokens."""
    ref: Float[Tensor, " answers"]
    """Log-probabilities of the reference, nats."""

    @classmethod
    def of(cls, answers: int, seed: int) -> "TabularWorld":
        """A random world in float64."""
        generator = torch.Generator().manual_seed(seed)
        reward = torch.randn(answers, generator=generator, dtype=torch.float64)
        ref = torch.randn(answers, generator=generator, dtype=torch.float64).log_softmax(0)
        lengths = torch.randint(1, 40, (answers,), generator=generator).double()
        return cls(reward, lengths, ref)

    def optimum(self, objective: Objective, hyper: Hyper) -> Float[Tensor, " answers"]:
        """Log-probabilities of the policy that minimises the objective's expected loss over all labelled pairs."""
        answers = len(self.reward)
        chosen, rejected = (1 - torch.eye(answers)).nonzero(as_tuple=True)
        index = {"chosen": chosen, "rejected": rejected}
        prob_chosen_wins = (self.reward[chosen] - self.reward[rejected]).sigmoid()

        def expected_loss(theta: Tensor) -> Tensor:
            known = {"policy": theta.log_softmax(0), "ref": self.ref, None: self.lengths}
            values = {q.name: known[q.model][index[str(q.role)]] for q in objective.quantities}
            return (prob_chosen_wins * objective.function(**values, **hyper)).sum()

        return minimise(expected_loss, start=torch.zeros(answers, dtype=torch.float64)).log_softmax(0)


def minimise(loss: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """The minimiser of a smooth convex function of a few numbers, by L-BFGS in float64."""
    theta = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [theta], max_iter=1000, tolerance_grad=1e-13, tolerance_change=0.0, line_search_fn="strong_wolfe"
    )

    def closure() -> float:
        optimizer.zero_grad()
        value = loss(theta)
        value.backward()
        return value.item()

    optimizer.step(closure)
    return theta.detach()


def _tilted_reference(world: TabularWorld, hyper: Hyper) -> Tensor:
    return (world.ref + world.reward / hyper["beta"]).log_softmax(0)


def _tilted_reference_without_length(world: TabularWorld, hyper: Hyper) -> Tensor:
    return (world.ref + (world.reward - hyper["alpha"] * world.lengths) / hyper["beta"]).log_softmax(0)


OPTIMA: Mapping[str, tuple[Hyper, Callable[[TabularWorld, Hyper], Tensor]]] = {
    "dpo": ({"beta": 0.5}, _tilted_reference),
    "length_regularized_dpo": ({"beta": 0.5, "alpha": 0.05}, _tilted_reference_without_length),
}
"""Objective -> hyper-parameters to try it with, and the log-probabilities that it must end at."""


def optimum_error(name: str) -> float:
    """Nats by which an objective's minimiser in a small world differs from the policy known on paper."""
    hyper, expected = OPTIMA[name]
    world = TabularWorld.of(answers=5, seed=0)
    found = world.optimum(find_objective(name, "the table of optima"), hyper)
    return (found - expected(world, hyper)).abs().max().item()
