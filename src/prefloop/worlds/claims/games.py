"""Games: preferences that no reward gives, cycles, and what settles in them."""

from collections.abc import Callable
from itertools import pairwise
from math import exp, inf, log, sqrt

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import lambertw
from torch import Tensor

from prefloop.training import TokenExample
from prefloop.worlds.bandit import Bandit, apart
from prefloop.worlds.claims.registry import beyond, claim, unless
from prefloop.worlds.games import soft_policy_iteration
from prefloop.worlds.judges import cyclic
from prefloop.worlds.population import every_pair, single_answers
from prefloop.worlds.solve import population_loss
from prefloop.worlds.stage import PolicyNamed, World, play, probs
from prefloop.worlds.table import TabularPolicy, arms

WEIGHTED = (0.45, 0.3, 0.15)
"""How strongly each beats the other, in the weighted cycle."""
START = (0.5, 0.3, 0.2)


def equilibrium(strengths: tuple[float, float, float]) -> Float[Tensor, " 3"]:
    """What nothing beats: each item as often as the two others' strength against each other."""
    paper_rock, scissors_paper, rock_scissors = strengths
    return torch.tensor([scissors_paper, rock_scissors, paper_rock], dtype=torch.float64) / sum(strengths)


def _start(probabilities: tuple[float, ...] = START) -> TabularPolicy:
    return TabularPolicy(arms(len(probabilities)), torch.tensor(probabilities, dtype=torch.float64).log())


def kl(first: Float[Tensor, " answers"], second: Float[Tensor, " answers"]) -> float:
    """KL(first || second) of probabilities, nats."""
    return float((first * (first / second).log()).sum())


def own_pairs(prefers: Float[Tensor, "answers answers"]) -> Callable[[PolicyNamed], list[TokenExample]]:
    """Two own answers of the round, each with its win rate against an own answer: exact, where rules estimate it."""

    def pairs(named: PolicyNamed) -> list[TokenExample]:
        own = probs(named("round_start"))
        answers = named("round_start").answers
        return every_pair(answers, own[:, None] * own, {"win_prob": prefers @ own}, with_equal=True)

    return pairs


def _self_play(prefers: Tensor, objective: str, rounds: int, start: TabularPolicy | None = None) -> list[Tensor]:
    """Policies of a loop in which win rates are exact and every round's reference is its start, the first included."""
    first = start or _start()
    played = play(
        World(first, examples={"pairs": own_pairs(prefers)}),
        f"rounds={rounds}",
        "pairs={rule: win_rates}",
        f"policy={{objective: {objective}, references: {{ref: round_start}}}}",
    )
    return [probs(first), *(probs(policy) for policy in played.policies)]


@claim("dno", source="arXiv:2404.03715 algorithm 1 and equation 8", systems=("dno_theory",))
def soft_policy_iteration_in_a_cycle() -> float:
    """Every round is pi_t * exp(P(y > pi_t) / eta) / Z, in a weighted cycle."""
    prefers = cyclic(WEIGHTED)
    found = _self_play(prefers, "{name: dno, eta: 0.5}", rounds=4)
    expected = soft_policy_iteration(prefers.tolist(), list(START), eta=0.5, iterations=4).policies
    return max(
        float((one.log() - torch.tensor(other, dtype=torch.float64).log()).abs().max())
        for one, other in zip(found, expected, strict=True)
    )


@claim("dno", source="arXiv:2404.03715, section 3: monotone improvement", systems=("dno_theory",))
def each_round_beats_the_one_before() -> float:
    """P(next > current) is at least 1/2 + eta KL(next || current)."""
    prefers = cyclic(WEIGHTED)
    found = _self_play(prefers, "{name: dno, eta: 0.5}", rounds=6)
    return beyond(
        max(0.5 + 0.5 * kl(after, before) - float(after @ prefers @ before) for before, after in pairwise(found))
    )


def exploitability(policy: Float[Tensor, " answers"], prefers: Float[Tensor, "answers answers"]) -> float:
    """Win rate of the best answer to a policy, less 1/2."""
    return (prefers @ policy).max().item() - 0.5


@claim("dno", source="arXiv:2404.03715, section 3; Freund and Schapire 1999", systems=("dno_theory",))
def the_average_settles() -> float:
    """The average of T rounds of step sqrt(8 log(1/p) / T) is exploited by at most Hedge's sqrt(log(1/p) / (2 T))."""
    return max(_beyond_hedge(lambda step: f"{{name: dno, eta: {1 / step}}}", rounds) for rounds in (4, 16, 32))


