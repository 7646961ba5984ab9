"""What has no finite end, what holds it, and what a finite sample may differ by."""

from collections.abc import Callable
from math import inf

import torch

from prefloop.training import TokenExample
from prefloop.worlds.bandit import Bandit, apart
from prefloop.worlds.claims.registry import claim, unless
from prefloop.worlds.judges import nobody
from prefloop.worlds.minimise import NoMinimumError
from prefloop.worlds.population import Judging, examples_of, groups, sampled_groups
from prefloop.worlds.sampled import in_standard_errors
from prefloop.worlds.solve import PopulationLoss, population_loss
from prefloop.worlds.stage import World, play


def falls_for_ever(search: Callable[[], object]) -> float:
    """0 where a search says that there is no minimum, else infinity."""
    try:
        search()
    except NoMinimumError:
        return 0.0
    return inf


def _sure(world: Bandit) -> list[TokenExample]:
    """Best against worst of two, by the reward itself."""
    return world.paired(world.judges.scoring(world.reward), "best_worst")


def _ordered(world: Bandit, loss: PopulationLoss, nats: float) -> float:
    """The loss of a policy in which each answer is so much likelier than the next best."""
    places = world.reward.argsort().argsort().double()
    return float(loss.at(nats * places).detach())


@claim(
    "dpo",
    source="arXiv:2310.12036 section 4.2",
    systems=("dpo", "dpo_avoid_topics", "loop", "dno", "dno_lookahead", "dno_llm"),
)
def sure_labels_have_no_end() -> float:
    """Best against worst without noise: the loss goes to 0 only where the policy is no distribution any more."""
    world = Bandit.of(3, seed=60)
    loss = population_loss("dpo", _sure(world), world.policy, beta=0.5)
    falls = _ordered(world, loss, 20.0) > _ordered(world, loss, 40.0) > _ordered(world, loss, 80.0)
    return falls_for_ever(loss.minimum) + _ordered(world, loss, 80.0) + unless(falls)


@claim("ipo", source="arXiv:2310.12036 section 5.4")
def a_square_ends_on_sure_labels() -> float:
    """Two answers and a sure label: the gap of log-ratios is 1 / (2 tau), no more."""
    world = Bandit.of(2, seed=61)
    found = population_loss("ipo", _sure(world), world.policy, beta=0.2).minimum()
    sign = torch.sign(world.reward[0] - world.reward[1])
    return apart(found, world.tilted(torch.stack([sign * 2.5, torch.zeros_like(sign)])))


@claim("robust_dpo", source="arXiv:2403.00409, worked out")
def robustness_rewards_certainty() -> float:
    """On sure labels it has no lower bound: a margin of one nat more is worth e / (1 - 2e), for ever."""
    world = Bandit.of(2, seed=62)
    examples, rate, beta = _sure(world), 0.2, 0.5
    loss = population_loss("robust_dpo", examples, world.policy, beta=beta, label_smoothing=rate)
    slope = (_ordered(world, loss, 160.0) - _ordered(world, loss, 80.0)) / (beta * 80.0)
    (mass,) = (example.weight for example in examples)
    return falls_for_ever(loss.minimum) + abs(slope + mass * rate / (1 - 2 * rate))


@claim("sprec", source="arXiv:2412.09243, worked out")
def greedy_negatives_have_no_end() -> float:
    """Own answers at temperature 0 are one item, which is pushed down for ever; at temperature 1 there is an end."""
    world = Bandit.of(4, seed=63)
    people = torch.zeros(4, dtype=torch.float64).log_softmax(0)

    def loop(temperature: float) -> object:
        return play(
            World(world.policy, lambda _: nobody, world.drawn(1, people, "given")),
            "rounds=1",
            f"samples={{num_samples: 1, temperature: {temperature}}}",
            "pairs={rule: self_play}",
            "policy={objective: {name: dpo, beta: 1.0}, references: {ref: round_start}}",
        )

    return falls_for_ever(lambda: loop(0.0)) + unless(falls_for_ever(lambda: loop(1.0)) == inf)


# --------------------------------------------------------------------------------------------------------- finite draws

GROUPS = 4000
"""Of a draw: so many that the second order of the error is small beside a standard error."""


def _worst(
    world: Bandit, judging: Judging, rule: str, count: int, losses: Callable[[list[TokenExample]], PopulationLoss]
) -> float:
    """Largest distance of three draws from the population, in standard errors."""
    draws = world.drawn(count)
    exact = examples_of(groups(draws, judging), rule)
    gaps = [
        in_standard_errors(
            losses(exact), losses(examples_of(sampled_groups(draws, judging, GROUPS, seed), rule)), GROUPS
        )
        for seed in range(3)
    ]
    return max(float(gap.abs().max()) for gap in gaps)


@claim("dpo, 4000 groups", source="M-estimation, Huber 1967", within=4.0, unit="standard errors")
def drawn_labels() -> float:
    """4,000 pairs of own answers end within 4 standard errors of the population's ref * exp(r / beta)."""
    world = Bandit.of(4, seed=64)
    judging = world.judges.labelling(world.prefers)
    return _worst(world, judging, "iid", 2, lambda made: population_loss("dpo", made, world.policy, beta=0.5))


@claim("best_worst, 4000 groups", source="M-estimation, Huber 1967", within=4.0, unit="standard errors")
def drawn_best_and_worst() -> float:
    """4,000 times best against worst of four noisily ranked answers end within 4 standard errors of the population."""
    world = Bandit.of(3, seed=65)
    judging = world.judges.ranking(world.reward)
    return _worst(world, judging, "best_worst", 4, lambda made: population_loss("dpo", made, world.policy, beta=0.5))


@claim("inpo, 4000 groups", source="M-estimation, Huber 1967", within=4.0, unit="standard errors")
def drawn_duels() -> float:
    """4,000 binary labels end within 4 standard errors of the mirror-descent update."""
    world = Bandit.of(4, seed=66)
    judging = world.judges.labelling(world.prefers)
    return _worst(world, judging, "iid", 2, lambda made: population_loss("inpo", made, world.policy, eta=2.0, tau=0.5))


@claim("sppo, 4000 groups", source="M-estimation, Huber 1967", within=4.0, unit="standard errors")
def drawn_win_rates() -> float:
    """4,000 times the best and worst of three, with win rates among these, end within 4 standard errors."""
    world = Bandit.of(3, seed=67)
    judging = world.judges.comparing(world.prefers)
    return _worst(world, judging, "win_rates", 3, lambda made: population_loss("sppo", made, world.policy, eta=2.0))
