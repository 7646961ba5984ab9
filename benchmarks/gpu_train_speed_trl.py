"""One arm of gpu_train_speed.py: DPO steps of TRL's trainer. Prints a line of JSON."""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import torch
from datasets import Dataset
from gpu_train_speed import BETA, MAX_LENGTH, RATE, STEP, random_model
from peft import LoraConfig
from transformers import AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer


class Clock(TrainerCallback):
    """When each optimiser step ended, and its loss."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.losses: list[float] = []

    def on_step_end(self, args, state, control, **others) -> None:  # noqa: ARG002, D102
        torch.cuda.synchronize()
        self.times.append(time.perf_counter())

    def on_log(self, args, state, control, logs, **others) -> None:  # noqa: ARG002, D102
        self.losses += [logs["loss"]] if "loss" in logs else []


def main() -> None:
    """Trains one epoch and says how fast; the first step is not timed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=("full", "lora"))
    parser.add_argument("pairs")
    parser.add_argument("--tokenizer")
    parser.add_argument("--arm")
    options = parser.parse_args()
    kind, batch = options.arm.split()
    lora = options.task == "lora"
    rows = json.loads(Path(options.pairs).read_text())
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        config = DPOConfig(
            output_dir=folder,
            per_device_train_batch_size=int(batch),
            gradient_accumulation_steps=STEP // int(batch),
            precompute_ref_log_probs=True,
            gradient_checkpointing=False,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            max_length=MAX_LENGTH,
            num_train_epochs=1,
            train_sampling_strategy="sequential",
            logging_steps=1,
            report_to=[],
            save_strategy="no",
            bf16=True,
            beta=BETA,
            use_liger_kernel="liger" in kind,
            disable_tqdm=True,
        )
        trainer = DPOTrainer(
            model=random_model(options.task),
            args=config,
            train_dataset=Dataset.from_list(rows[: len(rows) // STEP * STEP]),
            processing_class=AutoTokenizer.from_pretrained(options.tokenizer),
            callbacks=[clock],
            peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
            if lora
            else None,
        )
        trainer.train()
    speed = STEP * (len(clock.times) - 1) / (clock.times[-1] - clock.times[0])
    found = {"pairs": speed, "gb": torch.cuda.max_memory_allocated() / 1e9, "losses": clock.losses}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
