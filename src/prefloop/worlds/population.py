"""All groups that sampling and judging can bring about, each with its probability, and what a rule makes of them."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, product
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from prefloop.pairing import Dropped, find_rule
from prefloop.policy import TokenRow
from prefloop.records import Example, Group, Judgment, Member, Message, Prompt, Response, Role
from prefloop.training import TokenExample
from prefloop.training.rows import keys_of
from prefloop.worlds.table import PROMPT, TabularPolicy, Tokens

Judging = Callable[[Sequence[Response]], Iterable[tuple[float, tuple[Judgment, ...]]]]
"""Takes the answers of a group, gives everything that could be said of them, with its probability."""

QUESTION = Prompt.of((Message(role="user", content="?"),))
"""The one prompt of a world."""


@dataclass(frozen=True)
class Drawn:
    """One answer of a group: which step brings it, and how likely each answer is to be it."""

    step: str
    """As in responses: the name of a sample step, or "given"."""
    answers: Sequence[Tokens]
    probs: Float[Tensor, " answers"]

    @classmethod
    def sampled(cls, step: str, answers: Sequence[Tokens], logps: Float[Tensor, " answers"]) -> "Drawn":
        """From a policy."""
        return cls(step, answers, logps.detach().exp())


@dataclass(frozen=True)
class Massed:
    """A group, and how likely it is."""

    mass: float
    group: Group


def response(number: int, answer: Tokens, step: str) -> Response:
    """An answer as the record that rules read; answers of the same tokens have the same text."""
    return Response(
        response_id=f"{number}",
        prompt_id=QUESTION.prompt_id,
        root_id=QUESTION.root_id,
        step=step,
        text=" ".join(map(str, answer)),
        token_ids=answer,
        finish_reason="given" if step == "given" else "stop",
        index=number,
    )


def groups(draws: Sequence[Drawn], judging: Judging) -> Iterator[Massed]:
    """Every group that can come of independent draws and what is said of them; the probabilities add up to 1."""
    each = [
        [(answer, chance) for answer, chance in zip(draw.answers, draw.probs.tolist(), strict=True) if chance]
        for draw in draws
    ]
    for drawn in product(*each):
        answers = tuple(
            response(number, answer, draw.step)
            for number, (draw, (answer, _)) in enumerate(zip(draws, drawn, strict=True))
        )
        mass = prod(chance for _, chance in drawn)
        for chance, said in judging(answers):
            yield Massed(mass * chance, Group((QUESTION,), answers, said))


def sampled_groups(draws: Sequence[Drawn], judging: Judging, count: int, seed: int) -> Iterator[Massed]:
    """So many groups at random, each of mass 1 / count: what a run meets of the population. Equal ones come as one."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.multinomial(draw.probs, count, replacement=True, generator=generator).tolist() for draw in draws]
    uniforms = torch.rand(count, generator=generator, dtype=torch.float64).tolist()
    met: dict[tuple[int, ...], list[float]] = {}
    for numbers, uniform in zip(zip(*drawn, strict=True), uniforms, strict=True):
        met.setdefault(numbers, []).append(uniform)
    for numbers, chances in met.items():
        answers = tuple(
            response(number, draw.answers[one], draw.step)
            for number, (draw, one) in enumerate(zip(draws, numbers, strict=True))
        )
        said = list(judging(answers))
        ends = list(accumulate(chance for chance, _ in said))
        # Times the last end, which rounding leaves beside 1.
        verdicts = Counter(bisect_right(ends, uniform * ends[-1]) for uniform in chances)
        for verdict, times in verdicts.items():
            yield Massed(times / count, Group((QUESTION,), answers, said[verdict][1]))


