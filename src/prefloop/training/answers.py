"""The answers of some examples in a line, the passes in which they go through a model, and their numbers by role."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from prefloop.objectives import REPEATED_ROLES
from prefloop.policy import LiveReference, TokenRow
from prefloop.policy.model_heads import Heads
from prefloop.training.layout import CLASS_FUNCTIONALS, NO_HEADS, TOKEN_FUNCTIONALS, Budget, Layout, Model, computed
from prefloop.training.rows import TokenExample

Flat = dict[str, Tensor]
"""Functionals of answers in a line: by name a number an answer, or one a token, padded with 0 behind the answer; of
prompts a number an example."""


@dataclass(frozen=True)
class Answer:
    """One answer of an example."""

    index: int
    """Of the example."""
    role: str
    row: TokenRow
    number: int
    """Among the answers of its example, from 0."""

    @property
    def first(self) -> bool:
        """Of its example; it is asked what belongs to the prompt."""
        return self.number == 0


@dataclass(frozen=True)
class Together:
    """Examples whose losses are taken together.

    They pass through a model at once where that is possible, and in parts where an example's loss depends on the others
    of its step or where an example is larger than a pass may be.
    """

    answers: tuple[Answer, ...]
    passes: tuple[tuple[int, ...], ...]
    """Places of the answers that pass together."""

    @classmethod
    def of(
        cls, examples: Mapping[int, TokenExample], roles: Sequence[str], batches: Iterable[tuple[Sequence[int], bool]]
    ) -> "Together":
        """Examples in micro-batches.

        Args:
            examples: by index.
            roles: of the answers that are read.
            batches: indices of the examples that pass together, and whether they pass in this process.
        """
        answers: list[Answer] = []
        passes: list[tuple[int, ...]] = []
        for batch, here in batches:
            before = len(answers)
            for index in batch:
                of_example = enumerate(examples[index].answers(roles))
                answers += [Answer(index, role, row, number) for number, (role, row) in of_example]
            if here:
                passes.append(tuple(range(before, len(answers))))
        return cls(tuple(answers), tuple(passes))

    @property
    def indices(self) -> list[int]:
        """Of the examples, in order."""
        return [answer.index for answer in self.answers if answer.first]

    def within(self, layout: Layout, budget: Budget) -> "Together":
        """The same with an example that is larger than a pass may be taken apart, answer by answer."""
        if not budget.splits_examples:
            return self
        parts = (part for places in self.passes for part in self._parts(places, layout, budget.tokens))
        return replace(self, passes=tuple(parts))

    def _parts(self, places: Sequence[int], layout: Layout, tokens: int) -> Iterator[tuple[int, ...]]:
        if len({self.answers[place].index for place in places}) > 1:
            yield tuple(places)
            return
        part: tuple[int, ...] = ()
        for place in places:
            if part and layout.size([self.answers[one].row for one in (*part, place)]) > tokens:
                yield part
                part = ()
            part = (*part, place)
        yield part

    def scores(
        self,
        model: Model,
        places: Sequence[int],
        functionals: Collection[str],
        layout: Layout,
        live: LiveReference | None = None,
        heads: Heads = NO_HEADS,
    ) -> Flat:
        """What a model says of the answers of one pass, some of it from a live reference or heads; gradient flows."""
        own = [self.answers[place] for place in places]
        prompts = [number for number, answer in enumerate(own) if answer.first and "prompt_logps" in functionals]
        found = layout.scores(model, [answer.row for answer in own], functionals, prompts, live, heads)
        return {name: values.cpu() for name, values in found.items() if name in computed(functionals)}

    def zeros(self, functionals: Collection[str], heads: Heads = NO_HEADS) -> Flat:
        """Room for the numbers of all answers."""
        longest = max(len(answer.row.answer_ids) for answer in self.answers)
        further = {name: (longest,) for name in TOKEN_FUNCTIONALS}
        further |= {name: (heads[name].out_features,) for name in CLASS_FUNCTIONALS & heads.keys()}
        sizes = {name: (len(self.answers), *further.get(name, ())) for name in computed(functionals)}
        if "prompt_logps" in sizes:
            sizes["prompt_logps"] = (len(self.indices),)
        return {name: torch.zeros(sizes[name], dtype=torch.float64) for name in sorted(sizes)}

    def put(self, into: Flat, places: Sequence[int], found: Flat) -> None:
        """Writes the numbers of one pass to where they belong among those of all answers."""
        for name, values in found.items():
            of_all = into[name] if name not in TOKEN_FUNCTIONALS else into[name][:, : values.shape[1]]
            of_all[self._lines(name, places)] = values.to(of_all.dtype)

    def taken(self, of_all: Flat, places: Sequence[int], like: Flat) -> Flat:
        """The reverse: of numbers of all answers those that belong to what one pass found."""
        found: Flat = {}
        for name, values in of_all.items():
            if name in like:
                own = values[self._lines(name, places)]
                found[name] = own if name not in TOKEN_FUNCTIONALS else own[:, : like[name].shape[1]]
        return found

    def _lines(self, name: str, places: Sequence[int]) -> list[int]:
        if name != "prompt_logps":
            return list(places)
        number = {place: number for number, place in enumerate(p for p, one in enumerate(self.answers) if one.first)}
        return [number[place] for place in places if place in number]

    def by_role(self, flat: Flat) -> dict[str, Tensor]:
        """The numbers as objectives take them: `{role}_{functional}`, a line an example.

        A role that an example has several times has a second axis, padded with 0.
        """
        found: dict[str, Tensor] = {}
        places = sorted(range(len(self.answers)), key=lambda place: self.answers[place].role)
        of_roles = [(role, list(own)) for role, own in groupby(places, key=lambda place: self.answers[place].role)]
        for name, values in flat.items():
            if name == "prompt_logps":
                found[name] = values
                continue
            for role, own in of_roles:
                found[f"{role}_{name}"] = self._of_role(role, own, values, of_tokens=name in TOKEN_FUNCTIONALS)
        return found

    def _of_role(self, role: str, places: Sequence[int], values: Tensor, *, of_tokens: bool) -> Tensor:
        if role in REPEATED_ROLES:
            examples = groupby(places, key=lambda place: self.answers[place].index)
            return pad_sequence([values[list(own)] for _, own in examples], batch_first=True)
        longest = max(len(self.answers[place].row.answer_ids) for place in places)
        return values[places, :longest] if of_tokens else values[places]
