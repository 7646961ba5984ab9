"""DPO training speed on a GPU: our engine by FlexAttention, segment by segment and row by row, and TRL's trainer.

    python benchmarks/gpu_train_speed.py draw hh_harmless_test.jsonl.gz > PAIRS.json
    python benchmarks/gpu_train_speed.py full PAIRS.json --tokenizer DIRECTORY
    python benchmarks/gpu_train_speed.py lora PAIRS.json --tokenizer DIRECTORY

`full` trains all weights of a random model with the shape of Qwen2.5-1.5B, `lora` an adapter (r 16, all linear layers)
on one with the shape of Llama-3.1-8B; conversations are real and tokenised with the tokenizer of DIRECTORY, so that
lengths are. bfloat16 layers by autocast over float32 weights, AdamW; each arm in a process of its own, all in one
environment, which has TRL. Scores of the reference are computed before, on both sides. Steps of 64 pairs, the first of
which warms up (it compiles) and is not timed. TRL is given its best: the largest batch a device takes at once of those
named, Liger's fused loss where it is installed. `of peak` is the arithmetic of the tokens that passed - 6 operations a
weight and token, 4 where the weight is frozen, the head on predicted tokens alone - over what the GPU multiplies in
bfloat16 at 8,192 cubed.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from torch.profiler import ProfilerActivity, profile
from train_speed import drawn, token_examples
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, Qwen2Config

from prefloop.config import LoraConfig
from prefloop.objectives import find_objective
from prefloop.policy import ChatCodec, Trainable, tree_attention
from prefloop.policy.precision import layers_in
from prefloop.policy.workbench import adapter_config
from prefloop.training import ROWS, TREES, Budget, Engine, LossOfPlan, data_columns, frozen_scores
from prefloop.training.columns import column
from prefloop.training.loss import functionals_of

PAIRS, STEP, MAX_LENGTH, RATE, BETA = 320, 64, 1024, 1e-6, 0.1
SHAPES = {
    "full": Qwen2Config(
        hidden_size=1536,
        num_hidden_layers=28,
        num_attention_heads=12,
        num_key_value_heads=2,
        intermediate_size=8960,
        vocab_size=151_936,
        tie_word_embeddings=True,
    ),
    "lora": LlamaConfig(
        hidden_size=4096,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        intermediate_size=14_336,
        vocab_size=128_256,
        max_position_embeddings=8192,
    ),
}
TOKENS = {"full": (16_384,), "lora": (8192,)}
"""A pass of ours."""
TRL_BATCHES = {"full": (8, 16), "lora": (4, 8)}
"""Pairs a pass of TRL's."""


