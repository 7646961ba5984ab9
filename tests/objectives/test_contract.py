"""What every objective promises; a new one is picked up from the registry."""

import doctest
import re
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from prefloop.errors import RecipeError
from prefloop.objectives import FUNCTIONALS, MODELS, Objective, find_objective, objectives

PAIRS = 7
EVERY = pytest.mark.parametrize("objective", objectives().values(), ids=objectives())


def quantities(objective: Objective, dtype: torch.dtype = torch.float64, seed: int = 0) -> dict[str, Tensor]:
    """Random values of what the objective reads; those that the policy computes take gradient."""
    generator = torch.Generator().manual_seed(seed)
    values: dict[str, Tensor] = {}
    for quantity in objective.quantities:
        drawn = torch.rand(PAIRS, generator=generator, dtype=torch.float64)
        tokens = quantity.functional == "lengths"
        value = (1 + 39 * drawn).floor() if tokens else -60 * drawn
        values[quantity.name] = value.to(dtype).requires_grad_(quantity.gradient)
    return values


def hyper(objective: Objective) -> dict[str, float]:
    return objective.options().model_dump()


def total(objective: Objective, values: Mapping[str, Tensor]) -> float:
    return objective.function(**values, **hyper(objective)).sum().item()


@EVERY
def test_one_finite_loss_a_pair_comes_back(objective: Objective) -> None:
    losses = objective.function(**quantities(objective), **hyper(objective))
    assert losses.shape == (PAIRS,)
    assert bool(losses.isfinite().all())


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gap", [200.0, -200.0, 10_000.0, -10_000.0])
def test_loss_and_gradient_stay_finite_at_extreme_gaps(objective: Objective, dtype: torch.dtype, gap: float) -> None:
    """A gap opens between the policy's scores of the first role and all its others, in both directions."""
    values = quantities(objective, dtype)
    names = [quantity.name for quantity in objective.quantities if quantity.gradient]
    values[names[0]] = (values[names[0]] + gap).detach().requires_grad_()
    losses = objective.function(**values, **hyper(objective))
    grads = torch.autograd.grad(losses.sum(), [values[name] for name in names])
    assert bool(losses.isfinite().all())
    assert all(bool(grad.isfinite().all()) for grad in grads)


@EVERY
def test_gradients_equal_finite_differences(objective: Objective) -> None:
    """Central differences with step 1e-4: error about step^2 and rounding / step, both below 1e-8 here."""
    values = quantities(objective)
    step = 1e-4
    for quantity in (quantity for quantity in objective.quantities if quantity.gradient):
        (grad,) = torch.autograd.grad(
            objective.function(**values, **hyper(objective)).sum(), [values[quantity.name]], retain_graph=False
        )
        for pair in range(PAIRS):
            moved = torch.zeros(PAIRS, dtype=torch.float64)
            moved[pair] = step
            up, down = ({**values, quantity.name: values[quantity.name].detach() + sign * moved} for sign in (1, -1))
            expected = (total(objective, up) - total(objective, down)) / (2 * step)
            assert grad[pair].item() == pytest.approx(expected, abs=1e-8)


@EVERY
def test_only_what_the_policy_computes_takes_gradient(objective: Objective) -> None:
    assert {quantity.model for quantity in objective.quantities if quantity.gradient} == {"policy"}


@EVERY
def test_pairs_do_not_see_each_other(objective: Objective) -> None:
    values = quantities(objective)
    together = objective.function(**values, **hyper(objective))
    for pair in range(PAIRS):
        alone = objective.function(
            **{name: value[pair : pair + 1] for name, value in values.items()}, **hyper(objective)
        )
        assert alone.tolist() == together[pair : pair + 1].tolist()


@EVERY
def test_inputs_are_left_untouched(objective: Objective) -> None:
    values = quantities(objective)
    before = {name: value.detach().clone() for name, value in values.items()}
    objective.function(**values, **hyper(objective)).sum().backward()
    assert all(torch.equal(values[name], before[name]) for name in before)


@EVERY
def test_shapes_are_checked(objective: Objective) -> None:
    values = quantities(objective)
    for name in values:
        with pytest.raises(Exception, match=r"(?i)pairs|type hint"):
            objective.function(**{**values, name: values[name].detach()[:-1]}, **hyper(objective))
        with pytest.raises(Exception, match=r"(?i)pairs|type hint"):
            objective.function(**{**values, name: values[name].detach()[:, None]}, **hyper(objective))


@EVERY
def test_its_name_and_all_its_aliases_find_it(objective: Objective) -> None:
    assert all(find_objective(name, "here") is objective for name in (objective.name, *objective.aliases))


def test_no_name_means_two_objectives() -> None:
    names = [name for found in objectives().values() for name in (found.name, *found.aliases)]
    assert len(names) == len(set(names))


@EVERY
def test_defaults_lie_within_their_ranges(objective: Objective) -> None:
    defaults = hyper(objective)
    assert objective.options.model_validate(defaults).model_dump() == defaults


@EVERY
def test_its_source_is_a_paper(objective: Objective) -> None:
    assert re.search(r"arXiv:\d{4}\.\d{5}", objective.source)


@EVERY
def test_every_parameter_and_result_is_described_and_the_example_is_true(objective: Objective) -> None:
    documentation = objective.function.__doc__ or ""
    for name in (*(quantity.name for quantity in objective.quantities), *objective.options.model_fields):
        assert re.search(rf"^ +{name}: \S", documentation, re.MULTILINE), name
    example = doctest.DocTestParser().get_doctest(documentation, {objective.name: objective.function}, "it", None, 0)
    said: list[str] = []
    results = doctest.DocTestRunner(verbose=False).run(example, out=said.append)
    assert results.attempted > 0
    assert said == []


@EVERY
def test_its_quantities_are_ones_that_training_computes(objective: Objective) -> None:
    for quantity in objective.quantities:
        assert quantity.model is None or quantity.model in MODELS
        assert quantity.functional is None or quantity.functional in FUNCTIONALS


def test_an_unknown_name_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(RecipeError) as raised:
        find_objective("dpoo", "mine.yaml: policy.objective.name")
    assert str(raised.value) == (
        "mine.yaml: policy.objective.name is 'dpoo', which is not registered. Did you mean 'dpo'? "
        "Known: dpo, ilr_dpo, length_regularized_dpo, r_dpo, sigmoid."
    )
