"""Local sampling beside transformers' `generate`: `python benchmarks/sampling_speed.py [MODEL] [--threads 2]`.

The same 64 rows - 16 everyday prompts, four answers each, at most 48 new tokens - by us, by one left-padded batch, and
(once, since it takes longest) by one batch of four a prompt, in turn, in one process. The others draw as many tokens
for every row as ours had: they are told when each row ends. Ours has its weights packed, as a sample step has them.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from itertools import pairwise
from typing import Any

import torch
from decode import everyday_draws
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.generation.stopping_criteria import StoppingCriteria, StoppingCriteriaList

from prefloop.policy import packed_weights, resolve_model
from prefloop.sampling import Draw, LocalSampler, SamplingSettings

PROMPTS, SAMPLES, NEW_TOKENS, STEPS = 16, 4, 48, 10
SETTINGS = SamplingSettings(temperature=0.8, top_p=1.0, max_new_tokens=NEW_TOKENS)


class EndsAt(StoppingCriteria):
    """Each row ends where it is told to."""

    def __init__(self, lengths: Tensor) -> None:
        """Lengths of prompt and answer."""
        self.lengths = lengths

    def __call__(self, input_ids: Any, scores: Any, **others: Any) -> Any:  # noqa: ARG002
        """Which rows are over."""
        return input_ids.shape[1] >= self.lengths


def generated(model: Any, draws: Sequence[Draw], lengths: Sequence[int]) -> None:
    """One left-padded batch of transformers."""
    width = max(len(draw.prompt_ids) for draw in draws)
    padding = [width - len(draw.prompt_ids) for draw in draws]
    model.generate(
        torch.tensor([[0] * missing + list(draw.prompt_ids) for missing, draw in zip(padding, draws, strict=True)]),
        attention_mask=(torch.arange(width) >= torch.tensor(padding)[:, None]).long(),
        do_sample=True,
        temperature=SETTINGS.temperature,
        top_k=0,
        top_p=1.0,
        max_new_tokens=NEW_TOKENS,
        pad_token_id=0,
        eos_token_id=None,
        stopping_criteria=StoppingCriteriaList([EndsAt(torch.tensor(lengths) + width)]),
    )


def seconds(work: Callable[[], object]) -> float:
    """Wall time."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def both_times(work: Callable[[], object]) -> tuple[float, float]:
    """Wall time and this process's processor time."""
    begun = time.process_time()
    wall = seconds(work)
    return wall, time.process_time() - begun


def whole(
    model: PreTrainedModel, packed: PreTrainedModel, draws: list[Draw], eos: frozenset[int], repeats: int
) -> Iterator[str]:
    """The first table: everything, in turn."""
    sampler = LocalSampler(packed, eos)
    lengths = {(a.draw.prompt_id, a.draw.index): len(a.token_ids) for a in sampler.sample(draws, SETTINGS)}
    drawn = [lengths[draw.prompt_id, draw.index] for draw in draws]
    tokens, ratios = sum(drawn), list[tuple[float, float]]()
    yield f"{tokens} tokens.\n"
    yield "| run | ours, tokens/s | one batch | ours / batch | the same in processor time |"
    yield "|---|---|---|---|---|"
    for run in range(repeats):
        ours, our_work = both_times(lambda: list(sampler.sample(draws, SETTINGS)))
        batch, its_work = both_times(lambda: generated(model, draws, drawn))
        ratios.append((batch / ours, its_work / our_work))
        by_wall, by_work = ratios[-1]
        yield f"| {run + 1} | {tokens / ours:.0f} | {tokens / batch:.0f} | {by_wall:.2f} | {by_work:.2f} |"
    by_wall, by_work = (statistics.median(column) for column in zip(*ratios, strict=True))
    yield f"| median | | | {by_wall:.2f} | {by_work:.2f} |\n"
    single, its_work = both_times(
        lambda: [
            generated(model, draws[start : start + SAMPLES], drawn[start : start + SAMPLES])
            for start in range(0, len(draws), SAMPLES)
        ]
    )
    ours, our_work = both_times(lambda: list(sampler.sample(draws, SETTINGS)))
    yield (
        f"A prompt's four answers at a time: {tokens / single:.0f} tokens/s, ours behind it {tokens / ours:.0f}: "
        f"{single / ours:.2f} times, in processor time {its_work / our_work:.2f}."
    )


