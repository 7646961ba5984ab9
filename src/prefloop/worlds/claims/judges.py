"""Judges with flaws: what they are paid for, what they pay themselves, and what several of them together are worth."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import inf

import torch
from jaxtyping import Float
from torch import Tensor

from prefloop.pairing.combination import Combine, combined, sigmoid
from prefloop.records import Judgment, Response
from prefloop.training import TokenExample
from prefloop.worlds.bandit import Bandit, apart
from prefloop.worlds.claims.registry import beyond, claim, unless
from prefloop.worlds.judges import bradley_terry
from prefloop.worlds.population import Judging, examples_of, groups
from prefloop.worlds.stage import Played, PolicyNamed, World, play, probs
from prefloop.worlds.table import TabularPolicy, Tokens, arms


def _loop(world: World, rounds: int, objective: str, reference: str = "round_start") -> Played:
    """Two own answers of the round, labelled at random by the world's judge."""
    return play(
        world,
        f"rounds={rounds}",
        "samples.num_samples=2",
        "pairs={rule: iid}",
        f"policy={{objective: {objective}, references: {{ref: {reference}}}}}",
    )


# -------------------------------------------------------------------------------------------------------------- length

PAID_BY_TOKEN = 0.15


def _long_winded() -> tuple[Bandit, Float[Tensor, " answers"]]:
    """Answers whose judge pays for tokens, and what it gives them."""
    world = Bandit.of(4, seed=50, lengths=(2, 4, 8, 16))
    return world, world.reward + PAID_BY_TOKEN * world.lengths


@claim("ilr_dpo", source="arXiv:2406.11817, worked out for exact rounds")
def length_is_not_learnt() -> float:
    """A judge that pays c a token, and alpha = c: after T rounds the policy is what quality alone makes of it."""
    world, paid = _long_winded()
    biased = World(world.policy, lambda _: world.judges.labelling(bradley_terry(paid)))
    played = _loop(biased, 3, f"{{name: length_regularized_dpo, beta: 2.0, alpha: {PAID_BY_TOKEN}}}")
    rounds = enumerate(played.policies, start=1)
    return max(apart(policy, world.tilted(number * world.reward / 2)) for number, policy in rounds)


@claim("iterative dpo", source="arXiv:2406.11817, what it is against", systems=("loop", "ilr_dpo"))
def length_is_learnt() -> float:
    """The same judge without alpha: T rounds end at initial * exp(T (r + c |y|) / beta), longer every round."""
    world, paid = _long_winded()
    played = _loop(
        World(world.policy, lambda _: world.judges.labelling(bradley_terry(paid))), 3, "{name: dpo, beta: 2.0}"
    )
    lengths = [float(probs(policy) @ world.lengths) for policy in (world.policy, *played.policies)]
    shorter = beyond(max(before - after for before, after in pairwise(lengths)))
    rounds = enumerate(played.policies, start=1)
    return max(shorter, *(apart(policy, world.tilted(number * paid / 2)) for number, policy in rounds))


@claim("length_corrected", source="arXiv:2406.09760, arXiv:2405.07863: a charge on length before pairs are chosen")
def a_charge_undoes_the_payment() -> float:
    """Best against worst of what pays c a token, less c a token, are the pairs of quality alone."""
    world, paid = _long_winded()
    fair = world.paired(world.judges.scoring(world.reward), "best_worst", count=3)
    charged = world.paired(world.judges.scoring(paid), "length_corrected", count=3, alpha=PAID_BY_TOKEN)
    weights = [{tuple(one.rows.items()): one.weight for one in made} for made in (fair, charged)]
    return max(abs(mass - weights[1].get(pair, inf)) for pair, mass in weights[0].items())


# ------------------------------------------------------------------------------------------------------------ position


