"""All groups with their probabilities, what is said of them, and what a rule makes of that."""

import math
from collections.abc import Sequence

import pytest
import torch

from prefloop.policy import TokenRow
from prefloop.records import Group
from prefloop.training import TokenExample
from prefloop.worlds import Bandit, language
from prefloop.worlds.judges import Judges, bradley_terry, cyclic, flipped, nobody
from prefloop.worlds.population import (
    QUESTION,
    Drawn,
    Massed,
    as_tokens,
    every_pair,
    examples_of,
    groups,
    response,
    sampled_groups,
    single_answers,
)
from prefloop.worlds.table import EOS, PROMPT


def weights(examples: Sequence[TokenExample], world: Bandit) -> dict[tuple[int, int], float]:
    """By numbers of the chosen and the rejected answer."""
    number = world.judges.number
    return {
        (number[one.rows["chosen"].answer_ids], number[one.rows["rejected"].answer_ids]): one.weight for one in examples
    }


def test_preferences_are_those_of_their_names() -> None:
    prefers = bradley_terry(torch.tensor([1.0, 0.0]).double())
    assert prefers[0, 1].item() == pytest.approx(1 / (1 + math.exp(-1)))
    torch.testing.assert_close(prefers + prefers.T, torch.ones(2, 2).double())
    cycle = cyclic((0.4, 0.3, 0.2))
    assert [cycle[1, 0], cycle[2, 1], cycle[0, 2]] == pytest.approx([0.9, 0.8, 0.7])
    torch.testing.assert_close(cycle + cycle.T, torch.ones(3, 3).double())
    assert flipped(prefers, 0.2)[0, 1].item() == pytest.approx(0.8 * prefers[0, 1].item() + 0.2 * prefers[1, 0].item())


def test_groups_are_all_that_can_come_with_their_probabilities() -> None:
    world = Bandit.of(3, seed=0)
    made = list(groups(world.drawn(2), world.judges.labelling(world.prefers)))
    assert math.fsum(one.mass for one in made) == pytest.approx(1, abs=1e-14)
    assert len(made) == 9 * 2
    p = world.ref.exp()
    first = [one for one in made if [r.token_ids for r in one.group.responses] == [world.answers[0], world.answers[1]]]
    assert [one.mass for one in first] == pytest.approx(
        [float(p[0] * p[1] * world.prefers[0, 1]), float(p[0] * p[1] * world.prefers[1, 0])]
    )
    assert [one.group.judgments[0].values for one in first] == [(1.0,), (0.0,)]


def test_an_answer_that_cannot_be_drawn_is_in_no_group() -> None:
    world = Bandit.of(3, seed=0)
    certain = Drawn("given", world.answers, torch.tensor([0.0, 1.0, 0.0]).double())
    (only,) = groups([certain], nobody)
    assert (only.mass, only.group.responses[0].token_ids, only.group.responses[0].finish_reason) == (
        1.0,
        world.answers[1],
        "given",
    )


def test_labelled_pairs_weigh_what_drawing_and_labelling_gives() -> None:
    world = Bandit.of(3, seed=1)
    p, found = world.ref.exp(), weights(world.labelled(), world)
    assert found == pytest.approx(
        {(i, j): float(2 * p[i] * p[j] * world.prefers[i, j]) for i in range(3) for j in range(3) if i != j}
    )


def test_a_ranking_is_plackett_and_luces_and_equal_answers_share_a_place() -> None:
    world = Bandit.of(3, seed=2)
    answers = [response(number, world.answers[which], "samples") for number, which in enumerate((2, 0, 2, 1))]
    said = list(world.judges.ranking(world.reward)(answers))
    assert math.fsum(chance for chance, _ in said) == pytest.approx(1, abs=1e-14)
    odds = world.reward.exp()
    chance, judgments = next(one for one in said if [j.values[0] for j in one[1]] == [-0.0, -1.0, -0.0, -2.0])
    assert chance == pytest.approx(float(odds[2] / odds.sum() * odds[0] / (odds[0] + odds[1])))
    assert [one.subjects for one in judgments] == [("0",), ("1",), ("2",), ("3",)]


def test_several_judges_score_by_themselves_and_comparisons_are_of_every_two() -> None:
    world = Bandit.of(3, seed=3)
    answers = [response(number, answer, "samples") for number, answer in enumerate(world.answers)]
    ((mass, said),) = world.judges.scoring(world.reward, -world.reward)(answers)
    assert mass == 1
    assert {one.judge for one in said} == {"judge-0", "judge-1"}
    assert [one.values[0] for one in said[3:]] == pytest.approx((-world.reward).tolist())
    ((mass, said),) = world.judges.comparing(world.prefers)(answers)
    assert mass == 1
    assert {one.subjects: one.values[0] for one in said} == pytest.approx(
        {(f"{i}", f"{j}"): float(world.prefers[i, j]) for i, j in ((0, 1), (0, 2), (1, 2))}
    )


