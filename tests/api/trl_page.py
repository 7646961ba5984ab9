"""The translations of docs/python.md, both sides, in TRL's environment: prints what each logged, as a line of JSON.

python tests/api/trl_page.py docs/python.md
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase


def rendered(rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """Rows whose prompts are what the template makes of them: TRL gives texts to the model as they are."""

    def told(row: dict[str, Any]) -> dict[str, Any]:
        messages = [{"role": "user", "content": row["prompt"]}]
        return {"prompt": tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)}

    return rows.map(told)


def with_prompt(rows: Dataset) -> Dataset:
    """Of rows for a reward model: TRL reads the whole text, which ends with EOS."""
    return rows.map(lambda row: {side: row["prompt"] + row[side] for side in ("chosen", "rejected")}).remove_columns(
        "prompt"
    )


def shortness(completions: list[str], **_: Any) -> list[float]:
    """TRL's reward function that stands for the judge `shorter`."""
    return [-float(len(completion.split())) for completion in completions]


def main() -> None:
    """Runs the first block, then of every translation TRL's block and ours, on `datasets.Dataset`."""
    torch.set_num_threads(1)
    page = Path(sys.argv[1]).read_text(encoding="utf-8")
    first = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert first is not None
    names: dict[str, Any] = {"shortness": shortness}
    exec(first[1], names)
    found: dict[str, Any] = {}
    for title, theirs, block in re.findall(
        r"### (\w+Trainer)\n```trl\n(.*?)```\n\n```python\n(.*?)```", page, re.DOTALL
    ):
        ours = block
        made = re.match(r"(\w+) = (\[.*?^\])\n", block, re.DOTALL | re.MULTILINE) or re.match(r"(\w+) = (.*)\n", block)
        if made is not None and "train(" not in made[2]:
            names[made[1]] = Dataset.from_list(eval(made[2], names))
            ours = block[made.end() :]
        exec(ours, names)
        (trained,) = re.findall(r"^(\w+) = prefloop\.train", block, re.MULTILINE)
        log = names[trained].log
        common = {"logging_steps": 1, "report_to": [], "bf16": False, "use_cpu": True, "save_strategy": "no",
                  "disable_tqdm": True, "gradient_checkpointing": False, "max_length": None}  # fmt: skip
        if title == "OnlineDPOTrainer":
            del common["max_length"]
        rows = {name: rendered(names[name], names["tokenizer"]) for name in ("dataset", "labelled", "questions")
                if name in names}  # fmt: skip
        if title == "RewardTrainer":
            rows["dataset"] = with_prompt(rows["dataset"])
        fresh: dict[str, Any] = {"shortness": shortness}
        exec(first[1], fresh)
        scope = {**names, **rows, "common": common, "model": fresh["model"]}
        exec(theirs, scope)
        steps = [line for line in scope["trainer"].state.log_history if "loss" in line]
        found[title] = {"ours": log, "trl": steps}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
