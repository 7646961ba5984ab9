"""PPO against a proxy with a known flaw: what it is paid rises all the way, the truth rises and then falls.

    python benchmarks/effects/ppo_overoptimisation.py OUT [--seeds 3]

The model, the prompts and the truth, P(the review is positive), are those of `reward_kl_frontier.py`. The proxy counts
good opinions less bad ones, and takes `not` for praise (`praised_by_not.py`): the truth reads "not brilliant" as the
opposite. Nine in ten opinions have no `not` before PPO starts, so that saying good things pays first and is true, and
what pays later is not. Held-out answers are read by both after every second update; the KL is to the model before
training. What is there is not made again.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
from frontier_tables import written
from praised_by_not import opinions
from review_grammar import sentiment
from review_model import pretrain, write_prompts
from reward_kl_frontier import PRETRAINING_STEPS, keep, on_policy, recipe

from prefloop.config import load_recipe
from prefloop.loop import Progress, run_recipe
from prefloop.records import Prompt, Response, read_folder

Reader = Callable[[str, str], float]
"""What somebody says of a prompt and an answer."""
READ: Mapping[str, Reader] = {
    "proxy": opinions,
    "truth": sentiment,
    "not": lambda _prompt, answer: float(" not " in answer),
}
PROXY = {"type": "python", "function": "praised_by_not:opinions"}
KL_COEFS = (0.01, 0.1)
"""What a nat of KL costs: a tenth of an opinion, and a whole one."""
ROUNDS, UPDATES, RATE = 7, 2, 4e-4
"""Measurements, updates between them, and the learning rate."""


def prepare(out: Path, *, steps: int = PRETRAINING_STEPS, prompts: int = 1024, held_out: int = 256) -> None:
    """The pre-trained model and the prompts, unless they are there."""
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "model").is_dir():
        pretrain(out / "model.writing", steps=steps)
        (out / "model.writing").rename(out / "model")
    for number, (name, count) in enumerate({"prompts": prompts, "held_out": held_out}.items(), start=1):
        if not (out / f"{name}.jsonl").is_file():
            write_prompts(out / f"{name}.jsonl", count=count, seed=number)


def run(out: Path, kl_coef: float, seed: int, *, rounds: int = ROUNDS) -> list[dict[str, float]]:
    """What proxy and truth say of held-out answers before training and after each round, and the KL."""
    done = out / "points" / f"kl{kl_coef:g}-{seed}.json"
    if not done.is_file():
        update = on_policy(PROXY, kl_coef, RATE)
        update["own-prompts"]["count"], update["own-samples"]["num_samples"] = 64, 4
        told: dict[str, Any] = {
            **recipe(seed, {}, update, rounds=rounds, blocks=UPDATES),
            "name": "ppo-overoptimisation",
        }
        told["evaluation"].pop("count")
        folder = run_in(out, f"kl{kl_coef:g}-{seed}", told)
        keep(done, [*measured(folder, READ)])
    return json.loads(done.read_text(encoding="utf-8"))


def run_in(out: Path, name: str, told: Mapping[str, Any], reuse: str | None = None) -> Path:
    """The folder of a run of a recipe whose files lie in `out`.

    Args:
        out: absolute.
        name: of the run and of its recipe.
        told: the recipe.
        reuse: a run whose equal steps are taken.
    """
    file = out / f"{name}.yaml"
    file.write_text(json.dumps(told), encoding="utf-8")
    runs = out / "runs"
    with chdir(out):
        run_recipe(load_recipe(file.name), runs / name, Progress(), reuse=None if reuse is None else runs / reuse)
    return runs / name


def measured(folder: Path, read: Mapping[str, Reader]) -> Iterator[dict[str, float]]:
    """Mean of what readers say of held-out answers, before training and after each round of a run, and the exact KL."""
    prompts = {
        one.prompt_id: one.messages[-1].content for one in read_folder(folder / "setup/evaluation-prompts", Prompt)
    }
    boards = [None, *sorted(folder.glob("round-*/evaluation.json"))]
    for board in boards:
        place = board.with_name("evaluation-samples") if board else folder / "setup/evaluation-initial"
        answers = [(prompts[one.prompt_id], one.text) for one in read_folder(place, Response)]
        yield {
            "kl": json.loads(board.read_text(encoding="utf-8"))["kl"]["value"] if board else 0.0,
            **{name: float(np.mean([reader(*one) for one in answers])) for name, reader in read.items()},
        }


def lines(found: Mapping[float, Sequence[Sequence[Mapping[str, float]]]]) -> Iterator[str]:
    """A table: by coefficient and update the KL, both scores, and how many answers say `not`."""
    yield "| a nat costs | updates | KL, nats | proxy | truth, P(positive) | answers with `not` |"
    yield "|---|---|---|---|---|---|"
    for kl_coef, seeds in found.items():
        for turn in range(len(seeds[0])):
            at: list[Mapping[str, float]] = [one[turn] for one in seeds]
            cells = [written([one[name] for one in at], 2) for name in ("kl", "proxy", "truth", "not")]
            yield f"| {kl_coef:g} | {turn * UPDATES} | {' | '.join(cells)} |"
    for kl_coef, seeds in found.items():
        truth = np.array([[one["truth"] for one in points] for points in seeds])
        best = int(truth.mean(0).argmax())
        fall = written([*(truth[:, -1] - truth[:, best])], 2)
        rise = written([*(truth[:, best] - truth[:, 0])], 2)
        yield ""
        yield f"{kl_coef:g} a nat: the truth rises by {rise} up to update {best * UPDATES}, then changes by {fall}."


def main() -> None:
    """Runs what is missing, then prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3)
    told: Any = parser.parse_args()
    out = told.out.resolve()
    prepare(out)
    seeds = range(told.first_seed, told.first_seed + told.seeds)
    found = {kl_coef: [run(out, kl_coef, seed) for seed in seeds] for kl_coef in KL_COEFS}
    sys.stdout.write("\n".join(lines(found)) + "\n")


if __name__ == "__main__":
    main()
