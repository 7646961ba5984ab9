"""What `lint` and `inspect` are told of a model's tokens."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from prefloop.errors import RecipeError

if TYPE_CHECKING:
    from prefloop.policy import ChatCodec


@dataclass(frozen=True)
class ModelTokens:
    """The options --model, --max-length, --truncation and --template-kwargs."""

    model: str | None = None
    max_length: int | None = None
    truncation: Literal["drop", "cut_response", "cut_prompt_left"] | None = None
    template_kwargs: str | None = None
    """A JSON object, as the recipe's `model.chat_template_kwargs`."""

    def require_unused(self, why: str) -> None:
        """Says so where an option is given that would have no effect.

        Raises:
            RecipeError: one is.
        """
        given = {
            "--model": self.model,
            "--max-length": self.max_length,
            "--truncation": self.truncation,
            "--template-kwargs": self.template_kwargs,
        }
        for option, value in given.items():
            if value is not None:
                raise RecipeError(f"{option}: {why}")

    def codec(self) -> "ChatCodec | None":
        """The model's tokenizer and template; None where no model is named.

        Raises:
            RecipeError: another option is given without a model, or without what it belongs to.
        """
        if self.model is None:
            self.require_unused("is about a model's tokens. Name one with --model.")
            return None
        if self.truncation is not None and self.max_length is None:
            raise RecipeError("--truncation: says what becomes of rows that are too long. Give --max-length as well.")
        from prefloop.policy import ChatCodec, resolve_model

        return ChatCodec.load(resolve_model(self.model).directory, self._settings())

    def _settings(self) -> dict[str, Any]:
        try:
            found = json.loads(self.template_kwargs or "{}")
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise RecipeError(
                f"--template-kwargs: {self.template_kwargs} is no JSON object. "
                """Write it like '{"enable_thinking": false}'."""
            )
        return found
