"""Demonstrations against own answers, and pairs that a filter or a search makes."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from prefloop.pairing.prompted import gap_mixture
from prefloop.records import Judgment, Response
from prefloop.worlds.bandit import Bandit, apart
from prefloop.worlds.claims.registry import claim
from prefloop.worlds.games import prompted_optimum, self_play_optimum
from prefloop.worlds.judges import Judges, nobody
from prefloop.worlds.population import Judging, examples_of, groups, single_answers
from prefloop.worlds.solve import population_loss
from prefloop.worlds.stage import World, play
from prefloop.worlds.table import TabularPolicy, arms

LAW = "arXiv:2412.09243 and arXiv:2405.20830, worked out"


def _distribution(count: int, seed: int) -> Float[Tensor, " answers"]:
    """Log-probabilities of some people, or of another policy."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, generator=generator, dtype=torch.float64).log_softmax(0)


def _logs(probabilities: Sequence[float]) -> Float[Tensor, " answers"]:
    return torch.tensor(probabilities, dtype=torch.float64).log()


@claim("sprec", source=LAW)
def demonstrations_against_samples() -> float:
    """Given answers ~ p against own ones ~ q end at ref * (p / q)^(1 / beta); uniform q sharpens p by 1 / beta."""
    world, people = Bandit.of(4, seed=30), _distribution(4, 31)
    errors: list[float] = []
    for own in (_distribution(4, 32), torch.zeros(4, dtype=torch.float64).log_softmax(0), people):
        played = play(
            World(
                world.policy, lambda _: nobody, world.drawn(1, people, "given"), model=TabularPolicy(world.answers, own)
            ),
            "rounds=1",
            "samples.num_samples=1",
            "pairs={rule: self_play}",
            "policy={objective: {name: dpo, beta: 0.5}, references: {ref: initial}}",
        )
        expected = self_play_optimum(*(one.exp().tolist() for one in (world.ref, people, own)), beta=0.5)
        errors.append(apart(played.policies[0], _logs(expected)))
    return max(errors)


def _rounds(reference: str, beta: float, rounds: int, world: Bandit, people: Tensor) -> list[Tensor]:
    """Log-probabilities of the start and after each round of demonstrations against own samples."""
    played = play(
        World(world.policy, lambda _: nobody, world.drawn(1, people, "given")),
        f"rounds={rounds}",
        "samples.num_samples=1",
        "pairs={rule: self_play}",
        f"policy={{objective: {{name: dpo, beta: {beta}}}, references: {{ref: {reference}}}}}",
    )
    return [world.ref, *(policy.logps().detach() for policy in played.policies)]


def _factor_error(found: Sequence[Tensor], fixed: Tensor, factor: float) -> float:
    """How far the distance to a fixed point, up to a constant, is from being multiplied by a factor every round."""
    distances = [logps - fixed - (logps - fixed).mean() for logps in found]
    return max(float((after - factor * before).abs().max()) for before, after in pairwise(distances))


@claim("sapo", source=LAW)
def moving_reference_converges_above_one_half() -> float:
    """With reference = round start, log errors to the data are multiplied by 1 - 1/beta: 1/2 is the edge."""
    world, people = Bandit.of(4, seed=33), _distribution(4, 34)
    return max(
        _factor_error(_rounds("round_start", beta, 4, world, people), people, 1 - 1 / beta)
        for beta in (0.45, 0.6, 1.0, 2.0)
    )


@claim("sapo", source=LAW)
def fixed_reference_converges_above_one() -> float:
    """With a fixed reference those to ref^(beta/(1+beta)) p^(1/(1+beta)) are multiplied by -1/beta: 1 is the edge."""
    world, people = Bandit.of(4, seed=35), _distribution(4, 36)
    return max(
        _factor_error(
            _rounds("initial", beta, 4, world, people),
            ((beta * world.ref + people) / (1 + beta)).log_softmax(0),
            -1 / beta,
        )
        for beta in (0.9, 1.5, 3.0)
    )


@claim("sapo", source=LAW)
def where_a_fixed_reference_ends() -> float:
    """Thirty rounds with beta = 2 are at ref^(2/3) p^(1/3): the data have a third of the log-weight, not all of it."""
    world, people = Bandit.of(4, seed=35), _distribution(4, 36)
    expected = ((2 * world.ref + people) / 3).log_softmax(0)
    return float((_rounds("initial", 2.0, 30, world, people)[-1] - expected).abs().max())


