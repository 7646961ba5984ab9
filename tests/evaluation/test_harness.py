"""lm-evaluation-harness on a local task: its accuracy is our own log-likelihoods' choice, and losses are flagged."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from prefloop.cli.evaluate import write_plot
from prefloop.cli.evaluate_harness import lm_eval_command
from prefloop.errors import DataError
from prefloop.evaluation.harness import HarnessSettings, before_after, run_harness
from prefloop.policy import TokenRow, resolve_model, score_rows
from prefloop.policy.exported_policy import export_policy, whole_policy

TASK = """task: sums
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{question}} A:"
doc_to_choice: [" one", " two", " three"]
target_delimiter: ""
doc_to_target: "{{right}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
metadata: {version: 1.0}
"""
ITEMS = [{"question": f"what is {a} and {b}?", "right": (a + b) % 3} for a in range(5) for b in range(4)]


def result(value: float, error: float | None = 0.01, **changes: Any) -> dict[str, Any]:
    told = {"versions": {"t": 1}, "n-shot": {"t": 0}, "chat_template": False, "limit": None, "seed": 0}
    metrics = {"t": {"acc,none": {"value": value, "standard_error": error}}}
    return {"results": metrics, "lm_eval_version": "0.4.13", **told, **changes}


@pytest.mark.parametrize(
    ("after", "lost"), [(0.46, True), (0.48, False), (0.5 - 2.01 * 0.0141422, True), (0.5 - 1.99 * 0.0141422, False)]
)
def test_a_loss_of_more_than_two_standard_errors_is_flagged(after: float, lost: bool) -> None:
    (row,) = before_after(result(0.5), result(after))
    assert row["lost"] is lost
    assert row["standard_error"] == pytest.approx(0.0141421356)
    assert row["interval"] == pytest.approx([after - 0.5 - 1.96 * 0.0141421, after - 0.5 + 1.96 * 0.0141421], abs=1e-5)
    risen = before_after(result(after), result(0.5, higher_is_better={"t": {"acc": False}}))
    assert risen[0]["lost"] is lost
    assert before_after(result(after), result(0.5))[0]["lost"] is False


def test_without_a_standard_error_nothing_is_flagged() -> None:
    assert before_after(result(0.5, None), result(0.1))[0]["lost"] is False


@pytest.mark.parametrize(
    "change", [{"limit": 6}, {"chat_template": True}, {"n-shot": {"t": 5}}, {"versions": {"t": 2}}]
)
def test_results_that_were_made_in_another_way_are_not_compared(change: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=f"differ in {next(iter(change))}"):
        before_after(result(0.5), result(0.5, **change))


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
def test_its_accuracy_is_that_of_our_own_log_likelihoods(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: pip install 'prefloop[harness]'")
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in ITEMS))
    (tmp_path / "sums.yaml").write_text(TASK.replace("FILE", str(tmp_path / "items.jsonl")))
    found = run_harness("builtin:tiny", HarnessSettings(("sums",), tmp_path))

    directory = resolve_model("builtin:tiny").directory
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    right = 0
    for item in ITEMS:
        context = f"{item['question']} A:"
        asked = tokenizer(context, add_special_tokens=False).input_ids
        rows = []
        for choice in (" one", " two", " three"):
            whole = tokenizer(context + choice, add_special_tokens=False).input_ids
            answer = tuple(whole[len(asked) :])
            rows.append(TokenRow(tuple(asked), answer, (True,) * len(answer)))
        logps = list(score_rows(model, rows, 4096))
        right += max(range(3), key=logps.__getitem__) == item["right"]
    assert found["results"]["sums"]["acc,none"]["value"] == pytest.approx(right / len(ITEMS))
    assert found["samples"]["sums"]["effective"] == len(ITEMS)
    accuracy = found["results"]["sums"]["acc,none"]
    assert accuracy["n"] == len(ITEMS)
    assert accuracy["interval"][1] - accuracy["value"] == pytest.approx(1.959964 * accuracy["standard_error"])
    assert found["higher_is_better"]["sums"] == {"acc": True}
    plot = tmp_path / "sums.svg"
    write_plot(plot, found)
    assert "sums, acc: " in plot.read_text()
    assert (found["versions"]["sums"], found["n-shot"]["sums"], found["limit"]) == (1.0, 0, None)
    limited = run_harness("builtin:tiny", HarnessSettings(("sums",), tmp_path, limit=5))
    assert limited["samples"]["sums"]["effective"] == 5
    with pytest.raises(DataError, match="no task is called 'summs'"):
        run_harness("builtin:tiny", HarnessSettings(("summs",), tmp_path))


def adapted(directory: Path) -> Path:
    """An adapter of builtin:tiny that moves every logit, as a run writes one: its base is named as recipes name it."""
    base = AutoModelForCausalLM.from_pretrained(resolve_model("builtin:tiny").directory, dtype=torch.float32)
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    torch.manual_seed(0)
    model = get_peft_model(base, config)
    model.peft_config["default"].base_model_name_or_path = "builtin:tiny"
    model.save_pretrained(str(directory), save_embedding_layers=False)
    return directory


def test_an_adapter_is_evaluated_merged_into_the_base_that_it_names(tmp_path: Path) -> None:
    base, whole = whole_policy("builtin:tiny"), whole_policy(str(adapted(tmp_path / "adapter")))
    unmerged = AutoModelForCausalLM.from_pretrained(base.directory, dtype=torch.float32).eval()
    with_adapter = PeftModel.from_pretrained(unmerged, str(tmp_path / "adapter")).eval()
    ids = torch.arange(3, 11)[None]
    with torch.no_grad():
        found, expected, without = (one(ids).logits for one in (whole.model, with_adapter, base.model))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (found - without).abs().max().item() > 0.1
    assert whole.directory == base.directory  # the adapter brings no tokenizer
    assert not hasattr(whole.model, "peft_config")


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
def test_the_harness_takes_the_directory_of_an_adapter(tmp_path: Path) -> None:
    """The same results as of the whole model that the adapter is exported as, and others than of its base."""
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: pip install 'prefloop[harness]'")
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in ITEMS))
    task = TASK.replace("metric: acc", "metric: acc_norm")
    (tmp_path / "sums.yaml").write_text(task.replace("FILE", str(tmp_path / "items.jsonl")))
    adapter = adapted(tmp_path / "adapter")
    export_policy(adapter, tmp_path / "whole", merged=True)
    shutil.copytree(resolve_model("builtin:tiny").directory, tmp_path / "tokenizer")
    for file in (tmp_path / "tokenizer").glob("*token*"):
        shutil.copy(file, tmp_path / "whole")
    settings = HarnessSettings(("sums",), tmp_path)
    names = (str(adapter), str(tmp_path / "whole"), "builtin:tiny")
    of_adapter, of_whole, of_base = (run_harness(name, settings)["results"]["sums"] for name in names)
    assert of_adapter == of_whole != of_base


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"folder": "none"}, "--folder none: there is no such folder."),
        ({"before": "5"}, "--before before.json: is no result of these tasks."),
        ({"before": '{"results": []}'}, "--before before.json: is no result of these tasks."),
    ],
)
def test_wrong_files_are_said_before_a_model_is_loaded(tmp_path: Path, told: dict[str, str], said: str) -> None:
    before = tmp_path / "before.json"
    before.write_text(told.get("before", '{"results": {}}'))
    folder = Path(told["folder"]) if "folder" in told else None
    with pytest.raises(DataError) as caught:
        lm_eval_command("builtin:tiny", HarnessSettings(("sums",), folder), before)
    assert said in str(caught.value)
