"""What training costs as tokens, vocabulary and answers of a prompt grow, and how much of it is matrix products.

    python benchmarks/curves.py tokens --data hh_harmless_test.jsonl.gz --threads 2
    python benchmarks/curves.py vocabulary --frozen-head
    python benchmarks/curves.py answers
    python benchmarks/curves.py products --data hh_harmless_test.jsonl.gz --threads 2

Each row of `vocabulary` and `answers` is measured in a process of its own: how far one optimiser step on a random model
lifts the process's peak above what it holds between steps - weights, gradients, moments. `products` multiplies
matrices of the shapes that the model's layers have, forward and for both gradients, as training does and as often as a
step has to (the logits that it computes twice count once), adds what attention has to multiply, and sets that beside
the step's time; then the profiler says where the rest goes.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from same_steps import BETA, LAYOUTS, Task, drawn
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig, LlamaForCausalLM

from prefloop.loop.machine import peak_memory, resident_memory
from prefloop.objectives import find_objective
from prefloop.policy import (
    ChatCodec,
    PolicyFiles,
    TokenRow,
    Trainable,
    Workbench,
    added_gradients,
    resolve_model,
    return_freed_memory,
)
from prefloop.policy.linear_layers import differentiable_products
from prefloop.policy.tree_scores import forest_of
from prefloop.training import Budget, Engine, Layout, LossOfPlan, TokenExample, data_columns, frozen_scores
from prefloop.training.columns import column

MODEL, RATE, TOKENS_PER_BATCH, REPEATS = "builtin:smollm2-135m-instruct", 1e-6, 2048, 3
VOCABULARIES = (8_000, 32_000, 128_000)
ANSWERS = (2, 4, 8, 16)
WIDTH, PROMPT, ANSWER, PAIRS = 128, 100, 100, 6
"""So many pairs have more logits than stand in memory together, also with the smallest vocabulary."""


def main() -> None:
    """Writes the table of one curve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("curve", choices=CURVES)
    parser.add_argument("--data", default="everyday_pairs")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--layout", choices=LAYOUTS, default="trees")
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--frozen-head", action="store_true", help="as with LoRA; for `vocabulary`")
    parser.add_argument("--only", type=int, help="one row of a curve, as JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for line in CURVES[options.curve](options):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


# ------------------------------------------------------------------------------------------------- time over tokens


def tokens_curve(options: argparse.Namespace) -> Iterator[str]:
    """Seconds of an optimiser step on more and more pairs."""
    yield "| pairs | tokens that passed | seconds, the fastest of three | tokens a second |"
    yield "|---|---|---|---|"
    bench, examples = pairs_of(options)
    with engine_on(bench, examples, LAYOUTS[options.layout]) as engine:
        engine.step([0], RATE)
        for count in (2**power for power in range(options.pairs.bit_length())):
            seconds, said = fastest(engine, range(count))
            yield f"| {count} | {said['tokens']:.0f} | {seconds:.2f} | {said['tokens'] / seconds:.0f} |"


def pairs_of(options: argparse.Namespace) -> tuple[Workbench, list[TokenExample]]:
    """Pairs by lot."""
    source = resolve_model(options.model)
    bench = Workbench(source, ChatCodec.load(source.directory, {}), torch.device("cpu"))
    return bench, drawn(Task(options.model, options.data, pairs=options.pairs), bench.codec)[1]


@contextmanager
def engine_on(bench: Workbench, examples: Sequence[TokenExample], layout: Layout) -> Iterator[Engine]:
    """DPO on all weights of a model, the reference scored."""
    dpo, files = find_objective("dpo", "objective"), PolicyFiles("start", bench.source.directory)
    lists = {f"{role}_logps": [0.0] * len(examples) for role in dpo.roles}
    with bench.for_scoring(files) as model:
        everything = [list(range(len(examples)))]
        for batch, values in frozen_scores(model, examples, dpo.roles, everything, TOKENS_PER_BATCH, layout=layout):
            for name, of_batch in values.items():
                for index, value in zip(batch, of_batch, strict=True):
                    lists[name][index] = value
    frozen = {"ref": {name: column(values) for name, values in lists.items()}}
    loss = LossOfPlan(dpo, {"beta": BETA}, data_columns(examples, dpo), frozen)
    with bench.for_training(files, None, seed=0) as trainable:
        optimizer = torch.optim.AdamW(trainable.parameters().values(), lr=RATE, fused=True)
        yield Engine(trainable, loss, examples, optimizer, 1.0, Budget(TOKENS_PER_BATCH), layout)


def fastest(engine: Engine, indices: Sequence[int]) -> tuple[float, dict[str, float]]:
    """Seconds of a step, and what it said last."""
    found: list[float] = []
    said: dict[str, float] = {}
    for _ in range(REPEATS):
        started = time.perf_counter()
        said = engine.step(list(indices), RATE)
        found.append(time.perf_counter() - started)
    return min(found), said


# ------------------------------------------------------------------------------------------------------ memory


def vocabulary_curve(options: argparse.Namespace) -> Iterator[str]:
    """Peak over vocabularies, with pairs of the same lengths."""
    yield "| vocabulary | the head's weights, MB | logits of all answers would be | a step adds to what stays |"
    yield "|---|---|---|---|"
    for vocab in VOCABULARIES if options.only is None else [options.only]:
        if options.only is None:
            added = in_process(options, vocab)
            logits = 2 * PAIRS * ANSWER * vocab * 4 / 1e6
            yield f"| {vocab:,} | {vocab * WIDTH * 4 / 1e6:.0f} | {logits:,.0f} | {added:.0f} |"
        else:
            examples = [example_of(("chosen", "rejected"), number, vocab) for number in range(PAIRS)]
            yield json.dumps(added_by_a_step("cpo", examples, vocab, Budget(100_000), options))


def answers_curve(options: argparse.Namespace) -> Iterator[str]:
    """Peak over the number of ranked answers of a prompt; an example above the budget passes answer by answer."""
    yield "| ranked answers of a prompt | tokens | a step adds to what stays, MB |"
    yield "|---|---|---|"
    for count in ANSWERS if options.only is None else [options.only]:
        if options.only is None:
            yield f"| {count} | {PROMPT + count * ANSWER:,} | {in_process(options, count):.0f} |"
        else:
            examples = [example_of([f"ranked.{rank}" for rank in range(count)], 0, VOCABULARIES[0])]
            budget = Budget(PROMPT + 2 * ANSWER, splits_examples=True)
            yield json.dumps(added_by_a_step("plackett_luce_dpo", examples, VOCABULARIES[0], budget, options))


def in_process(options: argparse.Namespace, only: int) -> float:
    """One row of a curve."""
    command = [sys.executable, __file__, options.curve, "--layout", options.layout, "--threads", str(options.threads)]
    command += ["--frozen-head"] if options.frozen_head else []
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}
    done = subprocess.run([*command, "--only", str(only)], capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return float(done.stdout.splitlines()[-1])


def example_of(keys: Sequence[str], number: int, vocab: int) -> TokenExample:
    """Answers of 100 tokens to a prompt of as many."""
    generator = torch.Generator().manual_seed(number)
    prompt, *answers = (
        tuple(torch.randint(0, vocab, (count,), generator=generator).tolist())
        for count in (PROMPT, *(ANSWER for _ in keys))
    )
    rows = {key: TokenRow(prompt, answer, (True,) * ANSWER) for key, answer in zip(keys, answers, strict=True)}
    return TokenExample(str(number), rows, {}, 1.0, {}, {})


def added_by_a_step(
    name: str, examples: Sequence[TokenExample], vocab: int, budget: Budget, options: argparse.Namespace
) -> float:
    """Megabytes by which the second step's peak lies above what is held before it; the first makes the moments."""
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )
    policy = LlamaForCausalLM(config).eval()
    policy.get_output_embeddings().requires_grad_(not options.frozen_head)
    objective, count = find_objective(name, "objective"), len(examples[0].rows)
    frozen = {model: {"ranked_logps": torch.zeros(len(examples), count).double()} for model in objective.models}
    loss = LossOfPlan(objective, objective.options().model_dump(), data_columns(examples, objective), frozen)
    optimizer = torch.optim.AdamW([one for one in policy.parameters() if one.requires_grad], lr=RATE, fused=True)
    everything = list(range(len(examples)))
    trainable = Trainable(policy, None, Path(), {})
    engine = Engine(trainable, loss, examples, optimizer, 1.0, budget, LAYOUTS[options.layout])
    engine.step(everything, RATE)
    return_freed_memory()
    held = resident_memory()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    engine.step(everything, RATE)
    return (peak_memory() - held) / 1e6


