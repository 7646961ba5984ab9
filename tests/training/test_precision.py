"""A train step whose layers compute in bfloat16."""

from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from prefloop.config import LoraConfig
from prefloop.errors import CheckFailedError
from prefloop.policy import Workbench
from prefloop.training import ROWS, TREES, Layout, TrainRequest, train

RequestFor = Callable[..., TrainRequest]
LORA = LoraConfig(r=4, alpha=8)


def silent(_what: str, _done: int, _count: int) -> None:
    pass


def at_step_3(what: str, done: int, _count: int) -> None:
    if (what, done) == ("train", 3):
        raise KeyboardInterrupt


@pytest.mark.long
@pytest.mark.parametrize("layout", [ROWS, TREES], ids=["rows", "trees"])
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_it_starts_at_its_reference_learns_about_the_same_and_can_be_killed(
    request_for: RequestFor, bench: Workbench, tmp_path: Path, lora: LoraConfig | None, layout: Layout
) -> None:
    asked = {"lora": lora, "layout": layout, "learning_rate": 3e-3}
    exact = train(request_for("exact", **asked), bench, tmp_path / "exact" / "out", silent)
    whole = train(request_for("whole", **asked, precision="bfloat16"), bench, tmp_path / "whole" / "out", silent)
    cut = request_for("cut", **asked, precision="bfloat16")
    with pytest.raises(KeyboardInterrupt):
        train(cut, bench, tmp_path / "cut" / "out", at_step_3)
    assert train(cut, bench, tmp_path / "cut" / "out", silent) == whole
    assert whole[0]["rewards/margins"] == pytest.approx(0, abs=1e-9)  # the same rounding in the same layout
    (saved,) = (tmp_path / "whole" / "out").glob("*model.safetensors")
    assert {tensor.dtype for tensor in load_file(saved).values()} == {torch.float32}
    assert (tmp_path / "cut" / "out" / saved.name).read_bytes() == saved.read_bytes()
    for line, precise in zip(whole[1:], exact[1:], strict=True):
        assert line["loss"] == pytest.approx(precise["loss"], rel=0.05)
        assert line["loss"] != precise["loss"]


def test_a_reference_in_another_precision_stops_it(
    request_for: RequestFor, bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scoring = bench.for_scoring

    @contextmanager
    def always_float32(policy, *_):
        with scoring(policy) as model:
            yield model

    monkeypatch.setattr(bench, "for_scoring", always_float32)
    with pytest.raises(CheckFailedError, match="ref_chosen_logps of the start policy"):
        train(request_for("run", precision="bfloat16"), bench, tmp_path / "out", silent)
