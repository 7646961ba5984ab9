"""A pool of three servers beside one, at servers that take their time: `python benchmarks/server_pool.py`.

The servers answer what was worked out before, after a delay, so that nothing but waiting is measured. One server and
the pool in turn, in one process, each with answers of its own kept on disk.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path

import torch

from prefloop.policy import ChatCodec, PolicyFiles, Workbench, resolve_model
from prefloop.records import Message, Prompt
from prefloop.sampling import KeptAnswers, Pool, SamplingSettings, ServerPolicies, draws_for
from prefloop.testing import CompletionsServer

SETTINGS = SamplingSettings(temperature=1.0, top_p=1.0, max_new_tokens=16)


def seconds(servers: int, calls: int, concurrency: int, delay_s: float, bench: Workbench) -> float:
    """How long a step's calls take."""
    policy = PolicyFiles(bench.source.identity, bench.source.directory)
    wanted = [
        draw
        for number in range(calls)
        for draw in draws_for(
            str(number),
            bench.codec.prompt_ids(Prompt.of((Message(role="user", content=f"What is number {number}?"),))),
            num_samples=1,
            recipe_seed=0,
            step="samples",
            round_number=0,
            block=0,
        )
    ]
    with ExitStack() as stack:
        pool = [CompletionsServer(bench, policy) for _ in range(servers)]
        urls = [stack.enter_context(server.running()) for server in pool]
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        kept = stack.enter_context(closing(KeptAnswers(folder / "answers.sqlite")))
        sampler = ServerPolicies(lambda: Pool(urls, concurrency), "tiny", bench, kept, print)
        serving = stack.enter_context(sampler.serving(policy))
        for server in pool:
            server.latency_s = delay_s
        begun = time.monotonic()
        assert len(list(serving.sample(wanted, SETTINGS))) == calls
        return time.monotonic() - begun


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=96)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--delay", type=float, default=1.0, help="seconds")
    parser.add_argument("--turns", type=int, default=5)
    told = parser.parse_args()
    source = resolve_model("builtin:tiny")
    bench = Workbench(source, ChatCodec.load(source.directory, {}), torch.device("cpu"))
    seconds(1, told.calls, told.concurrency, 0.0, bench)  # works the answers out
    out = sys.stdout
    out.write(
        f"load {os.getloadavg()[0]:.1f}\n| turn | one server, s | three servers, s | ratio |\n|---|---|---|---|\n"
    )
    ratios: list[float] = []
    for turn in range(1, told.turns + 1):
        one, three = (seconds(n, told.calls, told.concurrency, told.delay, bench) for n in (1, 3))
        ratios.append(one / three)
        out.write(f"| {turn} | {one:.2f} | {three:.2f} | {one / three:.2f} |\n")
    one, three = (told.calls / (told.concurrency * n) * told.delay for n in (1, 3))
    out.write(f"| ideal | {one:.2f} | {three:.2f} | 3.00 |\n")
    out.write(f"median ratio {statistics.median(ratios):.2f}, load {os.getloadavg()[0]:.1f}\n")


if __name__ == "__main__":
    main()
