"""Where pairs labelled by a reward lead: each objective's own closed form."""

from collections.abc import Mapping
from dataclasses import replace
from math import exp, log, log1p, sqrt

import torch
from torch import Tensor

from prefloop.pairing import find_rule
from prefloop.pairing.combination import sigmoid
from prefloop.records import Example
from prefloop.training import TokenExample
from prefloop.worlds.bandit import Bandit, apart, normalised_by
from prefloop.worlds.claims.registry import claim, unless
from prefloop.worlds.games import tilted
from prefloop.worlds.judges import flipped
from prefloop.worlds.population import as_tokens, every_pair, groups
from prefloop.worlds.solve import population_loss
from prefloop.worlds.stage import World, play
from prefloop.worlds.table import IMPOSSIBLE, TabularPolicy, Tokens, language

DPO = "arXiv:2305.18290 equation 4"


@claim("dpo", source=DPO)
def any_sampler() -> float:
    """Bradley-Terry labels end at ref * exp(r / beta), whoever sampled the answers."""
    world = Bandit.of(4, seed=0)
    samplers = (world.ref, torch.zeros(4).double(), 2 * world.reward)
    found = [population_loss("dpo", world.labelled(sampler=one), world.policy, beta=0.5).minimum() for one in samplers]
    expected = torch.tensor(tilted(world.ref.exp().tolist(), world.reward.tolist(), 0.5), dtype=torch.float64).log()
    return max(apart(one, expected) for one in found)


@claim("dpo", source=DPO)
def soft_labels() -> float:
    """Probabilities in place of labels have the same minimum: rule all_pairs with soft_labels."""
    world = Bandit.of(4, seed=1)
    examples = world.paired(world.judges.scoring(world.reward), "all_pairs", count=3)
    found = population_loss("dpo", examples, world.policy, soft_labels=True, beta=0.5).minimum()
    return apart(found, world.tilted(world.reward / 0.5))


def _loop_of_dpo(world: Bandit, reference: str, rounds: int) -> tuple[float, ...]:
    """Distance of each round's policy from the closed form."""
    played = play(
        World(world.policy, lambda _: world.judges.labelling(world.prefers)),
        f"rounds={rounds}",
        "samples.num_samples=2",
        "pairs={rule: iid}",
        f"policy={{objective: {{name: dpo, beta: 2.0}}, references: {{ref: {reference}}}}}",
    )
    times = [number + 1 if reference == "round_start" else 1 for number in range(rounds)]
    return tuple(
        apart(policy, world.tilted(time * world.reward / 2))
        for time, policy in zip(times, played.policies, strict=True)
    )


@claim("iterative dpo", source="arXiv:2402.04792", systems=("oaif", "oaif_llm", "rlhf_workflow"))
def fixed_reference() -> float:
    """Rounds against the initial model do not move ref * exp(r / beta)."""
    return max(_loop_of_dpo(Bandit.of(4, seed=2), "initial", rounds=3))


@claim("iterative dpo", source="arXiv:2405.07863, as its code has the reference", systems=("loop",))
def moving_reference() -> float:
    """T rounds, each against its own start, end at initial * exp(T r / beta)."""
    return max(_loop_of_dpo(Bandit.of(4, seed=2), "round_start", rounds=4))


@claim("iterative dpo", source="arXiv:2407.00617, the geometric mixture as a reference")
def mixed_reference() -> float:
    """Against start^(1-w) initial^w the tilt grows to a finite (1 - (1-w)^T) / w times r / beta."""
    world = Bandit.of(4, seed=3)
    played = play(
        World(world.policy, lambda _: world.judges.labelling(world.prefers)),
        "rounds=3",
        "samples.num_samples=2",
        "pairs={rule: iid}",
        "policy={objective: {name: dpo, beta: 2.0}, "
        "references: {ref: {geometric: {policies: [initial, round_start], weights: [0.25, 0.75]}}}}",
    )
    tilts = [(1 - 0.75**rounds) / 0.25 for rounds in (1, 2, 3)]
    return max(
        apart(policy, world.tilted(tilt * world.reward / 2))
        for tilt, policy in zip(tilts, played.policies, strict=True)
    )


