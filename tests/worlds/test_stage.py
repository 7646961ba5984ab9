"""The loop in a world: names of policies, references, gate and settings are resolved by the loop's own code."""

import pytest
import torch

from prefloop.errors import RecipeError
from prefloop.worlds import Bandit, NoMinimumError, TabularPolicy, World, apart, arms, play, population_loss
from prefloop.worlds.judges import nobody
from prefloop.worlds.population import examples_of, sampled_groups
from prefloop.worlds.sampled import in_standard_errors, standard_errors
from prefloop.worlds.stage import probs

DPO = "policy={objective: {name: dpo, beta: 2.0}, references: {ref: round_start}}"
PAIRS = ("samples.num_samples=2", "pairs={rule: iid}")


def labelled(world: Bandit, **more: object) -> World:
    return World(world.policy, lambda _: world.judges.labelling(world.prefers), **more)  # type: ignore[arg-type]


def test_the_first_round_has_no_round_before_it_to_name() -> None:
    world = Bandit.of(3, seed=0)
    with pytest.raises(RecipeError, match=r"'previous\.policy' is no policy here"):
        play(labelled(world), *PAIRS, DPO.replace("round_start", "previous.policy"), "rounds=2")


def test_settings_by_round_are_those_of_the_round() -> None:
    world = Bandit.of(3, seed=1)
    played = play(labelled(world), *PAIRS, DPO, "rounds=2", "policy.objective.beta={by_round: [2.0, 1.0]}")
    assert apart(played.policies[1], world.tilted(world.reward * (1 / 2 + 1))) < 1e-9


def test_the_loop_goes_on_from_what_it_made_and_initial_stays() -> None:
    """Start from another model than the policy called initial, which is the reference."""
    world = Bandit.of(3, seed=2)
    model = TabularPolicy(world.answers, torch.zeros(3).double())
    played = play(labelled(world, model=model), *PAIRS, DPO.replace("round_start", "initial"), "rounds=1")
    assert apart(played.policies[0], world.tilted(world.reward / 2)) < 1e-9


def test_blocks_of_a_round_move_the_policy_but_not_the_rounds_start() -> None:
    world = Bandit.of(3, seed=3)
    for reference, tilt in (("current", 2.0), ("round_start", 1.0)):
        played = play(labelled(world), *PAIRS, DPO.replace("round_start", reference), "rounds=1", "blocks=2")
        assert apart(played.policies[0], world.tilted(tilt * world.reward / 2)) < 1e-9


def test_a_round_that_is_refused_is_gone_back_from() -> None:
    """The judge likes the opposite of what evaluation prefers, so that every round begins where the first did."""
    world = Bandit.of(3, seed=4)
    played = play(labelled(world, prefers=world.prefers.T), *PAIRS, DPO, "rounds=2")
    assert [decision.name for decision in played.decisions] == ["rolled_back", "rolled_back"]
    assert "worse than the last accepted round: win rate" in played.decisions[0].reason
    assert apart(played.policies[0], world.tilted(world.reward / 2)) < 1e-9
    assert apart(played.policies[1], world.tilted(world.reward / 2)) < 1e-9
    accepted = play(labelled(world, prefers=world.prefers), *PAIRS, DPO, "rounds=2")
    assert [decision.name for decision in accepted.decisions] == ["accepted", "accepted"]
    assert apart(accepted.policies[1], world.tilted(world.reward)) < 1e-9


