"""What each kind of work needs of the machine, as parts with their formulas. Written beside `policy/workbench.py`.

The workbench keeps one base loaded, and beside it the merged copy that samples, once a policy has an adapter. It lets
go of that copy when training begins, but not before the references have been scored. Without LoRA training has a copy
of the weights of its own, while the model that sampled or scored last stays loaded.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Literal

from prefloop.config import Precision
from prefloop.policy import BatchShape, ModelFacts, Part
from prefloop.policy.memory import (
    LOGIT_COPIES_SCORING,
    adapter,
    batch_logits,
    bfloat16_copies,
    gradients,
    grown_keys,
    grown_scores,
    inner_values,
    kv_cache,
    live_reference,
    logits,
    micro_batch,
    optimizer_state,
    packed_head,
    quantized_weights,
    repeated_keys,
    rounded_copies,
    rounded_weights,
    weights,
)
from prefloop.sampling import PASSED_AT_ONCE, columns_of

MERGED = "the base, and the policy merged for sampling"
COMPARED = "the policy, and the one that it is compared with"
MIXED = "the base, and the policies of the mixture"
SAMPLED_LOGIT_COPIES = 3
"""Logits, their weights, and what a setting makes of them on the way."""

RECORD_BYTES = {"prompts": 420, "answers": 380, "judge_calls": 212, "pairs": 2650}
"""Bytes of a record, without an answer's tokens (measured on the quickstart; a pair holds two answers of 37 tokens, as
text and as tokens)."""
TOKEN_BYTES = 11
"""Bytes of an answer's token: its id and its text."""


@dataclass(frozen=True)
class Need:
    """What one kind of work needs at its peak."""

    work: Literal["sampling", "scoring", "training"]
    bytes: int
    parts: tuple[Part, ...]
    shape: str
    """The batch that it was computed for."""
    recompute: bool = False
    """Layers are computed again going backward (gradient checkpointing)."""
    rows: int | None = None
    """Answers that may grow together, of sampling; the shape has fewer where there are not so many."""


Beside = Literal["none", "same base", "adapter on the same base", "other weights"]
"""Where the weights of a reference that stays loaded are."""


def sampling_need(
    facts: ModelFacts,
    program: Part,
    *,
    copies: int,
    components: int = 1,
    precision: Precision | Literal["auto"] = "float32",
    rows: int,
    prompts: int,
    samples: int,
    prompt_tokens: int,
    new_tokens: int,
) -> Need:
    """Answers that grow: all rows are full when the last of the prompts that they leave room for pass.

    Args:
        facts: of the model.
        program: what the process holds without a model.
        copies: of the weights: the base, and a policy merged for sampling or another one of a mixture.
        components: of a mixture, each with keys of its own.
        precision: of the layers. Keys in bfloat16 are counted as float32: an upper bound.
        rows: answers that grow together.
        prompts: that are sampled together.
        samples: answers of each.
        prompt_tokens: of the longest prompt.
        new_tokens: longest answer.
    """
    if facts.trees:  # a prompt stays until the last of its answers has ended
        passed = prompt_tokens + max(PASSED_AT_ONCE, 2 * prompt_tokens)
        grown = (
            grown_keys(
                facts,
                rows=rows,
                new_tokens=new_tokens,
                prompts=max(1, min(prompts, rows - samples + 1)),
                prompt_tokens=prompt_tokens,
                passed=passed,
            ),
            grown_scores(facts, rows, prompt_tokens + new_tokens),
        )
    else:
        passed, columns = ceil(rows / samples) * prompt_tokens, columns_of(prompt_tokens, new_tokens)
        grown = kv_cache(facts, rows, columns), repeated_keys(facts, rows, columns)
    parts = (
        program,
        weights(facts, copies, MERGED if components == 1 else MIXED),
        *((packed_head(facts),) * components if facts.tied and not facts.on_cuda else ()),
        *((rounded_copies(facts),) * components if precision != "float32" else ()),
        *grown * components,
        inner_values(facts, passed),
        logits(facts, rows, SAMPLED_LOGIT_COPIES + components - 1, f"{rows} rows"),
    )
    shape = f"{rows} answers that grow together, of {new_tokens} tokens after prompts of {prompt_tokens}"
    return _need("sampling", parts, shape)


