"""Several references and mixtures of them, against naive formulas, and as training sees them."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefloop.config import GeometricMixture, HarmonicMixture
from prefloop.errors import CheckFailedError
from prefloop.objectives import find_objective
from prefloop.policy import ModelSource, PolicyFiles, Workbench, response_logps
from prefloop.training import FrozenPolicies, TokenExample, TrainRequest, step_plan, train
from prefloop.training.mixtures import mixed
from prefloop.training.score_cache import ScoreCache

from .test_references import keys_in

RequestFor = Callable[..., TrainRequest]
LOGPS = {"one": [-30.0, -8.0, -0.5], "two": [-31.0, -11.0, -0.4], "three": [-400.0, -7.5, -2000.0]}


def silent(_what: str, _done: int, _count: int) -> None:
    pass


def columns(kind: Callable[[Sequence[float]], Tensor | tuple[Tensor, ...]], name: str) -> list[dict[str, Tensor]]:
    return [{name: kind(values)} for values in LOGPS.values()]  # pyright: ignore[reportReturnType]


def doubles(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_a_geometric_mixture_is_the_weighted_mean_of_log_probabilities_also_of_tokens() -> None:
    settings = GeometricMixture(policies=("a", "b", "c"), weights=(0.5, 0.3, 0.2))
    expected = [sum(w * of[n] for w, of in zip(settings.weights, LOGPS.values(), strict=True)) for n in range(3)]
    found = mixed(columns(doubles, "chosen_logps"), settings)["chosen_logps"]
    assert isinstance(found, Tensor)
    assert found.tolist() == pytest.approx(expected, rel=1e-14)
    tokens = mixed(columns(lambda of: (doubles(of[:2]), doubles(of[2:])), "chosen_token_logps"), settings)
    assert [len(of) for of in tokens["chosen_token_logps"]] == [2, 1]
    assert torch.cat([*tokens["chosen_token_logps"]]).tolist() == pytest.approx(expected, rel=1e-14)


def test_a_harmonic_mixture_is_clipped_near_its_first_policy() -> None:
    """Answers: the others far, near and on both sides; in plain probabilities where those do not underflow."""
    settings = HarmonicMixture(policies=("a", "b", "c"), weights=(0.5, 0.3, 0.2), eta=0.1)
    found = mixed(columns(doubles, "chosen_logps"), settings)["chosen_logps"]
    clipped = [(-30.0, -31.0, -33.0), (-8.0, -8.8, -7.5), (-0.5, -0.45, -0.55)]
    expected = [
        doubles([w / p for w, p in zip(settings.weights, doubles(one).exp().tolist(), strict=True)]).sum().log().neg()
        for one in clipped
    ]
    assert isinstance(found, Tensor)
    assert found.tolist() == pytest.approx([float(one) for one in expected], rel=1e-12)


@pytest.mark.parametrize(
    ("weights", "eta", "expected"),
    [
        ((1.0, 0.0, 0.0), 0.5, LOGPS["one"]),
        ((0.2, 0.3, 0.5), 0.0, LOGPS["one"]),
        ((0, 0, 1.0), 0.1, (-33, -7.5, -0.55)),
    ],
    ids=["all weight on the anchor", "no room", "all weight on the last"],
)
def test_a_harmonic_mixture_at_its_ends(weights: tuple[float, ...], eta: float, expected: Sequence[float]) -> None:
    settings = HarmonicMixture(policies=("a", "b", "c"), weights=weights, eta=eta)
    found = mixed(columns(doubles, "chosen_logps"), settings)["chosen_logps"]
    assert isinstance(found, Tensor)
    assert found.tolist() == pytest.approx([*expected], rel=1e-12)


# ------------------------------------------------------------------------------------------------------ in training


@pytest.fixture
def moved(source: ModelSource, tmp_path: Path) -> tuple[PolicyFiles, PolicyFiles]:
    """Two policies of other weights than the source's."""

    def of(factor: float) -> PolicyFiles:
        directory = tmp_path / f"moved-{factor}"
        shutil.copytree(source.directory, directory)
        (file,) = directory.glob("model*.safetensors")
        save_file({name: tensor * factor for name, tensor in load_file(file).items()}, file, {"format": "pt"})
        return PolicyFiles(directory.name, directory)

    return of(1.01), of(0.97)


def logps(bench: Workbench, policy: PolicyFiles, examples: Sequence[TokenExample], role: str) -> Tensor:
    with bench.for_scoring(policy) as model, torch.no_grad():
        return response_logps(model, [one.rows[role] for one in examples]).double()