@claim(
    "preferred", source="arXiv:2402.04792 section 4, worked out for a judge that likes a place", systems=("oaif_llm",)
)
def both_orders_have_no_place() -> float:
    """A judge that likes what stands first by b nats: in the mean of both orders the better answer wins, for any b.

    Its pairs are those of the reward, each as sure as (sigmoid(gap + b) + sigmoid(gap - b)) / 2; where both orders must
    agree, only those with a gap above b are left.
    """
    world, liking = Bandit.of(4, seed=57), 0.9

    def in_both_orders(responses: Sequence[Response]) -> Iterator[tuple[float, tuple[Judgment, ...]]]:
        first, second = world.reward[world.judges.numbers(responses)].tolist()
        ids = tuple(one.response_id for one in responses)
        orders = ((ids, first - second), (ids[::-1], second - first))
        yield (
            1.0,
            tuple(
                Judgment(judge="likes-first", kind="preference", subjects=shown, values=(sigmoid(gap + liking),))
                for shown, gap in orders
            ),
        )

    def masses(made: Sequence[TokenExample]) -> dict[tuple[Tokens, Tokens], float]:
        return {(one.rows["chosen"].answer_ids, one.rows["rejected"].answer_ids): one.weight for one in made}

    reward = dict(zip(world.answers, world.reward.tolist(), strict=True))
    fair = masses(world.paired(world.judges.scoring(world.reward), "iid"))
    mean, agreed = (world.paired(in_both_orders, "preferred", orders=orders) for orders in ("mean", "agree"))
    wrong = [abs(masses(mean).get(pair, inf) - mass) for pair, mass in fair.items()]
    for one in mean:
        gap = reward[one.rows["chosen"].answer_ids] - reward[one.rows["rejected"].answer_ids]
        sure = (sigmoid(gap + liking) + sigmoid(gap - liking)) / 2
        wrong.append(abs(one.numbers["prob_chosen_wins"] - sure))
    clear = {(better, worse) for better, worse in fair if reward[better] - reward[worse] > liking}
    return max(wrong) + unless(masses(agreed).keys() == clear and 0 < len(clear) < len(fair))


# ----------------------------------------------------------------------------------------------------- self-preference


def _narcissus(world: Bandit, kappa: float) -> World:
    """A judge that adds kappa log(pi / pi_0) to what an answer is worth: it likes what it came to say itself."""

    def judging(named: PolicyNamed) -> Judging:
        own = (named("current").logps() - named("initial").logps()).detach()
        return world.judges.labelling(bradley_terry(world.reward + kappa * own))

    return World(world.policy, judging)


@claim("self_rewarding", source="arXiv:2401.10020, worked out for a judge that likes itself")
def self_preference_weakens_beta() -> float:
    """Against a fixed reference it ends at initial * exp(r / (beta - kappa)), at the rate kappa / beta."""
    world, beta, kappa = Bandit.of(4, seed=51), 2.0, 0.8
    played = _loop(_narcissus(world, kappa), 30, f"{{name: dpo, beta: {beta}}}", "initial")
    early = world.tilted((1 - (kappa / beta) ** 2) / (beta - kappa) * world.reward)
    return max(
        apart(played.policies[1], early), apart(played.policies[-1], world.tilted(world.reward / (beta - kappa)))
    )


@claim("self_rewarding", source="arXiv:2401.10020, worked out for a judge that likes itself")
def self_preference_runs_away() -> float:
    """From kappa = beta on nothing holds it: the tilt after T rounds, sum_k (kappa / beta)^k / beta, has no bound."""
    world, beta = Bandit.of(4, seed=51), 2.0
    errors: list[float] = []
    for kappa in (2.0, 2.4):
        played = _loop(_narcissus(world, kappa), 5, f"{{name: dpo, beta: {beta}}}", "initial")
        tilts = [sum((kappa / beta) ** power for power in range(rounds)) / beta for rounds in range(1, 6)]
        errors += [
            apart(policy, world.tilted(tilt * world.reward))
            for tilt, policy in zip(tilts, played.policies, strict=True)
        ]
    return max(errors)


