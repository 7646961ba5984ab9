"""How much memory a model needs, part by part: formulas over its description. No weight is loaded.

The counts of weights, gradients, optimiser state and KV cache are exact. Activations are what autograd keeps of a
Llama-like block; they were fitted to measurement, and a test holds them to it. Other blocks keep about as much.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, PreTrainedModel

from prefloop.config import LoraConfig
from prefloop.policy.beginning import can_have_gaps
from prefloop.policy.checkpointing import layers_of
from prefloop.policy.head import tokens_at_once
from prefloop.policy.lean_layers import is_gated, is_norm
from prefloop.policy.quantized import BITS
from prefloop.policy.tree_scores import may_take_trees
from prefloop.policy.trees import Forest
from prefloop.policy.workbench import adapter_config

FLOAT = 4
"""Bytes of a number: everything is held in float32."""
LOGIT_COPIES_TRAINING = 4
"""Of rows: the logits, and while their gradient is taken softmax, gradient of the chosen token, and their sum."""
LOGIT_COPIES_TREES = 2
"""Of trees: the logits, whose place their gradient takes, and their exponentials inside logsumexp."""
LOGIT_COPIES_LIVE = 8
"""While a KL divergence from a live reference is computed and its gradient taken (measured)."""
LOGIT_COPIES_SCORING = 2
"""The logits, and their exponentials inside logsumexp."""
MOMENTS: Mapping[str, int] = {"adamw": 2, "rmsprop": 1}
"""Numbers that an optimiser remembers of every trained weight."""


@dataclass(frozen=True)
class Part:
    """A part of what is needed, and how the number comes about."""

    name: str
    bytes: int
    formula: str


@dataclass(frozen=True)
class ModelFacts:
    """What a model's memory depends on."""

    num_weights: int
    """Tied ones count once. The adapter is not among them."""
    num_trained: int
    """Weights that the optimiser changes: those of the adapter, or all."""
    lora: bool
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    adapter_width: int
    """Ranks of a block's adapters, added up; 0 without LoRA."""
    in_4_bits: int
    """Weights that training holds in 4 bits."""
    in_bfloat16: int
    """Weights that training in bfloat16 holds so, since they are frozen and the model's files have them so."""
    adapter_options: int
    """Values a token that a block's adapters keep besides: of dropout what is left of each input, and a truth value of
    each (a quarter of a number); of DoRA both parts of each output."""
    shares_beginnings: bool
    """What all rows begin with passes once (`policy.beginning`)."""
    trees: bool
    """Training takes rows as trees."""
    recomputable: bool = True
    """Its layers can be computed again (gradient checkpointing)."""
    tied: bool = False
    """The head shares the weights of the embedding."""
    lean_norms: bool = False
    """Its norms keep what they read alone, and so does a gate (`policy/lean_layers.py`)."""
    lean_gates: bool = False
    on_cuda: bool = False
    """It passes on a GPU, where more logits stand in memory together."""


