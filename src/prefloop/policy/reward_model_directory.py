"""A trained reward model as an ordinary sequence-classification directory, which transformers and every judge read.

transformers reads the score at the last token that is not padding. Here that is the answer's EOS, where the head was
trained: the padding token is one that ends no answer, and the chat template writes nothing behind the last EOS.
"""

import json
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)

from prefloop.errors import ModelError
from prefloop.policy.export import TEMPLATE
from prefloop.policy.model_heads import HEADS_FILE
from prefloop.policy.template import ChatCodec
from prefloop.policy.workbench import Trainable


def require_classifier(directory: Path) -> None:
    """A model's architecture has a sequence classifier whose head is one matrix (ModelError where it has not)."""
    config = AutoConfig.from_pretrained(directory)
    try:
        with torch.device("meta"):
            head = getattr(_classifier(config), "score", None)
    except ValueError:
        head = None
    if not isinstance(head, nn.Linear) or "bias" in dict(head.named_parameters()):
        raise ModelError(
            f"{directory}: {config.model_type} has no sequence classifier in transformers whose head is one matrix "
            "called score, so that no reward model can be saved. Train one from another model."
        )


def save_reward_model(trainable: Trainable, codec: ChatCodec, directory: Path) -> None:
    """Writes the model with its reward head, an adapter merged in float32.

    Args:
        trainable: what was trained, with a head for `rewards`.
        codec: its conversations.
        directory: that is written; what `Trainable.save` needs on the way is gone afterwards.
    """
    trainable.save(directory)
    (directory.parent / HEADS_FILE).unlink()
    padding = padding_token(codec)
    config = AutoConfig.from_pretrained(trainable.tokenizer_of)
    config.pad_token_id = padding
    if hasattr(config, "text_config"):
        config.get_text_config().pad_token_id = padding
    classifier = _classifier(config)
    classifier.base_model.load_state_dict(_whole(trainable, directory).base_model.state_dict())
    score: Any = classifier.score
    with torch.no_grad():
        score.weight.copy_(trainable.heads["rewards"].weight)
    for file in {*directory.glob("adapter_*"), *directory.glob("*.safetensors*")}:
        file.unlink()
    classifier.save_pretrained(directory)
    _name_padding(directory, str(codec.tokenizer.convert_ids_to_tokens(padding)))
    _end_at_eos(directory, codec)


def padding_token(codec: ChatCodec) -> int:
    """The tokenizer's padding token, or where that ends answers another control token that does not.

    Raises:
        ModelError: there is none.
    """
    tokenizer: Any = codec.tokenizer
    candidates = (tokenizer.pad_token_id, tokenizer.unk_token_id, *sorted(codec.control_ids))
    found = next((token for token in candidates if token is not None and token not in codec.eos_ids), None)
    if found is None:
        raise ModelError(
            "policy: every control token of the tokenizer ends answers, so that none could pad a reward model's "
            "sequences. Give it a pad_token of its own."
        )
    return found


def _classifier(config: PretrainedConfig) -> PreTrainedModel:
    config.num_labels = 1
    return AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)


def _whole(trainable: Trainable, directory: Path) -> PreTrainedModel:
    """The model that was trained; with an adapter its base, read anew, and the adapter merged into it."""
    if not isinstance(trainable.model, PeftModel):
        return trainable.model
    base: Any = AutoModelForCausalLM.from_pretrained(trainable.tokenizer_of, dtype=torch.float32, local_files_only=True)
    return PeftModel.from_pretrained(base, str(directory)).merge_and_unload()  # pyright: ignore[reportReturnType]


def _name_padding(directory: Path, token: str) -> None:
    """The tokenizer pads with the token that the model takes for padding."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        file = directory / name
        if file.is_file():
            found = json.loads(file.read_text(encoding="utf-8"))
            file.write_text(json.dumps({**found, "pad_token": token}, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _end_at_eos(directory: Path, codec: ChatCodec) -> None:
    """The chat template's conversations end with the EOS of the last answer, wherever it is written."""
    ending = str(codec.tokenizer.convert_ids_to_tokens(codec.eos_id))
    if codec.closing == ending:
        return
    file, config = directory / TEMPLATE, directory / "tokenizer_config.json"
    if file.is_file():
        file.write_text(_ended(file.read_text(encoding="utf-8"), codec.closing, ending), encoding="utf-8")
    found = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    if isinstance(found.get("chat_template"), str):
        found["chat_template"] = _ended(found["chat_template"], codec.closing, ending)
        config.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _ended(template: str, closing: str, ending: str) -> str:
    """A template whose text ends with `ending` where it ended with `closing`; as it was before an answer."""
    inner = template.removesuffix("\n")  # Jinja drops one line break at the end of a template, not inside of one
    said, end = json.dumps(closing, ensure_ascii=False), json.dumps(ending, ensure_ascii=False)
    return (
        "{%- set whole -%}{{ '' }}" + inner + "{{ '' }}{%- endset -%}"
        "{%- if not add_generation_prompt and whole.endswith(" + said + ") -%}"
        "{{ whole[:whole|length - " + str(len(closing)) + "] ~ " + end + " }}"
        "{%- else -%}{{ whole }}{%- endif -%}"
    )