@claim("dpo on language", source=DPO)
def two_words() -> float:
    """All 31 sentences of two words, tokens conditioned on tokens, end at ref * exp(r / beta)."""
    return _language(words=2, longest=4)


@claim("dpo on language", source=DPO)
def ten_words() -> float:
    """All 111 sentences of ten words end at ref * exp(r / beta)."""
    return _language(words=10, longest=2)


def _language(words: int, longest: int) -> float:
    world = Bandit.of(language(words, longest), seed=4)
    masses = world.ref.exp()[:, None] * world.ref.exp() * world.prefers
    found = population_loss("dpo", every_pair(world.answers, masses), world.policy, beta=0.5).minimum()
    return apart(found, world.tilted(world.reward / 0.5))


@claim("tdpo2", source="arXiv:2404.11999 equation 20", systems=("tdpo2",))
def token_level_without_weight() -> float:
    """At alpha = 0 the reference's whole distributions, though read, change nothing: ref * exp(r / beta)."""
    world = Bandit.of(language(2, 2), seed=5)
    found = population_loss("tdpo2", world.labelled(), world.policy, beta=0.5, alpha=0.0).minimum()
    return apart(found, world.tilted(world.reward / 0.5))


@claim("reference_free_dpo", source="arXiv:2305.18290 with a uniform reference")
def uniform_reference() -> float:
    """Without a reference the end is exp(r / beta)."""
    world = Bandit.of(4, seed=6)
    found = population_loss("reference_free_dpo", world.labelled(), world.policy, {}, beta=0.5).minimum()
    return apart(found, (world.reward / 0.5).log_softmax(0))


@claim("cpo", source="arXiv:2401.08417")
def contrast_alone() -> float:
    """Without its likelihood term it is DPO with a uniform reference: exp(r / beta)."""
    world = Bandit.of(4, seed=7)
    found = population_loss("cpo", world.labelled(), world.policy, {}, beta=0.5, nll_weight=0.0).minimum()
    return apart(found, (world.reward / 0.5).log_softmax(0))


@claim("plackett_luce_dpo", source="arXiv:2305.18290 appendix A.3")
def rankings() -> float:
    """Rankings of three by Plackett and Luce end where pairs do: ref * exp(r / beta)."""
    world = Bandit.of(3, seed=8)
    examples = world.paired(world.judges.ranking(world.reward), "ranking", count=3)
    return apart(
        population_loss("plackett_luce_dpo", examples, world.policy, beta=0.5).minimum(),
        world.tilted(world.reward / 0.5),
    )


@claim("ipo", source="arXiv:2310.12036 theorem 1 and equation 17")
def win_rates_over_the_sampler() -> float:
    """Labels of two answers of q end at ref * exp(P(y > q) / tau), which depends on the sampler q."""
    world = Bandit.of(4, seed=9)
    sampler = (2 * world.reward).log_softmax(0)
    found = population_loss("ipo", world.labelled(sampler=sampler), world.policy, beta=0.2).minimum()
    return apart(found, world.tilted(world.prefers @ sampler.exp() / 0.2))


@claim("rebel", source="arXiv:2404.16767")
def regression_on_rewards() -> float:
    """Rewards themselves, eta nats a reward of 1: ref * exp(eta r)."""
    world = Bandit.of(4, seed=10)
    examples = world.paired(world.judges.scoring(world.reward), "iid")
    return apart(population_loss("rebel", examples, world.policy, eta=3.0).minimum(), world.tilted(3 * world.reward))


@claim("f_divergence_dpo", source="arXiv:2309.16240 theorem 1")
def other_divergences() -> float:
    """Under each divergence beta f'(pi / ref) is r up to a constant."""
    world = Bandit.of(4, seed=11)

    def spread(values: Tensor) -> float:
        return (values - world.reward).max().item() - (values - world.reward).min().item()

    def found(divergence: str) -> Tensor:
        loss = population_loss("f_divergence_dpo", world.labelled(), world.policy, beta=0.8, divergence=divergence)
        return loss.minimum().logps().detach() - world.ref

    return max(
        spread(0.8 * found("reverse_kl")),
        spread(0.8 * -(-found("forward_kl")).exp()),
        spread(0.8 * -torch.nn.functional.softplus(-found("js_divergence"))),
        spread(0.8 * (-0.5 * found("alpha_divergence")).exp() / -0.5),
    )


