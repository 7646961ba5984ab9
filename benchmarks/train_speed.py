"""DPO training speed and memory: our two layouts beside TRL, each in a process of its own, on the same pairs.

    python benchmarks/train_speed.py hh_harmless_test.jsonl.gz --trl-python TRL_ENVIRONMENT/bin/python [--lora]

The pairs are conversational rows that both tokenise with SmolLM2's chat template. The first optimiser step of each arm
warms up and is not timed. `reference` says how the reference's scores come about: before training and not timed
(cached), or inside what is timed (as in a first epoch). Peak memory is VmHWM of the process.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BATCH, MAX_LENGTH, RATE = 4, 1024, 1e-6
OURS = ("trees", "trees, reference timed", "rows")
THEIRS = ("trl common", "trl tuned")


def main() -> None:
    """Runs all arms and prints their table; or one arm, as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--trl-python")
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--arm")
    options = parser.parse_args()
    if options.arm is not None:
        arm = of_trl if options.arm in THEIRS else of_prefloop
        print(json.dumps(arm(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        pairs = Path(folder) / "pairs.json"
        pairs.write_text(json.dumps(drawn(options.data, options.pairs + BATCH)))
        found = {arm: measured(arm, pairs, options) for arm in (*OURS, *(THEIRS if options.trl_python else ()))}
    print_table(found)


def drawn(data: str, count: int) -> list[dict[str, object]]:
    """Some pairs that fit, by lot, and where the model lies."""
    from prefloop.data import Reading, find_source
    from prefloop.data.forms import line_of
    from prefloop.policy import ChatCodec, resolve_model

    model = resolve_model("builtin:smollm2-135m-instruct")
    codec = ChatCodec.load(model.directory, {})
    rows = [given for given in Reading(find_source(data)) if len(codec.prompt_ids(given.prompt)) < MAX_LENGTH // 2]
    chosen = random.Random(1).sample(rows, count)
    return [{"model": str(model.directory), **json.loads(line_of(given, "trl"))} for given in chosen]


def measured(arm: str, pairs: Path, options: argparse.Namespace) -> dict[str, float]:
    """One arm in a process of its own."""
    python = options.trl_python if arm in THEIRS else sys.executable
    command = [python, __file__, str(pairs), "--arm", arm, "--threads", str(options.threads)]
    command += ["--lora"] if options.lora else []
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "GOMP_SPINCOUNT": "10000"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{arm}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def of_prefloop(options: argparse.Namespace) -> dict[str, float]:
    """Steps of our engine in one of its layouts."""
    import torch

    from prefloop.config import LoraConfig
    from prefloop.objectives import find_objective
    from prefloop.pairing import find_rule
    from prefloop.policy import ChatCodec, EncodingSettings, PolicyFiles, Workbench, resolve_model
    from prefloop.records import Example, Group
    from prefloop.training import ROWS, TREES, LossOfPlan, PlainEngine, data_columns, frozen_scores, tokenised
    from prefloop.training.columns import column
    from prefloop.training.engine import functionals_of

    torch.set_num_threads(options.threads)
    from prefloop.data import Reading, RowSource

    rows = [
        {key: row[key] for key in ("prompt", "chosen", "rejected")}
        for row in json.loads(Path(options.data).read_text())
    ]
    rule, examples = find_rule("given", "rule"), []
    for given in Reading(RowSource("pairs", rows)):
        group = Group((given.prompt,), given.responses, given.judgments)
        examples += [one for one in rule.apply(group, rule.checked({}, "rule")) if isinstance(one, Example)]
    source = resolve_model("builtin:smollm2-135m-instruct")
    bench = Workbench(source, ChatCodec.load(source.directory, {}), torch.device("cpu"))
    kept, left_out = tokenised(examples, bench.codec, EncodingSettings(MAX_LENGTH))
    assert not left_out, left_out
    layout, dpo = (ROWS if options.arm == "rows" else TREES), find_objective("dpo", "objective")
    plan = [list(range(start, start + BATCH)) for start in range(0, len(kept), BATCH)]
    policy = PolicyFiles("start", source.directory)
    started = time.perf_counter()
    lists: dict[str, list[float]] = {}
    with bench.for_scoring(policy) as model:
        for batch, values in frozen_scores(model, kept, dpo.roles, plan, 2048, functionals_of(dpo, "ref"), layout):
            for name, of_batch in values.items():
                for index, value in zip(batch, of_batch, strict=True):
                    lists.setdefault(name, [0.0] * len(kept))[index] = value
    reference = (time.perf_counter() - started) * (len(kept) - BATCH) / len(kept)
    loss = LossOfPlan(dpo, {"beta": 0.1}, data_columns(kept, dpo), {"ref": {k: column(v) for k, v in lists.items()}})
    lora = LoraConfig(r=16) if options.lora else None
    with bench.for_training(policy, lora, seed=0) as trainable:
        optimizer = torch.optim.AdamW(trainable.parameters().values(), lr=RATE)
        engine = PlainEngine(trainable, loss, kept, optimizer, 1.0, 2048, layout)
        losses = [engine.step(plan[0], RATE)["loss"]]
        started = time.perf_counter()
        losses += [engine.step(step, RATE, number)["loss"] for number, step in enumerate(plan[1:], 1)]
        seconds = time.perf_counter() - started + (reference if "timed" in options.arm else 0.0)
    return {"pairs_per_second": (len(kept) - BATCH) / seconds, "peak_gb": peak_gb(), "loss": losses[-1]}


def of_trl(options: argparse.Namespace) -> dict[str, float]:
    """Steps of TRL's trainer: as it comes, or the fastest way found."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    torch.set_num_threads(options.threads)
    rows = json.loads(Path(options.data).read_text())
    tuned = options.arm == "trl tuned"
    directory = rows[0]["model"]
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    times: list[float] = []
    losses: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, args: object, state: object, control: object, **others: object) -> None:
            times.append(time.perf_counter())

        def on_log(
            self, args: object, state: object, control: object, logs: dict[str, float], **others: object
        ) -> None:
            losses.extend([logs["loss"]] if "loss" in logs else [])

    with tempfile.TemporaryDirectory() as folder:
        config = DPOConfig(
            output_dir=folder,
            per_device_train_batch_size=1 if tuned else BATCH,
            gradient_accumulation_steps=BATCH if tuned else 1,
            precompute_ref_log_probs=tuned,
            gradient_checkpointing=False,
            learning_rate=RATE,
            max_length=MAX_LENGTH,
            num_train_epochs=1,
            shuffle_dataset=False,
            lr_scheduler_type="constant",
            logging_steps=1,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            bf16=False,
            beta=0.1,
            disable_tqdm=True,
        )
        trainer = DPOTrainer(
            model=model,
            args=config,
            train_dataset=Dataset.from_list(
                [{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in rows]
            ),
            processing_class=AutoTokenizer.from_pretrained(directory),
            callbacks=[Clock()],
            peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
            if options.lora
            else None,
        )
        trainer.train()
    return {"pairs_per_second": (len(rows) - BATCH) / (times[-1] - times[0]), "peak_gb": peak_gb(), "loss": losses[-1]}


def peak_gb() -> float:
    """The most memory that this process held, in GB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e9


def print_table(found: dict[str, dict[str, float]]) -> None:
    """A line an arm; ratios to TRL as it comes, where it ran."""
    first = found.get("trl common", found["rows"])
    print("| arm | pairs/s | times | peak GB | of it |\n|---|---|---|---|---|")
    for arm, one in found.items():
        speed, memory = one["pairs_per_second"], one["peak_gb"]
        print(
            f"| {arm} | {speed:.3f} | {speed / first['pairs_per_second']:.2f} | {memory:.1f} "
            f"| {memory / first['peak_gb']:.2f} |"
        )


if __name__ == "__main__":
    main()
