"""Answers that grow together behind one copy of their prompts; as soon as some have ended, others take their place."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from prefloop.policy import closed_up, widest
from prefloop.sampling.choice import choose, held_by, penalised
from prefloop.sampling.components import Component, Components
from prefloop.sampling.draws import parts_of, seen_by, uniforms_of
from prefloop.sampling.ending import Ending
from prefloop.sampling.protocol import Answer, Draw, SamplingSettings


def grown_together(
    components: Sequence[Component], draws: Sequence[Draw], settings: SamplingSettings, rows: int, ending: Ending
) -> Iterator[Answer]:
    """One answer a draw, each as soon as it has ended.

    Which answers grow beside each other depends on the draws, the settings and the rows alone: the same call gives the
    same bytes.

    Args:
        components: one policy or a mixture, of models that take `Growing`.
        draws: that are wanted.
        settings: how tokens are drawn.
        rows: answers that grow at the same time. As many grow until none is waiting any more; of the draws of a prompt
            either all come in or none, unless they are more than the rows.
        ending: what ends an answer.
    """
    waiting = deque(parts_of(draws, rows))
    prompts = list(zip(*(seen_by(part[0], len(components)) for part in waiting), strict=True))
    growing = Components(components, prompts or [()] * len(components), min(rows, len(draws)), settings.max_new_tokens)
    device = components[0].model.device
    live: list[_Row] = []
    held = None if settings.repetition_penalty == 1 else _Held()
    while live or waiting:
        while waiting and len(live) + len(waiting[0]) <= rows:
            part = waiting.popleft()
            growing.enter(len(part))
            live += [_Row.of(draw, settings) for draw in part]
        logits = growing.logits()
        if held is not None:
            held.enter(live, logits)
            logits = penalised(logits, held.tokens, settings.repetition_penalty)
        uniforms = torch.tensor([row.uniform for row in live], dtype=widest(device), device=device)
        choice = choose(logits, uniforms, settings)
        over: list[bool] = []
        for row, token, logp in zip(live, choice.tokens.tolist(), choice.logps.tolist(), strict=True):
            row.take(token, logp)
            stopped = ending.at(row.token_ids)
            over.append(stopped or len(row.token_ids) == settings.max_new_tokens)
            if over[-1]:
                yield row.answer(stopped=stopped)
        tokens = choice.tokens
        if any(over):
            kept = closed_up(over)
            growing.keep(kept)
            live = [live[row] for row in kept]
            tokens = tokens[torch.tensor(kept, dtype=torch.long, device=tokens.device)]
            if held is not None:
                held.keep(kept)
        if held is not None:
            held.take(tokens)
        if live:
            growing.advance(tokens)


@dataclass
class _Row:
    """An answer that is growing."""

    draw: Draw
    uniforms: list[float]
    token_ids: list[int] = field(default_factory=list[int])
    sum_logp: float = 0.0

    @classmethod
    def of(cls, draw: Draw, settings: SamplingSettings) -> "_Row":
        return cls(draw, uniforms_of(draw.seed, settings.max_new_tokens).tolist())

    @property
    def uniform(self) -> float:
        """The random number of its next token."""
        return self.uniforms[len(self.token_ids)]

    def take(self, token: int, logp: float) -> None:
        """Its next token, with its log-probability in nats."""
        self.token_ids.append(token)
        self.sum_logp += logp

    def answer(self, *, stopped: bool) -> Answer:
        """What it became."""
        return Answer(self.draw, tuple(self.token_ids), "stop" if stopped else "length", self.sum_logp)


class _Held:
    """Which tokens prompt and answer of every row hold: what a repetition penalty is for."""

    def __init__(self) -> None:
        self.tokens: Bool[Tensor, "rows vocab"] = torch.zeros(0, 0, dtype=torch.bool)

    def enter(self, live: Sequence[_Row], logits: Float[Tensor, "rows vocab"]) -> None:
        """Rows that are new, behind those that are known."""
        new = [row.draw.prompt_ids for row in live[len(self.tokens) :]]
        if new:
            begun = held_by(new, logits)
            self.tokens = torch.cat([self.tokens, begun]) if len(self.tokens) else begun

    def keep(self, rows: Sequence[int]) -> None:
        """Makes row i what rows[i] is now."""
        self.tokens = self.tokens[torch.tensor(rows, dtype=torch.long, device=self.tokens.device)]

    def take(self, tokens: Int[Tensor, " rows"]) -> None:
        """The next token of every row."""
        self.tokens.scatter_(1, tokens[:, None], value=True)
