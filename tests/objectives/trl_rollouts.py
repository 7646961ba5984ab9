"""TRL's advantages on rollouts, in TRL's environment: prints rollouts and what TRL makes of them, as a line of JSON.

python tests/objectives/trl_rollouts.py MODEL_DIRECTORY PPO_TRAINER.py

RLOO's rollouts are those of TRL 1.16's own trainer while it trains. TRL 1.16 has no PPO: its formulas are the lines of
the last trainer that TRL had (1.12), taken from its source and run on rollouts of full length.
"""

import json
import random
import re
import sys
import tempfile
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import RLOOConfig, RLOOTrainer

PROMPTS = ["How was the concert?", "How was the fair?", "How was your trip?", "How was the film?"]


class Watched(RLOOTrainer):
    """Keeps what it computes."""

    scores: list[float]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.sums: list[Tensor] = []
        self.rollouts: list[dict[str, Any]] = []
        self.steps: list[dict[str, Any]] = []
        super().__init__(*arguments, **named)

    def _get_per_token_logps_and_entropies(self, *arguments: Any, **named: Any) -> Any:
        found = super()._get_per_token_logps_and_entropies(*arguments, **named)
        self.sums.append(found[0].detach())
        return found

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        self.sums.clear()
        found = super()._generate_and_score_completions(inputs)
        mask = found["completion_mask"]
        old, ref = ((one * mask).sum(1).tolist() for one in self.sums)
        self.rollouts.append(
            {"old": old, "ref": ref, "scores": self.scores, "advantages": found["advantages"].tolist()}
        )
        return found

    def _compute_loss(self, model: Any, inputs: Any) -> Any:
        self.sums.clear()
        loss = super()._compute_loss(model, inputs)
        logps = (self.sums[-1] * inputs["completion_mask"]).sum(1)
        kept = {name: inputs[name].tolist() for name in ("old_logps", "advantages")}
        self.steps.append({"policy": logps.tolist(), "loss": loss.item(), **kept})
        return loss


def rloo(directory: str, *, normalize: bool) -> dict[str, Any]:
    """Two generations of four answers to each prompt, each trained on twice."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    kept: list[list[float]] = []

    def reward(completions: list[str], **_: Any) -> list[float]:
        kept.append([float(len(completion) % 7) for completion in completions])
        Watched.scores = kept[-1]
        return kept[-1]

    with tempfile.TemporaryDirectory() as folder:
        config = RLOOConfig(
            folder,
            beta=0.05,
            num_generations=4,
            max_completion_length=12,
            per_device_train_batch_size=16,
            num_iterations=2,
            max_steps=6,
            learning_rate=3e-3,
            lr_scheduler_type="constant",
            normalize_advantages=normalize,
            bf16=False,
            use_cpu=True,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            gradient_checkpointing=False,
        )
        asked = ([{"role": "user", "content": prompt}] for prompt in PROMPTS)
        texts = [tokenizer.apply_chat_template(one, add_generation_prompt=True, tokenize=False) for one in asked]
        rows = Dataset.from_list([{"prompt": text} for text in texts])
        trainer = Watched(model, reward_funcs=reward, args=config, train_dataset=rows, processing_class=tokenizer)
        trainer.train()
    return {"rollouts": trainer.rollouts, "steps": trainer.steps, "epsilon": config.epsilon, "beta": config.beta}


def ppo(source: str, *, whiten_rewards: bool, estimator: str) -> dict[str, Any]:
    """Rewards, advantages and returns of random rollouts, by the lines of TRL's trainer that compute them."""
    text = Path(source).read_text(encoding="utf-8")
    helpers = re.search(r"^def masked_mean.*?(?=^(?:class|@))", text, re.DOTALL | re.MULTILINE)
    block = re.search(r"^ +# 4\. compute rewards\n(.*?)^ +empty_cache\(\)", text, re.DOTALL | re.MULTILINE)
    assert helpers is not None
    assert block is not None
    numbers = torch.Generator().manual_seed(7)
    rows, length = 5, 6
    names: dict[str, Any] = {
        "torch": torch,
        "logprobs": -3 * torch.rand(rows, length, generator=numbers),
        "ref_logprobs": -3 * torch.rand(rows, length, generator=numbers),
        "values": torch.randn(rows, length, generator=numbers),
        "scores": torch.randn(rows, generator=numbers),
        "responses": torch.zeros(rows, length),
        "sequence_lengths": torch.full((rows,), length - 1),
        "sequence_lengths_p1": torch.full((rows,), length),
        "padding_mask": torch.zeros(rows, length, dtype=torch.bool),
        "padding_mask_p1": torch.zeros(rows, length, dtype=torch.bool),
        "args": SimpleNamespace(kl_estimator=estimator, kl_coef=0.3, whiten_rewards=whiten_rewards, gamma=0.9, lam=0.8),
    }
    exec(helpers[0], names)
    exec(textwrap.dedent(block[1]), names)
    kept = ("logprobs", "ref_logprobs", "values", "scores", "rewards", "advantages", "returns")
    return {name: names[name].tolist() for name in kept}


def main() -> None:
    """Runs both."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random.seed(0)
    directory, source = sys.argv[1:]
    found = {
        "rloo": [rloo(directory, normalize=normalize) for normalize in (False, True)],
        "ppo": [
            {
                "whiten_rewards": whiten,
                "estimator": estimator,
                **ppo(source, whiten_rewards=whiten, estimator=estimator),
            }
            for whiten in (False, True)
            for estimator in ("k1", "k3")
        ],
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
