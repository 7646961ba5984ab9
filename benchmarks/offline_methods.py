"""Offline methods: do their metrics move as their papers say?

    python benchmarks/offline_methods.py hh OUT --file hh_harmless_test.jsonl.gz     six methods on real pairs
    python benchmarks/offline_methods.py edits OUT                                   DPO and DPOP on one-word edits

`hh` takes dialogues of anthropics/hh-rlhf (MIT) whose two sides share everything but the last turn, puts them into
TRL's conversational form, and trains SmolLM2-135M-Instruct with LoRA.
`edits` follows DPOP's claim (arXiv:2402.13228): of pairs that differ in one word, DPO lowers what both sides share
after it, once the model knows the right answers. `builtin:tiny` first learns the chosen answers of the shipped pairs
(SFT), then prefers them to themselves with one word changed.
Both print log-probabilities in nats an answer, over the last epoch, against those before training.
"""

import argparse
import gzip
import json
import random
import re
import statistics
import sys
from collections.abc import Iterator, Sequence
from importlib.resources import files
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
EDITS = """
extends: offline
name: edits
model: builtin:tiny
block: [data, pairs, sft, policy]
sft: {type: train, objective: sft, learning_rate: 3e-3, epochs: 20, batch_size: 8, lora: {r: 8}}
policy:
  objective: {name: dpo, beta: 0.3}
  start: sft
  references: {ref: sft}
  learning_rate: 1e-3
  epochs: 10
  batch_size: 8
  lora: {r: 8}
  schedule: constant
machine: {threads: 1}
"""
T_OF_SEVEN = 2.365
"""Student's t, two-sided 5 %, seven degrees of freedom."""

Row = dict[str, Any]


def hh_rows(file: Path, longest: int) -> Iterator[Row]:
    """Dialogues of at most so many characters whose sides differ in the last answer alone."""
    for line in gzip.decompress(file.read_bytes()).decode().splitlines():
        chosen, rejected = (_turns(json.loads(line)[side]) for side in ("chosen", "rejected"))
        size = sum(len(turn["content"]) for turn in (*chosen, rejected[-1]))
        spoken = all(turn["content"] for turn in (*chosen, rejected[-1]))
        if spoken and chosen[:-1] == rejected[:-1] and chosen[-1] != rejected[-1] and size <= longest:
            yield {"prompt": chosen[:-1], "chosen": chosen[-1:], "rejected": rejected[-1:]}


def _turns(text: str) -> list[dict[str, str]]:
    parts = TURN.split(text)[1:]
    return [
        {"role": "user" if who == "Human" else "assistant", "content": said.strip()}
        for who, said in zip(parts[::2], parts[1::2], strict=True)
    ]


def edited_rows(count: int, seed: int) -> Iterator[Row]:
    """Chosen answers of the shipped pairs, beside the same with one word of the first half changed."""
    generator = random.Random(seed)
    shipped = files("prefloop.data").joinpath("everyday_pairs.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in shipped.splitlines()]
    generator.shuffle(rows)
    vocabulary = sorted({word for row in rows for word in row["chosen"].split() if word.isalpha()})
    for row in rows[:count]:
        words = row["chosen"].split()
        place = generator.randrange(1, len(words) // 2)
        edited = [*words]
        edited[place] = generator.choice([word for word in vocabulary if word != words[place]])
        yield {**row, "rejected": " ".join(edited)}


def trained(recipe: str, rows: Sequence[Row], out: Path, *overrides: str) -> list[dict[str, float]]:
    """The lines of training.jsonl of a recipe on some rows."""
    out.mkdir(parents=True, exist_ok=True)
    data = out / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    done = run_recipe(load_recipe(recipe, (f"data={data}", *overrides)), out / "run", Progress())
    lines = (done.run / "round-00" / "policy" / "training.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def last_epoch(lines: Sequence[dict[str, float]], epochs: int) -> dict[str, float]:
    """Means over the last epoch, in which every pair was seen once."""
    last = lines[-(len(lines) // epochs) :]
    return {name: statistics.fmean(line[name] for line in last) for name in last[0]}


def hh(file: Path, out: Path, pairs: int) -> None:
    """One line a method: where chosen and rejected answers stand after two epochs, and their gap."""
    rows = list(hh_rows(file, 350))[:pairs]
    before: dict[str, float] = {}
    for method in METHODS:
        lines = trained(method, rows, out / method, *SETTINGS, "policy.epochs=2")
        after = last_epoch(lines, 2)
        if not before:  # dpo comes first: its rewards tell what the start policy gave
            beta = 0.1
            before = {side: after[f"logps/{side}"] - after[f"rewards/{side}"] / beta for side in ("chosen", "rejected")}
        moved = {side: after[f"logps/{side}"] - before[side] for side in ("chosen", "rejected")}
        sys.stdout.write(
            f"{method:<24} loss {lines[0]['loss']:.4f} -> {after['loss']:.4f}  chosen {moved['chosen']:+.2f}  "
            f"rejected {moved['rejected']:+.2f}  gap {moved['chosen'] - moved['rejected']:+.2f}\n"
        )


def edits(out: Path, pairs: int, seeds: int = 8) -> None:
    """Log pi(chosen) - log ref(chosen) at the end of DPO and of DPOP, a seed a line, then means with intervals."""
    recipe = out / "edits.yaml"
    out.mkdir(parents=True, exist_ok=True)
    recipe.write_text(EDITS, encoding="utf-8")
    found: dict[str, list[float]] = {"dpo": [], "dpop": []}
    for seed in range(seeds):
        rows = list(edited_rows(pairs, seed))
        for method, values in found.items():
            objective = f"policy.objective={{name: {method}, beta: 0.3}}"
            lines = trained(str(recipe), rows, out / f"{method}-{seed}", objective, f"seed={seed}")
            values.append(last_epoch(lines, 10)["rewards/chosen"] / 0.3)
        said = ", ".join(f"{name} {values[-1]:+.2f}" for name, values in found.items())
        sys.stdout.write(f"seed {seed}: {said}\n")
    for name, values in found.items():
        half = T_OF_SEVEN * statistics.stdev(values) / len(values) ** 0.5
        sys.stdout.write(f"{name}: {statistics.fmean(values):+.2f} +- {half:.2f} nats (95 %, {len(values)} seeds)\n")


def main() -> None:
    """Runs what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("hh", "edits"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--file", type=Path, help="hh_harmless_test.jsonl.gz, for `hh`.")
    arguments = parser.parse_args()
    if arguments.what == "hh":
        hh(arguments.file, arguments.out, pairs=32)
    else:
        edits(arguments.out, pairs=24)


if __name__ == "__main__":
    main()