@dataclass(frozen=True)
class BatchShape:
    """What of one forward pass decides how much memory it takes."""

    tokens: int
    """That pass through the model."""
    attended: int
    """Tokens whose keys and values are laid out for attention, each as often as it is."""
    mask: int
    """Numbers that say in one layer who sees whom."""
    predictions: int
    """Tokens whose logits stand in memory together."""
    answers: int
    """Tokens that are predicted."""
    said: str
    logit_copies: int = LOGIT_COPIES_TRAINING
    """Of the predictions, in training."""
    cached: int = 0
    """Tokens whose keys and values stand in a cache, since rows share a beginning: whole rows, and the beginnings that
    they had first."""

    @classmethod
    def of_rows(cls, rows: int, longest: int, answer: int, shared: int = 0) -> "BatchShape":
        """Rows that are padded to the longest.

        Args:
            rows: how many.
            longest: tokens of the longest one, prompt and answer.
            answer: tokens of the longest answer: the head runs on these alone.
            shared: tokens that all rows begin with and that pass once.
        """
        return cls(
            tokens=shared + rows * (longest - shared),
            attended=rows * longest,
            mask=rows * longest * (longest - shared),
            predictions=rows * (answer + 1),
            answers=0,
            said=f"{rows} rows of {longest} tokens, {answer} of them answer",
            cached=rows * (longest + shared) if shared else 0,
        )

    @classmethod
    def of_forest(cls, forest: Forest, answers: int, facts: "ModelFacts") -> "BatchShape":
        """Trees: nothing is padded, keys and values are kept once, and the head runs on a few tokens at a time.

        Args:
            forest: that passes.
            answers: tokens that are predicted.
            facts: of the model.
        """
        return cls(
            tokens=len(forest),
            attended=len(forest) * facts.kv_heads // facts.heads,
            mask=0,
            predictions=min(answers, tokens_at_once(facts.vocab, on_cuda=facts.on_cuda)),
            answers=answers,
            said=f"{len(forest.paths)} answers over {len(forest)} tokens, {answers} of them predicted",
            logit_copies=LOGIT_COPIES_TREES,
        )

    def __str__(self) -> str:
        return self.said


def model_facts(directory: Path, lora: LoraConfig | None) -> ModelFacts:
    """The facts of a model directory, from its config alone; an adapter is laid on it as training would."""
    config = AutoConfig.from_pretrained(directory, local_files_only=True)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    num_weights = num_trained = sum(parameter.numel() for parameter in model.parameters())
    text = config.get_text_config()
    ranks, options = 0, 0.0
    quantized = lora is not None and bool(lora.quantize)
    frozen = 0 if lora is None else _of_linear_layers(model)
    if lora is not None:
        adapted = get_peft_model(model.requires_grad_(False), adapter_config(lora), low_cpu_mem_usage=True)
        num_trained = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
        adapters = [module for module in adapted.modules() if isinstance(module, LoraLayer)]
        ranks = lora.r * len(adapters)
        if lora.dropout:
            options += 1.25 * sum(module.in_features or 0 for module in adapters)
        if lora.use_dora:
            options += 2 * sum(module.out_features or 0 for module in adapters)
    return ModelFacts(
        num_weights=num_weights,
        num_trained=num_trained,
        lora=lora is not None,
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        heads=text.num_attention_heads,
        kv_heads=getattr(text, "num_key_value_heads", None) or text.num_attention_heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
        intermediate=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        vocab=text.vocab_size,
        adapter_width=ranks // text.num_hidden_layers,
        in_4_bits=frozen if quantized else 0,
        in_bfloat16=frozen if text.dtype == torch.bfloat16 and not quantized else 0,
        adapter_options=int(options / text.num_hidden_layers),
        shares_beginnings=can_have_gaps(DynamicCache(config=config)),
        trees=may_take_trees(model),
        recomputable=bool(layers_of(model)),
        tied=_is_tied(model),
        lean_norms=any(map(is_norm, model.modules())),
        lean_gates=any(map(is_gated, model.modules())),
    )


def _is_tied(model: PreTrainedModel) -> bool:
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def _of_linear_layers(model: PreTrainedModel) -> int:
    """Weights of all linear layers but the head."""
    head = model.get_output_embeddings()
    layers = (module for module in model.modules() if isinstance(module, nn.Linear) and module is not head)
    return sum(module.weight.numel() for module in layers)


def quantized_weights(facts: ModelFacts) -> Part:
    """The model's weights with those of its linear layers in 4 bits."""
    rest = facts.num_weights - facts.in_4_bits
    return Part(
        "weights",
        FLOAT * rest + int(BITS / 8 * facts.in_4_bits),
        f"{rest:,} weights x {FLOAT} bytes + {facts.in_4_bits:,} weights x {BITS} bits",
    )


