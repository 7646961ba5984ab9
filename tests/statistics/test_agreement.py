"""Agreement on small tables worked out by hand, and kappa against scikit-learn's."""

import math

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from prefloop.statistics import (
    absolute_agreement,
    clustered_kappa,
    cohen_kappa,
    expected_agreement,
    judge_bias,
    judge_variance,
    mid_p_interval,
    ordered_agreement,
    prefers_list,
    prefers_longer,
    zero_one_agreement,
)


def test_kappa_equals_scikit_learns() -> None:
    generator = np.random.default_rng(0)
    one = generator.choice(["1", "2", "none"], size=200)
    other = np.where(generator.uniform(size=200) < 0.5, one, generator.choice(["1", "2"], size=200))
    assert cohen_kappa(one, other) == pytest.approx(cohen_kappa_score(one, other), abs=1e-12)


def test_kappa_at_its_ends() -> None:
    labels = np.array(["1", "2", "1", "2"])
    assert cohen_kappa(labels, labels) == 1.0
    assert cohen_kappa(labels, labels[[1, 0, 3, 2]]) == -1.0
    assert cohen_kappa(labels, np.array(["1", "1", "2", "2"])) == 0.0
    assert math.isnan(cohen_kappa(np.array(["1", "1"]), np.array(["1", "1"])))
    with pytest.raises(ValueError, match="no items"):
        cohen_kappa(np.array([]), np.array([]))


def test_a_judge_in_both_orders_by_hand() -> None:
    gold = np.array(["1", "2", "1", "2"])
    found = ordered_agreement(gold, np.array(["1", "2", "2", "None"]), np.array(["1", "1", "2", "None"]))
    assert (found.acc_ab, found.acc_ba, found.acc_mean, found.acc_both) == (0.5, 0.25, 0.375, 0.25)
    assert found.position_agreement == 0.75  # two equal texts that are no verdict agree
    assert found.unparsed == 2
    assert found.first_share == pytest.approx(2 / 6)  # one "1" in order 1-2, one "2" in order 2-1
    # 8 comparisons: 3 agree; gold 1 and 2 four each, verdicts 1 three, 2 three: expected (12 + 12) / 64
    assert found.kappa == pytest.approx((3 / 8 - 24 / 64) / (1 - 24 / 64), abs=1e-12)


def test_a_judge_that_takes_the_first_shown_has_no_kappa_and_no_agreement() -> None:
    gold = np.array(["1", "2"] * 10)
    found = ordered_agreement(gold, np.full(20, "1"), np.full(20, "2"))
    assert (found.acc_mean, found.acc_both, found.position_agreement, found.first_share) == (0.5, 0.0, 0.0, 1.0)
    assert found.kappa == pytest.approx(0.0, abs=1e-12)


def test_other_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="neither 1 nor 2"):
        ordered_agreement(np.array(["0"]), np.array(["1"]), np.array(["1"]))


def test_rules_by_hand() -> None:
    one, other = np.array([1.0, 1.2, 1.5, 1.5]), np.array([2.0, 1.4, 1.5, 1.6])
    np.testing.assert_allclose(absolute_agreement(one, other), [0.0, 0.8, 1.0, 0.9])
    np.testing.assert_allclose(zero_one_agreement(one, other), [0.0, 1.0, 1.0, 0.0])


def test_one_annotation_against_one_is_the_mean_over_all_pairs() -> None:
    one, other = np.array([[1.0, 2.0], [2.0, 2.0]]), np.array([[1.0, 2.0, 2.0], [2.0, 1.0, 2.0]])
    # item 1: 1 agrees with 1 of 3, 2 with 2 of 3; item 2: 2 of 3, twice
    assert expected_agreement(one, other) == pytest.approx((3 / 6 + 4 / 6) / 2, abs=1e-12)


def test_an_annotation_is_not_held_against_itself() -> None:
    one = np.array([[1.0, 2.0]])
    assert expected_agreement(one, one, same=True) == 0.0
    assert expected_agreement(one, one) == 0.5


def test_votes_take_the_mode_and_share_it_where_there_are_two() -> None:
    judge, humans = np.array([[2.0]]), np.array([[1.0, 2.0, 2.0, 1.0]])
    assert expected_agreement(judge, humans, votes=(1, 4), rule=zero_one_agreement) == 0.5
    assert expected_agreement(judge, humans[:, :3], votes=(1, 3), rule=zero_one_agreement) == 1.0


def test_votes_of_continuous_preferences_are_medians() -> None:
    judge, humans = np.array([[1.0]]), np.array([[1.1, 1.3, 1.9]])
    assert expected_agreement(judge, humans, votes=(1, 3)) == pytest.approx(0.7, abs=1e-12)


