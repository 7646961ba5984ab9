"""Judges of worlds: what could be said of the answers of a group, with how likely it is."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, permutations, product

import torch
from jaxtyping import Float
from torch import Tensor

from prefloop.records import Judgment, Response
from prefloop.worlds.population import Judging
from prefloop.worlds.table import Tokens

Said = Iterator[tuple[float, tuple[Judgment, ...]]]


def bradley_terry(reward: Float[Tensor, " answers"]) -> Float[Tensor, "answers answers"]:
    """P(i is preferred to j) = sigmoid(reward i - reward j)."""
    return (reward[:, None] - reward[None, :]).sigmoid()


def cyclic(strengths: Sequence[float] = (0.5, 0.5, 0.5)) -> Float[Tensor, "3 3"]:
    """Rock, paper, scissors: paper beats rock, scissors paper, rock scissors, with 1/2 and so much more each."""
    matrix = torch.full((3, 3), 0.5, dtype=torch.float64)
    for (better, worse), strength in zip(((1, 0), (2, 1), (0, 2)), strengths, strict=True):
        matrix[better, worse] += strength
        matrix[worse, better] -= strength
    return matrix


def flipped(prefers: Float[Tensor, "answers answers"], rate: float) -> Float[Tensor, "answers answers"]:
    """The same preferences when a label is turned round with this probability."""
    return (1 - rate) * prefers + rate * (1 - prefers)


def _scores(judge: str, responses: Sequence[Response], values: Iterable[float]) -> tuple[Judgment, ...]:
    return tuple(
        Judgment(judge=judge, kind="score", subjects=(one.response_id,), values=(value,))
        for one, value in zip(responses, values, strict=True)
    )


class Judges:
    """The judges of a world with these answers."""

    def __init__(self, answers: Sequence[Tokens]) -> None:
        self.number = {answer: number for number, answer in enumerate(answers)}

    def numbers(self, responses: Sequence[Response]) -> list[int]:
        """Which answers they are."""
        return [self.number[response.token_ids or ()] for response in responses]

    def scoring(self, *rewards: Float[Tensor, " answers"]) -> Judging:
        """Says every answer's reward; each of several judges says its own."""

        def judging(responses: Sequence[Response]) -> Said:
            numbers = self.numbers(responses)
            said = [_scores(f"judge-{n}", responses, reward[numbers].tolist()) for n, reward in enumerate(rewards)]
            yield 1.0, sum(said, ())

        return judging

    def labelling(self, prefers: Float[Tensor, "answers answers"], *, given: bool = False) -> Judging:
        """Labels two answers, the better one at random as preferences say: score 1 against 0, or a given preference.

        Args:
            prefers: P(i is preferred to j).
            given: of two given answers, as a data set states it.
        """

        def judging(responses: Sequence[Response]) -> Said:
            pair = [one for one in responses if (one.step == "given") == given]
            first, second = self.numbers(pair)
            for wins, chance in ((1.0, prefers[first, second].item()), (0.0, prefers[second, first].item())):
                if not chance:
                    continue
                if given:
                    ids = (pair[0].response_id, pair[1].response_id)
                    yield chance, (Judgment(judge="labels", kind="preference", subjects=ids, values=(wins,)),)
                else:
                    yield chance, _scores("labels", pair, (wins, 1 - wins))

        return judging

    def ranking(self, reward: Float[Tensor, " answers"]) -> Judging:
        """Orders the answers at random by Plackett and Luce: the best has the highest score; equal answers have one."""

        def judging(responses: Sequence[Response]) -> Said:
            numbers = self.numbers(responses)
            for order in permutations(dict.fromkeys(numbers)):
                placed = reward[list(order)]
                chance = (placed - torch.stack([placed[n:].logsumexp(0) for n in range(len(placed))])).sum().exp()
                yield chance.item(), _scores("ranking", responses, [-float(order.index(one)) for one in numbers])

        return judging

    def comparing(self, prefers: Float[Tensor, "answers answers"]) -> Judging:
        """Says P(first wins) of every two answers."""

        def judging(responses: Sequence[Response]) -> Said:
            places = self.numbers(responses)
            yield (
                1.0,
                tuple(
                    Judgment(
                        judge="comparisons",
                        kind="preference",
                        subjects=(responses[first].response_id, responses[second].response_id),
                        values=(prefers[places[first], places[second]].item(),),
                    )
                    for first, second in combinations(range(len(responses)), 2)
                ),
            )

        return judging

    def rating(self, chances: Float[Tensor, "answers grades"], repeats: int = 1) -> Judging:
        """Grades every answer from 0 on, at random and so many times."""

        def judging(responses: Sequence[Response]) -> Said:
            numbers = self.numbers(responses)
            grades = range(chances.shape[1])
            for said in product(grades, repeat=len(responses) * repeats):
                by_repeat = [said[n * len(responses) : (n + 1) * len(responses)] for n in range(repeats)]
                chance = 1.0
                for of_one in by_repeat:
                    for number, grade in zip(numbers, of_one, strict=True):
                        chance *= chances[number, grade].item()
                if chance:
                    yield chance, sum((_scores("rating", responses, map(float, one)) for one in by_repeat), ())

        return judging

    @staticmethod
    def together(*judges: Judging) -> Judging:
        """What several independent judges could say, all of it."""

        def judging(responses: Sequence[Response]) -> Said:
            for outcomes in product(*(list(judge(responses)) for judge in judges)):
                chance = 1.0
                for one, _ in outcomes:
                    chance *= one
                yield chance, sum((said for _, said in outcomes), ())

        return judging


def nobody(_responses: Sequence[Response]) -> Said:
    """Says nothing."""
    yield 1.0, ()
