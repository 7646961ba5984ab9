"""How fast the local sampler decodes: `python benchmarks/decode.py MODEL_DIRECTORY [--threads 2]`.

Steps are timed one by one and the best is shown, with the processor time of that step beside the wall time: on a
shared machine the wall time also holds the neighbours' work.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from importlib.resources import files
from itertools import pairwise

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from prefloop.sampling import Draw, LocalSampler, SamplingSettings, draws_for

STEPS = 10


def everyday_draws(tokenizer: PreTrainedTokenizerBase, num_prompts: int, num_samples: int) -> list[Draw]:
    """Draws for the first everyday conversations that the package ships."""
    lines = files("prefloop.data").joinpath("everyday.jsonl").read_text(encoding="utf-8").splitlines()
    draws: list[Draw] = []
    for line in lines[:num_prompts]:
        record = json.loads(line)
        ids = tokenizer.apply_chat_template(record["messages"], add_generation_prompt=True, return_dict=False)
        draws += draws_for(
            record["id"], tuple(ids), num_samples=num_samples, recipe_seed=0, step="samples", round_number=0, block=0
        )
    return draws


def best_step(model: PreTrainedModel, draws: list[Draw], rows: int) -> tuple[float, float]:
    """Wall and processor seconds of the fastest step with so many live rows, no answer ending."""
    clock: list[tuple[float, float]] = []
    handle = model.base_model.register_forward_pre_hook(
        lambda *_: clock.append((time.perf_counter(), time.process_time()))
    )
    settings = SamplingSettings(temperature=0.8, top_p=1.0, max_new_tokens=STEPS + 2)
    list(LocalSampler(model, frozenset(), rows).sample(draws[:rows], settings))
    handle.remove()
    steps = list(pairwise(clock[1:]))
    return min(after[0] - before[0] for before, after in steps), min(after[1] - before[1] for before, after in steps)


def step_lines(name: str, model: PreTrainedModel, draws: list[Draw], all_rows: list[int]) -> Iterator[str]:
    """One line of the table for each number of rows."""
    for rows in all_rows:
        wall, processor = best_step(model, draws, rows)
        yield f"| {name} | {rows} | {wall * 1e3:.0f} | {rows / wall:.0f} | {processor * 1e3:.0f} |"


def whole_line(model: PreTrainedModel, draws: list[Draw], rows: int, eos: frozenset[int], top_p: float) -> str:
    """One line: all draws, of at most 96 tokens."""
    settings = SamplingSettings(temperature=0.8, top_p=top_p, max_new_tokens=96)
    wall, processor = time.perf_counter(), time.process_time()
    answers = list(LocalSampler(model, eos, rows).sample(draws, settings))
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    lengths: dict[str, list[int]] = {}
    for answer in answers:
        lengths.setdefault(answer.draw.prompt_id, []).append(len(answer.token_ids))
    tokens = sum(map(sum, lengths.values()))
    ended = sum(answer.finish_reason == "stop" for answer in answers) / len(answers)
    within = statistics.mean(map(statistics.variance, lengths.values())) ** 0.5
    return (
        f"| {rows} | {top_p} | {wall:.1f} | {processor:.1f} | {tokens / wall:.0f} | {ended:.0%} "
        f"| {tokens / len(answers):.1f} | {within:.1f} |"
    )


def show(line: str) -> None:
    """Print at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=int, nargs="*", default=[1, 4, 8, 16, 32, 64, 96, 128, 192])
    parser.add_argument("--whole", type=int, nargs="*", default=[64, 128, 192])
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    tokenizer = AutoTokenizer.from_pretrained(chosen.model)
    model = AutoModelForCausalLM.from_pretrained(chosen.model, dtype=torch.float32)
    draws = everyday_draws(tokenizer, 48, 4)
    eos = frozenset({tokenizer.convert_tokens_to_ids("<|im_end|>")})

    show("| answers | rows at most | top-p | s | processor s | tokens/s | ended | mean tokens | sd within a prompt |")
    show("|---|---|---|---|---|---|---|---|---|")
    for top_p, rows in [(1.0, rows) for rows in chosen.whole] + [(0.95, rows) for rows in chosen.whole[-1:]]:
        show(f"| {len(draws)} {whole_line(model, draws, rows, eos, top_p)}")
    show("\n| policy | live rows | ms a step | tokens/s | processor ms a step |\n|---|---|---|---|---|")
    for line in step_lines("merged", model, draws, chosen.rows):
        show(line)
    lora = LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")
    unmerged = get_peft_model(model, lora).get_base_model()
    for line in step_lines("LoRA, not merged", unmerged, draws, chosen.rows):
        show(line)


if __name__ == "__main__":
    main()
