"""Offline methods on real pairs: do their metrics move as their papers say?

    python benchmarks/offline_methods.py hh hh_harmless_test.jsonl.gz OUT      six methods on HH pairs (MIT)
    python benchmarks/offline_methods.py edits gsm8k_train.jsonl.gz OUT        DPO and DPOP on one-number edits (MIT)

`hh` takes dialogues of anthropics/hh-rlhf whose two sides share everything but the last turn, and puts them into TRL's
conversational form. `edits` takes worked solutions of openai/grade-school-math and changes one intermediate number of
each, as the paired MetaMath of arXiv:2402.13228 does. Both train SmolLM2-135M-Instruct with LoRA and print what became
of the log-probabilities over the last epoch, in nats an answer, against those before training.
"""

import argparse
import gzip
import json
import random
import re
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from prefloop.config import load_recipe
from prefloop.loop import Progress, run_recipe

METHODS = ("dpo", "dpop", "simpo", "orpo", "ipo", "length_regularized_dpo")
SETTINGS = (
    "model=builtin:smollm2-135m-instruct",
    "policy.lora={r: 16}",
    "policy.learning_rate=1e-4",
    "policy.batch_size=8",
    "machine.threads=1",
)
TURN = re.compile(r"\n\n(Human|Assistant): ?")
NUMBER = re.compile(r"(?<=<<)([^>]*=)(\d+)(?=>>)")

Row = dict[str, Any]


def hh_rows(file: Path, longest: int) -> Iterator[Row]:
    """Dialogues of at most so many characters whose sides differ in the last answer alone."""
    for line in gzip.decompress(file.read_bytes()).decode().splitlines():
        chosen, rejected = (_turns(json.loads(line)[side]) for side in ("chosen", "rejected"))
        size = sum(len(turn["content"]) for turn in (*chosen, rejected[-1]))
        if chosen[:-1] == rejected[:-1] and chosen[-1] != rejected[-1] and size <= longest:
            yield {"prompt": chosen[:-1], "chosen": chosen[-1:], "rejected": rejected[-1:]}


def _turns(text: str) -> list[dict[str, str]]:
    parts = TURN.split(text)[1:]
    return [
        {"role": "user" if who == "Human" else "assistant", "content": said.strip()}
        for who, said in zip(parts[::2], parts[1::2], strict=True)
    ]


def edited_rows(file: Path, longest: int, seed: int) -> Iterator[Row]:
    """Worked solutions beside the same with one intermediate result changed, wherever it is written."""
    generator = random.Random(seed)
    for line in gzip.decompress(file.read_bytes()).decode().splitlines():
        problem = json.loads(line)
        results = NUMBER.findall(problem["answer"])
        if len(results) < 2 or len(problem["question"]) + 2 * len(problem["answer"]) > longest:
            continue
        wrong = generator.choice(results[:-1])[1]
        right = re.sub(r"<<[^>]*>>", "", problem["answer"])
        changed = re.sub(rf"\b{wrong}\b", str(int(wrong) + generator.choice((-2, -1, 1, 2))), right, count=1)
        if changed != right:
            yield {"prompt": problem["question"], "chosen": right, "rejected": changed}


def trained(method: str, rows: Sequence[Row], out: Path, *overrides: str) -> list[dict[str, float]]:
    """The lines of training.jsonl of one method on some rows."""
    data = out / "pairs.jsonl"
    out.mkdir(parents=True, exist_ok=True)
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    done = run_recipe(load_recipe(method, (f"data={data}", *SETTINGS, *overrides)), out / "run", Progress())
    lines = (done.run / "round-00" / "policy" / "training.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def last_epoch(lines: Sequence[dict[str, float]], epochs: int) -> dict[str, float]:
    """Means over the last epoch, in which every pair was seen once."""
    last = lines[-(len(lines) // epochs) :]
    return {name: statistics.fmean(line[name] for line in last) for name in last[0]}


def hh(file: Path, out: Path, pairs: int) -> None:
    """One line a method: where chosen and rejected answers stand after two epochs, and their gap."""
    rows = list(hh_rows(file, 500))[:pairs]
    before: dict[str, float] = {}
    for method in METHODS:
        lines = trained(method, rows, out / method, "policy.epochs=2")
        after = last_epoch(lines, 2)
        if not before:  # dpo comes first: its rewards tell what the start policy gave
            beta = 0.1
            before = {side: after[f"logps/{side}"] - after[f"rewards/{side}"] / beta for side in ("chosen", "rejected")}
        moved = {side: after[f"logps/{side}"] - before[side] for side in ("chosen", "rejected")}
        sys.stdout.write(
            f"{method:<24} loss {lines[0]['loss']:.4f} -> {after['loss']:.4f}  chosen {moved['chosen']:+.2f}  "
            f"rejected {moved['rejected']:+.2f}  gap {moved['chosen'] - moved['rejected']:+.2f}\n"
        )


def edits(file: Path, out: Path, pairs: int, seeds: int) -> None:
    """Log pi(chosen) - log ref(chosen) after three epochs of DPO and DPOP, a seed a line, then means with intervals."""
    found: dict[str, list[float]] = {"dpo": [], "dpop": []}
    for seed in range(seeds):
        rows = list(edited_rows(file, 600, seed))
        rows = random.Random(seed).sample(rows, pairs)
        for method, values in found.items():
            lines = trained(
                method, rows, out / f"{method}-{seed}", "policy.epochs=3", "policy.objective.beta=0.3", f"seed={seed}"
            )
            values.append(last_epoch(lines, 3)["rewards/chosen"] / 0.3)
        sys.stdout.write(
            f"seed {seed}: " + ", ".join(f"{name} {values[-1]:+.3f}" for name, values in found.items()) + "\n"
        )
    for name, values in found.items():
        half = 2.776 * statistics.stdev(values) / len(values) ** 0.5  # Student's t for five seeds
        sys.stdout.write(f"{name}: {statistics.fmean(values):+.3f} +- {half:.3f} nats (95 %, {len(values)} seeds)\n")


def main() -> None:
    """Runs what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("hh", "edits"))
    parser.add_argument("file", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pairs", type=int)
    arguments = parser.parse_args()
    if arguments.what == "hh":
        hh(arguments.file, arguments.out, arguments.pairs or 48)
    else:
        edits(arguments.file, arguments.out, arguments.pairs or 16, seeds=5)


if __name__ == "__main__":
    main()