def rounded_weights(facts: ModelFacts) -> Part:
    """The model's weights with those that are frozen and bfloat16 in the model's files held so."""
    rest = facts.num_weights - facts.in_bfloat16
    return Part(
        "weights",
        FLOAT * rest + 2 * facts.in_bfloat16,
        f"{rest:,} weights x {FLOAT} bytes + {facts.in_bfloat16:,} weights x 2 bytes",
    )


def weights(facts: ModelFacts, copies: int, why: str) -> Part:
    """Copies of the model's weights that are loaded at the same time."""
    times = f" x {copies} copies ({why})" if copies > 1 else ""
    return Part("weights", FLOAT * facts.num_weights * copies, f"{facts.num_weights:,} weights x {FLOAT} bytes{times}")


def adapter(facts: ModelFacts) -> Part:
    """The weights of the LoRA adapter."""
    return Part("adapter", FLOAT * facts.num_trained, f"{facts.num_trained:,} weights x {FLOAT} bytes")


def bfloat16_copies(facts: ModelFacts) -> Part:
    """Weights as the layers read them, where they are not held so: autograd keeps them until gradients are taken."""
    copied = facts.num_weights - facts.in_bfloat16
    return Part("bfloat16 copies", 2 * copied, f"{copied:,} weights x 2 bytes")


def rounded_copies(facts: ModelFacts) -> Part:
    """Weights in bfloat16 beside those that lose something in it: all of them at most."""
    return Part("bfloat16 copies", 2 * facts.num_weights, f"{facts.num_weights:,} weights x 2 bytes")


def gradients(facts: ModelFacts) -> Part:
    """One gradient a trained weight."""
    return Part("gradients", FLOAT * facts.num_trained, f"{facts.num_trained:,} trained weights x {FLOAT} bytes")


def optimizer_state(facts: ModelFacts, optimizer: str) -> Part:
    """The moments of every trained weight: AdamW has two, RMSprop one."""
    moments = MOMENTS[optimizer]
    return Part(
        "optimiser",
        FLOAT * moments * facts.num_trained,
        f"{facts.num_trained:,} trained weights x {moments} ({optimizer}'s moments) x {FLOAT} bytes",
    )


def micro_batch(facts: ModelFacts, batch: BatchShape, *, recompute: bool = False) -> tuple[Part, ...]:
    """What a micro-batch needs at its peak, beside weights, gradients and moments.

    Where layers are computed again, the peak is that of the head, or later that of one layer, whichever is higher.
    """
    if not recompute:
        return activations(facts, batch), batch_logits(facts, batch, batch.logit_copies)
    head = (before_the_head(facts, batch), batch_logits(facts, batch, batch.logit_copies))
    layer = (recomputed_layer(facts, batch),)
    return layer_inputs(facts, batch), *max(head, layer, key=lambda parts: sum(part.bytes for part in parts))


def layer_inputs(facts: ModelFacts, batch: BatchShape) -> Part:
    """What is kept of a micro-batch whose layers are computed again: what each of them read, and what a cache holds."""
    cached = 2 * batch.cached * facts.kv_heads * facts.head_dim
    shown = f" + {cached:,} cached keys and values" if cached else ""
    return Part(
        "layer inputs",
        FLOAT * facts.layers * (batch.tokens * facts.hidden + cached),
        f"{facts.layers} layers x ({batch.tokens:,} tokens x {facts.hidden} hidden{shown}) x {FLOAT} bytes",
    )


def before_the_head(facts: ModelFacts, batch: BatchShape) -> Part:
    """What the last norm and the head read."""
    last = _last_norm(facts)
    return Part(
        "last norm",
        FLOAT * facts.hidden * (last * batch.tokens + 2 * batch.answers),
        f"({last} x {batch.tokens:,} tokens + 2 x {batch.answers:,} predicted) x {facts.hidden} hidden x {FLOAT} bytes",
    )


