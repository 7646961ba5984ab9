"""How fast a preference set is linted, and how much memory that takes, by its length.

    .venv/bin/python benchmarks/lint_speed.py [--rows 25000 50000 100000 200000] [--words 150]

Each size runs in a process of its own on one thread, so that the peak memory is that of the size; the file of pairs is
made first and not timed. Prints a table.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from prefloop.data import Reading, find_source

WORDS = ("the", "of", "and", "to", "a", "in", "that", "is", "was", "he", "for", "it", "with", "as", "his", "on", "be")


def write_pairs(path: Path, rows: int, words: int) -> None:
    """Pairs of random words with scores and ids: prompts of a third of the words, answers around them."""
    draw = random.Random(0)
    vocabulary = [*WORDS, *(f"{draw.choice(WORDS)}{draw.choice(WORDS)}{number}" for number in range(5000))]

    def text(length: float) -> str:
        return " ".join(draw.choices(vocabulary, k=max(1, round(draw.gauss(length, length / 4)))))

    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            row = {
                "id": f"pair-{number}",
                "prompt": [{"role": "user", "content": text(words / 3)}],
                "chosen": [{"role": "assistant", "content": text(words)}],
                "rejected": [{"role": "assistant", "content": text(words)}],
                "score_chosen": draw.random() + 0.5,
                "score_rejected": draw.random(),
            }
            file.write(json.dumps(row) + "\n")


def memory(field: str) -> float:
    """A size of this process in MiB, as Linux counts it."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:")]
    return int(line.split()[1]) / 1024


def measure(path: Path) -> dict[str, float]:
    """One pass in this process: seconds, and the memory that it took beyond what was there before it."""
    before = memory("VmRSS")
    started, worked = time.perf_counter(), time.process_time()
    reading = Reading(find_source(str(path)))
    accepted = sum(1 for _ in reading)
    seconds, cpu = time.perf_counter() - started, time.process_time() - worked
    return {
        "accepted": accepted,
        "seconds": seconds,
        "cpu": cpu,
        "start_mib": before,
        "peak_mib": memory("VmHWM"),
    }


def main() -> None:
    """Measures every size and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[25_000, 50_000, 100_000, 200_000])
    parser.add_argument("--words", type=int, default=150, help="words of an answer")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        sys.stdout.write(json.dumps(measure(options.measure)))
        return
    sys.stdout.write("| pairs | file | time | processor time | memory at start | peak |\n|---|---|---|---|---|---|\n")
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "pairs.jsonl"
            write_pairs(path, rows, options.words)
            size = path.stat().st_size / 2**20
            command = [sys.executable, __file__, "--measure", str(path)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        assert found["accepted"] == rows
        sys.stdout.write(
            f"| {rows:,} | {size:.0f} MiB | {found['seconds']:.1f} s | {found['cpu']:.1f} s "
            f"| {found['start_mib']:.0f} MiB | {found['peak_mib']:.0f} MiB |\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
