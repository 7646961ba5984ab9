"""Answers that grow, a token at a time, behind prompts whose keys and values stand in memory once.

Put under the models of transformers by their `AttentionInterface`, as `tree_attention` is: the new tokens of all
answers pass as one sequence, and the attention takes apart what each of them sees - what all prompts begin with, the
rest of its own prompt, and the answer so far (Hydragen, arXiv:2402.05099, without its merging of softmaxes: the scores
of the three parts stand side by side, and one softmax is taken).
"""

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from prefloop.policy.head import Head, head_of
from prefloop.policy.tree_attention import attention_called, in_float32, require_known
from prefloop.policy.tree_scores import UNKNOWN, WITHIN, forest_states, may_take_trees
from prefloop.policy.trees import Forest

NAME = "prefloop_growing"


@dataclass(frozen=True)
class PassedPrompts:
    """Prompts that have passed through a model together, as a forest."""

    forest: Forest
    layers: list[tuple[Float[Tensor, "heads tokens width"], Float[Tensor, "heads tokens width"]]]
    """Keys and values."""
    hidden: Float[Tensor, "prompts hidden"]
    """States behind the last norm, from which the first token of an answer is predicted."""

    @classmethod
    def of(cls, model: PreTrainedModel, prompts: Sequence[tuple[int, ...]]) -> "PassedPrompts":
        """Passes prompts; what some of them begin with passes once."""
        forest = Forest.of(prompts)
        layers: list[tuple[Tensor, Tensor]] = []
        hidden = forest_states(model, forest, layers)
        last = [int(forest.places(prompt)[-1]) for prompt in range(len(prompts))]
        kept = [(in_float32(key), in_float32(value)) for key, value in layers]
        return cls(forest, kept, hidden[torch.tensor(last, device=hidden.device)])


