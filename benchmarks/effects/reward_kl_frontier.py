"""Reward against KL of DPO, PPO, PPO on the true reward, Preferred-FT, unlikelihood and best-of-n (arXiv:2305.18290).

The experiment of the DPO paper's figure 2 at a size that a laptop computes: a model of 1.03 million weights that is
pre-trained here on generated reviews of known sentiment, prompts that begin a review, answers of 24 tokens, and the
exact P(positive) as reward. From the repository, with prefloop installed or `PYTHONPATH=src`:

    python benchmarks/effects/reward_kl_frontier.py run OUT --seeds 5 --processes 2    # goes on where it ended
    python benchmarks/effects/reward_kl_frontier.py table OUT                          # numbers and OUT/frontier.svg

On 16 cores `--processes 16`. Every process takes one thread. The model is trained once and kept in OUT; each finished
trial leaves one JSON file in OUT/points and nothing else, so that a killed call loses what was running and no more.
`--only frontier`, `--only updates` or `--only references` computes a part; `--only frontier,updates` two; `--trials 2`
the first two trials of each method.

**What is equal.** A seed has 1,024 answers that the true judge scored: two to each of 512 prompts, of the pre-trained
model. Their 512 pairs are what DPO, Preferred-FT, unlikelihood and the reward model learn from. PPO is given that
reward model and samples as many answers, which nobody judges; PPO on the true reward has its own 1,024 answers judged
instead. Every method has the same number of trials, best-of-n six values of n; a trial passes over its data once and is
measured on 256 held-out prompts, one answer each. All trials count for the envelope of a method; none is dropped.

**What is asked besides.** `updates`: 20 % new pairs arrive; DPO goes on from its policy on them alone, the classical
pipeline fits its reward model again on all pairs and runs PPO again. `references`: three rounds on own answers against
the initial model, the policy of the round before, a better model (Preferred-FT) and no reference, at three betas.
"""

import argparse
import json
import math
import os
import shutil
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from frontier_tables import write_tables
from review_model import pretrain, write_prompts

from prefloop.config import load_recipe
from prefloop.evaluation import read_scores
from prefloop.loop import Progress, run_recipe
from prefloop.records import Response, read_folder
from prefloop.statistics import best_of_n_kl, best_of_n_mean

PROMPTS, ANSWERS, HELD_OUT, TOKENS, ROUNDS = 512, 2, 256, 24, 3
NEW = PROMPTS // 5
PROMPT_FILES = {"prompts": 6000, "new-prompts": 3000, "held_out": HELD_OUT, "best-prompts": HELD_OUT // 4}
BEST_OF = (1, 2, 4, 8, 16, 32)
PRETRAINING_STEPS = 1200
TRUE = {"type": "python", "function": "review_grammar:sentiment"}
PROXY = {"type": "reward_model", "model": "reward_model"}
SAMPLE = {"type": "sample", "max_new_tokens": TOKENS, "wave": 256}
PAIR = {"type": "pair", "rule": "all_pairs", "finished_only": False}
TRAIN = {"type": "train", "batch_size": 32, "warmup": 0.1, "schedule": "linear"}

Raw = dict[str, Any]


@dataclass(frozen=True)
class Trial:
    """One training run of one method with one seed."""

    part: str
    """Of the benchmark."""
    method: str
    setting: str
    seed: int
    recipe: Raw

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.part}-{self.method}-{self.setting}-{self.seed}"


# ------------------------------------------------------------------------------------------------------------- recipes


def judged(count: int, stem: str = "", policy: str = "initial") -> Raw:
    """Prompts, two answers each, the true judge, and pairs, as steps of a set-up."""
    names = [f"{stem}prompts", f"{stem}samples", f"{stem}judgments", f"{stem}pairs"]
    steps: list[Raw] = [
        {"type": "prompts", "data": "prompts.jsonl" if not stem else f"{stem}prompts.jsonl", "count": count},
        {**SAMPLE, "policy": policy, "num_samples": ANSWERS, "reads": names[:1]},
        {"type": "judge", "judge": TRUE, "reads": names[1:2]},
        {**PAIR, "reads": names[:3]},
    ]
    return dict(zip(names, steps, strict=True))


def reward_model(reads: list[str], **settings: Any) -> Raw:
    """Trained on pairs by Bradley-Terry."""
    objective = {"name": "bradley_terry", "center_coef": 0.01}
    return {
        **TRAIN,
        "reads": reads,
        "objective": objective,
        "learning_rate": 1e-3,
        "batch_size": 16,
        "epochs": 3,
        **settings,
    }


