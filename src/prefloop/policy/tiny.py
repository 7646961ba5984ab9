"""`builtin:tiny`: a Llama directory whose weights are computed from a small grammar, not trained.

How the weights answer. The embedding of a token holds the state of its word group as a one-hot, and
the head reads the bigram table of `tiny_grammar` off that one-hot. Four attention heads add what a
bigram cannot know: that the prompt asks for a sum, the mean of its digits, the tone so far, and how
many sentences there are. The rest (the MLP, the identity dimensions) is small computed noise, so that
training finds a gradient everywhere. Every token has the same norm, so RMSNorm changes nothing.

Every weight is a multiple of 2**-12 and exact in float32, so all machines write the same bytes.
"""

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor

from prefloop.policy.tiny_grammar import (
    ADDITION,
    DIGITS,
    END_OF_TURN,
    FOLLOWS,
    GROUPS,
    LATER_SENTENCE,
    PADDING,
    SPECIAL_TOKENS,
    SUMS,
    WordGroup,
)

TINY_VERSION = 1
"""Goes up whenever a byte of the directory changes."""

_HIDDEN = 96
_HEADS = 4
_HEAD_DIM = _HIDDEN // _HEADS
_INTERMEDIATE = 64
_SLOWEST = _HEAD_DIM // 2 - 1  # the rotary pair that turns least: 0.2 rad in 1000 tokens

_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_WORD_PATTERN = r" ?A:|'(?:s|t|re|ve|m|ll|d)\b| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]|\s"

# Dimensions of the residual stream. The attention writes the last four, tokens have the others.
_STATES = {state: dimension for dimension, state in enumerate(FOLLOWS)}
_ONE, _DIGIT, _VALUE, _ADDITION, _OPINION, _TONE, _SENTENCE, _LATER, _BALLAST = range(len(_STATES), len(_STATES) + 9)
_TOTAL, _SUM_ASKED, _MOOD, _CLOSING = range(_BALLAST + 1, _BALLAST + 5)
_IDENTITY = slice(_CLOSING + 1, _HIDDEN)

_STATE_SIZE = 8.0
_FLAG_SIZE = 2.0
_IDENTITY_SIZE = 0.5
_VALUE_PER_DIGIT = 0.5  # around the middle digit, 4.5
_NOISE_PER_WORD = 2.0**-16  # about 1 % of all draws are a word that the grammar does not expect
_NOISE_PER_BYTE = 2.0**-23
_SUM_SHARPNESS = 1 / 4  # nats per squared error of a sum: one in four is right
_SUM_ASKED_GAIN = 4.5
_MOOD_GAIN = 4.0  # large, so that a little training changes the tone; the attention writes little of it
_CLOSING_GAIN = 0.5


def write_tiny(directory: Path) -> None:
    """Write the whole model directory: configuration, weights, tokenizer and chat template.

    Args:
        directory: Made if it is missing; files of the same names are overwritten.
    """
    directory.mkdir(parents=True, exist_ok=True)
    vocabulary = _vocabulary()
    ids = {token: index for index, token in enumerate(vocabulary)}
    for name, content in {
        "config.json": _config(ids),
        "generation_config.json": {"eos_token_id": ids[END_OF_TURN], "pad_token_id": ids[PADDING]},
        "tokenizer.json": word_tokenizer(ids, _WORD_PATTERN, SPECIAL_TOKENS),
        "tokenizer_config.json": _tokenizer_config(),
    }.items():
        text = json.dumps(content, indent=1, sort_keys=True)
        (directory / name).write_text(text + "\n", encoding="utf-8", newline="\n")
    save_file(_weights(vocabulary), directory / "model.safetensors", metadata={"format": "pt"})


def _vocabulary() -> tuple[str, ...]:
    """Return the tokens of the grammar as the byte-level tokenizer spells them, then the other bytes."""
    words = tuple(_spelled(token) for group in GROUPS.values() for token in group.tokens)
    return words + tuple(sorted(set(ByteLevel.alphabet()) - set(words)))


def _spelled(token: str) -> str:
    return token.replace(" ", "Ġ").replace("\n", "Ċ")


def _config(ids: dict[str, int]) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": None,
        "dtype": "float32",
        "eos_token_id": ids[END_OF_TURN],
        "head_dim": _HEAD_DIM,
        "hidden_act": "silu",
        "hidden_size": _HIDDEN,
        "initializer_range": 0.02,
        "intermediate_size": _INTERMEDIATE,
        "max_position_embeddings": 2048,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": _HEADS,
        "num_hidden_layers": 1,
        "num_key_value_heads": _HEADS,
        "pad_token_id": ids[PADDING],
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "use_cache": True,
        "vocab_size": len(ids),
    }


def word_tokenizer(ids: dict[str, int], pattern: str, special_tokens: Iterable[str]) -> dict[str, object]:
    """A byte-level BPE without merges, as tokenizer.json has it: pieces are whole words of the vocabulary, or bytes.

    Args:
        ids: the vocabulary.
        pattern: of a piece.
        special_tokens: of the vocabulary, which no text is split into.
    """
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": ids[token], "content": token, **special} for token in special_tokens],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": ids,
            "merges": [],
        },
    }