def _by_length(world: Bandit) -> Tensor:
    """Reward over beta = 2."""
    return world.reward / 2


@claim("length_normalized_dpo", source="arXiv:2411.15124, worked out")
def tilt_by_length() -> float:
    """Log-ratios a token are r / beta up to one constant: longer answers are tilted more."""
    world = Bandit.of(4, seed=12, lengths=(2, 3, 5, 8))
    found = population_loss("length_normalized_dpo", world.labelled(), world.policy, beta=2.0).minimum()
    return apart(found, normalised_by(world.ref, _by_length(world), world.lengths))


@claim("simpo", source="arXiv:2405.14734 equation 6, worked out")
def likelihood_by_length() -> float:
    """Without a margin the mean log-probability of a token is r / beta up to one constant."""
    world = Bandit.of(4, seed=13, lengths=(2, 3, 5, 8))
    found = population_loss("simpo", world.labelled(), world.policy, {}, beta=2.0, gamma=0.0).minimum()
    return apart(found, normalised_by(torch.zeros(4).double(), _by_length(world), world.lengths))


@claim("ipo_per_token", source="arXiv:2310.12036 on averages over tokens")
def win_rates_by_length() -> float:
    """Log-ratios a token are P(y > q) / tau up to one constant."""
    world = Bandit.of(4, seed=14, lengths=(2, 3, 5, 8))
    found = population_loss("ipo_per_token", world.labelled(), world.policy, beta=0.5).minimum()
    return apart(found, normalised_by(world.ref, world.prefers @ world.ref.exp() / 0.5, world.lengths))


def _two_answers(seed: int, prob_first: float) -> tuple[Bandit, list[TokenExample]]:
    """Of two tokens each, the first one chosen so often."""
    world = Bandit.of(2, seed=seed)
    masses = torch.tensor([[0.0, prob_first], [1 - prob_first, 0.0]], dtype=torch.float64)
    return world, every_pair(world.answers, masses)


@claim("mipo", source="arXiv:2409.17545, worked out")
def a_margin_by_what_the_reference_ranks() -> float:
    """Two answers: p sigmoid(beta (m1 - d)) = (1 - p) sigmoid(beta (d + m2)), each order with its log(1 + exp(K))."""
    beta, prob_first = 2.0, 0.7
    world, examples = _two_answers(29, prob_first)
    found = population_loss("mipo", examples, world.policy, beta=beta).minimum().logps().detach() / 2
    ahead, ranked = float(found[0] - found[1]), float(world.ref[0] - world.ref[1]) / 2
    first, second = (log1p(exp(one)) for one in (ranked, -ranked))
    left, right = prob_first * sigmoid(beta * (first - ahead)), (1 - prob_first) * sigmoid(beta * (ahead + second))
    return abs(left - right)


@claim("asft", source="arXiv:2409.10571, worked out")
def each_answer_is_classified_alone() -> float:
    """Two answers: a ((1 + lam) pi' + lam pi p' / (1 - p')) is the same of both, p a mean token's; lam = 0 copies a."""
    shares, errors = (0.7, 0.3), list[float]()
    for lam in (0.0, 1.0):
        world, examples = _two_answers(30, shares[0])
        pi = population_loss("asft", examples, world.policy, {}, lam=lam).minimum().logps().detach().exp().tolist()
        p = [sqrt(one) for one in pi]
        pulls = [
            shares[one] * ((1 + lam) * pi[other] + lam * pi[one] * p[other] / (1 - p[other]))
            for one, other in ((0, 1), (1, 0))
        ]
        errors.append(abs(pulls[0] - pulls[1]))
        if not lam:
            errors.append(abs(pi[0] - shares[0]))
    return max(errors)