class Rooms:
    """Keys and values of sequences, each in a slot of its own; the slots that are used come first."""

    def __init__(self, slots: int, columns: int) -> None:
        self._slots = slots
        self._columns = columns
        self.layers: list[tuple[Tensor, Tensor]] = []
        """Of each layer (slots, heads, columns, width)."""
        self.lengths: list[int] = []
        """Columns that are filled, of the slots that are used."""

    @property
    def longest(self) -> int:
        """Columns that are filled somewhere."""
        return max(self.lengths, default=0)

    def room(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """The buffers of a layer whose keys and values are (heads, tokens, width), made where they are missing."""
        if layer == len(self.layers):
            shapes = [(self._slots, len(states), self._columns, states.shape[-1]) for states in (key, value)]
            self.layers.append((key.new_zeros(shapes[0]), value.new_zeros(shapes[1])))  # what is not seen times 0
        return self.layers[layer]

    def fill(self, sequence: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Puts the keys and values of a sequence, of each layer (heads, tokens, width), into the next slot."""
        slot, length = len(self.lengths), sequence[0][0].shape[1]
        self._grow(slot + 1, length)
        for layer, (key, value) in enumerate(sequence):
            for room, states in zip(self.room(layer, key, value), (key, value), strict=True):
                room[slot, :, :length] = states
        self.lengths.append(length)

    def keep(self, order: Sequence[int]) -> None:
        """Makes slot i what slot order[i] is now; slots that stay where they are cost nothing."""
        self.lengths = [self.lengths[slot] for slot in order]
        moves = [(to, slot) for to, slot in enumerate(order) if to != slot]
        if moves and self.layers:
            device, longest = self.layers[0][0].device, self.longest
            into, out_of = (torch.tensor(slots, device=device) for slots in zip(*moves, strict=True))
            for room in (room for layer in self.layers for room in layer):
                filled = room[:, :, :longest]
                filled[into] = filled[out_of]

    def _grow(self, slots: int, columns: int) -> None:
        if slots <= self._slots and columns <= self._columns:
            return
        if slots > self._slots:
            self._slots = max(slots, 2 * self._slots)
        self._columns = max(columns, self._columns)
        before, self.layers = self.layers, []
        for layer, rooms in enumerate(before):
            grown = self.room(layer, *(room[0] for room in rooms))
            for room, old in zip(grown, rooms, strict=True):
                room[: len(self.lengths), :, : self.longest] = old[: len(self.lengths), :, : self.longest]


class Growing:
    """Answers that grow together, one a row. Rows of one prompt share its keys and values."""

    def __init__(self, model: PreTrainedModel, rows: int, new_tokens: int, shared: int) -> None:
        """Nothing grows yet.

        Args:
            model: without adapters, in evaluation mode.
            rows: answers that may grow together.
            new_tokens: of the longest answer. The last one is never read.
            shared: tokens that all prompts begin with.
        """
        self.model = model
        self.head: Head = head_of(model)
        self.shared = shared
        self.trunk: list[tuple[Tensor, Tensor]] = []
        """Of what all prompts begin with, by layer (heads, tokens, width)."""
        self.prompts = Rooms(slots=1, columns=0)
        """The rest of every prompt that has rows."""
        self.answers = Rooms(slots=rows, columns=max(1, new_tokens - 1))
        self.prompt_of_row: list[int] = []
        self.hidden: Float[Tensor, "rows hidden"] = torch.zeros(0, 0)
        """States from which the next token of every row is predicted."""

    def logits(self) -> Float[Tensor, "rows vocab"]:
        """Of the next token of every row."""
        return self.head(self.hidden)

    def enter(self, passed: PassedPrompts, number: int, count: int) -> None:
        """Answers to a prompt that has passed begin to grow, in rows behind the others."""
        places = passed.forest.places(number).to(passed.hidden.device)
        if self.shared and not self.trunk:
            of_all = places[: self.shared]
            self.trunk = [(key[:, of_all], value[:, of_all]) for key, value in passed.layers]
        own = places[self.shared :]
        self.prompts.fill([(key[:, own], value[:, own]) for key, value in passed.layers])
        self.prompt_of_row += [len(self.prompts.lengths) - 1] * count
        self.answers.lengths += [0] * count
        begun = passed.hidden[number].expand(count, -1)
        self.hidden = torch.cat([self.hidden, begun]) if len(self.hidden) else begun

    def keep(self, rows: Sequence[int]) -> None:
        """Makes row i what rows[i] is now; the others are over, and so are prompts without a row."""
        self.answers.keep(rows)
        self.hidden = self.hidden[torch.tensor(rows, dtype=torch.long, device=self.hidden.device)]
        found = [self.prompt_of_row[row] for row in rows]
        kept = closed_up([slot not in found for slot in range(len(self.prompts.lengths))])
        self.prompts.keep(kept)
        now = {slot: number for number, slot in enumerate(kept)}
        self.prompt_of_row = [now[slot] for slot in found]

    @property
    def positions(self) -> list[int]:
        """Of the next token of every row how many stand before it."""
        lengths = zip(self.prompt_of_row, self.answers.lengths, strict=True)
        return [self.shared + self.prompts.lengths[slot] + length for slot, length in lengths]

    def advance(self, tokens: Int[Tensor, " rows"]) -> None:
        """Passes the next token of every row."""
        positions = torch.tensor([self.positions], device=tokens.device)
        step = _STEP.set(_Step.of(self, tokens.device))
        try:
            with attention_called(NAME, self.model):
                passed = self.model.base_model(input_ids=tokens[None], position_ids=positions, use_cache=False)
        finally:
            _STEP.reset(step)
        self.hidden = passed.last_hidden_state[0]
        self.answers.lengths = [length + 1 for length in self.answers.lengths]


def closed_up(gone: Sequence[bool]) -> list[int]:
    """What stays, in places without gaps: what stood last takes the places that became free, so that few move."""
    staying = len(gone) - sum(gone)
    last = iter([slot for slot in range(staying, len(gone)) if not gone[slot]])
    return [next(last) if gone[slot] else slot for slot in range(staying)]


@dataclass
class _Step:
    """One token of every row on its way through the layers, with what these share."""

    growing: Growing
    members: Int[Tensor, "prompts rows_of_it"]
    """Rows of every prompt; where one has fewer than others, some row."""
    places: Int[Tensor, " rows"]
    """Of every row its place among the members."""
    slots: Int[Tensor, " rows"]
    columns: Int[Tensor, " rows"]
    """Where the token's own keys and values go."""
    depths: Int[Tensor, "rows seen"]
    """Position of whatever a row could see; beyond all positions where there is nothing."""
    positions: Int[Tensor, "rows 1"]
    layer: int = 0
    biases: dict[int | None, Tensor] = field(default_factory=dict[int | None, Tensor])

    @classmethod
    def of(cls, growing: Growing, device: torch.device) -> "_Step":
        """Who sees what."""
        of_prompt: list[list[int]] = [[] for _ in growing.prompts.lengths]
        place: list[tuple[int, int]] = []
        for row, slot in enumerate(growing.prompt_of_row):
            place.append((slot, len(of_prompt[slot])))
            of_prompt[slot].append(row)
        most = max(map(len, of_prompt))
        members = [rows + [0] * (most - len(rows)) for rows in of_prompt]
        lengths = torch.tensor(growing.answers.lengths)
        prompts = torch.tensor(growing.prompts.lengths)[growing.prompt_of_row]
        positions = (growing.shared + prompts + lengths)[:, None]
        trunk = torch.arange(growing.shared).expand(len(lengths), -1)
        own = torch.arange(growing.prompts.longest).expand(len(lengths), -1)
        said = torch.arange(growing.answers.longest + 1).expand(len(lengths), -1)
        beyond = torch.iinfo(torch.long).max
        depths = [
            trunk,
            (growing.shared + own).masked_fill(own >= prompts[:, None], beyond),
            (positions - lengths[:, None] + said).masked_fill(said > lengths[:, None], beyond),
        ]
        return cls(
            growing,
            members=torch.tensor(members, device=device),
            places=torch.tensor([slot * most + number for slot, number in place], device=device),
            slots=torch.arange(len(lengths), device=device),
            columns=lengths.to(device),
            depths=torch.cat(depths, dim=1).to(device),
            positions=positions.to(device),
        )

    def bias(self, window: int | None, dtype: torch.dtype) -> Float[Tensor, "rows 1 1 seen"]:
        """What is added to the scores: nothing, or minus infinity where a row does not see."""
        if window not in self.biases:
            hidden = self.depths > self.positions
            if window is not None:
                hidden |= self.depths <= self.positions - window
            bias = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, -torch.inf)
            self.biases[window] = bias[:, None, None]
        return self.biases[window]

    def attend(
        self,
        query: Float[Tensor, "rows heads of_it width"],
        key: Float[Tensor, "heads rows width"],
        value: Float[Tensor, "heads rows width"],
        window: int | None,
        softcap: float | None,
    ) -> Float[Tensor, "rows heads of_it width"]:
        """Attention of one layer; a head of keys is read by several of queries."""
        keys, values = self._filled(key, value)
        parts = (_of_all(query, keys[0].mT), self._of_prompts(query, keys[1].mT), query @ keys[2].mT)
        scores = torch.cat(parts, dim=-1)
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        scores += self.bias(window, scores.dtype)
        weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(value.dtype)
        trunk, own, said = weights.split([part.shape[-1] for part in parts], dim=-1)
        return _of_all(trunk, values[0]) + self._of_prompts(own, values[1]) + said @ values[2]

    def _filled(self, key: Tensor, value: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Keys, and values, of the three parts, those of the new token among them."""
        growing, layer = self.growing, self.layer
        self.layer += 1
        room = growing.answers.room(layer, key, value)
        prompts = growing.prompts.layers[layer]
        found: list[list[Tensor]] = []
        for number, states in enumerate((key, value)):
            room[number][self.slots, :, self.columns] = states.transpose(0, 1)
            trunk = growing.trunk[layer][number] if growing.trunk else states[:, :0]
            own = prompts[number][: len(self.members), :, : growing.prompts.longest]
            found.append([trunk, own, room[number][: len(self.slots), :, : growing.answers.longest + 1]])
        return found[0], found[1]

    def _of_prompts(self, rows: Tensor, states: Tensor) -> Tensor:
        """Rows times what belongs to their prompt: (rows, heads, n, a) by (prompts, heads, a, b)."""
        each = rows.shape[2]
        of_prompt = rows[self.members].transpose(1, 2).flatten(2, 3) @ states
        by_place = of_prompt.unflatten(2, (-1, each)).transpose(1, 2).flatten(0, 1)
        return by_place[self.places]


def _of_all(rows: Tensor, states: Tensor) -> Tensor:
    """Rows times what they all share: (rows, heads, n, a) by (heads, a, b)."""
    _, _, each, _ = rows.shape
    return (rows.transpose(0, 1).flatten(1, 2) @ states).unflatten(1, (-1, each)).transpose(0, 1)


_STEP: ContextVar[_Step] = ContextVar("tokens of growing answers on their way through a model")


def _attend(
    _module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention of one layer: (1, heads, rows, width) each, keys and values with fewer heads where heads are grouped.

    Returns (1, rows, heads, width), as every attention function of transformers does.
    """
    require_known(attention_mask, others)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    with torch.autocast(query.device.type, enabled=False):  # scores in bfloat16 would be off by hundredths
        by_key = (in_float32(query[0]) * scale).unflatten(0, (key.shape[1], -1)).permute(2, 0, 1, 3)
        attended = _STEP.get().attend(by_key, in_float32(key[0]), in_float32(value[0]), sliding_window, softcap)
    return attended.flatten(1, 2)[None], None


AttentionInterface.register(NAME, _attend)


def grows_answers(model: PreTrainedModel) -> bool:
    """Whether a model says of answers that grow here what it says of prompt and answer as plain rows."""
    if not may_take_trees(model):
        return False
    vocab = model.config.get_text_config().vocab_size
    ids = [number * 7919 % vocab for number in range(24)]
    prompts = [tuple(ids[:15]), (*ids[:9], *ids[16:20])]
    answers = [ids[20:23], ids[21:24], ids[19:22]]
    with torch.inference_mode():
        try:
            passed = PassedPrompts.of(model, prompts)
            growing = Growing(model, rows=3, new_tokens=4, shared=9)
            growing.enter(passed, 0, 2)
            growing.enter(passed, 1, 1)
            found = [growing.logits()]
            for tokens in torch.tensor(answers, device=model.device).T:
                growing.advance(tokens)
                found.append(growing.logits())
        except UNKNOWN:
            return False
        for row, (prompt, answer) in enumerate(zip((prompts[0], *prompts), answers, strict=True)):
            whole = torch.tensor([[*prompt, *answer]], device=model.device)
            plain = model(input_ids=whole, use_cache=False).logits[0, len(prompt) - 1 :]
            own = torch.stack([logits[row] for logits in found])
            if not torch.allclose(own.log_softmax(-1), plain.log_softmax(-1), rtol=0, atol=WITHIN):
                return False
    return True