def scoring_need(
    facts: ModelFacts, program: Part, batch: BatchShape, *, merged: bool, adapted: bool, beside: Beside = "none"
) -> Need:
    """Answers that are scored by a frozen policy, or by two that are compared token by token.

    Args:
        facts: of the model.
        program: what the process holds without a model.
        batch: the largest forward pass.
        merged: a policy that was merged for sampling is still loaded.
        adapted: the policy that scores has an adapter.
        beside: where the weights of the policy are that it is compared with.
    """
    others = beside == "other weights"
    parts = (
        program,
        weights(facts, 1 + merged + others, COMPARED if others else MERGED),
        *((adapter(facts),) if adapted else ()),
        inner_values(facts, batch.tokens),
        batch_logits(facts, batch, LOGIT_COPIES_SCORING + (beside != "none")),
    )
    return _need("scoring", parts, str(batch))


def training_need(
    facts: ModelFacts,
    program: Part,
    batch: BatchShape,
    optimizer: str,
    *,
    live: Beside = "none",
    average: bool = False,
    precision: Precision = "float32",
    recompute: bool = False,
) -> Need:
    """An optimiser step after the first, when its moments exist, as its largest pass goes backward.

    Args:
        facts: of the model.
        program: what the process holds without a model.
        batch: the largest pass.
        optimizer: whose moments are held.
        live: the reference that stays loaded, if any.
        average: a moving average of the trained weights is kept.
        precision: of the layers. Activations in bfloat16 are counted as float32: an upper bound.
        recompute: layers are computed again going backward.
    """
    parts = (
        program,
        _trained_on(facts, precision, 2 if live == "other weights" else 1),
        *((adapter(facts),) if facts.lora else ()),
        *((replace(adapter(facts), name="adapter of the reference"),) if live == "adapter on the same base" else ()),
        *((bfloat16_copies(facts),) if precision == "bfloat16" else ()),
        gradients(facts),
        optimizer_state(facts, optimizer),
        *((replace(gradients(facts), name="moving average"),) if average else ()),
        *micro_batch(facts, batch, recompute=recompute),
        *((live_reference(facts, batch),) if live != "none" else ()),
    )
    need = _need("training", parts, f"{batch}, layers computed again" if recompute else str(batch))
    return replace(need, recompute=recompute)


def _trained_on(facts: ModelFacts, precision: Precision, copies: int) -> Part:
    if facts.in_4_bits:
        return quantized_weights(facts)
    if precision == "bfloat16" and copies == 1:
        return rounded_weights(facts)
    return weights(facts, copies, "the one that is trained, and the reference, which stays loaded")


def policies(facts: ModelFacts, *, description_bytes: int, count: int) -> Part:
    """The policies that train steps write, each with what is needed to talk to it."""
    each = facts.num_trained if facts.lora else facts.num_weights
    return Part(
        "policies",
        count * (4 * each + description_bytes),
        f"{count} policies x ({each:,} weights x 4 bytes + {description_bytes:,} bytes of tokenizer and settings)",
    )


def checkpoints(facts: ModelFacts, *, moments: int, at_once: int) -> Part:
    """Weights and moments of what is trained: the checkpoints that are kept, and one that is being written.

    A moving average counts as a moment.
    """
    return Part(
        "checkpoints",
        at_once * 4 * (1 + moments) * facts.num_trained,
        f"{at_once} at once x {facts.num_trained:,} trained weights x {1 + moments} (each and its moments) x 4 bytes, "
        "while training",
    )


def records(counts: Mapping[str, int]) -> Part:
    """What stages write as JSON lines: about so much, by the sizes that records have in the shipped recipes."""
    tokens = counts.get("tokens", 0)
    terms = [(counts.get(name, 0), name.replace("_", " "), size) for name, size in RECORD_BYTES.items()]
    total = sum(number * size for number, _, size in terms) + tokens * TOKEN_BYTES
    shown = " + ".join(f"{number:,} {name} x {size}" for number, name, size in terms)
    return Part("records", total, f"{shown} + {tokens:,} tokens x {TOKEN_BYTES} bytes")


def _need(work: Literal["sampling", "scoring", "training"], parts: Iterable[Part], shape: str) -> Need:
    kept = tuple(part for part in parts if part.bytes)
    return Need(work, sum(part.bytes for part in kept), kept, shape)


def in_bytes(number: int) -> str:
    """Bytes as people read them, in powers of ten."""
    for size, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number} B"
