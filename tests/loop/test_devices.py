"""Where models are held."""

from pathlib import Path

import pytest
import torch

from prefloop.config import MachineConfig, load_recipe
from prefloop.errors import RecipeError
from prefloop.loop import Progress, run_recipe
from prefloop.loop.steps import Resources, devices_here
from prefloop.policy import resolve_model


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, ["cuda", "mps", "cpu"]), (False, True, ["mps", "cpu"]), (False, False, ["cpu"])],
)
def test_auto_takes_the_fastest_device_that_torch_sees(
    cuda: bool, mps: bool, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert devices_here() == expected
    source = resolve_model("builtin:tiny")
    for wanted in ("auto", *expected):
        bench = Resources(source, {}, MachineConfig(device=wanted)).bench
        assert bench.device.type == (expected[0] if wanted == "auto" else wanted)


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_said_before_anything_is_made(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prefloop.loop.run.devices_here", lambda: ["cpu"])
    loaded = load_recipe("quickstart.tiny", [f"machine.device={device}"])
    with pytest.raises(RecipeError) as raised:
        run_recipe(loaded, tmp_path / "run", Progress())
    assert str(raised.value).endswith(f"machine.device is {device}, but torch sees no such device. Use auto or cpu.")
    assert not (tmp_path / "run").exists()
