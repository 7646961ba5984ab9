"""TRL's side of same_steps.py: steps of one of TRL's own trainers, run in TRL's environment. Prints a line of JSON.

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
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    Trainer,
)
from trl import (
    DPOConfig,
    DPOTrainer,
    KTOConfig,
    KTOTrainer,
    RewardConfig,
    RewardTrainer,
    SFTConfig,
    SFTTrainer,
)

TRAINERS = {
    "dpo": (DPOTrainer, DPOConfig, {"beta": 0.1}, ("prompt_ids", "chosen_ids", "rejected_ids")),
    "sft": (SFTTrainer, SFTConfig, {"loss_type": "nll"}, ("input_ids",)),
    "kto": (KTOTrainer, KTOConfig, {"beta": 0.1, "desirable_weight": 1.5}, ("prompt_ids", "completion_ids")),
    "reward": (RewardTrainer, RewardConfig, {"center_rewards_coefficient": 0.01}, ("chosen_ids", "rejected_ids")),
}
"""By name: trainer, settings, what of them is its own, and where it keeps the tokens of a row."""


def main() -> None:
    """Trains on rows in the order given, and tells the tokens and what was logged at each step."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rows")
    parser.add_argument("model")
    parser.add_argument("--rate", type=float, default=1e-6)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--gradient")
    parser.add_argument("--trainer", choices=TRAINERS, default="dpo")
    parser.add_argument("--head", help="weights that a reward model's head begins at")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    trainer_of, config_of, own, columns = TRAINERS[options.trainer]
    with tempfile.TemporaryDirectory() as folder:
        config = config_of(
            output_dir=folder,
            per_device_train_batch_size=options.batch,
            train_sampling_strategy="sequential",
            num_train_epochs=1,
            **own,
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
        trainer = trainer_of(
            model=classifier(options.model, options.head)
            if options.trainer == "reward"
            else language_model(options.model),
            args=config,
            train_dataset=Dataset.from_list(json.loads(Path(options.rows).read_text())),
            processing_class=AutoTokenizer.from_pretrained(options.model),
        )
        if options.gradient:
            write_gradient(trainer, options.gradient)
            return
        trainer.train()
    data = trainer.train_dataset
    ids = [data[name] for name in columns]
    steps = [line for line in trainer.state.log_history if "loss" in line]
    sys.stdout.write(json.dumps({"ids": list(zip(*map(list, ids), strict=True)), "steps": steps}) + "\n")


def language_model(directory: str) -> PreTrainedModel:
    """In float32."""
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)


def classifier(directory: str, head: str) -> PreTrainedModel:
    """A language model with a reward head of given weights."""
    model = AutoModelForSequenceClassification.from_pretrained(directory, num_labels=1, dtype=torch.float32)
    with torch.no_grad():
        model.score.weight.copy_(load_file(head)["weight"])
    return model


def write_gradient(trainer: Trainer, file: str) -> None:
    """Of the loss of the first batch by all weights, as TRL computes both."""
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.compute_loss(trainer.model, batch).backward()
    save_file({name: one.grad for name, one in trainer.model.named_parameters()}, file)


if __name__ == "__main__":
    main()
