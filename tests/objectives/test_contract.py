"""What every objective promises; a new one is picked up from the registry."""

import doctest
import re
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from prefloop.errors import RecipeError
from prefloop.objectives import FUNCTIONALS, MODELS, Objective, find_objective, objectives
from prefloop.testing.drawn import PAIRS, Values, at_extremes, quantities, variants

EVERY = pytest.mark.parametrize("objective", objectives().values(), ids=objectives())
Hyper = dict[str, Any]


def each_choice() -> list[Any]:
    """Every objective with its defaults, and with every other choice of a hyper-parameter."""
    found: list[Any] = []
    for name, objective in objectives().items():
        defaults = objective.options().model_dump()
        for hyper in variants(objective):
            changed = ",".join(f"{key}={value}" for key, value in hyper.items() if value != defaults[key])
            found.append(pytest.param(objective, hyper, id=f"{name}:{changed}" if changed else name))
    return found


EVERY_CHOICE = pytest.mark.parametrize(("objective", "hyper"), each_choice())


def learnt(objective: Objective) -> list[str]:
    return [quantity.name for quantity in objective.quantities if quantity.gradient]


def per_example(objective: Objective) -> list[str]:
    """Names of what has a value for each example."""
    return [quantity.name for quantity in objective.quantities if quantity.shape.startswith("pairs")]


def gradients(losses: Tensor, values: Values, objective: Objective) -> dict[str, Tensor]:
    names = learnt(objective)
    found = torch.autograd.grad(losses.sum(), [values[name] for name in names], allow_unused=True)
    return {
        name: torch.zeros_like(values[name]) if grad is None else grad for name, grad in zip(names, found, strict=True)
    }


@EVERY_CHOICE
def test_one_finite_loss_an_example_comes_back(objective: Objective, hyper: Hyper) -> None:
    losses = objective.function(**quantities(objective, hyper), **hyper)
    assert losses.shape == (PAIRS,)
    assert bool(losses.isfinite().all())


@EVERY_CHOICE
def test_loss_and_gradient_stay_finite_at_extreme_gaps(objective: Objective, hyper: Hyper) -> None:
    """What a model computes moves far away, one quantity after the other.

    A formula that is an exponential is held to 200 nats in float64, which is what training gives.
    """
    ordinary = [(torch.float32, 200.0), (torch.float32, 10_000.0), (torch.float64, 10_000.0)]
    for dtype, gap in ordinary if objective.exponential is None else [(torch.float64, 200.0)]:
        for moved, values in at_extremes(objective, quantities(objective, hyper, dtype), gap):
            losses = objective.function(**values, **hyper)
            assert bool(losses.isfinite().all()), (dtype, moved)
            for name, grad in gradients(losses, values, objective).items():
                assert bool(grad.isfinite().all()), (dtype, moved, name)


