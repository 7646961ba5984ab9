"""Length-controlled win rates of resamples from a warm start: the same numbers as from zero."""

import numpy as np
import pytest
from numpy.typing import NDArray

from prefloop.statistics import length_controlled, length_controlled_statistic, warm_length_controlled_statistic

Floats = NDArray[np.float64]


def meetings(longer: float, taste: float, rows: int = 240) -> tuple[Floats, Floats, Floats]:
    """Preferences, and lengths of the baseline and of a model that answers `longer` characters more."""
    generator = np.random.default_rng(7)
    baseline, model = generator.lognormal(5, 0.5, size=(2, rows))
    model = model + longer
    wins = generator.random(rows) < 1 / (1 + np.exp(-taste * (model - baseline)))
    return wins.astype(np.float64), baseline, model


def resamples(rows: int, draws: int = 60) -> Floats:
    """Twelve rows a cluster, drawn together."""
    clusters = np.repeat(np.arange(rows // 12), 12)
    drawn = np.random.default_rng(8).multinomial(rows // 12, np.full(rows // 12, 12 / rows), size=draws)
    return drawn[:, clusters].astype(np.float64)


@pytest.mark.parametrize(("longer", "taste"), [(0, 0.0), (0, 0.02), (150, 0.02), (600, 0.02), (600, 1.0)])
def test_every_resample_has_the_win_rate_that_a_fit_from_zero_finds(longer: float, taste: float) -> None:
    given = meetings(longer, taste)
    weights = resamples(240)

    found = warm_length_controlled_statistic(*given)(weights)

    np.testing.assert_allclose(found, length_controlled_statistic(*given)(weights), rtol=0, atol=1e-6)


def test_all_rows_once_give_the_length_controlled_win_rate() -> None:
    given = meetings(40, 0.01)

    found = warm_length_controlled_statistic(*given)(np.ones((1, 240)))

    assert found[0] == pytest.approx(length_controlled(*given).length_controlled_winrate, abs=1e-9)


def test_failed_judgments_do_not_enter_the_fit() -> None:
    preferences, baseline, model = meetings(40, 0.01)
    preferences[::7] = np.nan
    weights = resamples(240)

    found = warm_length_controlled_statistic(preferences, baseline, model)(weights)

    expected = length_controlled_statistic(preferences, baseline, model)(weights)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_a_model_that_wins_nothing_by_length_or_quality_is_fitted_too() -> None:
    draws = np.full(24, 0.5)
    lengths = np.linspace(10, 90, 24)

    found = warm_length_controlled_statistic(draws, lengths, lengths[::-1].copy())(resamples(24))

    np.testing.assert_allclose(found, 50.0)
