"""docs/python.md: its blocks run in order, and its table is that of the code."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from prefloop.api.trl_names import TRL_NAMES, loss_types

PAGE = (Path(__file__).parents[2] / "docs/python.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.long
def test_the_blocks_of_the_page_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    names: dict[str, Any] = {}
    for block in BLOCKS:
        exec(compile(block, "docs/python.md", "exec"), names)

    assert len(BLOCKS) >= 10
    assert names["dpo"].log[0]["loss"] == pytest.approx(0.693147, abs=1e-6)
    assert names["kto"].log[0]["loss"] == pytest.approx(0.625, abs=1e-6)  # (1.5 + 1) / 2 / 2
    assert names["reward"].log[-1]["rewards/accuracies"] == 1.0
    assert (tmp_path / "runs/from-python/round-00").is_dir()


def test_the_table_names_every_name_with_its_effect() -> None:
    table = dict(re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", PAGE, re.MULTILINE))

    assert table == {name: known.effect for name, known in TRL_NAMES.items()}


def test_loss_types_are_read_off_the_registry() -> None:
    of_dpo = loss_types("DPOTrainer")

    assert (of_dpo["sigmoid"], of_dpo["ipo"], of_dpo["robust"]) == ("dpo", "ipo_per_token", "robust_dpo")
    assert loss_types("KTOTrainer") == {"kto": "kto", "apo_zero_unpaired": "apo_zero_unpaired"}
