"""The average of a policy's weights in a run: what its name means, who reads it, and what keeps it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from prefloop.errors import RecipeError
from prefloop.loop import RunResult
from prefloop.loop.gc import removable
from prefloop.loop.journal import Journal
from prefloop.loop.why import stories
from prefloop.records import Example, Response, read_folder

pytestmark = pytest.mark.long

SmallRun = Callable[..., RunResult]


def weights(policy: Path) -> dict[str, torch.Tensor]:
    (file,) = (policy / "model").glob("*model.safetensors")
    return load_file(file)


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(weight, other[name]) for name, weight in one.items())


def inputs(run: Path, path: str) -> dict[str, list[str]]:
    journal = Journal(run, read_only=True)
    entry = journal.at(path)
    journal.close()
    assert entry is not None
    assert entry.made_from is not None
    found: Any = entry.made_from["inputs"]
    return found


AVERAGED = ("policy.ema_decay=0.5", "samples.policy=current.ema", "policy.references={ref: round_start.ema}")
TWO_BLOCKS = ("rounds=2", "blocks=2", *AVERAGED)


def test_the_average_answers_is_the_reference_and_goes_on_over_blocks_and_rounds(small_run: SmallRun) -> None:
    run = small_run(*TWO_BLOCKS, "gate={action: warn}").run
    places = [f"round-{number:02d}/block-{block:02d}" for number in range(2) for block in range(2)]
    trained = [inputs(run, f"{place}/policy") for place in places]
    journal = Journal(run, read_only=True)
    policies = [entry.identity for place in places if (entry := journal.at(f"{place}/policy")) is not None]
    journal.close()
    model = trained[0]["start"]
    assert "average" not in trained[0]
    assert [one["average"] for one in trained[1:]] == [[f"{policy}.ema"] for policy in policies[:-1]]
    assert [one["ref"] for one in trained] == [model, model, [f"{policies[1]}.ema"], [f"{policies[1]}.ema"]]
    answered = [inputs(run, f"{place}/samples")["policy"] for place in places]
    assert answered == [model, *([f"{policy}.ema"] for policy in policies[:-1])]
    said = {one.policy for one in read_folder(run / places[1] / "samples", Response)}
    assert said == {f"{policies[0]}.ema"}
    for place in places:
        assert not equal(weights(run / place / "policy"), weights(run / place / "policy" / "ema"))


def test_another_decay_is_another_policy_and_a_run_without_an_average_keeps_its_identities(small_run: SmallRun) -> None:
    plain = small_run(until="policy").run
    assert not (plain / "round-00" / "policy" / "ema").exists()
    first = weights(plain / "round-00" / "policy")
    assert small_run("policy.ema_decay=0.5", until="policy").made == ("round-00/policy",)
    assert equal(first, weights(plain / "round-00" / "policy"))
    assert not equal(first, weights(plain / "round-00" / "policy" / "ema"))
    assert small_run("policy.ema_decay=0", until="policy").made == ("round-00/policy",)
    assert equal(first, weights(plain / "round-00" / "policy" / "ema"))


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (("samples.policy=current.ema",), r"samples: 'current.ema': policy keeps no average of its weights. Give it"),
        (("policy.references={ref: initial.ema}",), r"'initial.ema': policy keeps no average of its weights"),
        (("policy.ema_decay=1.5",), r"policy.ema_decay: .*less than or equal to 1"),
    ],
)
def test_an_average_that_nobody_keeps_is_said_before_the_run(
    small_run: SmallRun, told: tuple[str, ...], line: str
) -> None:
    with pytest.raises(RecipeError, match=line):
        small_run(*told)


def test_why_names_the_average_that_gave_an_answer(small_run: SmallRun) -> None:
    run = small_run("blocks=2", *AVERAGED).run
    example = next(iter(read_folder(run / "round-00" / "block-01" / "pairs", Example)))
    (story,) = stories(run, example.example_id)
    assert {answer.sampler.name for answer in story.answers} == {"round-00/block-00/policy/ema"}


def test_averages_of_refused_rounds_can_go(small_run: SmallRun) -> None:
    run = small_run("policy.ema_decay=0.5", "gate={require: better}", "policy.learning_rate=1e-9").run
    journal = Journal(run, read_only=True)
    found = [one.path for one in removable(run, journal) if "rolled back" in one.why]
    journal.close()
    assert found == ["round-00/policy/model", "round-00/policy/ema"]