def test_grades_are_drawn_for_every_answer_and_every_time() -> None:
    world = Bandit.of(2, seed=4)
    chances = torch.tensor([[0.25, 0.75], [1.0, 0.0]]).double()
    answers = [response(number, answer, "samples") for number, answer in enumerate(world.answers)]
    said = list(world.judges.rating(chances, repeats=2)(answers))
    assert math.fsum(chance for chance, _ in said) == pytest.approx(1, abs=1e-14)
    by_grades = {tuple(one.values[0] for one in judgments): chance for chance, judgments in said}
    assert by_grades == pytest.approx(
        {(0.0, 0.0, 0.0, 0.0): 0.0625, (0.0, 0.0, 1.0, 0.0): 0.1875, (1.0, 0.0, 0.0, 0.0): 0.1875}
        | {(1.0, 0.0, 1.0, 0.0): 0.5625}
    )


def test_independent_judges_say_everything_together() -> None:
    world = Bandit.of(2, seed=5)
    answers = [response(number, answer, "given") for number, answer in enumerate(world.answers)]
    both = Judges.together(world.judges.labelling(world.prefers, given=True), world.judges.scoring(world.reward))
    said = list(both(answers))
    assert [chance for chance, _ in said] == pytest.approx([float(world.prefers[0, 1]), float(world.prefers[1, 0])])
    assert [[one.kind for one in judgments] for _, judgments in said] == [["preference", "score", "score"]] * 2
    assert [judgments[0].values for _, judgments in said] == [(1.0,), (0.0,)]


def test_given_labels_speak_of_given_answers_alone() -> None:
    world = Bandit.of(2, seed=6)
    answers = [*(response(n, answer, "given") for n, answer in enumerate(world.answers))]
    answers.append(response(2, world.answers[0], "samples"))
    ((_, first), _) = world.judges.labelling(world.prefers, given=True)(answers)
    assert first[0].subjects == ("0", "1")


def test_examples_that_differ_in_weight_alone_are_one_and_those_with_other_numbers_are_not() -> None:
    world = Bandit.of(2, seed=7)
    examples = world.paired(world.judges.scoring(world.reward), "best_worst", count=3)
    (one,) = examples
    p = world.ref.exp()
    assert one.weight == pytest.approx(float(1 - p[0] ** 3 - p[1] ** 3))
    noisy = world.paired(world.judges.rating(torch.full((2, 3), 1 / 3).double()), "best_worst")
    numbers = [(one.rows["chosen"].answer_ids, one.member_numbers["chosen"]["score"], one.numbers) for one in noisy]
    assert len(numbers) == 2 * 3


def test_options_of_a_rule_are_checked_and_fitted_ones_are_numbers() -> None:
    world = Bandit.of(2, seed=8, lengths=(2, 12))
    judging = world.judges.scoring(torch.tensor([0.0, 1.0]).double())
    best = [world.paired(judging, "length_corrected", alpha=alpha)[0].rows["chosen"].answer_ids for alpha in (0.0, 0.2)]
    assert best == [world.answers[1], world.answers[0]]
    with pytest.raises(Exception, match="min_margin"):
        world.paired(judging, "best_worst", min_margin=-1.0)


def test_the_beginning_that_a_prompt_gives_belongs_to_the_prompt() -> None:
    world = Bandit.of(2, seed=9)
    population = groups(world.drawn(2), world.judges.labelling(world.prefers))
    begun = QUESTION.model_copy(update={"prefix_ids": (2,)})
    inside = [
        Massed(one.mass, Group((begun,), one.group.responses, one.group.judgments))
        for one in population
        if one.group.responses[0].token_ids == one.group.responses[1].token_ids == (2, EOS)
    ]
    assert examples_of(inside, "iid") == []
    steps = Bandit.of(((2, 2, EOS), (2, 3, EOS)), seed=9)
    inside = [
        Massed(one.mass, Group((begun,), one.group.responses, one.group.judgments))
        for one in groups(steps.drawn(2), steps.judges.labelling(steps.prefers))
    ]
    rows = {one.rows["chosen"] for one in examples_of(inside, "iid")}
    assert rows == {TokenRow((PROMPT, 2), (word, EOS), (True, True)) for word in (2, 3)}