def test_bias_and_variance_of_a_judge() -> None:
    judge, humans = np.array([[1.0, 1.0, 2.0]]), np.array([[2.0, 2.0, 2.0]])
    assert judge_bias(judge, humans, zero_one_agreement) == 1.0
    # leave one out: 1 against {1, 2}: 1/2; the same; 2 against {1, 1}: 0
    assert judge_variance(judge, zero_one_agreement) == pytest.approx(1 - (0.5 + 0.5 + 0) / 3, abs=1e-12)


def test_too_few_annotations_are_refused() -> None:
    with pytest.raises(ValueError, match="are to vote"):
        expected_agreement(np.ones((2, 1)), np.ones((2, 1)), votes=(1, 2))


def test_preference_for_longer_answers_and_lists_by_hand() -> None:
    preferences = np.array([1.0, 2.0, 1.5, 2.0, 1.2])
    first = np.array([100.0, 100.0, 100.0, 100.0, 10.0])
    second = np.array([10.0, 10.0, 10.0, 80.0, 100.0])
    # row 3 differs by too little; of the others: won, lost, tie, lost
    assert prefers_longer(preferences, first, second) == pytest.approx(1.5 / 4)
    marks = np.array([True, False, True, True, False])
    assert prefers_list(preferences, marks, ~marks) == pytest.approx((1 + 1 + 0.5 + 0 + 0) / 5)
    assert math.isnan(prefers_list(preferences, marks, marks))


def test_kappas_interval_is_as_wide_as_its_large_sample_error() -> None:
    """Two sides of 400 items: Fleiss, Cohen and Everitt (1969) give the standard error of kappa."""
    generator = np.random.default_rng(0)
    one = generator.integers(1, 3, 400)
    other = np.where(generator.random(400) < 0.8, one, 3 - one)
    found = clustered_kappa(one, other, np.arange(400), seed=0)
    table = np.array([[np.mean((one == a) & (other == b)) for b in (1, 2)] for a in (1, 2)])
    rows, columns = table.sum(1), table.sum(0)
    agreed, expected = float(np.trace(table)), float(rows @ columns)
    kappa = (agreed - expected) / (1 - expected)
    diagonal = sum(table[i, i] * (1 - (rows[i] + columns[i]) * (1 - kappa)) ** 2 for i in range(2))
    crossed = sum(table[i, j] * (columns[i] + rows[j]) ** 2 for i in range(2) for j in range(2) if i != j)
    variance = diagonal + (1 - kappa) ** 2 * crossed - (kappa - expected * (1 - kappa)) ** 2
    error = float(np.sqrt(variance / 400)) / (1 - expected)
    assert found.value == pytest.approx(kappa)
    assert found.standard_error == pytest.approx(error, rel=0.08)
    assert found.interval == pytest.approx((kappa - 1.96 * error, kappa + 1.96 * error), abs=0.25 * error)


def test_two_verdicts_on_an_item_count_once() -> None:
    one, other = np.array(["1", "2", "1", "2", "1"] * 8), np.array(["1", "2", "2", "2", "1"] * 8)
    alone = clustered_kappa(one, other, np.arange(40), seed=0)
    twice = clustered_kappa(np.tile(one, 2), np.tile(other, 2), np.tile(np.arange(40), 2), seed=0)
    assert twice.interval == pytest.approx(alone.interval)


def test_full_agreement_has_an_interval_that_leaves_room_and_one_label_has_none() -> None:
    labels = np.array([1, 2] * 10)
    low, high = clustered_kappa(labels, labels, np.arange(20), seed=0).interval
    assert (low, high) == pytest.approx((2 * mid_p_interval(1.0, 20)[0] - 1, 1.0))  # expected agreement is 1/2
    assert np.isnan(clustered_kappa(labels * 0, labels * 0, np.arange(20), seed=0).interval).all()


@pytest.mark.slow
def test_intervals_of_kappa_cover_the_truth_as_often_as_stated() -> None:
    """1,000 judges of 100 items that are right in 80 % and like the place in 10 %; both orders of an item together.

    The simulation's own standard error is 0.7 %.
    """

    def drawn(generator: np.random.Generator, items: int) -> tuple[np.ndarray, np.ndarray]:
        gold = generator.integers(1, 3, items)
        sure = np.where(generator.random(items) < 0.8, gold, 3 - gold)
        places = generator.random(items) < 0.1
        return np.tile(gold, 2), np.concatenate([np.where(places, 1, sure), np.where(places, 2, sure)])

    truth = cohen_kappa(*drawn(np.random.default_rng(5), 1_000_000))
    generator, covered = np.random.default_rng(1), 0
    for number in range(1000):
        low, high = clustered_kappa(*drawn(generator, 100), np.tile(np.arange(100), 2), seed=number, draws=500).interval
        covered += low <= truth <= high
    assert 0.93 <= covered / 1000 <= 0.97, covered