@claim("sppo", source="arXiv:2405.00675 theorem 4.1")
def the_average_settles_too() -> float:
    """The average of T rounds of step sqrt(8 log(1/p) / T) is exploited by at most Hedge's sqrt(log(1/p) / (2 T))."""
    return max(_beyond_hedge(lambda step: f"{{name: sppo, eta: {step}}}", rounds) for rounds in (16, 32))


def _beyond_hedge(objective: Callable[[float], str], rounds: int) -> float:
    """By how much the average is above the bound on exploitability; p is the smallest probability of the start.

    In self-play exploitability is regret a round, since every policy wins half of the time against itself.
    """
    step = sqrt(8 * log(1 / min(START)) / rounds)
    prefers = cyclic(WEIGHTED)
    average = torch.stack(_self_play(prefers, objective(step), rounds)[:-1]).mean(0)
    return beyond(exploitability(average, prefers) - sqrt(log(1 / min(START)) / (2 * rounds)))


def _shrinking(distances: list[float]) -> float:
    """Largest step towards the equilibrium, nats; 0 where every round moves away."""
    return beyond(max(before - after for before, after in pairwise(distances)))


@claim("sppo", source="arXiv:2405.00675, worked out")
def the_last_iterate_spirals_away() -> float:
    """In a cycle every round is farther from the equilibrium than the one before: KL(equilibrium || pi_t) rises."""
    found = _self_play(cyclic(), "{name: sppo, eta: 1.0}", rounds=12)
    return _shrinking([kl(equilibrium((0.5, 0.5, 0.5)), policy) for policy in found])


@claim("dno", source="arXiv:2404.03715, section 2; worked out", systems=("dno_theory",))
def the_last_iterate_cycles() -> float:
    """In a weighted cycle every round is farther from the equilibrium than the one before."""
    found = _self_play(cyclic(WEIGHTED), "{name: dno, eta: 1.0}", rounds=12)
    return _shrinking([kl(equilibrium(WEIGHTED), policy) for policy in found])


@claim("dno", source="arXiv:2404.03715, section 2; worked out", systems=("dno_theory",))
def the_equilibrium_stays() -> float:
    """From the equilibrium of a weighted cycle no round moves."""
    nash = equilibrium(WEIGHTED)
    found = _self_play(cyclic(WEIGHTED), "{name: dno, eta: 0.5}", 3, TabularPolicy(arms(3), nash.log()))
    return max(float((policy - nash).abs().max()) for policy in found)


@claim("sppo", source="arXiv:2405.00675 equation 4.5, worked out")
def regression_with_a_constraint() -> float:
    """A round's log-ratios are t - W(c exp(t)), t = eta (win - 1/2): probabilities have to add up to 1."""
    prefers = cyclic(WEIGHTED)
    before, after = _self_play(prefers, "{name: sppo, eta: 2.0}", rounds=1)
    targets = (2.0 * (prefers @ before - 0.5)).numpy()

    def moved(constant: float) -> NDArray[np.float64]:
        return targets - np.array([lambertw(constant * exp(target)).real for target in targets.tolist()])

    constant = brentq(lambda one: float(before.numpy() @ np.exp(moved(one))) - 1, -0.3, 10.0, xtol=1e-15)
    return float(np.abs((after / before).log().numpy() - moved(constant)).max())


@claim("sppo", source="arXiv:2405.00675 equation 4.5 and its released code, worked out")
def win_rates_among_own_answers() -> float:
    """Two answers by rule win_rates, each against itself 1/2: z less eta (P - 1/2) / 2 is in proportion to pi."""
    world, eta = Bandit.of(2, seed=22), 2.0
    examples = world.paired(world.judges.comparing(world.prefers), "win_rates")
    found = population_loss("sppo", examples, world.policy, eta=eta).minimum()
    targets = eta * (world.prefers[:, [1, 0]].diagonal() - 0.5) / 2
    multiplier = (found.logps().detach() - world.ref - targets) / probs(found)
    return abs(float(multiplier[0] - multiplier[1]))


@claim("sppo", source="arXiv:2405.00675, worked out")
def mass_goes_to_the_best_answer() -> float:
    """Where a reward decides, the best answer's probability rises every round, to 1."""
    world = Bandit.of(3, seed=20)
    best = int(world.reward.argmax())
    found = [float(policy[best]) for policy in _self_play(world.prefers, "{name: sppo, eta: 20.0}", 8, world.policy)]
    rises = min(after - before for before, after in pairwise(found))
    return beyond(max(-rises, (1 - found[-1]) - 1e-3))


