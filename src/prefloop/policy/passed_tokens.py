"""How many tokens really pass through a model."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel


@contextmanager
def passed_tokens(model: PreTrainedModel | PeftModel) -> Generator[Callable[[], int]]:
    """Counts the tokens that are embedded while this lasts, padding included; what is given says how many so far."""
    counts: list[int] = []

    def see(_module: nn.Module, given: tuple[Any, ...]) -> None:
        counts.append(given[0].numel())

    hook = model.get_input_embeddings().register_forward_pre_hook(see)
    try:
        yield lambda: sum(counts)
    finally:
        hook.remove()
