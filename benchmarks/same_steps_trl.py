"""TRL's side of same_steps.py: DPO steps of TRL's own trainer, run in TRL's environment. Prints a line of JSON.

build/trl/bin/python benchmarks/same_steps_trl.py ROWS.json MODEL --rate 1e-5 --batch 4 --threads 2

With `--gradient FILE` nothing is trained: the gradient of the first batch's loss goes to a safetensors file.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import torch
from datasets import Dataset
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer


def main() -> None:
    """Trains on rows in the order given, and tells the tokens and what was logged at each step."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rows")
    parser.add_argument("model")
    parser.add_argument("--rate", type=float, default=1e-6)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--gradient")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        config = DPOConfig(
            output_dir=folder,
            per_device_train_batch_size=options.batch,
            train_sampling_strategy="sequential",
            num_train_epochs=1,
            beta=0.1,
            max_length=None,
            optim="adamw_torch_fused",
            learning_rate=options.rate,
            lr_scheduler_type="constant",
            adam_beta1=0.9,
            adam_beta2=0.999,
            adam_epsilon=1e-8,
            weight_decay=0.0,
            max_grad_norm=1.0,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            logging_steps=1,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = DPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32),
            args=config,
            train_dataset=Dataset.from_list(json.loads(Path(options.rows).read_text())),
            processing_class=AutoTokenizer.from_pretrained(options.model),
        )
        if options.gradient:
            write_gradient(trainer, options.gradient)
            return
        trainer.train()
    data = trainer.train_dataset
    ids = [data[name] for name in ("prompt_ids", "chosen_ids", "rejected_ids")]
    steps = [line for line in trainer.state.log_history if "loss" in line]
    sys.stdout.write(json.dumps({"ids": list(zip(*map(list, ids), strict=True)), "steps": steps}) + "\n")


def write_gradient(trainer: DPOTrainer, file: str) -> None:
    """Of the loss of the first batch by all weights, as TRL computes both."""
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.compute_loss(trainer.model, batch).backward()
    save_file({name: one.grad for name, one in trainer.model.named_parameters()}, file)


if __name__ == "__main__":
    main()