def main() -> None:
    """Draws pairs, runs all arms and writes their table; or one arm, as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=("draw", *SHAPES))
    parser.add_argument("pairs")
    parser.add_argument("--tokenizer")
    parser.add_argument("--arm")
    parser.add_argument("--only", help="arms whose names begin so")
    parser.add_argument("--profile", action="store_true", help="of one arm of ours: where the time of a step goes")
    options = parser.parse_args()
    if options.task == "draw":
        sys.stdout.write(json.dumps(drawn(options.pairs, PAIRS)))
    elif options.arm is not None:
        kind, tokens = options.arm.split()
        sys.stdout.write(json.dumps(of_ours(options, kind, int(tokens))) + "\n")
    else:
        peak = products_a_second()
        sys.stdout.write(f"{torch.cuda.get_device_name()}: {peak / 1e12:.0f} TFLOP/s in bfloat16 at 8,192 cubed\n\n")
        sys.stdout.write("| arm | pairs/s | tokens that passed/s | of peak | GB | loss, first and last step |\n")
        sys.stdout.write("|---|---|---|---|---|---|\n")
        for arm in arms(options.task):
            if options.only is None or arm.startswith(options.only):
                sys.stdout.write(line(arm, started(arm, options), peak))
                sys.stdout.flush()


def arms(task: str) -> list[str]:
    """Ours by how attention is computed and by tokens a pass; TRL's by pairs a pass, with Liger's loss or not."""
    own = [f"{kind} {tokens}" for tokens in TOKENS[task] for kind in ("blocks", "segments", "rows")]
    return own + [f"TRL{fused} {batch}" for batch in TRL_BATCHES[task] for fused in ("", "+liger")]


def started(arm: str, options: argparse.Namespace) -> Mapping[str, Any]:
    """What an arm says of itself, or why it says nothing."""
    script = Path(__file__).with_name("gpu_train_speed_trl.py") if arm.startswith("TRL") else Path(__file__)
    given = [options.task, options.pairs, "--tokenizer", options.tokenizer, "--arm", arm]
    command = [sys.executable, str(script), *given]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.stderr.write(f"--- {arm}\n{done.stderr[-1500:]}\n")
        return {"failed": "out of memory" if "OutOfMemory" in done.stderr else "failed"}
    return json.loads(done.stdout.splitlines()[-1])


def line(arm: str, found: Mapping[str, Any], peak: float) -> str:
    """One row of the table."""
    if "failed" in found:
        return f"| {arm} | {found['failed']} | | | | |\n"
    speed = "" if "tokens" not in found else f"{found['tokens']:,.0f}"
    share = "" if "operations" not in found else f"{found['operations'] / peak:.0%}"
    losses = f"{found['losses'][0]:.4f}, {found['losses'][-1]:.4f}"
    return f"| {arm} | {found['pairs']:.1f} | {speed} | {share} | {found['gb']:.1f} | {losses} |\n"


def products_a_second(size: int = 8192, repeats: int = 20) -> float:
    """Operations a second of a square bfloat16 product on random numbers."""
    one, other, product = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    for _ in range(3):
        torch.mm(one, other, out=product)
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(repeats):
        torch.mm(one, other, out=product)
    torch.cuda.synchronize()
    return 2 * size**3 * repeats / (time.perf_counter() - began)


def random_model(task: str) -> PreTrainedModel:
    """A model of a task's shape, as if it had been published: an adapter's base in bfloat16, one to be trained not."""
    torch.manual_seed(0)
    with torch.device("cuda"):
        return AutoModelForCausalLM.from_config(SHAPES[task], dtype=torch.bfloat16 if task == "lora" else torch.float32)


def of_ours(options: argparse.Namespace, kind: str, tokens: int) -> dict[str, Any]:
    """Optimiser steps of our engine."""
    if kind == "segments":
        tree_attention.BY_BLOCKS = frozenset()
    rows = json.loads(Path(options.pairs).read_text())
    examples = token_examples(rows, ChatCodec.load(Path(options.tokenizer), {}))
    plan = [list(range(start, start + STEP)) for start in range(0, len(examples) - STEP + 1, STEP)]
    dpo, layout = find_objective("dpo", "objective"), ROWS if kind == "rows" else TREES
    base = random_model(options.task).float().eval().requires_grad_(options.task == "full")
    lora = LoraConfig(r=16) if options.task == "lora" else None
    body = sum(one.numel() for name, one in base.named_parameters() if "embed" not in name and "lm_head" not in name)
    head = SHAPES[options.task].hidden_size * SHAPES[options.task].vocab_size
    ref: dict[str, list[float]] = {f"{role}_logps": [0.0] * len(examples) for role in dpo.roles}
    with layers_in(base, "bfloat16"):
        for batch, values in frozen_scores(base, examples, dpo.roles, plan, tokens, functionals_of(dpo, "ref"), layout):
            for name, of_batch in values.items():
                for index, value in zip(batch, of_batch, strict=True):
                    ref[name][index] = value
        frozen = {"ref": {name: column(values) for name, values in ref.items()}}
        loss = LossOfPlan(dpo, {"beta": BETA}, data_columns(examples, dpo), frozen)
        model = base if lora is None else get_peft_model(base, adapter_config(lora))
        trainable = Trainable(model, lora, Path(options.tokenizer), {})
        optimizer = torch.optim.AdamW(trainable.parameters().values(), lr=RATE, fused=True)
        engine = Engine(trainable, loss, examples, optimizer, 1.0, Budget(tokens), layout)
        said = [engine.step(plan[0], RATE)]
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        said += [engine.step(step, RATE, number) for number, step in enumerate(plan[1:], 1)]
        torch.cuda.synchronize()
        seconds = time.perf_counter() - began
        if options.profile:
            sys.stderr.write(profiled(engine, plan[0]))
    passed = sum(one["tokens"] for one in said[1:])
    predicted = sum(len(row.answer_ids) for step in plan[1:] for index in step for row in examples[index].rows.values())
    operations = (4 if lora else 6) * (passed * body + predicted * head)
    return {
        "pairs": STEP * (len(plan) - 1) / seconds,
        "tokens": passed / seconds,
        "operations": operations / seconds,
        "gb": torch.cuda.max_memory_allocated() / 1e9,
        "losses": [one["loss"] for one in said],
    }


def profiled(engine: Engine, step: list[int]) -> str:
    """A table of what one more step spends on the GPU and on the processor."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        engine.step(step, RATE)
        torch.cuda.synchronize()
    kinds = found.key_averages()
    return "\n".join(kinds.table(sort_by=f"self_{kind}_time_total", row_limit=20) for kind in ("cuda", "cpu")) + "\n"


if __name__ == "__main__":
    main()
