"""Beam search: the likeliest answers instead of drawn ones, for evaluation."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import nlargest

import torch
from jaxtyping import Float
from torch import Tensor

from prefloop.policy import widest
from prefloop.sampling.components import Component, Components
from prefloop.sampling.draws import parts_of, seen_by
from prefloop.sampling.ending import Ending
from prefloop.sampling.protocol import Answer, Draw, SamplingSettings


def searched(
    components: Sequence[Component], draws: Sequence[Draw], settings: SamplingSettings, rows: int, ending: Ending
) -> Iterator[Answer]:
    """The answers of a beam search to each prompt, the best one to its first draw.

    As `num_beams` of transformers has it, with its defaults: an answer is worth its log-probability by token, EOS
    counted; a prompt is done when it has as many ended answers as beams and no beam is worth more by now than the worst
    of them. Answers are found for sure, so that their `sum_logp` is 0, as that of greedy ones.

    Args:
        components: one policy or a mixture, of models that take `Growing`.
        draws: that are wanted; at most as many of a prompt as there are beams.
        settings: `num_beams` and the longest answer; nothing is drawn.
        rows: beams that grow at the same time, of all prompts together; at least those of one prompt do.
        ending: what ends an answer.
    """
    beams = settings.num_beams
    waiting = deque(parts_of(draws, beams))
    prompts = list(zip(*(seen_by(part[0], len(components)) for part in waiting), strict=True))
    growing = Components(components, prompts or [()] * len(components), max(rows, beams), settings.max_new_tokens)
    most = max(2, 1 + len(ending.ids)) * beams
    live: list[_Search] = []
    while live or waiting:
        while waiting and (not live or (len(live) + 1) * beams <= rows):
            growing.enter(1)
            live.append(_Search(waiting.popleft(), beams))
        logps, tokens = _likeliest(growing.logits(), most)
        going: list[_Search] = []
        parents: list[int] = []
        first = 0
        for search in live:
            after = first + len(search.beams)
            from_rows = search.grow(logps[first:after], tokens[first:after], most, settings, ending)
            if from_rows:
                going.append(search)
                parents += [first + row for row in from_rows]
            else:
                yield from search.answers()
            first = after
        live = going
        growing.keep(parents)
        if live:
            last = [ids[-1] for search in live for ids, _ in search.beams]
            growing.advance(torch.tensor(last, device=components[0].model.device))


def _likeliest(logits: Float[Tensor, "rows vocab"], most: int) -> tuple[list[list[float]], list[list[int]]]:
    """Log-probabilities, nats, and ids of each row's likeliest tokens, the likeliest first."""
    found = logits.log_softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))
    logps, tokens = found.topk(min(most, found.shape[-1]), dim=-1)
    return logps.to(widest(logps.device)).tolist(), tokens.tolist()


_Beam = tuple[tuple[int, ...], float]
"""Tokens of an answer, and their log-probability in nats."""


@dataclass
class _Search:
    """One prompt's beams."""

    draws: tuple[Draw, ...]
    width: int
    beams: list[_Beam] = field(default_factory=lambda: [((), 0.0)])
    """Those that grow, the likeliest first, one a row."""
    ended: list[tuple[float, tuple[int, ...], bool]] = field(default_factory=list[tuple[float, tuple[int, ...], bool]])
    """The best answers: what each is worth, its tokens, and whether it ended by itself; the best first."""

    def grow(
        self,
        logps: Sequence[Sequence[float]],
        tokens: Sequence[Sequence[int]],
        most: int,
        settings: SamplingSettings,
        ending: Ending,
    ) -> list[int]:
        """Takes one more token: of the `most` likeliest continuations the best that do not end go on.

        Returns:
            Of each beam that goes on the number of the one that it continues; none where the search is over.
        """
        continued = nlargest(
            most,
            (
                (score + logp, row, token)
                for row, (_, score) in enumerate(self.beams)
                for logp, token in zip(logps[row], tokens[row], strict=True)
            ),
            key=lambda one: one[0],
        )
        beams: list[_Beam] = []
        parents: list[int] = []
        for place, (score, row, token) in enumerate(continued):
            ids = (*self.beams[row][0], token)
            stopped = ending.at(ids)
            if stopped or len(ids) == settings.max_new_tokens:
                if place < self.width:
                    self.ended.append((score / len(ids), ids, stopped))
            elif len(beams) < self.width:
                beams.append((ids, score))
                parents.append(row)
        self.ended = sorted(self.ended, key=lambda one: -one[0])[: self.width]
        self.beams = beams
        if not beams or (len(self.ended) == self.width and beams[0][1] / len(beams[0][0]) <= self.ended[-1][0]):
            return []
        return parents

    def answers(self) -> Iterator[Answer]:
        """The best answers, the best one first; the last again where there are fewer than draws."""
        for place, draw in enumerate(sorted(self.draws, key=lambda draw: draw.index)):
            _, ids, stopped = self.ended[min(place, len(self.ended) - 1)]
            yield Answer(draw, ids, "stop" if stopped else "length", 0.0)
