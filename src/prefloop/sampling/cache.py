"""A key-value cache whose rows can leave and whose columns are written in place."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer

_SPARE_COLUMNS = 64


class RoomyLayer(DynamicLayer):
    """Keys and values at the front of larger buffers.

    transformers' own layer copies everything that it holds at every token (`torch.cat`), and again whenever a row
    leaves: a sixth of the time with 192 rows. Here a token writes one column, and a leaving row is
    overwritten by another.
    """

    def __init__(self) -> None:
        super().__init__()
        self._rooms: tuple[Tensor, Tensor] | None = None

    def update(
        self,
        key_states: Float[Tensor, "rows heads new dim"],
        value_states: Float[Tensor, "rows heads new dim"],
        *args: object,  # noqa: ARG002 - what other kinds of layer take
        **kwargs: object,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor]:
        """Append the states of new tokens and return all."""
        if self.keys is None or self.values is None:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
            return self.keys, self.values
        rows, _, length, _ = self.keys.shape
        end = length + key_states.shape[-2]
        if self._rooms is None or self._rooms[0].shape[-2] < end:
            self._rooms = (_with_room(self.keys, end), _with_room(self.values, end))
        for room, states in zip(self._rooms, (key_states, value_states), strict=True):
            room[:rows, :, length:end] = states
        self.keys, self.values = (room[:rows, :, :end] for room in self._rooms)
        return self.keys, self.values

    def batch_select_indices(self, indices: Int[Tensor, " rows"]) -> None:
        """Make row i what row indices[i] is now; rows that stay where they are cost nothing."""
        if self.keys is None or self.values is None:
            return
        if self._rooms is None or len(indices) > len(self.keys):
            self.keys, self.values, self._rooms = self.keys[indices], self.values[indices], None
            return
        moved = (indices != torch.arange(len(indices), device=indices.device)).nonzero()[:, 0]
        self.keys[moved], self.values[moved] = self.keys[indices[moved]], self.values[indices[moved]]
        self.keys, self.values = self.keys[: len(indices)], self.values[: len(indices)]


def _with_room(states: Float[Tensor, "rows heads tokens dim"], end: int) -> Float[Tensor, "rows heads columns dim"]:
    rows, heads, length, dim = states.shape
    room = states.new_empty(rows, heads, end + _SPARE_COLUMNS, dim)
    room[:, :, :length] = states
    return room


def roomy_cache(config: PreTrainedConfig) -> DynamicCache:
    """An empty cache for the model; layers of other kinds (sliding window, linear) stay what transformers has."""
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def columns_of(prompt_tokens: int, new_tokens: int) -> int:
    """Columns that a cache has after a prompt and all but the last of its new tokens, which is never read.

    Room for the first new token comes with spare columns, and so does every later one for which there is none.
    """
    grown = 1 + _SPARE_COLUMNS
    return prompt_tokens + grown * -(-(new_tokens - 1) // grown)
