"""What is claimed of each method holds: the same claims that `prefloop verify` prints."""

from math import inf

import pytest
import torch

from prefloop.objectives import objectives
from prefloop.worlds import claims
from prefloop.worlds.claims.games import WEIGHTED, equilibrium
from prefloop.worlds.claims.registry import beyond, unless
from prefloop.worlds.claims.self_play import worst_of
from prefloop.worlds.judges import cyclic

SLOW = {
    "one_proxy_is_over_optimised",
    "optimism_finds_the_hidden_arm",
    "optimism_finds_the_hidden_arm_too",
    "shared_errors_are_not_helped",
    "ten_words",
    "the_average_settles",
    "the_average_settles_too",
    "the_last_iterate_settles",
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in claims()]
)
def test_the_claim_holds(name: str) -> None:
    claim = claims()[name]
    error = claim.measured()
    assert claim.holds(error), f"{claim.says} off by {error}"


def test_claims_are_of_numbers_below_a_millionth_unless_they_are_of_draws() -> None:
    for claim in claims().values():
        assert (claim.within, claim.unit) == ((4.0, "standard errors") if "4000" in claim.method else (1e-6, ""))
        assert claim.says.endswith(".")
        assert claim.source


def test_claims_of_one_method_stand_together() -> None:
    methods = [claim.method for claim in claims().values()]
    assert [one for number, one in enumerate(methods) if methods[:number][-1:] != [one]] == list(dict.fromkeys(methods))


def test_most_objectives_that_learn_preferences_have_a_closed_form_that_is_claimed() -> None:
    claimed = {claim.method for claim in claims().values()}
    assert len(claimed & objectives().keys()) >= 25


def test_a_claim_without_a_minimum_is_infinitely_far_and_nan_does_not_hold() -> None:
    claim = claims()["any_sampler"]
    assert not claim.holds(inf)
    assert not claim.holds(float("nan"))
    assert claim.holds(1e-6)
    assert (beyond(-1.0), beyond(0.5), unless(True), unless(False)) == (0.0, 0.5, 0.0, inf)
    assert beyond(float("nan")) != beyond(float("nan"))


def test_nothing_beats_the_equilibrium_of_a_weighted_cycle() -> None:
    prefers, nash = cyclic(WEIGHTED), equilibrium(WEIGHTED)
    torch.testing.assert_close(prefers @ nash, torch.full((3,), 0.5).double(), rtol=0, atol=1e-15)
    assert nash.tolist() == pytest.approx([0.3 / 0.9, 0.15 / 0.9, 0.45 / 0.9])


def test_the_worst_of_k_by_counting() -> None:
    """Three answers, two draws: the worst is 0 unless neither draw is."""
    found = worst_of(torch.tensor([0.2, 0.3, 0.5]).double(), torch.tensor([-1.0, 0.0, 1.0]).double(), 2)
    assert found.tolist() == pytest.approx([1 - 0.8**2, 0.8**2 - 0.5**2, 0.5**2])
