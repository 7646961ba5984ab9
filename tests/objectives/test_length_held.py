"""The multiplier of a length constraint, in a world where the judge pays for length and all can be enumerated."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from prefloop.objectives import find_objective

OBJECTIVE = find_objective("length_regularized_dpo", "here")
BETA, BONUS = 0.1, 0.03


class Loop:
    """Rounds of length-regularised DPO on twelve answers; pairs are all pairs of the policy's own answers."""

    def __init__(self, *, reference_stays: bool = False) -> None:
        generator = torch.Generator().manual_seed(4)
        self.lengths = torch.arange(12, dtype=torch.float64) * 4 + 6
        self.quality = torch.randn(12, generator=generator, dtype=torch.float64) * 0.3
        self.policy = torch.randn(12, generator=generator, dtype=torch.float64).mul(0.3).log_softmax(0)
        self.first, self.reference = self.policy, self.policy if reference_stays else None
        self.chosen, self.rejected = (1 - torch.eye(12)).nonzero(as_tuple=True)

    def mean_length(self, logps: Tensor) -> float:
        return float((logps.exp() * self.lengths).sum())

    @property
    def ratio(self) -> float:
        return self.mean_length(self.policy) / self.mean_length(self.first)

    def weights(self) -> Tensor:
        """How often a pair is drawn and goes to its first answer: Bradley-Terry on quality and a bonus for length."""
        score = self.quality + BONUS * self.lengths
        wins = (score[self.chosen] - score[self.rejected]).sigmoid()
        return (self.policy[self.chosen] + self.policy[self.rejected]).exp() * wins

    def data(self) -> dict[str, np.ndarray]:
        return {
            "chosen_lengths": self.lengths[self.chosen].numpy(),
            "rejected_lengths": self.lengths[self.rejected].numpy(),
            "weights": self.weights().numpy(),
        }

    def round(self, alpha: float) -> None:
        """Twenty steps of gradient descent against the round's start, or against the first policy."""
        weights, reference = self.weights(), self.policy if self.reference is None else self.reference
        theta = self.policy.clone().requires_grad_()
        data = {name: torch.from_numpy(values) for name, values in self.data().items() if name != "weights"}
        for _ in range(20):
            logps = theta.log_softmax(0)
            losses = OBJECTIVE.function(
                logps[self.chosen],
                logps[self.rejected],
                reference[self.chosen],
                reference[self.rejected],
                **data,
                beta=BETA,
                alpha=alpha,
            )
            (slope,) = torch.autograd.grad((weights * losses).sum(), [theta])
            theta = (theta - 20 * slope).detach().requires_grad_()
        self.policy = theta.detach().log_softmax(0)


def ratios(loop: Loop, rounds: int, *, fit_error: float, gain: float | None, carry: bool = False) -> list[float]:
    """Length ratio after each round, with an alpha that is fitted wrongly by a factor, and held or not."""
    found: list[float] = []
    carried = 0.0
    for _ in range(rounds):
        data = loop.data()
        alpha = fit_error * OBJECTIVE.fit_on("alpha", data).value
        if gain is not None:
            correction = OBJECTIVE.correction("alpha", data, deviation=math.log(loop.ratio), gain=gain)
            carried = carried + correction if carry else correction
            alpha += carried
        loop.round(alpha)
        found.append(loop.ratio)
    return found


def test_plain_dpo_buys_length() -> None:
    assert ratios(Loop(), 6, fit_error=0.0, gain=None)[-1] > 1.5


@pytest.mark.parametrize("fit_error", [0.4, 1.0, 1.8])
def test_what_the_fit_leaves_of_length_round_by_round_is_held(fit_error: float) -> None:
    """A fit that is not what it takes drifts on and on; held, the deviation stops where both are in balance.

    Even the right fit drifts here: it cancels the push on length at the start of a round, not along the way.
    """
    drifting = ratios(Loop(), 10, fit_error=fit_error, gain=None)
    held = ratios(Loop(), 10, fit_error=fit_error, gain=2.0)

    assert abs(math.log(held[-1])) < abs(math.log(drifting[-1])) / 2
    assert abs(math.log(held[-1] / held[-2])) < 0.01
    assert abs(math.log(drifting[2] / drifting[1])) > 0.01


def test_a_reference_that_stays_needs_the_corrections_added_up() -> None:
    held = ratios(Loop(reference_stays=True), 40, fit_error=0.4, gain=1.0, carry=True)
    assert held[-1] == pytest.approx(1, abs=0.02)


def test_a_correction_is_gain_times_deviation_over_the_typical_gap() -> None:
    data = {
        "chosen_lengths": np.array([30.0, 10.0]),
        "rejected_lengths": np.array([27.0, 14.0]),
        "weights": np.array([1.0, 3.0]),
    }
    typical = math.sqrt((9 + 3 * 16) / 4)
    found = OBJECTIVE.correction("alpha", data, deviation=math.log(1.5), gain=2.0)
    assert found == pytest.approx(2 * math.log(1.5) / typical, rel=1e-15)


def test_a_typical_gap_below_one_token_is_corrected_too() -> None:
    data = {"chosen_lengths": np.array([1.0, 7.0, 7.0, 7.0]), "rejected_lengths": np.array([2.0, 7.0, 7.0, 7.0])}
    found = OBJECTIVE.correction("alpha", {**data, "weights": np.ones(4)}, deviation=0.1, gain=2.0)
    assert found == pytest.approx(2 * 0.1 / 0.5, rel=1e-15)


def test_pairs_of_equal_lengths_cannot_be_corrected() -> None:
    same = {name: np.ones(3) for name in ("chosen_lengths", "rejected_lengths", "weights")}
    assert OBJECTIVE.correction("alpha", same, deviation=1.0, gain=2.0) == 0