def recomputed_layer(facts: ModelFacts, batch: BatchShape) -> Part:
    """A layer that is computed again: what autograd keeps of it, and gradients of its stream and its feed-forward.

    Of a feed-forward channel six values in all: a lean gate keeps one less, and computes it again.
    """
    kept, feed_forward = _per_layer(facts, batch), 6 - _feed_forward(facts)
    return Part(
        "layer that is computed again",
        FLOAT * (kept + batch.tokens * (facts.hidden + feed_forward * facts.intermediate)),
        f"({kept:,} values + {batch.tokens:,} tokens x ({facts.hidden} hidden + {feed_forward} x {facts.intermediate} "
        f"feed-forward) of gradients) x {FLOAT} bytes",
    )


def _per_layer(facts: ModelFacts, batch: BatchShape) -> int:
    """Values that autograd keeps of one layer."""
    return batch.tokens * _per_token(facts) + 2 * batch.attended * facts.heads * facts.head_dim + batch.mask


def _per_token(facts: ModelFacts) -> int:
    return (
        _stream(facts) * facts.hidden
        + 2 * facts.heads * facts.head_dim
        + _feed_forward(facts) * facts.intermediate
        + _small(facts)
    )


def _stream(facts: ModelFacts) -> int:
    return 4 if facts.lora or facts.lean_norms else 6


def _feed_forward(facts: ModelFacts) -> int:
    return 3 if facts.lean_gates else 4


def _small(facts: ModelFacts) -> int:
    return facts.adapter_width + facts.adapter_options + facts.heads + 2


def _last_norm(facts: ModelFacts) -> int:
    if facts.lora:
        return 1
    return 2 if facts.lean_norms else 3


def activations(facts: ModelFacts, batch: BatchShape) -> Part:
    """What autograd keeps of a micro-batch until its gradient is taken.

    Of each token and layer: the residual stream before attention and before the feed-forward part and both as the
    layers read them (4 x hidden; without LoRA also as they were before the norm's weight, 2 x hidden more, unless norms
    are lean), queries and attention output, four values a feed-forward channel (three of a lean gate: both inputs and
    what comes out), the adapters' inner values, and a few a head. Of each
    row: keys and values repeated for every head, and the mask as numbers. Behind the last layer: its norm.
    """
    attention = facts.heads * facts.head_dim
    stream, last, feed_forward = _stream(facts), _last_norm(facts), _feed_forward(facts)
    per_token = _per_token(facts)
    predicted = f" + 2 x {batch.answers:,} x {facts.hidden} before the head" if batch.answers else ""
    per_layer = _per_layer(facts, batch)
    return Part(
        "activations",
        FLOAT * (facts.layers * per_layer + last * batch.tokens * facts.hidden + 2 * batch.answers * facts.hidden),
        f"({facts.layers} layers x [{batch.tokens:,} tokens x {per_token:,} values ({stream} x {facts.hidden} hidden "
        f"+ 2 x {attention} attention + {feed_forward} x {facts.intermediate} feed-forward + {_small(facts)} adapter "
        f"and norms) + 2 x {batch.attended:,} x {attention} keys and values + {batch.mask:,} mask] "
        f"+ {batch.tokens:,} x {last} x {facts.hidden} last norm{predicted}) x {FLOAT} bytes",
    )


def live_reference(facts: ModelFacts, batch: BatchShape) -> Part:
    """What a reference that stays loaded adds to a micro-batch: its states, and its distributions beside the policy's.

    Its own weights are not among them.
    """
    states = (batch.tokens + batch.answers) * facts.hidden
    copies = LOGIT_COPIES_LIVE - batch.logit_copies
    distributions = copies * batch.predictions * facts.vocab
    return Part(
        "live reference",
        FLOAT * (states + distributions),
        f"([{batch.tokens:,} + {batch.answers:,} before the head] x {facts.hidden} hidden + {batch.predictions:,} "
        f"predictions x {facts.vocab:,} vocabulary x {copies} more copies) x {FLOAT} bytes",
    )