@claim("self_rewarding", source="arXiv:2401.10020 section 2.4, worked out")
def more_gradings_are_surer() -> float:
    """Best against worst by m noisy grades is right as often as their convolution says, the more the surer."""
    chances = torch.tensor([[0.1, 0.3, 0.6], [0.4, 0.4, 0.2]], dtype=torch.float64)
    world = Bandit(arms(2), torch.tensor([1.0, 0.0], dtype=torch.float64), torch.zeros(2, dtype=torch.float64))
    shares: list[float] = []
    errors: list[float] = []
    for repeats in (1, 3):
        judging = world.judges.rating(chances, repeats)
        both = [world.drawn(1, logps)[0] for logps in torch.eye(2, dtype=torch.float64).log().unbind()]
        made = examples_of(groups(both, judging), "best_worst", min_judgments=repeats)
        right = sum(one.weight for one in made if one.rows["chosen"].answer_ids == world.answers[0])
        shares.append(right / sum(one.weight for one in made))
        errors += [
            abs(right - _ahead(chances, repeats)),
            abs(sum(one.weight for one in made) - 1 + _tied(chances, repeats)),
        ]
    return max(*errors, beyond(shares[0] - shares[1]))


def _sums(chances: Float[Tensor, " grades"], repeats: int) -> Tensor:
    """Distribution of the sum of so many grades."""
    found = torch.ones(1, dtype=torch.float64)
    for _ in range(repeats):
        padded = torch.zeros(len(found) + len(chances) - 1, dtype=torch.float64)
        for grade, chance in enumerate(chances.tolist()):
            padded[grade : grade + len(found)] += chance * found
        found = padded
    return found


def _ahead(chances: Float[Tensor, "2 grades"], repeats: int) -> float:
    first, second = (_sums(one, repeats) for one in chances)
    return sum(float(first[total] * second[:total].sum()) for total in range(len(first)))


def _tied(chances: Float[Tensor, "2 grades"], repeats: int) -> float:
    first, second = (_sums(one, repeats) for one in chances)
    return float(first @ second)


# ---------------------------------------------------------------------------------------------------------------- DICE


def _bootstrapped(world: Bandit, implicit: Float[Tensor, " answers"], beta: float, rounds: int) -> Played:
    """Rounds that are labelled by what the policy's last step changed, beta log(pi_t / pi_{t-1})."""
    trained = TabularPolicy(world.answers, world.tilted(implicit / beta))
    before = [world.ref]

    def judging(named: PolicyNamed) -> Judging:
        now = named("current").logps().detach()
        reward = beta * (now - before[-1])
        before.append(now)
        return world.judges.labelling(bradley_terry(reward))

    return _loop(World(world.policy, judging, model=trained), rounds, f"{{name: dpo, beta: {beta}}}")


@claim("dice", source="arXiv:2406.09760, worked out for exact rounds")
def implicit_rewards_reproduce_themselves() -> float:
    """Labels by a policy's own implicit reward r' give the same one again: after T steps initial * exp(T r' / beta)."""
    world = Bandit.of(4, seed=52)
    played = _bootstrapped(world, world.reward, 2.0, 4)
    rounds = enumerate(played.policies, start=2)
    return max(apart(policy, world.tilted(number * world.reward / 2)) for number, policy in rounds)


@claim("dice", source="arXiv:2406.09760, worked out for exact rounds")
def sharpening_overshoots() -> float:
    """With r' = r + e the true reward rises, then falls towards that of the answer that r' likes best."""
    world = Bandit(
        arms(4),
        torch.tensor([0.0, 1.0, 2.0, -1.0], dtype=torch.float64),
        torch.tensor([0.4, 0.3, 0.25, 0.05], dtype=torch.float64).log(),
    )
    flawed = world.reward + torch.tensor([0.0, 0.0, 0.0, 4.5], dtype=torch.float64)
    played = _bootstrapped(world, flawed, 2.0, 11)
    once = world.tilted(flawed / 2).exp()
    truth = [float(one @ world.reward) for one in (world.ref.exp(), once, *map(probs, played.policies))]
    top = max(range(len(truth)), key=truth.__getitem__)
    falls = max((after - before for before, after in pairwise(truth[top:])), default=0.0)
    ends = beyond(truth[-1] - truth[0]) + beyond(abs(truth[-1] + 1) - 0.05)
    return unless(0 < top < len(truth) - 1) + beyond(falls) + ends


# ----------------------------------------------------------------------------------------------------------- ensembles