def examples_of(population: Iterable[Massed], rule: str, **options: Any) -> list[TokenExample]:
    """What a registered rule makes of a population, as training reads it: weights are probabilities.

    Examples that are alike are one. Groups of which the rule makes nothing have no weight, as in a run.

    Args:
        population: groups, each with its probability.
        rule: name of the rule.
        options: of the rule, as a recipe says them; fitted ones as numbers.
    """
    found = find_rule(rule, "rule")
    constants = {name: options.pop(name) for name in found.fit.keys() & options.keys()}
    checked = found.checked({**options, **dict.fromkeys(constants, 0.0)}, "rule")
    made: list[Example] = []
    for one in population:
        for example in found.apply(one.group, checked, constants):
            assert isinstance(example, Example | Dropped), "a rule that derives prompts has none to derive here"
            if isinstance(example, Example):
                made.append(example.model_copy(update={"weight": one.mass * example.weight}))
    return as_tokens(made)


def as_tokens(examples: Iterable[Example]) -> list[TokenExample]:
    """Examples with their rows of tokens; those that differ in weight alone are one, with the weights added."""
    alike: dict[Any, TokenExample] = {}
    for example in examples:
        keys = keys_of([member.role for member in example.members])
        rows = [_row(example.prompt, member) for member in example.members]
        made = TokenExample.of(example, dict(zip(keys, rows, strict=True)))
        numbers = [tuple(sorted(one.items())) for one in (made.numbers, *made.member_numbers.values())]
        key = (tuple(made.rows.items()), *numbers)
        known = alike.get(key)
        alike[key] = made if known is None else replace(known, weight=known.weight + made.weight)
    return list(alike.values())


def _row(prompt: Prompt, member: Member) -> TokenRow:
    """The beginning that a prompt gives belongs to what is not learnt."""
    answer = (member.token_ids or ())[len(prompt.prefix_ids) :]
    return TokenRow((PROMPT, *prompt.prefix_ids), answer, (True,) * len(answer))


def every_pair(
    answers: Sequence[Tokens],
    masses: Float[Tensor, "answers answers"],
    of_answers: Mapping[str, Float[Tensor, " answers"]] | None = None,
    of_pairs: Mapping[str, Float[Tensor, "answers answers"]] | None = None,
    *,
    with_equal: bool = False,
) -> list[TokenExample]:
    """Every ordered pair of two answers, the first one chosen: what theory asks for where no rule of a finite K does.

    Args:
        answers: of the world.
        masses: of each pair.
        of_answers: numbers of the members, such as `win_prob`.
        of_pairs: numbers of the examples, such as `prob_chosen_wins`.
        with_equal: an answer against itself as well, which rules leave out.
    """
    rows = [TokenRow((PROMPT,), answer, (True,) * len(answer)) for answer in answers]
    own = [
        {name: float(values[number]) for name, values in (of_answers or {}).items()} for number in range(len(answers))
    ]
    return [
        TokenExample(
            example_id=f"{chosen}-{rejected}",
            rows={"chosen": rows[chosen], "rejected": rows[rejected]},
            marked={role: (False,) * len(answers[one]) for role, one in (("chosen", chosen), ("rejected", rejected))},
            weight=mass,
            numbers={name: float(values[chosen, rejected]) for name, values in (of_pairs or {}).items()},
            member_numbers={"chosen": own[chosen], "rejected": own[rejected]},
        )
        for chosen, of_chosen in enumerate(masses.tolist())
        for rejected, mass in enumerate(of_chosen)
        if mass > 0 and (with_equal or chosen != rejected)
    ]


def single_answers(
    policy: TabularPolicy,
    role: Role,
    masses: Float[Tensor, " answers"],
    numbers: Mapping[str, Float[Tensor, " answers"]] | None = None,
) -> list[TokenExample]:
    """Examples of one answer each, in one role, with numbers of the member."""
    return [
        TokenExample(
            example_id=f"{number}",
            rows={role: TokenRow((PROMPT,), answer, (True,) * len(answer))},
            marked={role: (False,) * len(answer)},
            weight=mass,
            numbers={},
            member_numbers={role: {name: float(values[number]) for name, values in (numbers or {}).items()}},
        )
        for number, (answer, mass) in enumerate(zip(policy.answers, masses.tolist(), strict=True))
    ]
