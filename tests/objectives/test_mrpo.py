"""DPO against several references: weights, trust region, mixtures, and where it is DPO again."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from prefloop.errors import RecipeError
from prefloop.objectives import (
    dpo,
    find_objective,
    geometric_mixture,
    harmonic_mixture,
    mixed_reference,
    mrpo,
    mrpo_geometric,
    mrpo_official,
)

ALL = pytest.mark.parametrize("objective", [mrpo, mrpo_official, mrpo_geometric])


def drawn(models: int, seed: int = 0, pairs: int = 6) -> tuple[list[Tensor], Tensor, Tensor]:
    """Policy and anchor on both answers, and the further references; these within a tenth of the anchor or far off."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    pair = [-40 * rand(pairs) - 1 for _ in range(4)]
    further = [anchor[:, None] * (0.5 + rand(pairs, models)) for anchor in pair[2:]]
    return pair, further[0], further[1]


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@ALL
@pytest.mark.parametrize("weights", ["adaptive", (0.2, 0.8)])
def test_references_equal_to_the_anchor_give_dpo(objective: Callable[..., Tensor], weights: Any) -> None:
    pair, _, _ = drawn(1)
    close(objective(*pair, pair[2][:, None], pair[3][:, None], weights=weights), dpo(*pair))


@ALL
def test_without_a_trust_region_the_anchor_is_the_reference(objective: Callable[..., Tensor]) -> None:
    pair, chosen, rejected = drawn(2)
    close(objective(*pair, chosen, rejected, eta=0.0, clip="fixed"), dpo(*pair))


@ALL
def test_with_no_further_reference_it_is_dpo(objective: Callable[..., Tensor]) -> None:
    pair, chosen, rejected = drawn(0)
    close(objective(*pair, chosen, rejected), dpo(*pair))


@pytest.mark.parametrize(
    ("objective", "weights"), [(mrpo, (0.0, 1.0)), (mrpo_geometric, (0.0, 1.0)), (mrpo_official, (1.0, 0.0))]
)
def test_all_weight_on_a_reference_gives_dpo_with_it_clipped(
    objective: Callable[..., Tensor], weights: tuple[float, float]
) -> None:
    """The released code puts the weight on the other one."""
    pair, chosen, rejected = drawn(1)
    clipped = [
        further[:, 0].clamp(1.3 * anchor, 0.7 * anchor)
        for further, anchor in zip((chosen, rejected), pair[2:], strict=True)
    ]
    found = objective(*pair, chosen, rejected, eta=0.3, clip="fixed", weights=weights)
    close(found, dpo(*pair[:2], *clipped))


def test_equal_weights_make_the_released_code_the_papers_formula() -> None:
    pair, chosen, rejected = drawn(1)
    close(mrpo_official(*pair, chosen, rejected, weights=(0.5, 0.5)), mrpo(*pair, chosen, rejected, weights=(0.5, 0.5)))


@pytest.mark.parametrize("seed", range(4))
def test_a_mixture_lies_between_its_models_and_the_harmonic_below_the_geometric(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logps = -30 * torch.rand(8, 3, generator=generator, dtype=torch.float64)
    weights = torch.rand(8, 3, generator=generator, dtype=torch.float64).softmax(1)
    harmonic, geometric = harmonic_mixture(logps, weights), geometric_mixture(logps, weights)
    assert bool((harmonic >= logps.amin(1)).all() & (harmonic <= geometric).all() & (geometric <= logps.amax(1)).all())


@pytest.mark.parametrize("clip", ["adaptive", "fixed"])
def test_weights_sum_to_one_and_the_mixture_stays_in_the_trust_region(clip: Any) -> None:
    pair, chosen, rejected = drawn(3, seed=2)
    mixed = mixed_reference(*pair[2:], chosen, rejected, eta=0.1, clip=clip, weights="adaptive")
    close(mixed.weights.sum(1), torch.ones(6, dtype=torch.float64))
    assert mixed.weights.min().item() >= 0
    for logps, anchor in ((mixed.chosen_logps, pair[2]), (mixed.rejected_logps, pair[3])):
        assert ((logps - anchor).abs() / anchor.abs()).max().item() <= 0.1 + 1e-12


def test_adaptive_weights_are_the_share_in_telling_the_answers_apart_before_clipping() -> None:
    anchor_w, anchor_l = torch.tensor([-10.0]).double(), torch.tensor([-12.0]).double()
    aux_w, aux_l = torch.tensor([[-10.0, -9.0]]).double(), torch.tensor([[-13.0, -14.0]]).double()
    mixed = mixed_reference(anchor_w, anchor_l, aux_w, aux_l, eta=0.01, clip="adaptive", weights="adaptive")
    assert mixed.weights[0].tolist() == pytest.approx([2 / 10, 3 / 10, 5 / 10], abs=1e-6)


def test_the_trust_region_is_shared_in_proportion_to_how_unlikely_the_answers_are() -> None:
    """Far references are clipped to the edge: there the shares can be read off."""
    anchor_w, anchor_l = torch.tensor([-10.0]).double(), torch.tensor([-30.0]).double()
    far = torch.tensor([[-10.0]]).double(), torch.tensor([[-1000.0]]).double()
    mixed = mixed_reference(anchor_w, anchor_l, *far, eta=0.4, clip="adaptive", weights=(0.0, 1.0))
    share = 10 / (10 + 515)
    assert mixed.rejected_logps.item() == pytest.approx(-30 * (1 + 0.4 * (1 - share)), rel=1e-12)


@ALL
def test_the_order_of_further_references_does_not_matter_unless_weights_are_exchanged(
    objective: Callable[..., Tensor],
) -> None:
    pair, chosen, rejected = drawn(3, seed=4)
    order = [2, 0, 1]
    one, other = objective(*pair, chosen, rejected), objective(*pair, chosen[:, order], rejected[:, order])
    assert torch.allclose(one, other, rtol=1e-12) == (objective is not mrpo_official)


def test_a_reference_that_tells_nothing_apart_has_no_weight() -> None:
    same = torch.full((2, 2), -5.0, dtype=torch.float64)
    mixed = mixed_reference(same[:, 0], same[:, 0], same, same, eta=0.1, clip="adaptive", weights="adaptive")
    assert mixed.weights.tolist() == [[1, 0, 0]] * 2
    close(mixed.chosen_logps, same[:, 0])


def test_thousands_of_nats_stay_finite() -> None:
    pair, chosen, rejected = drawn(2)
    pair[2], chosen = pair[2] - 2000, chosen - 2000
    assert bool(mrpo(*pair, chosen, rejected).isfinite().all())


def test_weights_have_to_be_as_many_as_references() -> None:
    pair, chosen, rejected = drawn(2)
    with pytest.raises(ValueError, match="weights has 2 values for 3 references"):
        mrpo(*pair, chosen, rejected, weights=(0.5, 0.5))


def test_a_recipe_may_give_weights_as_a_list_and_nothing_else() -> None:
    objective = find_objective("mrpo", "here")
    assert objective.checked({"weights": [0.7, 0.3]}, "here").model_dump()["weights"] == (0.7, 0.3)
    with pytest.raises(RecipeError, match=r"here\.weights: "):
        objective.checked({"weights": "even"}, "here")
