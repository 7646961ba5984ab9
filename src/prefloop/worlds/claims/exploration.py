"""Optimism: what SELM and XPO push away from, and the arm that nobody had tried."""

from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from prefloop.training import TokenExample
from prefloop.worlds.bandit import Bandit
from prefloop.worlds.claims.limits import falls_for_ever
from prefloop.worlds.claims.registry import beyond, claim
from prefloop.worlds.judges import bradley_terry
from prefloop.worlds.population import every_pair
from prefloop.worlds.solve import PopulationLoss, population_loss
from prefloop.worlds.table import TabularPolicy


def _with_own(pairs: list[TokenExample], own: list[TokenExample]) -> list[TokenExample]:
    """Pairs with an answer of the policy's own beside each, independently; its row is the chosen one of `own`."""
    return [
        TokenExample(
            example_id=f"{pair.example_id} {one.example_id}",
            rows={**pair.rows, "response": one.rows["chosen"]},
            marked={**pair.marked, "response": one.marked["chosen"]},
            weight=pair.weight * one.weight,
            numbers={},
            member_numbers={**pair.member_numbers, "response": {}},
        )
        for pair in pairs
        for one in own
    ]


def _own(world: Bandit, masses: Float[Tensor, " answers"]) -> list[TokenExample]:
    """An answer as the chosen one of a pair with the next; nobody reads the other."""
    return every_pair(world.answers, torch.diag(masses), with_equal=True)


def _force(loss: PopulationLoss) -> Float[Tensor, " logits"]:
    (gradient,) = torch.autograd.grad(loss(), loss.policy.free)
    return gradient


def _bonus(name: str, world: Bandit, own: Float[Tensor, " answers"], alpha: float, beta: float) -> Tensor:
    """What optimism adds to the gradient by the logits, with `own` the distribution of the answer that it names."""
    other = TabularPolicy(world.answers, world.tilted(world.reward))
    masses = world.ref.exp()[:, None] * world.ref.exp() * world.prefers
    examples = _with_own(
        every_pair(world.answers, masses / masses.triu(1).add(masses.tril(-1)).sum()), _own(world, own)
    )
    references = {"ref": world.policy}
    forces = [_force(population_loss(name, examples, other, references, beta=beta, alpha=of)) for of in (alpha, 0.0)]
    return forces[0] - forces[1]


@claim("xpo", source="arXiv:2405.21046 algorithm 1")
def bonus_away_from_the_reference() -> float:
    """The bonus adds alpha (ref - pi) to the gradient by the logits: nothing where the policy is the reference."""
    world, alpha = Bandit.of(4, seed=70), 0.3
    pi = world.tilted(world.reward).exp()
    found = _bonus("xpo", world, world.ref.exp(), alpha, beta=0.5)
    return float((found - alpha * (world.ref.exp() - pi)).abs().max())


@claim("selm", source="arXiv:2405.19332 equation 6")
def bonus_away_from_the_greedy_answer() -> float:
    """The bonus adds alpha beta (1 at the greedy answer - pi) to the gradient by the logits."""
    world, alpha, beta = Bandit.of(4, seed=71), 0.3, 0.5
    pi = world.tilted(world.reward).exp()
    greedy = torch.nn.functional.one_hot(pi.argmax(), 4).double()
    found = _bonus("selm", world, greedy, alpha, beta)
    return float((found - alpha * beta * (greedy - pi)).abs().max())


@claim("selm", source="arXiv:2405.19332 equation 6, worked out")
def optimism_without_pairs_has_no_end() -> float:
    """On an own answer that no pair touches the loss falls by alpha beta a nat, for ever."""
    world, alpha, beta = Bandit.of(3, seed=72), 0.3, 0.5
    masses = torch.zeros(3, 3, dtype=torch.float64)
    masses[0, 1] = masses[1, 0] = 0.5
    untouched = torch.nn.functional.one_hot(torch.tensor(2), 3).double()
    examples = _with_own(every_pair(world.answers, masses), _own(world, untouched))
    loss = population_loss("selm", examples, world.policy, beta=beta, alpha=alpha)
    far = [torch.tensor([0.0, 0.0, -nats], dtype=torch.float64) for nats in (100.0, 150.0)]
    slope = float(loss.at(far[1]) - loss.at(far[0])) / 50.0
    return falls_for_ever(loss.minimum) + abs(slope + alpha * beta)


