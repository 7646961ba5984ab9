"""Small tokenizers with the templates of model families, each with the trap that its family sets."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, normalizers
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from prefloop.policy import ChatCodec, ModelSource, PolicyFiles, Workbench, resolve_model

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WITH_SYSTEM = "{% if messages[0].role != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}" + CHATML
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}"
    "<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}"
    "{% else %}{{ raise_exception('only user and assistant') }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
QWEN3 = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{% set said = m.content.split('</think>')[-1].lstrip('\n') %}"
    "{% if loop.last %}<think>\n\n</think>\n\n{% endif %}{{ said }}{% else %}{{ m.content }}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
R1 = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<|Assistant|>{{ m.content.split('</think>')[-1] }}<|end|>"
    "{% else %}<|User|>{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|Assistant|><think>\n{% endif %}"
)
UNSTABLE = "({{ messages | length }} turns)\n" + CHATML

Kind = Literal["bytes", "sentencepiece"]


@dataclass(frozen=True)
class Family:
    """A tokenizer, its template, and what both make of a conversation."""

    name: str
    template: str
    special: tuple[str, ...]
    eos: str
    closing: str
    """The EOS that the template writes."""
    bos: str | None = None
    """Written by the template; the tokenizer would add it as well."""
    kind: Kind = "bytes"
    plain_markers: tuple[str, ...] = ()
    """Tokens of their own that are no control tokens."""
    system: bool = True
    lead: str = ""
    """What stands between the generation prompt and an answer."""
    stable: bool = True
    """With an answer, the template still begins as with the generation prompt."""

    def saved(self, directory: Path) -> Path:
        """Its directory, as models have it."""
        directory.mkdir(parents=True, exist_ok=True)
        tokenizer = self.tokenizer()
        tokenizer.save_pretrained(directory)
        (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": tokenizer.eos_token_id}))
        return directory

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer with its template."""
        backend = _bytes(self.special) if self.kind == "bytes" else _sentencepiece(self.special)
        if self.bos is not None:
            number = backend.token_to_id(self.bos)
            backend.post_processor = TemplateProcessing(single=f"{self.bos} $A", special_tokens=[(self.bos, number)])
        extra = {} if self.bos is None else {"bos_token": self.bos}
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend, eos_token=self.eos, additional_special_tokens=list(self.special), **extra
        )
        tokenizer.add_tokens(list(self.plain_markers))
        tokenizer.chat_template = self.template
        return tokenizer


def _bytes(special: tuple[str, ...]) -> Tokenizer:
    """Bytes as tokens; a line break merges with an I and with another line break, a space with an I."""
    alphabet = sorted(ByteLevel.alphabet())
    merges = [("Ċ", "I"), ("Ċ", "Ċ"), ("Ġ", "I")]
    vocab = {token: number for number, token in enumerate([*special, *alphabet, *("".join(pair) for pair in merges)])}
    backend = Tokenizer(BPE(vocab=vocab, merges=merges))
    backend.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentencepiece(special: tuple[str, ...]) -> Tokenizer:
    """Llama 2's: a space is put before every text, line breaks and what is unknown are bytes."""
    characters = [chr(code) for code in range(0x21, 0x7F)]
    merges = [("▁", "I"), ("▁", "H"), ("▁", "a")]
    pieces = ["<unk>", *special, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *characters]
    vocab = {token: number for number, token in enumerate([*pieces, *("".join(pair) for pair in merges)])}
    backend = Tokenizer(BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(Regex(" "), "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return backend


IM = ("<|im_start|>", "<|im_end|>")
FAMILIES = (
    Family("chatml", CHATML, IM, "<|im_end|>", "<|im_end|>"),
    Family("chatml with a system turn", WITH_SYSTEM, IM, "<|im_end|>", "<|im_end|>"),
    Family("chatml of sentencepiece", CHATML, IM, "<|im_end|>", "<|im_end|>", kind="sentencepiece"),
    Family(
        "llama 3",
        LLAMA3,
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|eot_id|>",
        "<|eot_id|>",
        bos="<|begin_of_text|>",
    ),
    Family("mistral", MISTRAL, ("<s>", "</s>"), "</s>", "</s>", "<s>", "sentencepiece", system=False, lead=" "),
    Family(
        "gemma",
        GEMMA,
        ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
        "<eos>",
        "<end_of_turn>",
        bos="<bos>",
        system=False,
    ),
    Family(
        "qwen 3",
        QWEN3,
        IM,
        "<|im_end|>",
        "<|im_end|>",
        plain_markers=("<think>", "</think>"),
        lead="<think>\n\n</think>\n\n",
    ),
    Family(
        "deepseek r1",
        R1,
        ("<|User|>", "<|Assistant|>", "<|end|>"),
        "<|end|>",
        "<|end|>",
        plain_markers=("<think>", "</think>"),
        lead="\n</think>\n\n",
        stable=False,
    ),
    Family("counting", UNSTABLE, IM, "<|im_end|>", "<|im_end|>", stable=False),
)


@pytest.fixture(scope="session")
def families() -> Mapping[str, Family]:
    """All of them by name."""
    return {family.name: family for family in FAMILIES}


@pytest.fixture(scope="session")
def codecs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, ChatCodec]:
    """Their codecs by name."""
    folder = tmp_path_factory.mktemp("families")
    return {
        family.name: ChatCodec.load(family.saved(folder / str(number)), {}) for number, family in enumerate(FAMILIES)
    }


@pytest.fixture(params=FAMILIES, ids=lambda family: family.name)
def family(request: pytest.FixtureRequest) -> Family:
    """Each of them."""
    return request.param


@pytest.fixture
def codec(family: Family, codecs: Mapping[str, ChatCodec]) -> ChatCodec:
    """The codec of the same one."""
    return codecs[family.name]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    """The tiny model that is shipped."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFLOOP_CACHE", str(tmp_path_factory.mktemp("cache")))
        return resolve_model("builtin:tiny")


@pytest.fixture
def bench(source: ModelSource) -> Workbench:
    return Workbench(source, ChatCodec.load(source.directory, {}), torch.device("cpu"))


@pytest.fixture
def start(source: ModelSource) -> PolicyFiles:
    return PolicyFiles(identity="start", directory=source.directory)
