"""The smallest world: one prompt and a few answers, each with a reward, and a reference over them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from scipy.optimize import brentq
from torch import Tensor

from prefloop.training import TokenExample
from prefloop.worlds.judges import Judges, bradley_terry
from prefloop.worlds.population import Drawn, Judging, examples_of, groups
from prefloop.worlds.solve import population_loss
from prefloop.worlds.table import TabularPolicy, Tokens, arms, of_lengths

BRACKET = (-1e4, 1e4)
"""Between which the constant lies that normalises a policy, in units of the score."""


@dataclass(frozen=True)
class Bandit:
    """Answers with their rewards."""

    answers: tuple[Tokens, ...]
    reward: Float[Tensor, " answers"]
    ref: Float[Tensor, " answers"]
    """Log-probabilities of the reference, nats."""

    @classmethod
    def of(cls, answers: int | tuple[Tokens, ...], seed: int, lengths: Sequence[int] | None = None) -> "Bandit":
        """A random one in float64.

        Args:
            answers: these, or so many.
            seed: of rewards and reference.
            lengths: of so many answers, in tokens; None: two, EOS included.
        """
        made = answers if isinstance(answers, tuple) else of_lengths(lengths) if lengths else arms(answers)
        generator = torch.Generator().manual_seed(seed)
        reward = torch.randn(len(made), generator=generator, dtype=torch.float64)
        ref = torch.randn(len(made), generator=generator, dtype=torch.float64).log_softmax(0)
        return cls(made, reward, ref)

    @property
    def policy(self) -> TabularPolicy:
        """The reference as a policy."""
        return TabularPolicy(self.answers, self.ref)

    @cached_property
    def judges(self) -> Judges:
        """Who knows its answers."""
        return Judges(self.answers)

    @property
    def lengths(self) -> Float[Tensor, " answers"]:
        """Tokens of each answer, EOS included."""
        return torch.tensor([len(answer) for answer in self.answers], dtype=torch.float64)

    @property
    def prefers(self) -> Float[Tensor, "answers answers"]:
        """P(i is preferred to j), by Bradley and Terry."""
        return bradley_terry(self.reward)

    def drawn(self, count: int, logps: Float[Tensor, " answers"] | None = None, step: str = "samples") -> list[Drawn]:
        """So many answers of one policy; None is the reference."""
        return [Drawn.sampled(step, self.answers, (self.ref if logps is None else logps).log_softmax(0))] * count

    def labelled(
        self, prefers: Float[Tensor, "answers answers"] | None = None, sampler: Float[Tensor, " answers"] | None = None
    ) -> list[TokenExample]:
        """Two answers, one labelled the better at random: rule `iid` on all groups that a sampler can give."""
        judging = self.judges.labelling(self.prefers if prefers is None else prefers)
        return examples_of(groups(self.drawn(2, sampler), judging), "iid")

    def paired(self, judging: Judging, rule: str, count: int = 2, **options: Any) -> list[TokenExample]:
        """What a rule makes of so many answers of the reference."""
        return examples_of(groups(self.drawn(count), judging), rule, **options)

    def optimum(self, objective: str, **hyper: Any) -> Float[Tensor, " answers"]:
        """Log-probabilities of the policy that an objective ends at, by labels of two answers of the reference."""
        return population_loss(objective, self.labelled(), self.policy, **hyper).minimum().logps().detach()

    def tilted(self, by: Float[Tensor, " answers"]) -> Float[Tensor, " answers"]:
        """Log-probabilities of ref * exp(by) / Z."""
        return (self.ref + by).log_softmax(0)


def apart(policy: TabularPolicy, logps: Float[Tensor, " answers"]) -> float:
    """Largest distance of log-probabilities, nats."""
    return (policy.logps().detach() - logps).abs().max().item()


def normalised_by(
    base: Float[Tensor, " answers"], score: Float[Tensor, " answers"], scale: Float[Tensor, " answers"]
) -> Float[Tensor, " answers"]:
    """Log-probabilities base + scale * (score + c), with the c at which they are normalised; scales are positive."""

    def total(shift: float) -> float:
        return float((base + scale * (score + shift)).logsumexp(0))

    return base + scale * (score + brentq(total, *BRACKET, xtol=1e-14))