class Held(TorchFunctionMode):
    """Whatever is detached keeps the value that it had in the first call: what autograd takes it for."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Tensor] = []
        self.next: int | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func is not Tensor.detach:
            return found
        if self.next is None:
            self.kept.append(found.clone())
            return found
        self.next += 1
        return self.kept[self.next - 1]


@EVERY_CHOICE
def test_gradients_equal_finite_differences(objective: Objective, hyper: Hyper) -> None:
    values = quantities(objective, hyper)
    names = learnt(objective)
    held = Held()
    with held:
        objective.function(**values, **hyper)

    def losses(*changed: Tensor) -> Tensor:
        held.next = 0
        with held:
            return objective.function(**{**values, **dict(zip(names, changed, strict=True))}, **hyper)

    learnt_values = tuple(values[name] for name in names)
    assert torch.autograd.gradcheck(losses, learnt_values, eps=1e-5, atol=1e-7, rtol=1e-5, fast_mode=True)


@EVERY
def test_only_what_the_policy_computes_takes_gradient(objective: Objective) -> None:
    assert {quantity.model for quantity in objective.quantities if quantity.gradient} == {"policy"}


@EVERY
def test_the_loss_learns_from_what_the_policy_computes(objective: Objective) -> None:
    hyper = objective.options().model_dump()
    values = quantities(objective, hyper)
    found = gradients(objective.function(**values, **hyper), values, objective)
    assert any(bool((grad != 0).any()) for grad in found.values())


@EVERY_CHOICE
def test_examples_do_not_see_each_other_unless_it_says_so(objective: Objective, hyper: Hyper) -> None:
    """To 1e-12: vector units round differently for other counts."""
    if objective.couples_batch:
        return
    values = quantities(objective, hyper)
    together = objective.function(**values, **hyper)
    alone: list[float] = []
    for pair in range(PAIRS):
        one = {name: values[name][pair : pair + 1] for name in per_example(objective)}
        alone += objective.function(**{**values, **one}, **hyper).tolist()
    assert alone == pytest.approx(together.tolist(), rel=1e-12, abs=1e-12)


@EVERY_CHOICE
def test_the_order_of_the_examples_does_not_matter(objective: Objective, hyper: Hyper) -> None:
    """The same losses come back, and each example has the same gradient."""
    values = quantities(objective, hyper)
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    mixed = {name: values[name].detach()[order] for name in per_example(objective)}
    mixed = {**values, **{name: mixed[name].requires_grad_(name in learnt(objective)) for name in mixed}}
    losses, others = (objective.function(**given, **hyper) for given in (values, mixed))
    assert sorted(others.tolist()) == pytest.approx(sorted(losses.tolist()), rel=1e-12, abs=1e-12)
    expected, found = gradients(losses, values, objective), gradients(others, mixed, objective)
    for name in learnt(objective):
        torch.testing.assert_close(found[name], expected[name][order], rtol=1e-12, atol=1e-12)


@EVERY_CHOICE
def test_inputs_are_left_untouched(objective: Objective, hyper: Hyper) -> None:
    values = quantities(objective, hyper)
    before = {name: value.detach().clone() for name, value in values.items() if isinstance(value, Tensor)}
    objective.function(**values, **hyper).sum().backward()
    assert all(torch.equal(values[name], before[name]) for name in before)


@EVERY
def test_a_wrong_shape_is_an_error_that_names_the_argument(objective: Objective) -> None:
    hyper = objective.options().model_dump()
    values = {
        name: value.detach() if isinstance(value, Tensor) else value
        for name, value in quantities(objective, hyper).items()
    }
    for name in per_example(objective):
        for wrong in (values[name][:-1], values[name][:, None]):
            with pytest.raises(Exception, match=name):
                objective.function(**{**values, name: wrong}, **hyper)


@EVERY
def test_a_wrong_dtype_is_an_error_that_names_the_argument(objective: Objective) -> None:
    hyper = objective.options().model_dump()
    values = quantities(objective, hyper)
    for quantity in objective.quantities:
        if quantity.what.kind != "state":
            wrong = values[quantity.name].detach() > 0 if quantity.what.kind != "bool" else torch.zeros(PAIRS)
            with pytest.raises(Exception, match=quantity.name):
                objective.function(**{**values, quantity.name: wrong}, **hyper)


@EVERY_CHOICE
def test_float32_is_as_good_as_its_numbers(objective: Objective, hyper: Hyper) -> None:
    single, double = (
        objective.function(**quantities(objective, hyper, dtype), **hyper) for dtype in (torch.float32, torch.float64)
    )
    assert single.dtype == torch.float32
    assert single.tolist() == pytest.approx(double.tolist(), rel=1e-5)


@EVERY_CHOICE
def test_the_value_at_the_reference_is_what_it_says(objective: Objective, hyper: Hyper) -> None:
    if objective.at_reference is None:
        return
    values = quantities(objective, hyper)
    for quantity in objective.quantities:
        if quantity.model is None or quantity.functional == "state":
            continue
        role = f"{quantity.role}_" if quantity.role else ""
        reference = values.get(f"ref_{role}{quantity.functional}", torch.zeros_like(values[quantity.name]))
        values[quantity.name] = (
            reference.detach().view(-1, 1).expand_as(values[quantity.name])
            if (quantity.model == "aux_ref")
            else reference.detach()
        )
    if objective.state is not None:
        values["state"] = objective.updated(objective.state.initial(hyper), values, hyper)
    losses = objective.function(**values, **hyper)
    found = [losses.mean().item()] if objective.couples_batch else losses.tolist()
    assert found == pytest.approx([objective.at_reference(hyper)] * len(found), rel=1e-12, abs=1e-12)


@EVERY
def test_the_next_state_is_computed_without_gradient_from_what_the_objective_reads(objective: Objective) -> None:
    hyper = objective.options().model_dump()
    values = quantities(objective, hyper)
    if objective.state is not None:
        made = objective.updated(values["state"], values, hyper)
        assert type(made) is objective.state
        assert made != values["state"]
        assert not any(isinstance(field, Tensor) and field.requires_grad for field in vars(made).values())
    assert (objective.state is not None) == ("state" in values)


@EVERY
def test_its_name_and_all_its_aliases_find_it(objective: Objective) -> None:
    assert all(find_objective(name, "here") is objective for name in (objective.name, *objective.aliases))


def test_no_name_means_two_objectives() -> None:
    names = [name for found in objectives().values() for name in (found.name, *found.aliases)]
    assert len(names) == len(set(names))


@EVERY
def test_defaults_lie_within_their_ranges(objective: Objective) -> None:
    defaults = objective.options().model_dump()
    assert objective.options.model_validate(defaults).model_dump() == defaults


@EVERY
def test_its_source_is_a_paper(objective: Objective) -> None:
    assert re.search(r"arXiv:\d{4}\.\d{5}", objective.source)


@EVERY
def test_every_parameter_and_result_is_described_and_the_example_is_true(objective: Objective) -> None:
    documentation = objective.function.__doc__ or ""
    for name in (*(quantity.name for quantity in objective.quantities), *objective.options.model_fields):
        assert re.search(rf"^ +{name}: \S", documentation, re.MULTILINE), name
    for section in ("Limits:", "Args:", "Returns:", "Example:"):
        assert re.search(rf"^ +{section}", documentation, re.MULTILINE), section
    example = doctest.DocTestParser().get_doctest(documentation, {objective.name: objective.function}, "it", None, 0)
    said: list[str] = []
    results = doctest.DocTestRunner(verbose=False).run(example, out=said.append)
    assert results.attempted > 0
    assert said == []


@EVERY
def test_what_it_is_called_elsewhere_translates_its_own_parameters(objective: Objective) -> None:
    for there in objective.elsewhere:
        assert set(there.parameters) <= set(objective.options.model_fields), there


@EVERY
def test_its_quantities_are_in_the_vocabulary(objective: Objective) -> None:
    for quantity in objective.quantities:
        assert quantity.model is None or quantity.model in MODELS
        assert quantity.functional in FUNCTIONALS


def test_an_unknown_name_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(RecipeError) as raised:
        find_objective("dpoo", "mine.yaml: policy.objective.name")
    assert str(raised.value) == (
        "mine.yaml: policy.objective.name is 'dpoo', which is not registered. Did you mean 'dpo'? "
        "`prefloop objectives` lists all."
    )


IMPORTED = """
import sys, torch
before = set(sys.modules)
import prefloop.objectives
print(*sorted({name.split(".")[0] for name in set(sys.modules) - before}))
"""


@pytest.mark.slow
def test_importing_objectives_imports_torch_and_nothing_heavier() -> None:
    found = subprocess.run([sys.executable, "-c", IMPORTED], check=True, capture_output=True, text=True).stdout.split()
    assert not {"scipy", "transformers", "peft", "accelerate", "safetensors", "rich", "typer", "jinja2"} & set(found)
    assert {"prefloop", "pydantic", "jaxtyping"} <= set(found)