def recipe(seed: int, setup: Raw, block: Raw, **top: Any) -> Raw:
    """A recipe that is measured by the true judge after each round."""
    evaluation = {
        "type": "evaluate",
        "suite": "held_out.jsonl",
        "count": HELD_OUT,
        "judge": TRUE,
        "max_new_tokens": TOKENS,
        "resamples": 100,
    }
    return {
        "name": "frontier",
        "model": "model",
        "seed": seed,
        "rounds": 1,
        "setup": list(setup),
        "block": list(block),
        "round": ["evaluation"],
        "gate": {"require": "not_worse", "action": "warn"},
        "monitors": {"collapse": {"action": "warn"}, "length": {"action": "warn"}},
        "machine": {
            "threads": 1,
            "device": "cpu",
            "checkpoint_steps": 1000,
            "layout": "rows",
            "tokens_per_batch": 8192,
        },
        **setup,
        **block,
        "evaluation": evaluation,
        **top,
    }


def offline(objective: Raw, references: Raw, rate: float, reads: str = "pairs", **settings: Any) -> Raw:
    """Training on given pairs."""
    step = {**TRAIN, "objective": objective, "references": references, "learning_rate": rate, "measured_margins": 0}
    return {"policy": {**step, "reads": [reads], **settings}}


def on_policy(judge: Raw, kl_coef: float, rate: float, stem: str = "own-") -> Raw:
    """An update of PPO: own answers, what they are paid, epochs on them."""
    names = [f"{stem}prompts", f"{stem}samples", f"{stem}judgments", f"{stem}rollouts"]
    steps: list[Raw] = [
        {"type": "prompts", "data": "prompts.jsonl", "count": PROMPTS * ANSWERS // BLOCKS},
        {**SAMPLE, "num_samples": 1, "reads": names[:1]},
        {"type": "judge", "judge": judge, "reads": names[1:2]},
        {"type": "pair", "rule": "rollouts", "finished_only": False, "unfinished_score": None, "reads": names[:3]},
    ]
    policy = {
        **TRAIN,
        "reads": names[3:],
        "objective": {"name": "ppo", "kl_coef": kl_coef, "lam": 0.95, "vf_coef": 0.1},
        "references": {"ref": "initial", "old": "current"},
        "learning_rate": rate,
        "schedule": "constant",
        "warmup": 0,
        "adam_epsilon": 1e-5,
        "measured_margins": 0,
    }
    return {**dict(zip(names, steps, strict=True)), "policy": policy}


BLOCKS = 4
"""Updates of PPO."""
DPO = [{"beta": beta, "rate": 1e-3} for beta in (0.05, 1.0, 0.2, 0.5, 0.1, 0.02)]
PPO = [
    {"kl_coef": kl, "rate": rate}
    for kl, rate in ((0.05, 2e-4), (0.05, 4e-4), (0.2, 8e-4), (0.05, 6e-4), (0.01, 4e-4), (0.2, 4e-4))
]
PREFERRED = [{"rate": rate} for rate in (1e-3, 3e-3, 6e-3, 2e-3, 4e-3, 1e-2)]
UNLIKELIHOOD = [
    {"alpha": alpha, "rate": rate}
    for alpha, rate in ((0.5, 1e-3), (1.0, 1e-3), (1.0, 2e-3), (0.25, 1e-3), (0.5, 2e-3), (0.25, 2e-3))
]
"""Six trials each, in the order in which they are made."""


def said(setting: Mapping[str, float]) -> str:
    """A setting as a name."""
    return "_".join(f"{key}{value:g}" for key, value in setting.items())


def frontier(seed: int) -> Iterator[Trial]:
    """Six trials of each method."""
    pairs = judged(PROMPTS)
    rewarded = {**pairs, "reward_model": reward_model(["pairs"])}
    initial = {"ref": "initial"}

    def trial(method: str, setting: Mapping[str, float], setup: Raw, block: Raw, **top: Any) -> Trial:
        return Trial("frontier", method, said(setting), seed, recipe(seed, setup, block, **top))

    for one in DPO:
        yield trial("dpo", one, pairs, offline({"name": "dpo", "beta": one["beta"]}, initial, one["rate"]))
    for one in PPO:
        yield trial("ppo", one, rewarded, on_policy(PROXY, one["kl_coef"], one["rate"]), blocks=BLOCKS)
    for one in PPO:
        yield trial("ppo_true", one, {}, on_policy(TRUE, one["kl_coef"], one["rate"]), blocks=BLOCKS)
    for one in PREFERRED:
        sft = {"name": "sft", "nll_reduction": "sequence_sum"}
        yield trial("preferred_ft", one, pairs, offline(sft, {}, one["rate"]))
    for one in UNLIKELIHOOD:
        objective = {"name": "unlikelihood", "alpha": one["alpha"]}
        yield trial("unlikelihood", one, pairs, offline(objective, {}, one["rate"]))
    yield Trial("frontier", "best_of_n", "all", seed, recipe(seed, best_of(rewarded), {}))


def best_of(rewarded: Raw) -> Raw:
    """Thirty-two answers of the initial model to each held-out prompt, with what proxy and truth say of them."""
    most = max(BEST_OF)
    return {
        **rewarded,
        "best-prompts": {"type": "prompts", "data": "best-prompts.jsonl"},
        "best-samples": {**SAMPLE, "policy": "initial", "num_samples": most, "reads": ["best-prompts"]},
        "best-proxy": {"type": "judge", "judge": PROXY, "reads": ["best-samples"]},
        "best-truth": {"type": "judge", "judge": TRUE, "reads": ["best-samples"]},
    }


def updates(seed: int) -> Iterator[Trial]:
    """Policies of both pipelines, then 20 % new pairs: round 0 is before, round 1 after.

    Both settings were fixed before they were run, within the range of the trials.
    """
    old, new = judged(PROMPTS), judged(NEW, "new-")
    dpo = {"name": "dpo", "beta": 0.1}
    steps = {**old, **new}
    policy = offline(dpo, {"ref": "initial"}, 1e-3)["policy"]
    first = {**policy, "start": "initial"}
    block = {"policy": {**policy, "start": "first", "reads": ["new-pairs"]}}
    yield Trial("updates", "dpo", "before", seed, recipe(seed, old, {"policy": first}))
    yield Trial("updates", "dpo", "after", seed, recipe(seed, {**steps, "first": first}, block))
    whole = {**steps, "all-pairs": {"type": "mix", "reads": ["pairs", "new-pairs"], "shares": [0.5]}}
    for setting, setup in {
        "before": {**old, "reward_model": reward_model(["pairs"])},
        "after": {**whole, "reward_model": reward_model(["all-pairs"])},
    }.items():
        ppo = on_policy(PROXY, 0.05, 4e-4)
        yield Trial("updates", "ppo", setting, seed, recipe(seed, setup, ppo, blocks=BLOCKS))


def references(seed: int) -> Iterator[Trial]:
    """Three rounds of DPO on own answers against different references."""
    better = judged(PROMPTS)
    sft = {"name": "sft", "nll_reduction": "sequence_sum"}
    better["better"] = {**offline(sft, {}, 1e-3)["policy"], "start": "initial"}
    arms: dict[str, tuple[Raw, Raw]] = {
        "initial": ({}, {"ref": "initial"}),
        "previous": ({}, {"ref": "round_start"}),
        "better": (better, {"ref": "better"}),
        "none": ({}, {}),
    }
    for name, (setup, refs) in arms.items():
        for beta in (0.05, 0.1, 0.3):
            objective = {"name": "dpo" if refs else "reference_free_dpo", "beta": beta}
            block = {
                "own-prompts": {"type": "prompts", "data": "prompts.jsonl", "count": PROMPTS // ROUNDS},
                "own-samples": {**SAMPLE, "num_samples": ANSWERS, "reads": ["own-prompts"]},
                "own-judgments": {"type": "judge", "judge": TRUE, "reads": ["own-samples"]},
                "own-pairs": {**PAIR, "reads": ["own-prompts", "own-samples", "own-judgments"]},
                **offline(objective, refs, 1e-3, "own-pairs"),
            }
            yield Trial("references", name, f"beta{beta:g}", seed, recipe(seed, setup, block, rounds=ROUNDS))


PARTS = {"frontier": frontier, "updates": updates, "references": references}


# ----------------------------------------------------------------------------------------------------------------- work


def run_trial(trial: Trial, out: Path) -> str:
    """Runs a trial in a folder that is removed afterwards; what it measured stays."""
    os.chdir(out)
    torch.set_num_threads(1)
    folder = Path("runs") / trial.name
    folder.parent.mkdir(exist_ok=True)
    file = folder.with_name(f"{trial.name}.yaml")
    file.write_text(json.dumps(trial.recipe), encoding="utf-8")
    progress = Progress()
    progress.console.file = Path(os.devnull).open("w")  # noqa: SIM115
    shared = Path("shared") / str(trial.seed)
    reuse = shared if (shared / "journal.sqlite").is_file() and trial.name != f"shared-{trial.seed}" else None
    run_recipe(load_recipe(str(file)), folder, progress, reuse=reuse)
    if trial.part == "shared":
        shutil.rmtree(shared, ignore_errors=True)
        shared.parent.mkdir(exist_ok=True)
        folder.rename(shared)
        return trial.name
    found = {**vars(trial), "recipe": None, "points": points(folder), "seconds": seconds(folder)}
    if trial.method == "best_of_n":
        found["points"] = best_of_points(folder)
    keep(Path("points") / f"{trial.name}.json", found)
    shutil.rmtree(folder)
    file.unlink()
    return trial.name


def points(run: Path) -> list[dict[str, float]]:
    """Reward and KL after each round, with the standard errors of both over prompts."""
    found: list[dict[str, float]] = []
    for place in sorted(run.glob("round-*/evaluation.json")):
        board = json.loads(place.read_text(encoding="utf-8"))
        scores = np.array([*read_scores(place.parent / "evaluation-judgments").values()])
        found.append(
            {
                "kl": board["kl"]["value"],
                "kl_error": board["kl"]["standard_error"],
                "reward": float(scores.mean()),
                "reward_error": float(scores.std(ddof=1) / math.sqrt(len(scores))),
                "initial": board["score"]["judge"]["initial"],
                "distinct_2": board["distinct_2"]["value"],
            }
        )
    return found


def best_of_points(run: Path) -> list[dict[str, float]]:
    """Expected true reward of the answer that the proxy ranks first among n, and by the truth, unbiased."""
    setup = run / "setup"
    answers: dict[str, list[str]] = {}
    for response in read_folder(setup / "best-samples", Response):
        answers.setdefault(response.prompt_id, []).append(response.response_id)
    proxy, truth = (read_scores(setup / name) for name in ("best-proxy", "best-truth"))
    found: list[dict[str, float]] = []
    for n in BEST_OF:
        means = []
        for ids in answers.values():
            values, ranks = (np.array([scores[one] for one in ids]) for scores in (truth, proxy))
            means.append((best_of_n_mean(values, n, ranked_by=ranks), best_of_n_mean(values, n)))
        by_proxy, by_truth = np.array(means).T
        error = float(by_proxy.std(ddof=1) / math.sqrt(len(by_proxy)))
        kl = best_of_n_kl(n)
        point = {"n": n, "kl": kl, "kl_error": 0.0, "reward": float(by_proxy.mean()), "reward_error": error}
        found.append({**point, "reward_of_truth": float(by_truth.mean())})
    return found


def seconds(run: Path) -> dict[str, float]:
    """How long each step took in all its rounds and blocks, those that were copied included."""
    with sqlite3.connect(run / "journal.sqlite") as journal:
        rows = journal.execute("select step, sum(seconds) from artifacts group by step").fetchall()
    return dict(rows)


def shared(seed: int) -> Trial:
    """What trials of a seed have in common, made once."""
    setup = {**judged(PROMPTS), "reward_model": reward_model(["pairs"])}
    return Trial("shared", "all", "all", seed, {**recipe(seed, setup, {}), "name": "shared"})


def compute(out: Path, *, parts: list[str], seeds: range, count: int, processes: int) -> None:
    """Everything that is not there yet."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "points").mkdir(exist_ok=True)
    if not (out / "model").is_dir():
        aside = out / "model.writing"
        loss = pretrain(aside, steps=PRETRAINING_STEPS)
        aside.rename(out / "model")
        sys.stdout.write(f"pre-trained to {loss:.3f} nats a word\n")
    for number, (name, prompts) in enumerate(PROMPT_FILES.items(), start=1):
        if not (out / f"{name}.jsonl").is_file():
            write_prompts(out / f"{name}.jsonl", count=prompts, seed=number)
    trials = [trial for seed in seeds for part in parts for trial in first_of_each(PARTS[part](seed), count)]
    trials = [trial for trial in trials if not (out / "points" / f"{trial.name}.json").is_file()]
    begun = {trial.seed for trial in trials if not (out / "shared" / str(trial.seed)).is_dir()}
    if processes == 1:
        for trial in trials:
            if trial.seed in begun:
                begun.remove(trial.seed)
                run_trial(shared(trial.seed), out)
            sys.stdout.write(f"{run_trial(trial, out)}\n")
            sys.stdout.flush()
        return
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        for group in ([shared(seed) for seed in sorted(begun)], trials):
            waiting = {pool.submit(run_trial, trial, out): trial for trial in group}
            for number, done in enumerate(as_completed(waiting), start=1):
                trouble = done.exception()
                sys.stdout.write(f"{number}/{len(group)} {waiting[done].name} {trouble or ''}\n")
                sys.stdout.flush()


def first_of_each(trials: Iterator[Trial], count: int) -> Iterator[Trial]:
    """So many trials of each method of the frontier; the other parts have no choice of settings."""
    seen = Counter[str]()
    for trial in trials:
        seen[trial.method] += 1
        if trial.part != "frontier" or seen[trial.method] <= count:
            yield trial


def keep(file: Path, content: Any) -> None:
    """Writes what was measured, whole or not at all."""
    file.parent.mkdir(exist_ok=True)
    aside = file.with_suffix(".writing")
    aside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    aside.rename(file)


def main() -> None:
    """Computes, or writes the tables of what was computed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=len(DPO))
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--only", default=",".join(PARTS))
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    if arguments.what == "run":
        seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
        compute(
            out, parts=arguments.only.split(","), seeds=seeds, count=arguments.trials, processes=arguments.processes
        )
    write_tables(out)


if __name__ == "__main__":
    main()