@claim("sprec", source="arXiv:2412.09243, worked out for exact steps")
def imitation_then_preference() -> float:
    """SFT on the data, then DPO against samples from before it, multiply log errors by -1/beta: stable above 1."""
    world, people = Bandit.of(4, seed=37), _distribution(4, 38)
    errors: list[float] = []
    for beta in (0.8, 1.25):
        observed = single_answers(world.policy, "chosen", people.exp())
        played = play(
            World(
                world.policy, lambda _: nobody, world.drawn(1, people, "given"), {"observed": lambda _, o=observed: o}
            ),
            "rounds=4",
            "block=[prompts, samples, judgments, observed, imitation, pairs, policy]",
            "samples.num_samples=1",
            "observed={type: pair, rule: self_play}",
            "imitation={type: train, objective: sft}",
            "pairs={rule: self_play}",
            f"policy={{objective: {{name: dpo, beta: {beta}}}, start: imitation, references: {{ref: imitation}}}}",
        )
        found = [world.ref, *(policy.logps().detach() for policy in played.policies)]
        errors.append(_factor_error(found, people, -1 / beta))
    return max(errors)


@claim("srpo_prompting", source="arXiv:2409.17534, worked out", systems=("only_prompting",))
def gap_scales_the_reward() -> float:
    """A good instruction against a mixture at gap g ends at ref * (good / bad)^(g / beta)."""
    world = Bandit.of(4, seed=39)
    good, bad = _distribution(4, 40), _distribution(4, 41)
    mixture = torch.tensor(gap_mixture(good.tolist(), bad.tolist(), 0.3), dtype=torch.float64)
    draws = [*world.drawn(1, good, "good"), *world.drawn(1, mixture, "bad")]
    examples = examples_of(groups(draws, nobody), "prompted", good="good", bad="bad")
    found = population_loss("dpo", examples, world.policy, beta=0.5).minimum()
    expected = prompted_optimum(*(one.exp().tolist() for one in (world.ref, good, bad)), gap=0.3, beta=0.5)
    return apart(found, _logs(expected))


# ---------------------------------------------------------------------------------------------------------------- SoPo


def _unlike(responses: Sequence[Response]) -> Iterator[tuple[float, tuple[Judgment, ...]]]:
    """All samples have cosine 0 to the chosen answer."""
    yield (
        1.0,
        tuple(
            Judgment(
                judge="cosine", kind="score", aspect="cosine_to_chosen", subjects=(one.response_id,), values=(0.0,)
            )
            for one in responses
        ),
    )


def _against_worst(world: Bandit, people: Tensor, tau: float, count: int = 3) -> Tensor:
    judging = Judges.together(world.judges.scoring(world.reward), _unlike)
    draws = [*world.drawn(1, people, "given"), *world.drawn(count)]
    examples = examples_of(groups(draws, judging), "worst_of_k")
    found = population_loss("sopo", examples, world.policy, beta=0.5, weight_constant=1.0, tau=tau)
    return found.minimum().logps().detach()


def worst_of(probabilities: Float[Tensor, " answers"], reward: Float[Tensor, " answers"], count: int) -> Tensor:
    """Distribution of the answer of least reward among so many independent ones."""
    at_least = torch.stack([probabilities[reward >= one].sum() for one in reward])
    return at_least**count - (at_least - probabilities) ** count


@claim("sopo", source="arXiv:2412.05095, worked out")
def demonstrations_against_the_worst() -> float:
    """Where every sample is bad, given answers ~ p end at ref * (p / q_K)^(1 / beta), q_K of the worst of K."""
    world, people = Bandit.of(4, seed=42), _distribution(4, 43)
    worst = worst_of(world.ref.exp(), world.reward, 3)
    expected = self_play_optimum(world.ref.exp().tolist(), people.exp().tolist(), worst.tolist(), beta=0.5)
    return float((_against_worst(world, people, tau=100.0) - _logs(expected)).abs().max())


@claim("sopo", source="arXiv:2412.05095, worked out")
def good_samples_teach_nothing() -> float:
    """Where no sample is bad, p (1 - q_K) sigmoid(-beta rho) / pi is one constant: near the data, not at it."""
    world, people = Bandit.of(4, seed=42), _distribution(4, 43)
    logps = _against_worst(world, people, tau=-100.0)
    met = people.exp() * (1 - worst_of(world.ref.exp(), world.reward, 3))
    pull = met * (-0.5 * (logps - world.ref)).sigmoid() / logps.exp()
    return float(pull.max() - pull.min())