# ------------------------------------------------------------------------------------------------------- a hidden arm

RARE = 0.002
"""Probability of each of ten arms under the reference; one of them is the best by far."""
ROUNDS = 3000
"""After so many a run without luck is given up; twelve times what is expected without optimism."""


def rounds_to_the_hidden_arm(name: str, alpha: float, seeds: int = 40) -> Float[Tensor, " seeds"]:
    """Rounds until the best arm is first met, when every round plays the policy of a finite class that fits best.

    The class: all known arms are worth 0 (or: and one of the ten rare ones is worth 8 as well), beta 1. A round has an
    own answer and one of the reference, labelled by Bradley and Terry on the truth. Losses are the objective's own on
    every pair that can be met; the policy of the class with the least sum over all rounds is played next.

    Args:
        name: `selm`, whose bonus names the own answer, or `xpo`, whose bonus names the reference's.
        alpha: optimism.
        seeds: independent runs.
    """
    count, truth, beta, worth = 12, 9, 1.0, 8.0
    ref = torch.tensor([0.5 - 5 * RARE] * 2 + [RARE] * 10, dtype=torch.float64).log()
    world = Bandit.of(count, seed=0)
    values = torch.zeros(11, count, dtype=torch.float64)
    values[torch.arange(1, 11), torch.arange(2, 12)] = worth
    policies = [TabularPolicy(world.answers, (ref + value / beta).log_softmax(0)) for value in values]
    base = TabularPolicy(world.answers, ref)
    pairs = every_pair(world.answers, torch.ones(count, count, dtype=torch.float64), with_equal=True)
    both = [_with_own([pair], [one])[0] for pair in pairs for one in (pair, _exchanged(pair))]
    references = {"ref": base}
    losses = torch.stack(
        [
            population_loss(name, both, policy, references, beta=beta, alpha=alpha).losses().detach()
            for policy in policies
        ]
    ).reshape(len(policies), count, count, 2)
    beats = bradley_terry(worth * torch.nn.functional.one_hot(torch.tensor(truth), count).double())
    chances = torch.stack([policy.logps().detach().exp() for policy in policies])
    found: list[int] = []
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(seed)
        total, played = torch.zeros(len(policies), dtype=torch.float64), 0
        number = 0
        while number < ROUNDS:
            number += 1
            own = int(torch.multinomial(chances[played], 1, generator=generator))
            other = int(torch.multinomial(ref.exp(), 1, generator=generator))
            if truth in {own, other}:
                break
            wins = float(torch.rand(1, generator=generator)) < float(beats[own, other])
            chosen, rejected = (own, other) if wins else (other, own)
            named = own if name == "selm" else other
            total = total + losses[:, chosen, rejected, 0 if named == chosen else 1]
            played = int(total.argmin())
        found.append(number)
    return torch.tensor(found, dtype=torch.float64)


def _exchanged(pair: TokenExample) -> TokenExample:
    return TokenExample(
        example_id=pair.example_id,
        rows={"chosen": pair.rows["rejected"], "rejected": pair.rows["chosen"]},
        marked={"chosen": pair.marked["rejected"], "rejected": pair.marked["chosen"]},
        weight=pair.weight,
        numbers={},
        member_numbers={"chosen": {}, "rejected": {}},
    )


@claim("selm", source="arXiv:2405.19332")
def optimism_finds_the_hidden_arm() -> float:
    """Optimism meets the hidden arm in tens of rounds, alpha = 0 after 1 / (2 ref(arm)) = 250, in the mean of 40."""
    return _beyond_tens_of_rounds("selm")


@claim("xpo", source="arXiv:2405.21046")
def optimism_finds_the_hidden_arm_too() -> float:
    """Optimism meets the hidden arm in tens of rounds, alpha = 0 after 1 / (2 ref(arm)) = 250, in the mean of 40."""
    return _beyond_tens_of_rounds("xpo")


def _beyond_tens_of_rounds(name: str) -> float:
    bold, timid = (rounds_to_the_hidden_arm(name, alpha) for alpha in (0.1, 0.0))
    expected = 1 / (2 * RARE)
    standard_error = expected / sqrt(len(timid))
    return beyond(max(float(bold.mean()) - 60, abs(float(timid.mean()) - expected) - 4 * standard_error))