@claim("ld_dpo", source="arXiv:2409.06411, worked out")
def tails_are_tilted_more() -> float:
    """Long against short: the tails end at ref * exp(r / (a beta)), the first tokens at what of r that leaves.

    Two long answers of one beginning against one short answer, labelled by Bradley and Terry: their margins are met
    with a of what the tail moved, so that a weight of 1/2 makes it move twice as far.
    """
    world, weight, beta = Bandit.of(((1,), (3, 4, 5, 1), (3, 4, 6, 1)), seed=28), 0.5, 0.5
    masses = world.prefers * torch.tensor([[0, 1, 1], [1, 0, 0], [1, 0, 0]], dtype=torch.float64)
    loss = population_loss("ld_dpo", every_pair(world.answers, masses), world.policy, beta=beta, ld_alpha=weight)
    tails = world.ref[1:].log_softmax(0)
    tilted_tails = (tails + world.reward[1:] / (weight * beta)).log_softmax(0)
    begins = torch.stack([world.ref[0], world.ref[1:].logsumexp(0)])
    ahead = (world.reward[1] - world.reward[0]) / beta - weight * (tilted_tails - tails)[0]
    begins = (begins + torch.stack([torch.zeros_like(ahead), ahead])).log_softmax(0)
    return apart(loss.minimum(), torch.cat([begins[:1], begins[1] + tilted_tails]))


@claim("davir_dpo", source="arXiv:2310.13008")
def tilt_by_reference() -> float:
    """Log-ratios are r / beta times what the reference needs for the answer, up to one constant."""
    world = Bandit.of(4, seed=15)
    found = population_loss("davir_dpo", world.labelled(), world.policy, beta=2.0).minimum()
    return apart(found, normalised_by(world.ref, _by_length(world), -world.ref))


@claim("odpo", source="arXiv:2402.10571, worked out")
def offset_of_two_answers() -> float:
    """Two answers: p sigmoid(d1 - m) = (1 - p) sigmoid(d2 + m) for the margin m, each order with its offset."""
    world = Bandit.of(2, seed=16)
    prob_first, gaps = 0.7, (2.0, 0.4)
    masses = torch.tensor([[0.0, prob_first], [1 - prob_first, 0.0]], dtype=torch.float64)
    examples: list[TokenExample] = []
    for order, gap in enumerate(gaps):
        scores = torch.zeros(2, dtype=torch.float64).index_fill(0, torch.tensor([order]), gap)
        examples.append(every_pair(world.answers, masses, {"score": scores})[order])
    found = population_loss("odpo", examples, world.policy, beta=0.5, alpha=1.5).minimum().logps().detach()
    margin = 0.5 * ((found - world.ref)[0] - (found - world.ref)[1])
    first, second = (1.5 * log(gap) for gap in gaps)
    left = prob_first * (first - margin).sigmoid()
    return abs(float(left - (1 - prob_first) * (second + margin).sigmoid()))


@claim("dpop", source="arXiv:2402.13228 equation 3, worked out", systems=("dpop", "dpop_paired"))
def a_drop_is_charged() -> float:
    """Two answers: p sigmoid(-z) = (1 - p) (1 + lam pi) sigmoid(z + lam beta drop); z and pi are of the likelier label.

    Where the rarer label holds, its chosen answer has dropped below the reference by so many nats; its margin is
    charged lam times the drop, whose slope by the logit is pi. The charge keeps the policy nearer to the reference.
    """
    world, prob_first, beta = Bandit.of(2, seed=19), 0.7, 0.5
    masses = torch.tensor([[0.0, prob_first], [1 - prob_first, 0.0]], dtype=torch.float64)
    margins: list[float] = []
    errors: list[float] = []
    for lam in (0.0, 0.5):
        loss = population_loss("dpop", every_pair(world.answers, masses), world.policy, beta=beta, lam=lam)
        found = loss.minimum().logps().detach()
        rise, fall = (found - world.ref).tolist()
        margins.append(beta * (rise - fall))
        rarer = (1 + lam * float(found[0].exp())) * sigmoid(margins[-1] - lam * beta * fall)
        errors.append(abs(prob_first * sigmoid(-margins[-1]) - (1 - prob_first) * rarer))
    return max(*errors, abs(margins[0] - log(7 / 3)), unless(0 < margins[1] < margins[0]))


