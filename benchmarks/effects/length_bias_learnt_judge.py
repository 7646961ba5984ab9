"""Length bias that a reward model has learnt, through the loop: plain iterative DPO, iLR-DPO, penalised selection.

    python benchmarks/effects/length_bias_learnt_judge.py OUT [--seeds 5] [--processes N] [--tables]

Every arm of a seed shares its reward model. What is there is not made again; a killed call goes on. `--tables` only
prints what is there.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import starmap
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from prefloop.config import load_recipe
from prefloop.loop import Progress, run_recipe

RECIPE = Path(__file__).with_suffix(".yaml")
ARMS: Mapping[str, tuple[str, ...]] = {
    "plain": (),
    "iLR-DPO": ("policy.objective={name: length_regularized_dpo, beta: 0.1, alpha: fitted}",),
    "penalised": ("pairs={rule: length_corrected, alpha: fitted}",),
}
"""By name: what each does instead of iterative DPO on the best against the worst by the learnt judge."""


def run_arm(out: Path, seed: int, arm: str) -> None:
    """One arm of one seed, unless it is there."""
    done = out / "points" / f"{arm}-{seed}.json"
    if done.exists():
        return
    first = out / f"{next(iter(ARMS))}-{seed}"
    loaded = load_recipe(str(RECIPE), [f"seed={seed}", *ARMS[arm]])
    run = out / f"{arm}-{seed}"
    run_recipe(loaded, run, Progress(), reuse=first if run != first and first.exists() else None)
    rounds = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(run.glob("round-*/evaluation.json"))]
    done.parent.mkdir(parents=True, exist_ok=True)
    done.write_text(json.dumps({"seed": seed, "arm": arm, "rounds": rounds}, indent=1) + "\n", encoding="utf-8")


def estimate(values: Sequence[float]) -> tuple[float, float]:
    """Mean over seeds, and half the width of its 95 % interval by Student's t."""
    spread = float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return float(np.mean(values)), float(student.ppf(0.975, max(len(values) - 1, 1))) * spread


def table(points: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """True win rate against the initial model and length, round by round, over seeds; and arms less the plain one."""
    by = {(one["arm"], one["seed"]): [figures_of(board) for board in one["rounds"]] for one in points}
    seeds = sorted({seed for _, seed in by})
    rounds = max((len(rows) for rows in by.values()), default=0)
    yield f"Seeds: {', '.join(map(str, seeds))}. Means over seeds and 95 % intervals (Student's t)."
    yield ""
    yield "| arm | round | true win rate, % | length, times the initial model's |"
    yield "|---|---|---|---|"
    for arm in ARMS:
        for number in range(rounds):
            rows = [by[arm, seed][number] for seed in seeds if (arm, seed) in by and number < len(by[arm, seed])]
            if rows:
                won, length = ([row[key] for row in rows] for key in (0, 1))
                yield f"| {arm} | {number + 1} | {said(won, 1)} | {said(length, 2)} |"
    plain = next(iter(ARMS))
    for arm in ARMS:
        both = [seed for seed in seeds if (arm, seed) in by and (plain, seed) in by]
        if arm != plain and both:
            yield ""
            gaps = [[by[arm, seed][-1][key] - by[plain, seed][-1][key] for seed in both] for key in (0, 1)]
            yield f"{arm} less {plain}, last round: {said(gaps[0], 1)} points, {said(gaps[1], 2)} of length."


def figures_of(board: Mapping[str, Any]) -> tuple[float, float]:
    """Win rate against the initial model by the truth, and length as a multiple of the initial model's."""
    return board["against"]["initial"]["judge"]["win_rate"], board["length"]["ratio"]


def said(values: Sequence[float], digits: int) -> str:
    """A mean with its interval."""
    mean, half = estimate(values)
    return f"{mean:.{digits}f} ({mean - half:.{digits}f} to {mean + half:.{digits}f})"


def main() -> None:
    """Runs what is missing, then prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--tables", action="store_true")
    told = parser.parse_args()
    told.out.mkdir(parents=True, exist_ok=True)
    if not told.tables:
        for_all([(told.out, seed, arm) for seed in range(told.seeds) for arm in list(ARMS)[:1]], told.processes)
        for_all([(told.out, seed, arm) for seed in range(told.seeds) for arm in list(ARMS)[1:]], told.processes)
    points = [json.loads(file.read_text(encoding="utf-8")) for file in sorted((told.out / "points").glob("*.json"))]
    sys.stdout.write("\n".join(table(points)) + "\n")


def for_all(work: Sequence[tuple[Path, int, str]], processes: int) -> None:
    """Runs every arm, several at a time where that is wanted."""
    if processes == 1:
        list(starmap(run_arm, work))
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        list(pool.map(run_arm, *zip(*work, strict=True)))


if __name__ == "__main__":
    main()
