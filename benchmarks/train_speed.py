"""DPO training speed and memory: our two layouts, and TRL's trainer where an environment with it is named.

    python benchmarks/train_speed.py hh_harmless_test.jsonl.gz --trl-python TRL_ENVIRONMENT/bin/python [--lora]
        [--least-prompt 256] [--tokens 4096]

SmolLM2 on pairs drawn by lot, batches of four, two threads, float32, AdamW; each arm in a process of its own. All
tokenise the same conversations with the model's chat template. The first two optimiser steps of each arm warm up and
are not timed: the longest four twice, which pass once more later. Gradients and moments are made in the first, so that
a step finds its memory where all later ones do from the second on. Of ours the reference's scores are computed before
(as in a later epoch, or another beta) or timed as well (as in a first epoch); TRL as it comes computes them in every
step, tuned beforehand. Peak memory is the process's VmHWM.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from prefloop.config import LoraConfig
from prefloop.data import Reading, RowSource, find_source
from prefloop.data.forms import line_of
from prefloop.loop.machine import peak_memory
from prefloop.objectives import find_objective
from prefloop.pairing import find_rule
from prefloop.policy import ChatCodec, EncodingSettings, PolicyFiles, Workbench, resolve_model
from prefloop.records import Example, Group
from prefloop.training import (
    ROWS,
    TREES,
    Budget,
    Engine,
    LossOfPlan,
    TokenExample,
    data_columns,
    frozen_scores,
    tokenised,
)
from prefloop.training.columns import column
from prefloop.training.loss import functionals_of

MODEL = "builtin:smollm2-135m-instruct"
BATCH, WARM_UP, MAX_LENGTH, RATE = 4, 2, 1024, 1e-6
COLUMNS = ("prompt", "chosen", "rejected")
OURS = ("trees", "trees, reference timed", "rows")
TRL = {"TRL": (), "TRL tuned": ("--tuned",)}


def main() -> None:
    """Runs all arms and writes their table; or one arm of ours, as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--trl-python")
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--least-prompt", type=int, default=0, help="tokens of a prompt, at least")
    parser.add_argument("--tokens", type=int, default=1024, help="of a forward pass of ours, at most")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--arm", choices=OURS)
    options = parser.parse_args()
    if options.arm is not None:
        sys.stdout.write(json.dumps(steps_of(options.arm, options)) + "\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        pairs = Path(folder) / "pairs.json"
        pairs.write_text(json.dumps(longest_first(drawn(options.data, options.pairs, options.least_prompt))))
        shared = ["--threads", str(options.threads), *(["--lora"] if options.lora else [])]
        ours = [sys.executable, __file__, str(pairs), *shared, "--tokens", str(options.tokens)]
        found = {arm: measured([*ours, "--arm", arm]) for arm in OURS}
        if options.trl_python is not None:
            script = str(Path(__file__).with_name("train_speed_trl.py"))
            start = [options.trl_python, script, str(pairs), str(resolve_model(MODEL).directory)]
            found |= {arm: measured([*start, *more, *shared]) for arm, more in TRL.items()}
    sys.stdout.write(table(found))


def drawn(data: str, count: int, least_prompt: int = 0) -> list[dict[str, Any]]:
    """Some pairs of a data set, by lot, that fit and whose prompts have so many tokens."""
    codec = ChatCodec.load(resolve_model(MODEL).directory, {})
    allowed = range(least_prompt, MAX_LENGTH // 2)
    fitting = [given for given in Reading(find_source(data)) if len(codec.prompt_ids(given.prompt)) in allowed]
    rows = [json.loads(line_of(given, "trl")) for given in random.Random(1).sample(fitting, count)]
    return [{name: row[name] for name in COLUMNS} for row in rows]


def longest_first(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The batch with the longest texts for every step that warms up, and then all of them."""
    batches = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    return [*max(batches, key=lambda batch: len(json.dumps(batch))) * WARM_UP, *rows]


def measured(command: list[str]) -> dict[str, Any]:
    """What one arm says of itself."""
    environment = {**os.environ, "GOMP_SPINCOUNT": "10000"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def steps_of(arm: str, options: argparse.Namespace) -> dict[str, Any]:
    """Optimiser steps of our engine."""
    torch.set_num_threads(options.threads)
    source = resolve_model(MODEL)
    bench = Workbench(source, ChatCodec.load(source.directory, {}), torch.device("cpu"))
    examples = token_examples(json.loads(Path(options.data).read_text()), bench.codec)
    layout, dpo = ROWS if arm == "rows" else TREES, find_objective("dpo", "objective")
    plan = [list(range(start, start + BATCH)) for start in range(0, len(examples), BATCH)]
    policy, timed = PolicyFiles("start", source.directory), len(examples) - WARM_UP * BATCH
    ref: dict[str, list[float]] = {f"{role}_logps": [0.0] * len(examples) for role in dpo.roles}
    started = 0.0
    with bench.for_scoring(policy) as model:
        wanted = functionals_of(dpo, "ref")
        for batch, values in frozen_scores(model, examples, dpo.roles, plan, options.tokens, wanted, layout):
            for name, of_batch in values.items():
                for index, value in zip(batch, of_batch, strict=True):
                    ref[name][index] = value
            if max(batch) < WARM_UP * BATCH:
                started = time.perf_counter()
        reference = time.perf_counter() - started
    frozen = {"ref": {name: column(values) for name, values in ref.items()}}
    loss = LossOfPlan(dpo, {"beta": 0.1}, data_columns(examples, dpo), frozen)
    with bench.for_training(policy, LoraConfig(r=16) if options.lora else None, seed=0) as trainable:
        optimizer = torch.optim.AdamW(trainable.parameters().values(), lr=RATE, fused=True)
        engine = Engine(trainable, loss, examples, optimizer, 1.0, Budget(options.tokens), layout)
        losses: list[float] = []
        for number, step in enumerate(plan):
            if number == WARM_UP:
                started = time.perf_counter()
            losses.append(engine.step(step, RATE, number)["loss"])
        seconds = time.perf_counter() - started + (reference if arm == OURS[1] else 0.0)
    return {"pairs_per_second": timed / seconds, "peak_gb": peak_memory() / 1e9, "losses": losses}


def token_examples(rows: list[dict[str, Any]], codec: ChatCodec) -> list[TokenExample]:
    """The pairs as tokens."""
    rule = find_rule("given", "rule")
    groups = [Group((given.prompt,), given.responses, given.judgments) for given in Reading(RowSource("pairs", rows))]
    made = [one for group in groups for one in rule.apply(group, rule.checked({}, "rule"))]
    kept, left_out = tokenised([one for one in made if isinstance(one, Example)], codec, EncodingSettings(MAX_LENGTH))
    if left_out:
        raise SystemExit(f"pairs do not fit: {left_out}")
    return kept


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """A line an arm; ratios to TRL as it comes, or to rows."""
    first = found.get("TRL", found["rows"])
    lines = ["| arm | pairs/s | times | peak GB | of it | loss, first and last step |", "|---|---|---|---|---|---|"]
    for arm, one in found.items():
        speed, memory = one["pairs_per_second"], one["peak_gb"]
        lines.append(
            f"| {arm} | {speed:.3f} | {speed / first['pairs_per_second']:.2f} | {memory:.1f} "
            f"| {memory / first['peak_gb']:.2f} | {one['losses'][0]:.4f}, {one['losses'][-1]:.4f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
