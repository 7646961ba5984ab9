"""One arm of train_speed.py: DPO steps of TRL's trainer, run in TRL's own environment. Prints a line of JSON.

TRL_ENVIRONMENT/bin/python benchmarks/train_speed_trl.py PAIRS.json MODEL --tuned --lora --threads 2
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer

BATCH, WARM_UP, MAX_LENGTH, RATE = 4, 2, 1024, 1e-6


class Clock(TrainerCallback):
    """When each optimiser step ended, and its loss."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.losses: list[float] = []

    def on_step_end(self, args, state, control, **others) -> None:  # noqa: ARG002, D102
        self.times.append(time.perf_counter())

    def on_log(self, args, state, control, logs, **others) -> None:  # noqa: ARG002, D102
        self.losses += [logs["loss"]] if "loss" in logs else []


def main() -> None:
    """Trains one epoch and says how fast; the steps that warm up are not timed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("pairs")
    parser.add_argument("model")
    parser.add_argument("--tuned", action="store_true")
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = json.loads(Path(options.pairs).read_text())
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        config = DPOConfig(
            output_dir=folder,
            per_device_train_batch_size=1 if options.tuned else BATCH,
            gradient_accumulation_steps=BATCH if options.tuned else 1,
            precompute_ref_log_probs=options.tuned,
            gradient_checkpointing=False,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            max_length=MAX_LENGTH,
            num_train_epochs=1,
            train_sampling_strategy="sequential",
            logging_steps=1,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            bf16=False,
            beta=0.1,
            disable_tqdm=True,
        )
        trainer = DPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32),
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(options.model),
            callbacks=[clock],
            peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
            if options.lora
            else None,
        )
        trainer.train()
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e9
    speed = (len(rows) - WARM_UP * BATCH) / (clock.times[-1] - clock.times[WARM_UP - 1])
    sys.stdout.write(json.dumps({"pairs_per_second": speed, "peak_gb": peak, "losses": clock.losses}) + "\n")


if __name__ == "__main__":
    main()
