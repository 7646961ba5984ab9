"""What float32 costs: the gradient by our layouts and by TRL against float64, and five steps of both layouts.

    python benchmarks/float32.py --data hh_harmless_test.jsonl.gz --trl-python build/trl/bin/python

DPO on SmolLM2 at policy = reference, beta 0.1, one batch of four pairs. Float64 is one sequence at a time with a full
log-softmax, and norms in float64 too, which transformers computes in float32 whatever the model's precision. Each is
||gradient - exact|| / ||exact|| over all weights, and the largest of any one tensor.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from same_steps import BETA, LAYOUTS, TOKENS_PER_BATCH, TRL_SCRIPT, Task, drawn, our_steps, row
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from prefloop.objectives import find_objective
from prefloop.policy import ChatCodec, PolicyFiles, TokenRow, Workbench, resolve_model
from prefloop.training import Budget, Engine, Layout, LossOfPlan, TokenExample, data_columns, frozen_scores
from prefloop.training.columns import column

Gradient = Mapping[str, Tensor]
STEPS = 5


def main() -> None:
    """Writes a table of the gradients, and how far the layouts are apart after some steps."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="builtin:smollm2-135m-instruct")
    parser.add_argument("--data", default=Task.data)
    parser.add_argument("--trl-python")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    task = Task(options.model, options.data, pairs=Task.batch * STEPS, epochs=1, rate=1e-5, threads=options.threads)
    bench = workbench(task.model)
    records, examples = drawn(task, bench.codec)
    first = examples[: task.batch]
    exact = exact_gradient(bench.source.directory, first)
    found = {f"ours, {name}": our_gradient(bench, first, layout) for name, layout in LAYOUTS.items()}
    if options.trl_python:
        rows = [row(one, bench.codec) for one in records[: task.batch]]
        found["TRL"] = trl_gradient(options.trl_python, bench.source.directory, rows, options.threads)
    sys.stdout.write("| gradient by | off in all | in one tensor at most |\n|---|---|---|\n")
    for name, gradient in found.items():
        sys.stdout.write(f"| {name} | {off(gradient, exact):.1e} | {furthest(gradient, exact):.1e} |\n")
    plain, fast = (stepped(task, examples, layout) for layout in LAYOUTS.values())
    gaps = ", ".join(f"{abs(one['loss'] - other['loss']):.1e}" for one, other in zip(fast, plain, strict=True))
    sys.stdout.write(f"\nLosses of {STEPS} steps, trees against rows, nats: {gaps}.\n")


def workbench(model: str) -> Workbench:
    """The models of a run."""
    source = resolve_model(model)
    return Workbench(source, ChatCodec.load(source.directory, {}), torch.device("cpu"))


@contextmanager
def exact_norms() -> Iterator[None]:
    """Norms in the model's own precision."""

    def exact(norm: Any, states: Tensor) -> Tensor:
        return norm.weight * states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon)

    before, LlamaRMSNorm.forward = LlamaRMSNorm.forward, exact
    yield
    LlamaRMSNorm.forward = before


def exact_gradient(directory: Path, examples: Sequence[TokenExample]) -> Gradient:
    """In float64, straight from the formula: at policy = reference each pair's slope by its margin is -beta / 2."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float64).eval()
    with exact_norms():
        for example in examples:
            for role, sign in (("chosen", 1), ("rejected", -1)):
                (-sign * BETA / 2 / len(examples) * logp(model, example.rows[role])).backward()
    return {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


def logp(model: Any, of: TokenRow) -> Tensor:
    """Log-probability of an answer's counted tokens, from the whole softmax of its sequence alone."""
    sequence = torch.tensor([(*of.prompt_ids, *of.answer_ids)])
    logps = model(input_ids=sequence, use_cache=False).logits[0, :-1].log_softmax(-1)
    picked = logps.gather(1, sequence[0, 1:, None])[len(of.prompt_ids) - 1 :, 0]
    return (picked * torch.tensor(of.counted)).sum()


def our_gradient(bench: Workbench, examples: Sequence[TokenExample], layout: Layout) -> Gradient:
    """Of an optimiser step of ours, in float32."""
    dpo, plan, policy = find_objective("dpo", "objective"), [list(range(len(examples)))], bench.source.directory
    files = PolicyFiles("start", policy)
    scores = {f"{role}_logps": [0.0] * len(examples) for role in dpo.roles}
    with bench.for_scoring(files) as model:
        for batch, values in frozen_scores(model, examples, dpo.roles, plan, TOKENS_PER_BATCH, layout=layout):
            for name, of_batch in values.items():
                for index, value in zip(batch, of_batch, strict=True):
                    scores[name][index] = value
    frozen = {"ref": {name: column(values) for name, values in scores.items()}}
    loss = LossOfPlan(dpo, {"beta": BETA}, data_columns(examples, dpo), frozen)
    with bench.for_training(files, None, seed=0) as trainable:
        optimizer = torch.optim.SGD(trainable.parameters().values(), lr=0.0)
        Engine(trainable, loss, examples, optimizer, 1e12, Budget(TOKENS_PER_BATCH), layout).step(plan[0], 0.0)
        return {name: one.grad for name, one in trainable.parameters().items() if one.grad is not None}


def trl_gradient(trl_python: str, directory: Path, rows: list[dict[str, str]], threads: int) -> Gradient:
    """Of the same batch by TRL's trainer, in float32."""
    with tempfile.TemporaryDirectory() as folder:
        texts, file = Path(folder) / "rows.json", Path(folder) / "gradient.safetensors"
        texts.write_text(json.dumps(rows))
        command = [trl_python, str(TRL_SCRIPT), str(texts), str(directory), "--batch", str(len(rows))]
        done = subprocess.run(
            [*command, "--threads", str(threads), "--gradient", str(file)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        return load_file(file)


def off(gradient: Gradient, exact: Gradient) -> float:
    """How far from the exact one, as a share of its norm."""
    gap = sum(float((gradient[name].double() - own).square().sum()) for name, own in exact.items())
    return (gap / sum(float(own.square().sum()) for own in exact.values())) ** 0.5


def furthest(gradient: Gradient, exact: Gradient) -> float:
    """The same of the tensor that is furthest off."""
    return max(off(gradient, {name: own}) for name, own in exact.items())


def stepped(task: Task, examples: list[TokenExample], layout: Layout) -> list[dict[str, Any]]:
    """What some optimiser steps say in one layout."""
    with tempfile.TemporaryDirectory() as folder:
        changed = Task(**{**vars(task), "layout": layout})
        return our_steps(changed, workbench(task.model), examples, Path(folder))


if __name__ == "__main__":
    main()
