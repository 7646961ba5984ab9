"""How fast judgments become numbers: AlpacaEval's length-controlled fit beside its own tool, and Bradley-Terry.

    .venv/bin/python benchmarks/evaluation_speed.py DATA [--peer build/alpaca_eval/bin/python] [--repeats 5]

DATA holds AlpacaEval's judged answers (`*.jsonl.gz` of `index, preference, len_baseline, len_model`),
`instruction_difficulty.csv` and a file of gamed baselines; without it that part is left out. Both sides read their
files first, then fit in turn, on one thread: the search of C among ten values by five folds, and the fit.
"""

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when numpy is first imported
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np

from prefloop.evaluation import Settings, read_difficulties, read_gamed
from prefloop.evaluation.alpaca_eval import alpaca_rows
from prefloop.evaluation.alpaca_files import read_judged
from prefloop.statistics import (
    AlpacaRows,
    Battles,
    alpaca_eval_statistic,
    bca_bootstrap,
    bradley_terry,
    fit_alpaca_eval,
    resampled,
    search_c,
)

PEER = Path(__file__).with_name("evaluation_speed_peer.py")


def rows_of(file: Path, difficulty: Path, gamed: Path) -> AlpacaRows:
    """What is fitted, in the full variant, with difficulties by row number as the official tool has them."""
    settings = Settings("full", difficulties=read_difficulties(difficulty), gamed=read_gamed(gamed), by_position=True)
    rows = alpaca_rows(read_judged(file, file.name), settings)
    assert rows is not None
    return rows


def timed_fit(rows: AlpacaRows) -> tuple[float, float]:
    """Seconds of search and fit, and the length-controlled win rate."""
    started = time.perf_counter()
    rate = fit_alpaca_eval(rows, c=search_c(rows).c).length_controlled_winrate
    return time.perf_counter() - started, rate


def timed_interval(rows: AlpacaRows) -> float:
    """Seconds of 1,000 refits over resampled instructions, and as many as there are instructions for BCa."""
    started = time.perf_counter()
    bca_bootstrap(alpaca_eval_statistic(rows, c=100.0), rows.instructions, seed=0)
    return time.perf_counter() - started


def beside_the_official_tool(data: Path, peer: str | None, repeats: int) -> None:
    """A line a model: both sides' seconds and win rates."""
    (gamed,) = data.glob("*gamed*")
    sys.stdout.write("| model | ours | alpaca_eval | times as fast | LC ours | LC alpaca_eval | our interval |\n")
    sys.stdout.write("|---|---|---|---|---|---|---|\n")
    for file in sorted(data.glob("*.jsonl.gz")):
        if file.name.startswith("logprob"):
            continue
        rows = rows_of(file, data / "instruction_difficulty.csv", gamed)
        ours: list[float] = []
        theirs: list[dict[str, float]] = []
        other = None
        if peer is not None:
            command = [peer, "-W", "ignore", str(PEER), str(file), str(gamed)]
            other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        rate = timed_fit(rows)[1]
        for repeat in range(repeats + 1):  # the first of either side warms it up
            if other is not None and other.stdin is not None and other.stdout is not None:
                other.stdin.write("fit\n")
                other.stdin.flush()
                theirs += [json.loads(other.stdout.readline())] * (repeat > 0)
            ours += [timed_fit(rows)[0]] * (repeat > 0)
        if other is not None:
            other.communicate()
        mine = median(ours)
        slow = median(one["seconds"] for one in theirs) if theirs else float("nan")
        official = theirs[0]["lc"] if theirs else float("nan")
        sys.stdout.write(
            f"| {file.name.removesuffix('.jsonl.gz')} | {mine:.3f} s | {slow:.2f} s | {slow / mine:.1f} | {rate:.2f} | "
            f"{official:.2f} | {timed_interval(rows):.2f} s |\n"
        )
        sys.stdout.flush()


def ratings(battles: int, models: int, draws: int) -> None:
    """Bradley-Terry of random battles between all pairs, six a prompt, with resamples of prompts."""
    generator = np.random.default_rng(0)
    strength = generator.normal(size=models)
    first = generator.integers(0, models, battles)
    second = (first + generator.integers(1, models, battles)) % models
    won = generator.random(battles) < 1.0 / (1.0 + np.exp(strength[second] - strength[first]))
    for columns in (0, 1):
        data = Battles(
            first=first,
            second=second,
            outcomes=won.astype(np.float64),
            weights=np.ones(battles),
            clusters=np.arange(battles) // 6,
            features=generator.normal(size=(battles, columns)),
            models=models,
        )
        started = time.perf_counter()
        fit = bradley_terry(data)
        fitted = time.perf_counter() - started
        resampled(data, fit, clustered=True, draws=draws, seed=0)
        seconds = time.perf_counter() - started
        sys.stdout.write(f"| {battles:,} | {models} | {columns} | {fitted:.2f} s | {seconds:.2f} s |\n")
        sys.stdout.flush()


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="folder with AlpacaEval's files")
    parser.add_argument("--peer", help="interpreter of an environment with alpaca_eval")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--draws", type=int, default=400, help="resamples of prompts for Bradley-Terry")
    options = parser.parse_args()
    if options.data is not None and options.data.is_dir():
        beside_the_official_tool(options.data, options.peer, options.repeats)
    else:
        sys.stdout.write("no folder with AlpacaEval's files is named: its part is left out\n")
    sys.stdout.write(f"\n| battles | models | features | fit | with {options.draws} resamples of prompts |\n")
    sys.stdout.write("|---|---|---|---|---|\n")
    ratings(60_000, 20, options.draws)


if __name__ == "__main__":
    main()