def test_a_worlds_win_rate_is_exact_and_against_the_rounds_start() -> None:
    """The second round's labels are the reverse of the first's: it goes back to the initial model, and loses."""
    world = Bandit(arms(3), torch.tensor([0.0, 2.0, -2.0]).double(), torch.zeros(3).double().log_softmax(0))
    labels = iter((world.prefers, world.prefers.T))
    played = play(
        World(world.policy, lambda _: world.judges.labelling(next(labels)), prefers=world.prefers),
        *PAIRS,
        DPO,
        "rounds=2",
    )
    first, second = map(probs, played.policies)
    rate = 100 * float(second @ world.prefers @ first)
    assert rate < 45
    assert [decision.name for decision in played.decisions] == ["accepted", "rolled_back"]
    worse, fell = played.decisions[1].reasons
    assert worse.startswith(f"worse than the last accepted round: win rate {rate:.1f} ({rate:.1f} to {rate:.1f})")
    assert worse.endswith("; 1 prompts can show a difference of 0.0 points")
    before, after = (100 * float(policy @ world.prefers @ world.ref.exp()) for policy in (first, second))
    assert f"against the initial model fell from {before:.1f} to {after:.1f}" in fell
    assert after == pytest.approx(50, abs=1e-9)


def test_the_policy_that_samples_is_the_one_that_a_step_names_at_its_temperature() -> None:
    """IPO's end depends on who sampled."""
    world = Bandit.of(3, seed=6)
    ipo = "policy={objective: {name: ipo, beta: 0.5}, references: {ref: initial}}"
    model = TabularPolicy(world.answers, 2 * world.reward)
    for settings, sampler in (
        ("samples={num_samples: 2}", 2 * world.reward),
        ("samples={num_samples: 2, policy: initial}", world.ref),
        ("samples={num_samples: 2, temperature: 2.0}", world.reward),
    ):
        played = play(labelled(world, model=model), settings, PAIRS[1], ipo, "rounds=1")
        win_rates = world.prefers @ sampler.softmax(0)
        assert apart(played.policies[0], world.tilted(win_rates / 0.5)) < 1e-9


def test_soft_labels_and_mixtures_have_their_effect() -> None:
    world = Bandit.of(3, seed=7)
    scored = World(world.policy, lambda _: world.judges.scoring(world.reward))
    soft = DPO.replace("policy={", "policy={soft_labels: true, ")
    played = play(scored, "samples.num_samples=2", "pairs={rule: all_pairs}", soft, "rounds=1")
    assert apart(played.policies[0], world.tilted(world.reward / 2)) < 1e-9
    with pytest.raises(NoMinimumError):
        play(scored, "samples.num_samples=2", "pairs={rule: all_pairs}", DPO, "rounds=1")
    harmonic = "{harmonic: {policies: [initial, round_start], weights: [0.5, 0.5], eta: 0.9}}"
    played = play(labelled(world), *PAIRS, DPO.replace("round_start", harmonic), "rounds=2")
    first = world.tilted(world.reward / 2)
    mixture = -torch.stack([-world.ref, -first.clamp(1.9 * world.ref, 0.1 * world.ref)]).logsumexp(0)
    assert apart(played.policies[1], (mixture + world.reward / 2).log_softmax(0)) < 1e-9


def test_the_shipped_recipe_of_length_regularised_dpo_ends_where_its_paper_says() -> None:
    """Its own objective, reference and rounds; two answers a prompt, so that labels are Bradley and Terry's."""
    world = Bandit.of(4, seed=8, lengths=(2, 4, 8, 16))
    played = play(
        labelled(world),
        "samples.num_samples=2",
        "samples.temperature=1.0",
        "policy.objective.alpha=0.05",
        "policy.objective.beta=2.0",
        "evaluation.suite=null",
        recipe="ilr_dpo",
    )
    assert len(played.policies) == 3
    for number, policy in enumerate(played.policies, start=1):
        assert apart(policy, world.tilted(number * (world.reward - 0.05 * world.lengths) / 2)) < 1e-9


def test_a_world_without_a_judge_says_so() -> None:
    with pytest.raises(AssertionError, match="a world has a judge or examples of its own"):
        play(World(Bandit.of(2, seed=9).policy), *PAIRS, DPO, "rounds=1")