def test_every_pair_has_its_mass_and_numbers_and_an_answer_against_itself_only_when_asked() -> None:
    world = Bandit.of(2, seed=10)
    masses = torch.tensor([[0.1, 0.2], [0.0, 0.3]], dtype=torch.float64)
    of_answers, of_pairs = {"win_prob": torch.tensor([0.25, 0.75])}, {"prob_chosen_wins": torch.eye(2) + 0.5}
    (only,) = every_pair(world.answers, masses, of_answers, of_pairs)
    assert (only.rows["chosen"].answer_ids, only.rows["rejected"].answer_ids) == world.answers
    assert (only.weight, only.numbers) == (0.2, {"prob_chosen_wins": 0.5})
    assert dict(only.marked) == {"chosen": (False, False), "rejected": (False, False)}
    assert dict(only.member_numbers) == {"chosen": {"win_prob": 0.25}, "rejected": {"win_prob": 0.75}}
    assert [one.weight for one in every_pair(world.answers, masses, with_equal=True)] == [0.1, 0.2, 0.3]


def test_single_answers_have_their_role_mass_and_numbers() -> None:
    world = Bandit.of(2, seed=11)
    made = single_answers(world.policy, "response", torch.tensor([0.4, 0.6]), {"win_prob": torch.tensor([0.25, 0.5])})
    assert [(dict(one.rows), one.weight, one.member_numbers["response"]["win_prob"]) for one in made] == [
        ({"response": TokenRow((PROMPT,), answer, (True, True))}, pytest.approx(mass), win)
        for answer, mass, win in zip(world.answers, (0.4, 0.6), (0.25, 0.5), strict=True)
    ]
    assert {one.marked["response"] for one in made} == {(False, False)}
    assert as_tokens([]) == []


def test_drawn_groups_are_as_frequent_as_they_are_likely() -> None:
    world, count = Bandit.of(3, seed=12), 4000
    judging = world.judges.labelling(world.prefers)
    exact = weights(examples_of(groups(world.drawn(2), judging), "iid"), world)
    drawn = weights(examples_of(sampled_groups(world.drawn(2), judging, count, seed=0), "iid"), world)
    for pair, mass in exact.items():
        assert abs(drawn[pair] - mass) < 4 * math.sqrt(mass * (1 - mass) / count)
    again = weights(examples_of(sampled_groups(world.drawn(2), judging, count, seed=0), "iid"), world)
    other = weights(examples_of(sampled_groups(world.drawn(2), judging, count, seed=1), "iid"), world)
    assert drawn == again
    assert drawn != other


def test_sentences_are_drawn_and_scored_as_arms_are() -> None:
    world = Bandit.of(language(2, 1), seed=13)
    assert {len(one.rows["chosen"].answer_ids) for one in world.labelled()} == {1, 2}


def test_an_examples_own_weight_counts_in_its_mass() -> None:
    """Three draws of two answers have two pairs that are no tie, where not all are equal."""
    world = Bandit.of(2, seed=13)
    judging, p = world.judges.scoring(world.reward), world.ref.exp()
    different = float(1 - p[0] ** 3 - p[1] ** 3)
    for options, mass in (({}, 2 * different), ({"equal_weight": True}, different)):
        (example,) = world.paired(judging, "all_pairs", count=3, **options)
        assert example.weight == pytest.approx(mass)


def test_groups_drawn_alike_come_once_with_their_share() -> None:
    world, count = Bandit.of(2, seed=14), 500
    drawn = list(sampled_groups(world.drawn(2), world.judges.labelling(world.prefers), count, seed=0))
    keys = [(one.group.responses, one.group.judgments) for one in drawn]
    assert len(set(map(str, keys))) == len(keys) == 2 * 2 * 2
    assert math.fsum(one.mass for one in drawn) == pytest.approx(1)
    assert all((one.mass * count) % 1 == pytest.approx(0, abs=1e-9) for one in drawn)


def test_all_that_could_be_said_is_drawn_as_often_as_it_is_likely() -> None:
    """Of three different answers every order comes, the likeliest most often."""
    world = Bandit.of(3, seed=15)
    certain = [Drawn("samples", (answer,), torch.ones(1).double()) for answer in world.answers]
    drawn = {
        tuple(one.values[0] for one in massed.group.judgments): massed.mass
        for massed in sampled_groups(certain, world.judges.ranking(world.reward), 4000, seed=0)
    }
    exact = {
        tuple(one.values[0] for one in massed.group.judgments): massed.mass
        for massed in groups(certain, world.judges.ranking(world.reward))
    }
    assert len(drawn) == len(exact) == 6
    for order, mass in exact.items():
        assert abs(drawn[order] - mass) < 4 * math.sqrt(mass * (1 - mass) / 4000)