@claim(
    "conservative_dpo",
    source="Mitchell, A note on DPO with noisy preferences, 2023",
    systems=("conservative_dpo", "rlhf_workflow"),
)
def smoothing_makes_sure_labels_finite() -> float:
    """Sure labels of two answers end at the margin log((1 - e) / e)."""
    return _margin_of_sure_labels("conservative_dpo")


@claim("exo_pair", source="arXiv:2402.00856")
def smoothed_target() -> float:
    """Sure labels of two answers end at the margin log((1 - e) / e), by the reverse KL."""
    return _margin_of_sure_labels("exo_pair")


def _margin_of_sure_labels(name: str) -> float:
    world = Bandit.of(2, seed=17)
    examples = world.paired(world.judges.scoring(world.reward), "best_worst")
    found = population_loss(name, examples, world.policy, beta=0.5, label_smoothing=0.1).minimum()
    sign = torch.sign(world.reward[0] - world.reward[1])
    return apart(found, world.tilted(torch.tensor([sign * log(9) / 0.5, 0.0]).double()))


@claim("robust_dpo", source="arXiv:2403.00409")
def clean_optimum_from_noisy_labels() -> float:
    """Labels turned round with a known rate of 0.2 end where clean ones do: ref * exp(r / beta)."""
    world = Bandit.of(4, seed=18)
    examples = world.labelled(flipped(world.prefers, 0.2))
    found = population_loss("robust_dpo", examples, world.policy, beta=0.7, label_smoothing=0.2).minimum()
    return apart(found, world.tilted(world.reward / 0.7))


@claim(
    "length_regularized_dpo",
    source="arXiv:2403.19159; arXiv:2406.11817",
    systems=("length_regularized_dpo", "ilr_dpo"),
)
def reward_without_length() -> float:
    """The end is ref * exp((r - alpha |y|) / beta)."""
    world = Bandit.of(4, seed=19, lengths=(2, 4, 7, 12))
    found = population_loss("length_regularized_dpo", world.labelled(), world.policy, beta=0.5, alpha=0.1).minimum()
    return apart(found, world.tilted((world.reward - 0.1 * world.lengths) / 0.5))


@claim("bmc", source="arXiv:2408.07471, worked out")
def edited_tokens_count_twice() -> float:
    """Answers that are edited all over, at delta = 1, end at ref * exp(r / (2 beta)); with no edit at exp(r / beta)."""
    world = Bandit.of(4, seed=23, lengths=(2, 3, 5, 8))
    plain = world.labelled()
    edited = [
        replace(one, marked={key: (True,) * len(one.rows[key].answer_ids) for key in one.marked}) for one in plain
    ]
    found = [population_loss("bmc", made, world.policy, beta=0.5, delta=1.0).minimum() for made in (plain, edited)]
    return max(apart(one, world.tilted(world.reward / beta)) for one, beta in zip(found, (0.5, 1.0), strict=True))


@claim("mrpo", source="arXiv:2405.16388, worked out for given weights and a fixed clip")
def the_mixture_is_tilted() -> float:
    """The end is harmonic mixture * exp(r / beta), each further reference clipped to within eta of the anchor."""
    world, other = Bandit.of(4, seed=24), Bandit.of(4, seed=25).ref
    references = {"ref": world.policy, "aux_ref.0": TabularPolicy(world.answers, other)}
    found = population_loss(
        "mrpo", world.labelled(), world.policy, references, beta=0.5, eta=0.1, clip="fixed", weights=(0.3, 0.7)
    ).minimum()
    clipped = other.clamp(1.1 * world.ref, 0.9 * world.ref)
    mixture = -torch.logaddexp(log(0.3) - world.ref, log(0.7) - clipped)
    return apart(found, (mixture + world.reward / 0.5).log_softmax(0)) + unless(bool((clipped != other).any()))


