"""Attention whose scores are soft-capped, as Gemma-2 has it (arXiv:2408.00118, section 2)."""

from pathlib import Path

from transformers import AutoConfig


def attention_of(directory: Path) -> str | None:
    """How transformers is to attend in a model of this directory; None leaves it to transformers.

    SDPA knows no cap and leaves it out without a word. transformers 5.17 takes it for Gemma-2 unless it is told
    otherwise; 5.23 does not.
    """
    text = AutoConfig.from_pretrained(directory, local_files_only=True).get_text_config()
    return "eager" if getattr(text, "attn_logit_softcapping", None) else None