# -------------------------------------------------------------------------------------------------- matrix products


def products_curve(options: argparse.Namespace) -> Iterator[str]:
    """The share of a step that its matrix products would take alone, and where the rest goes."""
    bench, examples = pairs_of(options)
    with engine_on(bench, examples, LAYOUTS[options.layout]) as engine:
        everything = list(range(len(examples)))
        engine.step(everything, RATE)
        seconds, said = fastest(engine, everything)
        passes = [len(part.passes) for part in engine._parts(everything)]
        tokens = int(said["tokens"]) // max(1, sum(passes))
        answer_tokens = sum(len(row.answer_ids) for one in examples for row in one.rows.values())
        alone, operations = 0.0, 0.0
        for name, out, width, count in matrices(engine.trainable.model):
            rows = answer_tokens // sum(passes) if name == "head" else tokens
            times = 3 * sum(passes) * count
            one = seconds_of_product(rows, width, out)
            alone += one * times
            operations += 2 * rows * width * out * times
        rate, best = operations / alone / 1e9, square_rate()
        attending = operations_of_attention(engine, everything)
        least = (operations + attending) / best / 1e9
        yield f"- {len(examples)} pairs, {said['tokens']:.0f} tokens in {sum(passes)} passes: {seconds:.2f} s a step."
        yield f"- Its layers' products alone: {alone:.2f} s at {rate:.0f} GFLOPS, {alone / seconds:.0%} of the step."
        yield f"- Attention needs {attending / operations:.1%} of their operations."
        yield f"- All at the rate of 2,048 cubed, {best:.0f} GFLOPS: {least:.2f} s, {least / seconds:.0%} of the step."
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            engine.step(everything, RATE)
    yield from ("", "| operation | seconds of its own | share | calls |", "|---|---|---|---|")
    events = sorted(profiled.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    for event in events[:16]:
        own = event.self_cpu_time_total
        yield f"| `{event.key}` | {own / 1e6:.2f} | {own / total:.1%} | {event.count} |"


def operations_of_attention(engine: Engine, indices: Sequence[int]) -> int:
    """Of every token with what it sees: scores and values forward, scores once more and four products going back."""
    config = engine.trainable.model.config.get_text_config()
    width = config.hidden_size * config.num_hidden_layers
    seen = 0
    for part in engine._parts(indices):
        for places in part.passes:
            forest = forest_of([part.answers[place].row for place in places], by_blocks=False)
            seen += int(forest.positions().add(1).sum())
    return 7 * 2 * seen * width


def matrices(model: Any) -> Iterator[tuple[str, int, int, int]]:
    """Of each kind of linear layer its name, rows and columns, and how many there are."""
    shapes: dict[tuple[str, int, int], int] = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            kind = "head" if module is model.get_output_embeddings() else name.rpartition(".")[2]
            key = (kind, module.out_features, module.in_features)
            shapes[key] = shapes.get(key, 0) + 1
    for (kind, out, width), count in shapes.items():
        yield kind, out, width, count


def seconds_of_product(rows: int, width: int, out: int) -> float:
    """Mean over a layer's three products: forward, by its input and by its weights."""
    layer, states = torch.nn.Linear(width, out, bias=False), torch.randn(rows, width, requires_grad=True)
    layer.weight.grad, slopes = torch.zeros_like(layer.weight), torch.randn(rows, out)
    with differentiable_products(layer), added_gradients():
        return timed(lambda: layer(states).backward(slopes)) / 3


def square_rate() -> float:
    """GFLOPS of a large square product, by whichever library is faster."""
    one, other = torch.randn(2048, 2048), torch.nn.Linear(2048, 2048, bias=False)
    with torch.no_grad(), differentiable_products(other):
        seconds = min(timed(lambda: one @ one), timed(lambda: other(one)))
    return 2 * 2048**3 / seconds / 1e9


def timed(work: Callable[[], object]) -> float:
    """Seconds, the fastest of five."""
    found: list[float] = []
    for _ in range(5):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return min(found)


CURVES: dict[str, Callable[[argparse.Namespace], Iterator[str]]] = {
    "tokens": tokens_curve,
    "vocabulary": vocabulary_curve,
    "answers": answers_curve,
    "products": products_curve,
}

if __name__ == "__main__":
    main()
