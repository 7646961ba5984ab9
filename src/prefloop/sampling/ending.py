"""What ends an answer beside its length."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from prefloop.sampling.protocol import SamplingSettings

_PARTS_OF_CHARACTERS = 4
"""Tokens before a stop text that its first letters may need to be decoded."""


@dataclass(frozen=True)
class Ending:
    """The tokens and texts that end an answer."""

    ids: frozenset[int]
    texts: tuple[str, ...]
    text_of: Callable[[Sequence[int]], str] | None
    """What tokens say; needed for texts."""
    width: int = field(init=False)
    """Tokens at the end of an answer that are looked at."""

    def __post_init__(self) -> None:
        longest = max((len(text.encode()) for text in self.texts), default=0)
        object.__setattr__(self, "width", longest + _PARTS_OF_CHARACTERS)

    @classmethod
    def of(
        cls, settings: SamplingSettings, eos_ids: frozenset[int], text_of: Callable[[Sequence[int]], str] | None
    ) -> "Ending":
        """What the settings ask for, beside the policy's own EOS."""
        return cls(eos_ids | set(settings.stop_ids), settings.stop, text_of)

    def at(self, token_ids: Sequence[int]) -> bool:
        """Whether an answer ends with the last of its tokens, not having ended before."""
        if token_ids[-1] in self.ids:
            return True
        if not self.texts:
            return False
        assert self.text_of is not None
        said = self.text_of(token_ids[-self.width :])
        return any(text in said for text in self.texts)
