"""What a data set is like, against numbers worked out by hand or by a general solver."""

from collections.abc import Sequence
from math import exp, log

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from prefloop.data import Given
from prefloop.data.figures import KEPT_VALUES, SLOPE_CAP, Figures, Lengths, Sample, Tally
from prefloop.data.given import given_response
from prefloop.records import Judgment, Message, Prompt
from prefloop.statistics import wilson_interval


def row(words: Sequence[int], prob: float | None = 1.0, scores: tuple[float, ...] = ()) -> Given:
    """Answers of so many words; the first one preferred with a probability, or scores alone."""
    prompt = Prompt.of((Message(role="user", content="Hi"),))
    responses = tuple(given_response(prompt, " ".join([f"a{number}"] * count)) for number, count in enumerate(words))
    ids = tuple(response.response_id for response in responses)
    judgments = [Judgment(judge="d", kind="score", subjects=ids, values=scores)] if scores else []
    if prob is not None:
        judgments.append(Judgment(judge="d", kind="preference", subjects=ids, values=(prob,)))
    return Given(prompt=prompt, responses=responses, judgments=tuple(judgments))


def figures_of(*rows: Given) -> Figures:
    tally = Tally()
    for number, given in enumerate(rows, start=1):
        tally.add(given, number)
    return tally.figures()


def lengths_of(*rows: Given) -> Lengths:
    lengths = figures_of(*rows).lengths
    assert lengths is not None
    return lengths


def test_longer_answers_that_are_chosen_are_counted_among_those_of_unequal_length() -> None:
    lengths = lengths_of(row((5, 3)), row((9, 1)), row((2, 4)), row((7, 7)))

    assert (lengths.pairs, lengths.equal) == (4, 1)
    assert lengths.longer_chosen == pytest.approx(2 / 3)
    assert lengths.interval == pytest.approx(wilson_interval(2 / 3, 3))
    assert (lengths.chosen_words, lengths.rejected_words) == (23 / 4, 15 / 4)


def test_a_preference_that_is_not_sure_counts_in_part() -> None:
    lengths = lengths_of(row((5, 3), 0.75), row((5, 3), 0.25))

    assert lengths.longer_chosen == pytest.approx(0.5)
    assert lengths.slope == pytest.approx(0.0, abs=1e-9)


def test_the_slope_is_the_maximum_likelihood() -> None:
    """On one length difference in closed form: the log-odds over the difference."""
    rows = [row((14, 4))] * 3 + [row((4, 14))]
    assert lengths_of(*rows).slope == pytest.approx(log(3) / 10)


def test_the_slope_of_soft_labels_is_the_maximum_likelihood() -> None:
    pairs = [(12, 5, 0.9), (5, 12, 0.7), (20, 3, 0.6), (3, 6, 1.0), (8, 8, 1.0), (6, 3, 0.8)]

    def loss(slope: float) -> float:
        return sum(
            -prob * log(1 / (1 + exp(-slope * (one - other)))) - (1 - prob) * log(1 / (1 + exp(slope * (one - other))))
            for one, other, prob in pairs
        )

    expected = minimize_scalar(loss, bounds=(-1, 1), method="bounded", options={"xatol": 1e-10}).x
    assert lengths_of(*[row(pair[:2], pair[2]) for pair in pairs]).slope == pytest.approx(expected, abs=1e-6)


def test_where_the_longer_answer_always_wins_the_slope_has_no_maximum() -> None:
    lengths = lengths_of(row((5, 3)), row((9, 1)))
    assert (lengths.slope, lengths.capped) == (SLOPE_CAP, True)


def test_answers_of_equal_length_say_nothing_about_length() -> None:
    lengths = lengths_of(row((5, 5)))
    assert (lengths.longer_chosen, lengths.interval, lengths.slope) == (None, None, 0.0)


def test_of_scores_alone_the_best_answer_is_compared_with_the_worst() -> None:
    figures = figures_of(row((5, 3, 9), None, (1.0, 4.0, 2.0)))

    assert figures.lengths is not None
    assert (figures.lengths.chosen_words, figures.lengths.rejected_words) == (3, 5)
    assert figures.margins is not None
    assert figures.margins.mean == 3.0
    assert figures.scores is not None
    assert (figures.scores.count, figures.scores.quantiles[0], figures.scores.quantiles[100]) == (3, 1.0, 4.0)


def test_without_answers_there_is_nothing_but_prompts() -> None:
    figures = figures_of(row((), None))
    assert (figures.lengths, figures.scores, figures.margins, figures.answers) == (None, None, None, 0)


def test_prompts_that_come_again() -> None:
    tally = Tally()
    for times in (1, 1, 2, 3, 1, 2):
        tally.add(row((), None), times)
    figures = tally.figures()
    assert (figures.prompts, figures.repeated_rows, figures.most_rows) == (3, 3, 3)


def test_quantiles_of_few_values_are_exact() -> None:
    sample = Sample()
    for value in range(101):
        sample.add(float(value))
    spread = sample.spread()
    assert spread is not None
    assert spread.quantiles == {0: 0, 5: 5, 25: 25, 50: 50, 75: 75, 95: 95, 100: 100}
    assert (spread.mean, spread.sampled) == (50.0, False)


def test_quantiles_of_many_values_are_of_a_uniform_sample() -> None:
    """Their standard error is sqrt(p (1 - p) / 10,000) <= 0.005 in rank; five of them are allowed."""
    sample = Sample()
    values = np.random.default_rng(0).permutation(5 * KEPT_VALUES)
    for value in values:
        sample.add(float(value))
    spread = sample.spread()
    assert spread is not None
    assert spread.sampled
    assert (spread.quantiles[0], spread.quantiles[100]) == (0, 5 * KEPT_VALUES - 1)
    for percent in (5, 25, 50, 75, 95):
        assert spread.quantiles[percent] / (5 * KEPT_VALUES) == pytest.approx(percent / 100, abs=0.025)