def test_a_round_samples_as_its_own_settings_say() -> None:
    """IPO's end depends on who sampled; against the initial model, which samples colder in the second round."""
    world = Bandit.of(3, seed=13)
    played = play(
        labelled(world),
        "samples={num_samples: 2, policy: initial, temperature: {by_round: [1.0, 2.0]}}",
        PAIRS[1],
        "policy={objective: {name: ipo, beta: 0.5}, references: {ref: initial}}",
        "rounds=2",
    )
    for policy, temperature in zip(played.policies, (1.0, 2.0), strict=True):
        win_rates = world.prefers @ (world.ref / temperature).softmax(0)
        assert apart(policy, world.tilted(win_rates / 0.5)) < 1e-9


def test_a_round_trains_as_its_own_settings_say() -> None:
    world = Bandit.of(3, seed=14)
    played = play(labelled(world), *PAIRS, DPO.replace("beta: 2.0", "beta: {by_round: [2.0, 4.0]}"), "rounds=2")
    assert apart(played.policies[0], world.tilted(world.reward / 2)) < 1e-9
    assert apart(played.policies[1], world.tilted(world.reward * 3 / 4)) < 1e-9


def test_a_round_without_evaluation_is_accepted_and_a_refused_one_is_not_compared_with() -> None:
    world = Bandit(arms(3), torch.tensor([0.0, 2.0, -2.0]).double(), torch.zeros(3).double().log_softmax(0))
    blind = play(World(world.policy, lambda _: world.judges.labelling(world.prefers.T)), *PAIRS, DPO, "rounds=2")
    assert [decision.name for decision in blind.decisions] == ["accepted", "accepted"]
    labels = iter((world.prefers, world.prefers.T, world.prefers.T))
    played = play(
        World(world.policy, lambda _: world.judges.labelling(next(labels)), prefers=world.prefers),
        *PAIRS,
        DPO,
        "rounds=3",
    )
    assert [decision.name for decision in played.decisions] == ["accepted", "rolled_back", "rolled_back"]
    assert played.decisions[2].reasons == played.decisions[1].reasons


def test_given_answers_come_first_and_own_ones_after() -> None:
    world = Bandit.of(2, seed=10)
    certain = world.drawn(1, torch.tensor([0.0, -torch.inf]).double(), "given")
    ipo = "policy={objective: {name: ipo, beta: 0.5}, references: {ref: initial}}"
    played = play(
        World(world.policy, lambda _: nobody, certain), "samples.num_samples=1", "pairs={rule: self_play}", ipo
    )
    assert apart(played.policies[0], world.tilted(torch.tensor([1.0, 0.0]).double())) < 1e-9


# ------------------------------------------------------------------------------------------------------ finite samples


def test_standard_errors_are_those_of_a_binomial() -> None:
    """Two answers, IPO: the log-odds are a mean of labels, whose variance is known."""
    world, count = Bandit.of(2, seed=11), 500
    loss = population_loss("ipo", world.labelled(), world.policy, beta=0.5)
    loss.policy = loss.minimum()
    p, win = world.ref.exp(), float(world.prefers[0, 1])
    met = float(2 * p[0] * p[1])
    spread = 2 * 1.0 * (win * (1 - win) / (met * count)) ** 0.5
    pi = probs(loss.policy)
    expected = torch.stack([pi[1], pi[0]]) * spread
    torch.testing.assert_close(standard_errors(loss, count), expected, rtol=1e-9, atol=0)


def test_a_wrong_optimum_is_many_standard_errors_away() -> None:
    """The same draw, trained with another beta than the population's."""
    world, count = Bandit.of(3, seed=12), 4000
    judging = world.judges.labelling(world.prefers)
    drawn = examples_of(sampled_groups(world.drawn(2), judging, count, seed=0), "iid")
    right, wrong = (population_loss("dpo", drawn, world.policy, beta=beta) for beta in (0.5, 0.7))
    exact = population_loss("dpo", world.labelled(), world.policy, beta=0.5)
    assert in_standard_errors(exact, right, count).abs().max() < 4
    assert in_standard_errors(exact, wrong, count).abs().max() > 6