def steps(model: PreTrainedModel, packed: PreTrainedModel, draws: list[Draw], all_rows: Sequence[int]) -> Iterator[str]:
    """The second table: the fastest step, from one pass of the layers to the next, with so many live rows."""
    bytes_read = 4 * sum(weight.numel() for weight in model.parameters())
    memory, products = bandwidth(), products_per_second()
    yield (
        f"Reading memory: {memory / 1e9:.1f} GB/s. Matrix products of 1,024 rows: {products / 1e9:.0f} GFLOPS. "
        "Limit: the slower of reading the weights once and multiplying by them.\n"
    )
    yield "| live rows | ours, ms | of these matrix products | tokens/s | generate, ms | tokens/s | limit, tokens/s |"
    yield "|---|---|---|---|---|---|---|"
    for rows in all_rows:
        some = draws[:rows]
        ours = fastest(
            model=packed, work=lambda some=some: list(LocalSampler(packed, frozenset()).sample(some, short()))
        )
        theirs = fastest(model, lambda some=some: generated(model, some, [STEPS + 2] * len(some)))
        limit = rows / max(bytes_read / memory, rows * bytes_read / 2 / products)  # 2 operations for 4 bytes
        yield (
            f"| {rows} | {ours * 1e3:.0f} | {products_of(packed, rows) * 1e3:.0f} | {rows / ours:.0f} "
            f"| {theirs * 1e3:.0f} | {rows / theirs:.0f} | {limit:.0f} |"
        )


@torch.inference_mode()
def products_of(model: PreTrainedModel, rows: int) -> float:
    """Seconds of nothing but the linear layers of a step, best of 5."""
    layers = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)]
    read = {width: torch.ones(rows, width) for width in {layer.in_features for layer in layers}}
    return min(seconds(lambda: [layer(read[layer.in_features]) for layer in layers]) for _ in range(5))


def short() -> SamplingSettings:
    """So many tokens as steps are timed, and two more."""
    return SamplingSettings(SETTINGS.temperature, SETTINGS.top_p, STEPS + 2)


def fastest(model: PreTrainedModel, work: Callable[[], object]) -> float:
    """Seconds of the fastest step behind the first two passes."""
    clock: list[float] = []
    handle = model.base_model.register_forward_pre_hook(lambda *_: clock.append(time.perf_counter()))
    work()
    handle.remove()
    return min(after - before for before, after in pairwise(clock[1:]))


def bandwidth() -> float:
    """Bytes a second that are read from memory, far beyond the caches."""
    numbers = torch.ones(2**27)
    return 4 * len(numbers) / min(seconds(numbers.sum) for _ in range(5))


def products_per_second() -> float:
    """Operations a second of a float32 matrix product of the feed-forward's shape."""
    left, right = torch.ones(1024, 576), torch.ones(576, 1536)
    return 2 * 1024 * 576 * 1536 / min(seconds(lambda: left @ right) for _ in range(20))


def show(line: str) -> None:
    """Print at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="builtin:smollm2-135m-instruct")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32", help="of our layers")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=["answers", "steps"], help="one of the two tables")
    parser.add_argument("--rows", type=int, nargs="*", default=[1, 4, 16, 32, 64])
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    directory = resolve_model(chosen.model).directory
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    packed = deepcopy(model)
    draws = everyday_draws(tokenizer, PROMPTS, SAMPLES)
    eos = frozenset({tokenizer.convert_tokens_to_ids("<|im_end|>")})
    show(f"Load before: {os.getloadavg()[0]:.1f}\n")
    with packed_weights(packed, chosen.precision):
        if chosen.only != "steps":
            for line in whole(model, packed, draws, eos, chosen.repeats):
                show(line)
        if chosen.only != "answers":
            show("")
            for line in steps(model, packed, draws, chosen.rows):
                show(line)
    show(f"\nLoad after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
