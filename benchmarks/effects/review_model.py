"""A Llama of 1.03 million weights, pre-trained here on reviews of `review_grammar`, as a Hugging Face directory.

Its template writes a prompt as the beginning of a review and an answer as what follows, without a mark between them.
"""

import json
import random
from pathlib import Path

import torch
from review_grammar import WORDS, review
from tokenizers.pre_tokenizers import ByteLevel
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from prefloop.policy.tiny import word_tokenizer

WINDOW = 33
"""Tokens of a training row: the longest prompt and an answer."""
END, PADDING = "<|end|>", "<|padding|>"
TEMPLATE = (
    "{% for message in messages %}{{ '' if message['content'][:1] == ' ' else ' ' }}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}<|end|>{% endif %}{% endfor %}{% if add_generation_prompt %}{% endif %}"
)


def pretrain(directory: Path, *, steps: int, seed: int = 0, batch: int = 16) -> float:
    """Trains from random weights to next-word prediction; returns the mean loss of the last 50 steps, nats a word."""
    logging.disable_progress_bar()
    ids = _write_tokenizer(directory)
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(ids),
            hidden_size=192,
            intermediate_size=576,
            num_hidden_layers=2,
            num_attention_heads=6,
            num_key_value_heads=6,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=ids[END],
            pad_token_id=ids[PADDING],
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps, pct_start=0.1)
    numbers, losses = random.Random(seed), []
    for _ in range(steps):
        rows = [[ids[f"Ġ{word}"] for word in review(numbers, least=WINDOW)[:WINDOW]] for _ in range(batch)]
        tokens = torch.tensor(rows)
        loss = model(input_ids=tokens, labels=tokens).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    model.save_pretrained(directory)
    last = losses[-50:]
    return sum(last) / len(last)


def write_prompts(file: Path, *, count: int, seed: int) -> None:
    """Beginnings of reviews of three to eight words, each once, as rows with a prompt."""
    numbers, prompts = random.Random(seed), dict[str, None]()
    while len(prompts) < count:
        prompts[" ".join(review(numbers, least=9)[: numbers.randint(3, 8)])] = None
    file.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in prompts), encoding="utf-8")


def _write_tokenizer(directory: Path) -> dict[str, int]:
    """A byte-level tokenizer without merges, in which a word with the space before it is one token; its vocabulary."""
    directory.mkdir(parents=True, exist_ok=True)
    vocabulary = [PADDING, END, *(f"Ġ{word}" for word in WORDS), *sorted(set(ByteLevel.alphabet()))]
    ids = {token: number for number, token in enumerate(vocabulary)}
    tokenizer = word_tokenizer(ids, r" ?[^\s]+|\s", (PADDING, END))
    settings = {
        "add_prefix_space": False,
        "chat_template": TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": END,
        "pad_token": PADDING,
        "model_max_length": 256,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    for name, content in {"tokenizer.json": tokenizer, "tokenizer_config.json": settings}.items():
        (directory / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return ids