# ---------------------------------------------------------------------------------------------------------------- INPO


def _inpo(prefers: Tensor, eta: float, tau: float, rounds: int, start: TabularPolicy) -> list[Tensor]:
    """Rounds of INPO: two own answers, a binary label, the base model and the round's start as references."""
    world = Bandit(start.answers, torch.zeros(len(start.answers)).double(), start.logps().detach())
    played = play(
        World(start, lambda _: world.judges.labelling(prefers)),
        f"rounds={rounds}",
        "samples.num_samples=2",
        "pairs={rule: iid}",
        f"policy={{objective: {{name: inpo, eta: {eta}, tau: {tau}}}, "
        "references: {ref: initial, prev: round_start}}",
    )
    return [probs(policy) for policy in played.policies]


def _mirror_descent(prefers: Tensor, eta: float, tau: float, rounds: int, base: Tensor) -> list[Tensor]:
    """The recursion pi_t^(1 - tau/eta) base^(tau/eta) exp(P(y > pi_t) / eta), normalised."""
    found = [base]
    for _ in range(rounds):
        logits = (1 - tau / eta) * found[-1].log() + tau / eta * base.log() + prefers @ found[-1] / eta
        found.append(logits.softmax(0))
    return found[1:]


@claim("inpo", source="arXiv:2407.00617 proposition 6 and equation 5")
def labels_instead_of_win_rates() -> float:
    """Binary labels of two own answers give mirror descent in the game that is regularised to the base model."""
    prefers, start = cyclic(WEIGHTED), _start()
    found = _inpo(prefers, 1.5, 0.5, 4, start)
    expected = _mirror_descent(prefers, 1.5, 0.5, 4, probs(start))
    return max(float((one.log() - other.log()).abs().max()) for one, other in zip(found, expected, strict=True))


def regularised_nash(prefers: Float[Tensor, "3 3"], tau: float, base: Float[Tensor, " 3"]) -> Float[Tensor, " 3"]:
    """The policy that is base * exp(P(y > itself) / tau) / Z, by damped iteration."""
    policy = base
    for _ in range(20_000):
        policy = (0.98 * policy.log() + 0.02 * (base.log() + prefers @ policy / tau)).softmax(0)
    return policy


@claim("inpo", source="arXiv:2407.00617 theorem 3")
def the_last_iterate_settles() -> float:
    """With a large eta the last round is the regularised Nash policy base * exp(P(y > itself) / tau)."""
    prefers, start = cyclic(WEIGHTED), _start()
    found = _inpo(prefers, 1.0, 0.5, 60, start)[-1]
    return float((found.log() - regularised_nash(prefers, 0.5, probs(start)).log()).abs().max())


NEAR = 1e-7
"""Nats from a fixed point: the second order of a round is about as small beside the first."""


def _growth(play_once: Callable[[TabularPolicy], Tensor], fixed: Tensor) -> float:
    """By what factor a small distance from a fixed point grows in a round, averaged over a turn of the spiral."""
    logps, factors = fixed.log() + NEAR * torch.tensor([1.0, 0.0, -1.0]).double(), []
    for _ in range(24):
        before = (logps.softmax(0).log() - fixed.log()).norm()
        logps = play_once(TabularPolicy(arms(3), logps)).log()
        after = logps - fixed.log()
        factors.append(float(after.norm() / before))
        logps = fixed.log() + after * (NEAR / after.norm())
    return torch.tensor(factors).log().mean().exp().item()


@claim("inpo", source="arXiv:2407.00617, worked out: the linearised round")
def step_size_threshold() -> float:
    """In a three-cycle distances change by |1 - tau/eta + i w/eta| a round, w = a/sqrt(3): they grow below a threshold.

    Measured from very near, where the second order is below what is claimed.
    """
    prefers, tau = cyclic(), 0.2
    uniform = torch.full((3,), 1 / 3, dtype=torch.float64)
    base = TabularPolicy(arms(3), uniform.log())
    threshold = (tau**2 + 0.25 / 3) / (2 * tau)
    errors: list[float] = []
    for eta in (0.9 * threshold, 1.1 * threshold):

        def once(current: TabularPolicy, eta: float = eta) -> Tensor:
            own = probs(current)
            examples = every_pair(current.answers, own[:, None] * own * prefers)
            references = {"ref": base, "prev": current}
            return probs(population_loss("inpo", examples, current, references, eta=eta, tau=tau).minimum())

        expected = sqrt((1 - tau / eta) ** 2 + 0.25 / 3 / eta**2)
        errors += [unless((expected > 1) == (eta < threshold)), abs(_growth(once, uniform) - expected)]
    return max(errors)