def _proxies(shared: bool) -> tuple[Bandit, list[Float[Tensor, " answers"]]]:
    """Four answers that are met, three poor ones that are rare, and three reward models that overrate one of these.

    Each another one, or all the same.
    """
    reward = torch.tensor([0.0, 0.5, 1.0, 1.5, -1.0, -1.2, -1.4], dtype=torch.float64)
    ref = torch.tensor([0.3, 0.3, 0.25, 0.12, 0.01, 0.01, 0.01], dtype=torch.float64).log()
    wrong = (4, 4, 4) if shared else (4, 5, 6)
    world = Bandit(arms(7), reward, ref)
    return world, [reward.index_add(0, torch.tensor([one]), torch.tensor([5.0]).double()) for one in wrong]


def _optimised(world: Bandit, reward: Float[Tensor, " answers"], rounds: int = 6) -> list[float]:
    """True reward of the start and of every round of a loop that is labelled by some reward, beta 2."""
    judge = World(world.policy, lambda _: world.judges.labelling(bradley_terry(reward)))
    policies = (world.policy, *_loop(judge, rounds, "{name: dpo, beta: 2.0}").policies)
    return [float(probs(policy) @ world.reward) for policy in policies]


def _combined(proxies: Sequence[Tensor], combine: Combine) -> Float[Tensor, " answers"]:
    return torch.tensor(
        [combined(said.tolist(), combine) for said in torch.stack(list(proxies), 1)], dtype=torch.float64
    )


def _curves(shared: bool) -> Iterator[tuple[str, list[float]]]:
    world, proxies = _proxies(shared)
    yield "single", _optimised(world, proxies[0])
    for combine in ("mean", "worst_case", "uncertainty_weighted"):
        yield combine, _optimised(world, _combined(proxies, combine))


@claim("rm_ensembles", source="arXiv:2310.02743", systems=("reward_ensemble",))
def one_proxy_is_over_optimised() -> float:
    """Errors of their own: under one proxy the true reward rises and falls; the worst case and UWO rise every round."""
    curves = dict(_curves(shared=False))
    single = curves["single"]
    peak = max(single)
    excess = [single[0] + 0.05 - peak, single[-1] + 1.0 - peak]
    for name in ("worst_case", "uncertainty_weighted"):
        excess += [before - after for before, after in pairwise(curves[name])]
        excess.append(single[-1] + 0.5 - curves[name][-1])
    return beyond(max(excess))


@claim("rm_ensembles", source="arXiv:2310.02743", systems=("reward_ensemble",))
def shared_errors_are_not_helped() -> float:
    """Errors that all proxies share: every combination ends where the single proxy does, round by round."""
    curves = dict(_curves(shared=True))
    return max(
        abs(one - other) for curve in curves.values() for one, other in zip(curve, curves["single"], strict=True)
    )


@claim("rm_ensembles", source="arXiv:2310.02743, combined for each side", systems=("reward_ensemble",))
def a_disputed_answer_is_not_rejected() -> float:
    """With the mean on the rejected side, the answer that one proxy overrates is not rejected for being disputed."""
    world, proxies = _proxies(shared=False)
    judging = world.judges.scoring(*proxies)
    few = [world.drawn(1)[0]] * 2
    disputed = world.answers[4]

    def rejected(side: str) -> float:
        made = examples_of(groups(few, judging), "ensemble", rejected=side)
        return sum(one.weight for one in made if one.rows["rejected"].answer_ids == disputed)

    means = _combined(proxies, "mean")
    number = world.judges.number[disputed]
    p = world.ref.exp()
    cautious = _combined(proxies, "worst_case")
    expected = sum(
        2 * float(p[number] * p[other])
        for other in range(7)
        if means[other] > means[number] and cautious[other] >= cautious[number]
    )
    return max(abs(rejected("mean") - expected), beyond(rejected("mean") - rejected("worst_case")))


@claim("rm_ensembles", source="arXiv:2310.02743")
def identical_members_are_one() -> float:
    """Pairs by an ensemble of equal judges are those of one judge: best_worst."""
    world = Bandit.of(4, seed=54)
    reward = world.reward
    alone = world.paired(world.judges.scoring(reward), "best_worst", count=3)
    several = world.paired(world.judges.scoring(reward, reward, reward), "ensemble", count=3)
    weights = [{tuple(one.rows.items()): one.weight for one in made} for made in (alone, several)]
    same = unless(weights[0].keys() == weights[1].keys())
    return same + max(abs(weights[0][key] - weights[1].get(key, inf)) for key in weights[0])