@claim("length_regularized_token_odpo", source="its three parts, worked out", systems=("ilr_dpo_combined",))
def three_remedies_at_once() -> float:
    """Without token level, labels of one gap in score end where odpo's do less alpha |y| / beta: the parts add up."""
    world = Bandit.of(2, seed=26, lengths=(2, 7))
    alpha, beta, offset, gap, prob_first = 0.1, 0.5, 0.5, 2.0, 0.7
    masses = torch.tensor([[0.0, prob_first], [1 - prob_first, 0.0]], dtype=torch.float64)
    examples: list[TokenExample] = []
    for order in range(2):
        scores = torch.zeros(2, dtype=torch.float64).index_fill(0, torch.tensor([order]), gap)
        examples.append(every_pair(world.answers, masses, {"score": scores})[order])
    name = "length_regularized_token_odpo"
    loss = population_loss(name, examples, world.policy, alpha=alpha, offset=offset, beta=beta, kl_weight=0.0)
    found = loss.minimum().logps().detach()
    plain = population_loss("odpo", examples, world.policy, beta=beta, alpha=offset).minimum().logps().detach()
    untilted = (found + alpha * world.lengths / beta).log_softmax(0)
    return float((untilted - plain).abs().max())


@claim("spo", source="arXiv:2409.17791, worked out")
def degrees_are_told_by_a_table_of_their_own() -> float:
    """The head ends at the shares of grades behind each version, the policy at ref * exp(r / beta), for any gamma.

    The loss is then DPO's and gamma times the entropy of the grade given the version. Two answers, of which the second
    is the first without a key phrase: all but the first text are versions of both, of other grades.
    """
    texts = ("red, green, blue, grey", ", green, blue, grey", ", , blue, grey", ", , , grey")
    world, beta, gamma, first_wins = Bandit.of(4, seed=27), 0.5, 0.3, 0.7
    answers: dict[str, Tokens] = dict(zip(texts, world.answers, strict=True))
    examples = _with_versions(world, answers, first_wins)
    shares = torch.zeros(4, 4, dtype=torch.float64)
    shares[range(4), range(4)] = first_wins / 4
    shares[(1, 2, 3), (0, 1, 2)] = (1 - first_wins) / 3
    plain = population_loss("dpo", examples, world.policy, beta=beta)
    loss = population_loss("spo", examples, world.policy, beta=beta, gamma=gamma)
    head = loss.heads["head_logits"].get_parameter("weight")
    of_answers = [world.policy.states[answer] for answer in world.answers]
    with torch.no_grad():
        head[:, of_answers] = (shares / shares.sum(1, keepdim=True)).log().clamp(min=IMPOSSIBLE).T
    (force,) = torch.autograd.grad(loss(), head)
    head.requires_grad_(False)
    found, of_pairs = loss.minimum(), plain.minimum()
    entropy = -torch.special.xlogy(shares, shares / shares.sum(1, keepdim=True)).sum()
    wrong = float((loss.at(found.free) - plain.at(of_pairs.free)).detach() - gamma * entropy)
    expected = torch.tensor([log(first_wins / (1 - first_wins)) / beta, 0, 0, 0], dtype=torch.float64)
    ahead = (found.logps() - world.ref).detach()
    return max(float(force.abs().max()), abs(wrong), abs(float(ahead[0] - ahead[1] - expected[0])))


def _with_versions(world: Bandit, answers: Mapping[str, Tokens], first_wins: float) -> list[TokenExample]:
    """The first two of some texts as a given pair, labelled either way, with what rule `degraded` adds to it."""
    pair = [world.drawn(1, logps, "given")[0] for logps in torch.eye(4).double().log().unbind()[:2]]
    prefers = torch.full((4, 4), 0.5, dtype=torch.float64)
    prefers[0, 1], prefers[1, 0] = first_wins, 1 - first_wins
    text_of = {answer: text for text, answer in answers.items()}
    rule, made = find_rule("degraded", "rule"), list[Example]()
    for one in groups(pair, world.judges.labelling(prefers, given=True)):
        responses = tuple(
            said.model_copy(update={"text": text_of[said.token_ids or ()]}) for said in one.group.responses
        )
        for example in rule.apply(replace(one.group, responses=responses), rule.checked({}, "rule")):
            assert isinstance(example, Example)
            members = tuple(member.model_copy(update={"token_ids": answers[member.text]}) for member in example.members)
            made.append(example.model_copy(update={"members": members, "weight": one.mass}))
    return as_tokens(made)