def test_training_reads_the_mixture(
    request_for: RequestFor, bench: Workbench, moved: tuple[PolicyFiles, PolicyFiles], tmp_path: Path
) -> None:
    """The first loss is that of the mixed scores; a policy mixed with itself is that policy."""
    request = request_for("run")
    first = [request.examples[index] for index in step_plan(7, 4, 1, request.seed)[0]]
    settings = GeometricMixture(policies=("a", "b"), weights=(0.25, 0.75))
    mixture = FrozenPolicies(moved, settings)
    found = train(replace(request, references={"ref": mixture}), bench, tmp_path / "out", silent)
    ahead = logps(bench, request.start, first, "chosen") - logps(bench, request.start, first, "rejected")
    for weight, policy in zip(settings.weights, moved, strict=True):
        ahead -= weight * (logps(bench, policy, first, "chosen") - logps(bench, policy, first, "rejected"))
    weights = torch.tensor([one.weight for one in first])
    assert found[0]["loss"] == pytest.approx(float((weights * -logsigmoid(0.1 * ahead)).mean()), abs=1e-6)

    itself = FrozenPolicies((moved[0], moved[0]), settings)
    same = train(replace(request_for("same"), references={"ref": itself}), bench, tmp_path / "same", silent)
    alone = train(replace(request_for("alone"), references={"ref": moved[0]}), bench, tmp_path / "alone", silent)
    assert [line["loss"] for line in same] == pytest.approx([line["loss"] for line in alone], abs=1e-6)
    assert found[0]["loss"] != pytest.approx(alone[0]["loss"], abs=1e-4)


def with_mrpo(request: TrainRequest, *further: PolicyFiles, weights: tuple[float, ...]) -> TrainRequest:
    mrpo = find_objective("mrpo", "here")
    hyper = {**mrpo.options().model_dump(), "eta": 0.5, "weights": weights}
    references = {"ref": request.start, "aux_ref": FrozenPolicies(further)}
    return replace(request, objective=mrpo, hyper=hyper, references=references)


def test_mrpo_reads_several_references_in_their_order(
    request_for: RequestFor, bench: Workbench, moved: tuple[PolicyFiles, PolicyFiles], tmp_path: Path
) -> None:
    request = request_for("run")
    found = train(with_mrpo(request, *moved, weights=(0.2, 0.7, 0.1)), bench, tmp_path / "out", silent)
    turned = with_mrpo(request_for("turned"), *moved[::-1], weights=(0.2, 0.1, 0.7))
    swapped = with_mrpo(request_for("swapped"), *moved[::-1], weights=(0.2, 0.7, 0.1))
    assert train(turned, bench, tmp_path / "turned", silent)[0]["loss"] == pytest.approx(found[0]["loss"], abs=1e-6)
    assert train(swapped, bench, tmp_path / "swapped", silent)[0]["loss"] != pytest.approx(found[0]["loss"], abs=1e-4)

    first = [request.examples[index] for index in step_plan(7, 4, 1, request.seed)[0]]
    said = {
        f"{name}_{role}_logps": torch.stack([logps(bench, policy, first, role) for policy in policies], 1)
        for name, policies in (("policy", [request.start]), ("ref", [request.start]), ("aux_ref", moved))
        for role in ("chosen", "rejected")
    }
    whole = {name: values if name.startswith("aux") else values[:, 0] for name, values in said.items()}
    losses = with_mrpo(request, *moved, weights=()).objective.function(
        **whole, beta=0.1, eta=0.5, clip="adaptive", weights=(0.2, 0.7, 0.1)
    )
    weights = torch.tensor([one.weight for one in first])
    assert found[0]["loss"] == pytest.approx(float((weights * losses).mean()), abs=1e-6)


def test_one_of_several_that_is_the_start_policy_is_checked(
    request_for: RequestFor, bench: Workbench, moved: tuple[PolicyFiles, PolicyFiles], tmp_path: Path
) -> None:
    request = with_mrpo(request_for("run"), moved[0], request_for("run").start, weights=(0.2, 0.7, 0.1))
    request = replace(request, references={"ref": moved[0], "aux_ref": request.references["aux_ref"]})
    train(request, bench, tmp_path / "out", silent)
    with ScoreCache.at(request.score_cache) as cache:
        for key in keys_in(request.score_cache):
            found = cache.find(key)
            assert found is not None
            cache.keep(key, {**found, "chosen_logps": [value - 0.01 for value in found["chosen_logps"]]})
    for checkpoint in request.scratch.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    with pytest.raises(CheckFailedError, match=r"aux_ref\.1_chosen_logps of the start policy"):
        train(request, bench, tmp_path / "again", silent)
