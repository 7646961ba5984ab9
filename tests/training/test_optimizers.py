"""Optimisers against their formulas in float64, and that every setting of theirs has its effect."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from prefloop.config import ObjectiveConfig, TrainStep, load_recipe
from prefloop.errors import RecipeError
from prefloop.loop import Progress, run_recipe
from prefloop.policy import Workbench
from prefloop.training import TrainRequest, train
from prefloop.training.optimizers import optimizer_for

RequestFor = Callable[..., TrainRequest]
GRADIENTS = (torch.tensor([0.3, -2.0], dtype=torch.float64), torch.tensor([1.0, 0.5], dtype=torch.float64))
START = torch.tensor([1.0, -1.0], dtype=torch.float64)


def silent(_what: str, _done: int, _count: int) -> None:
    pass


def settings(**changed: Any) -> TrainStep:
    return TrainStep(type="train", objective=ObjectiveConfig(name="dpo"), learning_rate=0.01, **changed)


def stepped(start: torch.Tensor, **changed: Any) -> torch.Tensor:
    """A weight after two steps with the gradients above."""
    weight = torch.nn.Parameter(start.clone())
    optimizer = optimizer_for({"weight": weight}, settings(**changed))
    for gradient in GRADIENTS:
        weight.grad = gradient.expand_as(weight).clone()
        optimizer.step()
    return weight.detach()


def test_rmsprop_divides_by_the_root_of_a_running_mean_that_starts_at_zero() -> None:
    expected, mean = START.clone(), torch.zeros(2, dtype=torch.float64)
    for gradient in GRADIENTS:
        mean = 0.99 * mean + 0.01 * gradient**2
        expected -= 0.01 * gradient / (mean.sqrt() + 1e-8)
    torch.testing.assert_close(stepped(START, optimizer="rmsprop"), expected, rtol=1e-14, atol=0)
    first = (START - stepped(START, optimizer="rmsprop")).abs()
    assert bool((first > 0.05).all())  # ten times the rate in the first step


@pytest.mark.parametrize(
    ("beta1", "beta2", "epsilon"), [(0.9, 0.999, 1e-8), (0.5, 0.999, 1e-8), (0.9, 0.95, 1e-8), (0.9, 0.999, 0.1)]
)
def test_adamw_follows_its_formula_with_the_constants_that_it_is_told(
    beta1: float, beta2: float, epsilon: float
) -> None:
    expected = START.clone()
    mean, square = torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    for number, gradient in enumerate(GRADIENTS, start=1):
        mean = beta1 * mean + (1 - beta1) * gradient
        square = beta2 * square + (1 - beta2) * gradient**2
        root = (square / (1 - beta2**number)).sqrt() + epsilon
        expected -= 0.01 * mean / (1 - beta1**number) / root
    found = stepped(START, adam_beta1=beta1, adam_beta2=beta2, adam_epsilon=epsilon)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_matrices_decay_by_rate_times_decay_and_norms_and_biases_do_not() -> None:
    parameters = {
        "embed.weight": torch.nn.Parameter(torch.full((3, 2), 2.0)),
        "norm.weight": torch.nn.Parameter(torch.full((2,), 2.0)),
        "linear.bias": torch.nn.Parameter(torch.full((2,), 2.0)),
    }
    optimizer = optimizer_for(parameters, settings(weight_decay=0.5))
    for parameter in parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    kept = {name: set(parameter.flatten().tolist()) for name, parameter in parameters.items()}
    (decayed,) = kept.pop("embed.weight")
    assert decayed == pytest.approx(2 * (1 - 0.01 * 0.5), rel=1e-7)
    assert kept == {"norm.weight": {2.0}, "linear.bias": {2.0}}


def test_an_optimiser_needs_no_group_of_its_own_for_what_is_not_there() -> None:
    adapter = {"lora_A": torch.nn.Parameter(torch.ones(2, 3)), "lora_B": torch.nn.Parameter(torch.ones(3, 2))}
    assert len(optimizer_for(adapter, settings(weight_decay=0.5)).param_groups) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"optimizer": "rmsprop", "weight_decay": 0.0},
        {"adam_beta1": 0.5},
        {"adam_beta2": 0.9},
        {"adam_epsilon": 1e-2},
        {"weight_decay": 10.0},
        {"warmup": None, "warmup_steps": 3},
    ],
    ids=str,
)
def test_each_setting_moves_what_is_trained(
    request_for: RequestFor, bench: Workbench, tmp_path: Path, changed: dict[str, Any]
) -> None:
    """The first step's loss is before any of it; AdamW's first step is the same whatever its beta1."""
    plain = train(request_for("plain"), bench, tmp_path / "plain" / "out", silent)
    request = request_for("changed")
    told = TrainStep.model_validate({**request.settings.model_dump(), **changed})
    found = train(replace(request, settings=told), bench, tmp_path / "changed" / "out", silent)
    assert found[0]["loss"] == plain[0]["loss"]
    assert found[2]["loss"] != plain[2]["loss"]


# ------------------------------------------------------------------------------------------------------ as written


@pytest.mark.parametrize("theirs", ["adamw_torch", "adamw_torch_fused", "rmsprop"])
def test_names_of_transformers_are_translated(theirs: str) -> None:
    loaded = load_recipe("offline.tiny", [f"policy.optim={theirs}", "policy.warmup_ratio=0.2"])
    policy = loaded.recipe.step("policy")
    assert isinstance(policy, TrainStep)
    assert (policy.optimizer, policy.warmup) == ("rmsprop" if theirs == "rmsprop" else "adamw", 0.2)
    ours = "rmsprop" if theirs == "rmsprop" else "adamw"
    assert f"policy.optim: {theirs} is read as policy.optimizer: {ours}" in loaded.notes


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["policy={optimizer: rmsprop, weight_decay: 0.1, adam_beta2: 0.95}"],
            "recipe offline.tiny: policy: adam_beta2, weight_decay: of AdamW alone, but optimizer is rmsprop. Remove "
            "it, or set optimizer: adamw.",
        ),
        (
            ["policy={warmup: 0.2, warmup_steps: 10}"],
            "recipe offline.tiny: policy: warmup and warmup_steps both say how long the rate rises. Keep one of them.",
        ),
        (
            ["policy.warmup=null"],
            "recipe offline.tiny: policy: warmup is null, which says nothing. Give a share (0 for none), or "
            "warmup_steps.",
        ),
        (["policy.adam_beta1=1"], "recipe offline.tiny: policy.adam_beta1: Input should be less than 1, found 1."),
        (["policy.optim=lion"], "recipe offline.tiny: policy.optim is 'lion', which has no equal here. "),
    ],
    ids=lambda one: one[0] if isinstance(one, list) else "",
)
def test_what_has_no_effect_is_an_error(overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError) as raised:
        load_recipe("offline.tiny", overrides)
    assert str(raised.value).startswith(message)


def test_in_a_later_layer_steps_take_the_place_of_a_share_and_the_other_way_round() -> None:
    steps = load_recipe("offline.tiny", ["policy.warmup=0.2", "policy.warmup_steps=7"]).recipe.step("policy")
    share = load_recipe("dpo", ["policy.warmup=0.2"]).recipe.step("policy")
    assert isinstance(steps, TrainStep)
    assert isinstance(share, TrainStep)
    assert (steps.warmup, steps.warmup_steps) == (None, 7)
    assert (share.warmup, share.warmup_steps) == (0.2, None)


def test_settings_that_were_written_down_whole_can_be_read_again() -> None:
    for told in (settings(warmup_steps=3), settings(optimizer="rmsprop"), settings()):
        assert TrainStep.model_validate(told.model_dump(mode="json")) == told


def test_dpo_is_trained_as_it_was_published() -> None:
    """arXiv:2305.18290, appendix B."""
    policy = load_recipe("dpo").recipe.step("policy")
    assert isinstance(policy, TrainStep)
    assert (policy.optimizer, policy.learning_rate, policy.batch_size) == ("rmsprop", 1e-6, 64)
    assert (policy.warmup, policy.warmup_steps, policy.schedule) == (None, 150, "constant")


def test_a_warm_up_longer_than_the_round_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded = load_recipe("dpo.tiny", ["policy={epochs: 2, warmup_steps: 24}", "evaluation.suite=null"])
    run_recipe(loaded, tmp_path / "run", Progress())
    assert (
        "round-00/policy: the warm-up takes 24 optimiser steps, but the round has about 12: the learning rate ends at "
        "50% of 0.0001. Lower warmup_steps, or give warmup, a share of the steps." in capsys.readouterr().err
    )