# -------------------------------------------------------------------------------------------------------- filtered DPO


@claim("filtered dpo", source="arXiv:2404.13846, worked out for a generator that stays", systems=("filtered_dpo",))
def the_filter_is_a_reward() -> float:
    """Kept pairs end at ref * (e^r F)^(1 / beta), F(y) = P(an own answer scores strictly below y)."""
    world = Bandit.of(5, seed=44)
    worst = int(world.reward.argmin())
    pairs = _distribution(5, 45).index_fill(0, torch.tensor([worst]), -torch.inf).log_softmax(0)
    judging = Judges.together(
        world.judges.labelling(world.prefers, given=True),
        world.judges.scoring(world.reward),
    )
    draws = [*world.drawn(2, pairs, "given"), *world.drawn(1)]
    examples = examples_of(groups(draws, judging), "not_outdone")
    found = population_loss("dpo", examples, world.policy, beta=0.5).minimum().logps().detach()
    below = torch.stack([world.ref.exp()[world.reward < one].sum() for one in world.reward])
    met = torch.arange(5) != worst
    expected = (world.ref + (world.reward + below.log()) / 0.5)[met].log_softmax(0)
    return float((found[met].log_softmax(0) - expected).abs().max())


# ---------------------------------------------------------------------------------------------------- BeeS, and goals


def _labelled_and_scored(rates: Sequence[float], wrong: float) -> tuple[Bandit, Judging]:
    """Two given answers: a label that is wrong at some rate, and sources that are right at rates of their own."""
    world = Bandit(arms(2), torch.tensor([1.0, 0.0]).double(), torch.zeros(2).double().log_softmax(0))
    prefers = torch.tensor([[0.5, 1 - wrong], [wrong, 0.5]], dtype=torch.float64)

    def source(name: str, rate: float) -> Judging:
        def judging(responses: Sequence[Response]) -> Iterator[tuple[float, tuple[Judgment, ...]]]:
            for chance, sign in ((rate, 1), (1 - rate, -1)):
                values = [sign * float(world.reward[number]) for number in world.judges.numbers(responses)]
                yield (
                    chance,
                    tuple(
                        Judgment(judge=name, kind="score", subjects=(one.response_id,), values=(value,))
                        for one, value in zip(responses, values, strict=True)
                    ),
                )

        return judging

    sources = [source(f"source-{number}", rate) for number, rate in enumerate(rates)]
    return world, Judges.together(world.judges.labelling(prefers, given=True), *sources)


@claim("bees", source="arXiv:2502.14560, worked out")
def two_sources_are_surer_than_one() -> float:
    """Labels wrong at rate e that n sources of rate s agree with are right at odds (1 - e) / e * (s / (1 - s))^n."""
    wrong, errors = 0.3, list[float]()
    for rates in ((0.8,), (0.8, 0.9)):
        world, judging = _labelled_and_scored(rates, wrong)
        draws = [world.drawn(1, logps, "given")[0] for logps in torch.eye(2).double().log().unbind()]
        bounds = {f"source-{number}": (-2.0, 2.0) for number in range(len(rates))}
        cut = 0.7 if len(rates) == 1 else 0.8
        kept = examples_of(groups(draws, judging), "clear_pairs", bounds=bounds, min_evidence=cut)
        right = sum(one.weight for one in kept if one.rows["chosen"].answer_ids == world.answers[0])
        odds = (1 - wrong) / wrong
        for rate in rates:
            odds *= rate / (1 - rate)
        errors.append(abs(right / sum(one.weight for one in kept) - odds / (1 + odds)))
    return max(errors)


@claim("reward_augmented", source="arXiv:2410.08067, worked out")
def without_its_goal_a_pair_cancels() -> float:
    """Where no prompt says the goal, the two copies of a pair cancel, and the reference is the end."""
    world = Bandit.of(4, seed=48)
    judging = Judges.together(world.judges.labelling(world.prefers, given=True), world.judges.scoring(world.reward))
    examples = examples_of(groups(world.drawn(2, step="given"), judging), "goal_labelled")
    found = population_loss("dpo", examples, world.policy, beta=0.5).minimum()
    return apart(found, world.ref)