@claim("inpo", source="arXiv:2407.00617 proposition 6 without its assumption, worked out")
def best_and_worst_break_it() -> float:
    """Best against worst of three is another distribution of pairs, and its minimum solves their Laplacian instead."""
    world = Bandit.of(3, seed=21)
    examples = world.paired(world.judges.scoring(world.reward), "best_worst", count=3)
    found = population_loss("inpo", examples, world.policy, eta=2.0, tau=0.5).minimum()
    laplacian, force = torch.zeros(3, 3).double(), torch.zeros(3).double()
    number = world.judges.number
    for one in examples:
        first, second = (number[one.rows[role].answer_ids] for role in ("chosen", "rejected"))
        for index, other, sign in ((first, second, 1.0), (second, first, -1.0)):
            laplacian[index, index] += one.weight
            laplacian[index, other] -= one.weight
            force[index] += sign * one.weight / (2 * 2.0)
    expected = world.tilted(torch.linalg.lstsq(laplacian, force, driver="gelsd").solution)
    update = _mirror_descent(
        (world.reward[:, None] > world.reward).double() + 0.5 * torch.eye(3), 2.0, 0.5, 1, world.ref.exp()
    )[0]
    return apart(found, expected) + unless(apart(found, update.log()) > 0.01)


# ------------------------------------------------------------------------------------------- DPO and Nash-MD in cycles


@claim("online dpo", source="arXiv:2402.04792, worked out: the linearised round", systems=("oaif",))
def dpo_in_a_cycle() -> float:
    """Against a fixed reference a distance from the middle of a three-cycle changes by 4a / (sqrt(3) beta) a round.

    So exact rounds settle where beta > 4a / sqrt(3), and cycle below.
    """
    prefers = cyclic((0.3, 0.3, 0.3))
    uniform = torch.full((3,), 1 / 3, dtype=torch.float64)
    base = TabularPolicy(arms(3), uniform.log())
    errors: list[float] = []
    for beta in (0.5, 1.0):

        def once(current: TabularPolicy, beta: float = beta) -> Tensor:
            own = probs(current)
            examples = every_pair(current.answers, own[:, None] * own * prefers)
            return probs(population_loss("dpo", examples, current, {"ref": base}, beta=beta).minimum())

        errors.append(abs(_growth(once, uniform) - 4 * 0.3 / (sqrt(3) * beta)))
    return max(errors)


@claim("nash_md", source="arXiv:2312.00886 section 6")
def no_force_at_the_regularised_equilibrium() -> float:
    """At pi = ref * exp(P(y > pi) / beta) and a mixture that is pi itself, the expected gradient is 0."""
    prefers, start, beta = cyclic(WEIGHTED), _start(), 0.5
    nash = regularised_nash(prefers, beta, probs(start))
    policy = TabularPolicy(arms(3), nash.log())
    examples = single_answers(policy, "response", nash, {"win_prob": prefers @ nash})
    loss = population_loss("nash_md", examples, policy, {"ref": start}, beta=beta)
    (gradient,) = torch.autograd.grad(loss(), policy.free)
    return float(gradient.abs().max())


# ------------------------------------------------------------------------------------------------------------ the gate


@claim("gate", source="the gate of this project")
def a_cycling_loop_is_seen_against_the_initial_model() -> float:
    """Every round of a cycle beats the last; the gate refuses the first that falls against the initial model."""
    prefers, first = cyclic(), _start((0.6, 0.3, 0.1))
    played = play(
        World(first, examples={"pairs": own_pairs(prefers)}, prefers=prefers),
        "rounds=4",
        "pairs={rule: win_rates}",
        "policy={objective: {name: dno, eta: 0.1}, references: {ref: round_start}}",
        "gate.require=better",
    )
    names = [decision.name for decision in played.decisions]
    policies = [probs(first), *(probs(policy) for policy in played.policies)]
    against_initial = [float(policy @ prefers @ policies[0]) for policy in policies]
    if "rolled_back" not in names:
        return inf
    refused = names.index("rolled_back")
    beats = float(policies[refused + 1] @ prefers @ policies[refused])
    before = unless(refused > 0 and set(names[:refused]) == {"accepted"})
    return before + beyond(max(0.5 - beats, against_initial[refused + 1] - against_initial[refused]))