def _tokenizer_config() -> dict[str, object]:
    return {
        "add_prefix_space": False,
        "chat_template": _CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": END_OF_TURN,
        "model_max_length": 2048,
        "pad_token": PADDING,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


def _weights(vocabulary: tuple[str, ...]) -> dict[str, Float[Tensor, "..."]]:
    words = _words(vocabulary)
    layer = "model.layers.0."
    exact = {
        "lm_head.weight": torch.stack([_head_row(word) for word in words]),
        "model.embed_tokens.weight": torch.stack([_embedding(word) for word in words]),
        "model.norm.weight": torch.ones(_HIDDEN, dtype=torch.float64),
        f"{layer}input_layernorm.weight": torch.ones(_HIDDEN, dtype=torch.float64),
        f"{layer}post_attention_layernorm.weight": torch.ones(_HIDDEN, dtype=torch.float64),
        f"{layer}mlp.gate_proj.weight": _signs("gate", _INTERMEDIATE, _HIDDEN) / 64,
        f"{layer}mlp.up_proj.weight": _signs("up", _INTERMEDIATE, _HIDDEN) / 64,
        f"{layer}mlp.down_proj.weight": _signs("down", _HIDDEN, _INTERMEDIATE) / 512,
        **{f"{layer}self_attn.{name}.weight": weight for name, weight in _attention().items()},
    }
    return {name: ((weight * 4096).round() / 4096).float() for name, weight in exact.items()}


@dataclass(frozen=True)
class _Word:
    """One token with its place in the grammar."""

    token: str
    """As text; a lone byte as the tokenizer spells it."""

    group: str
    kind: WordGroup


def _words(vocabulary: tuple[str, ...]) -> list[_Word]:
    words = [_Word(token, group, kind) for group, kind in GROUPS.items() for token in kind.tokens]
    return words + [_Word(token, "byte", WordGroup("other", ())) for token in vocabulary[len(words) :]]


def _embedding(word: _Word) -> Float[Tensor, " hidden"]:
    embedding = torch.zeros(_HIDDEN, dtype=torch.float64)
    embedding[_IDENTITY] = _signs(f"embedding of {word.token}", _HIDDEN)[_IDENTITY] * _IDENTITY_SIZE
    embedding[_STATES[word.kind.state]] = _STATE_SIZE
    embedding[_ONE] = 1.0
    if word.token in DIGITS:
        embedding[_DIGIT] = _FLAG_SIZE
        embedding[_VALUE] = _VALUE_PER_DIGIT * (DIGITS[word.token] - 4.5)
    if word.token in ADDITION:
        embedding[_ADDITION] = _FLAG_SIZE
    if word.kind.tone:
        embedding[_OPINION] = _FLAG_SIZE
        embedding[_TONE] = word.kind.tone
    if word.token == "assistant" or word.group in LATER_SENTENCE:
        embedding[_SENTENCE] = _FLAG_SIZE
    if word.group in LATER_SENTENCE:
        embedding[_LATER] = _FLAG_SIZE
    embedding[_BALLAST] = math.sqrt(_HIDDEN - float(embedding @ embedding))  # so that RMSNorm divides by 1
    return embedding


def _head_row(word: _Word) -> Float[Tensor, " hidden"]:
    """Return what each dimension says for this token: log-probabilities by state, above those of a noise word."""
    row = _signs(f"head of {word.token}", _HIDDEN) / 32
    noise = _NOISE_PER_BYTE if word.group in ("byte", "padding", "turn") else _NOISE_PER_WORD
    for state, follows in FOLLOWS.items():
        expected = follows.get(word.group, 0) / sum(follows.values()) / max(len(word.kind.tokens), 1)
        row[_STATES[state]] = math.log((expected + noise) / _NOISE_PER_WORD) / _STATE_SIZE
    row[_ONE : _CLOSING + 1] = 0.0
    row[_MOOD] = word.kind.tone * _MOOD_GAIN
    row[_CLOSING] = word.kind.closing * _CLOSING_GAIN
    if word.group == "adding":
        row[_SUM_ASKED] = _SUM_ASKED_GAIN
    if word.token in SUMS:
        # -sharpness * (sum - total)**2 around the middle, 9; its square of the total is the same for all sums,
        # and the total is 2 * the mean digit, which attention brings as _VALUE_PER_DIGIT * (mean - 4.5).
        distance = SUMS[word.token] - 9
        row[_IDENTITY] = 0.0  # nothing but the distance tells the sums apart
        row[_STATES["result"]] -= _SUM_SHARPNESS * distance**2 / _STATE_SIZE
        row[_TOTAL] = _SUM_SHARPNESS * 2 * distance * 2 / _VALUE_PER_DIGIT
    return row


def _attention() -> dict[str, Float[Tensor, "hidden hidden"]]:
    """Return the four projections; head h asks from one dimension, finds a flag and copies one dimension."""
    query, key, value, output = (_signs(name, _HIDDEN, _HIDDEN) / 256 for name in ("query", "key", "value", "output"))
    for head, (asks, ask_size, flag, copied, written, gain) in enumerate(
        (
            (_STATES["result"], _STATE_SIZE, _DIGIT, _VALUE, _TOTAL, 1.0),
            (_STATES["newline"], _STATE_SIZE, _ADDITION, _ADDITION, _SUM_ASKED, 1.0),
            (_ONE, 1.0, _OPINION, _TONE, _MOOD, 0.125),
            (_STATES["stop"], _STATE_SIZE, _SENTENCE, _LATER, _CLOSING, 3.0),
        )
    ):
        first = head * _HEAD_DIM
        query[first + _SLOWEST, asks] = 16 / ask_size  # 16 * 4 / sqrt(24) = 13 nats for a flagged token
        key[first + _SLOWEST, flag] = 4 / _FLAG_SIZE
        value[first, copied] = 1.0
        output[written, first] = gain
    return {"q_proj": query, "k_proj": key, "v_proj": value, "o_proj": output}


def _signs(name: str, *shape: int) -> Float[Tensor, "..."]:
    """Return +1 and -1 that look random and depend on the name alone."""
    digest = hashlib.shake_256(name.encode()).digest(math.prod(shape))
    return torch.tensor([1 - 2 * (byte & 1) for byte in digest], dtype=torch.float64).reshape(shape)