def inner_values(facts: ModelFacts, tokens: int) -> Part:
    """What one layer holds while tokens pass without a gradient: layers reuse the same memory."""
    feed_forward = 6 if facts.lora else 4
    per_token = 2 * facts.hidden + feed_forward * facts.intermediate
    return Part(
        "activations",
        FLOAT * tokens * per_token,
        f"{tokens:,} tokens x {per_token:,} values of one layer (2 x {facts.hidden} hidden + {feed_forward} x "
        f"{facts.intermediate} feed-forward) x {FLOAT} bytes",
    )


def logits(facts: ModelFacts, positions: int, copies: int, shown: str) -> Part:
    """The head's output and what is computed from it."""
    return Part(
        "logits",
        FLOAT * copies * positions * facts.vocab,
        f"{shown} x {facts.vocab:,} vocabulary x {copies} copies x {FLOAT} bytes",
    )


def batch_logits(facts: ModelFacts, batch: BatchShape, copies: int) -> Part:
    """Logits of the answers of a forward pass; the position before the answer belongs to them."""
    return logits(facts, batch.predictions, copies, f"{batch.predictions:,} predictions")


def packed_head(facts: ModelFacts) -> Part:
    """The head's weights in blocks, beside the embedding that needs them as they are (`policy/linear_layers.py`)."""
    return Part(
        "packed head",
        FLOAT * facts.vocab * facts.hidden,
        f"{facts.vocab:,} vocabulary x {facts.hidden} hidden x {FLOAT} bytes",
    )


def kv_cache(facts: ModelFacts, rows: int, columns: int) -> Part:
    """Keys and values of rows of a cache, each with its own."""
    return Part("KV cache", *_keys_and_values(facts, rows * columns, f"{rows} rows x {columns} columns"))


def grown_keys(facts: ModelFacts, *, rows: int, new_tokens: int, prompts: int, prompt_tokens: int, passed: int) -> Part:
    """Keys and values while answers grow behind one copy of their prompts.

    Args:
        facts: of the model.
        rows: answers that grow together.
        new_tokens: longest answer; its last one is never read.
        prompts: of these rows. Room for them doubles, and what is full is held while it is copied.
        prompt_tokens: of the longest prompt.
        passed: tokens of the prompts that passed together and wait for rows.
    """
    room = 1 << (prompts - 1).bit_length()
    answers = max(1, new_tokens - 1)
    tokens = rows * answers + room * prompt_tokens + passed
    shown = (
        f"({rows} answers x {answers} + {room} prompts x {prompt_tokens} + {passed} of prompts that passed together)"
    )
    return Part("KV cache", *_keys_and_values(facts, tokens, shown))


def _keys_and_values(facts: ModelFacts, tokens: int, shown: str) -> tuple[int, str]:
    return (
        FLOAT * 2 * facts.layers * tokens * facts.kv_heads * facts.head_dim,
        f"{facts.layers} layers x 2 x {shown} x {facts.kv_heads} heads x {facts.head_dim} x {FLOAT} bytes",
    )


def grown_scores(facts: ModelFacts, rows: int, seen: int) -> Part:
    """Scores of the layer at work: of the three parts, side by side, their softmax, and its parts in order."""
    copies = 4
    return Part(
        "attention",
        FLOAT * copies * rows * facts.heads * seen,
        f"{copies} x {rows} rows x {facts.heads} heads x {seen} tokens seen, of one layer, x {FLOAT} bytes",
    )


def repeated_keys(facts: ModelFacts, rows: int, columns: int) -> Part:
    """Keys and values of the layer at work, repeated for every head that reads them."""
    attention = facts.heads * facts.head_dim
    copies = 0 if facts.heads == facts.kv_heads else 2
    return Part(
        "attention",
        FLOAT * copies * rows * columns * attention,
        f"{copies} x {rows} rows x {columns} columns x {attention} of one layer x {FLOAT} bytes",
    )
