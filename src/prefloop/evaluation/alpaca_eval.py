"""AlpacaEval 2: every number of its leaderboard from judgments on file, with intervals and what to be warned of."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import floor, inf, isnan
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from prefloop.errors import DataError
from prefloop.evaluation.alpaca_files import Difficulties, Judged, read_judged
from prefloop.evaluation.lines import names_of
from prefloop.evaluation.uncertainty import INTERVAL, PERCENTILE, finite, interval_or_none
from prefloop.statistics import (
    DEFAULT_C,
    AlpacaRows,
    ClusteredEstimate,
    GamedRows,
    Identification,
    LengthControlled,
    against_another,
    alpaca_eval_refits,
    alpaca_eval_statistic,
    bca_bootstrap,
    cluster_bootstrap,
    clustered_mean,
    clustered_share,
    clustered_statistic,
    detectable_difference,
    discrete,
    fit_alpaca_eval,
    identification,
    is_baseline,
    is_extreme_change,
    mid_p_interval,
    search_c,
    totals_by_cluster,
    win_rate,
)

Variant = Literal["full", "noreg", "minimal"]
Search = Literal["search"]

FEW_INSTRUCTIONS = 50
"""Fewer than this and a fit of three coefficients is worth a warning."""
FLAT = 1.92
"""Nats: half the 95 % quantile of chi-squared with one degree of freedom."""
INFLATED = 2.0
"""From here on more than half of the variance comes from not knowing what length does."""


@dataclass(frozen=True)
class Settings:
    """How a leaderboard row is computed."""

    variant: Variant
    c: float | Search = "search"
    difficulties: Difficulties | None = None
    gamed: GamedRows | None = None
    by_position: bool = False
    draws: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class Scored:
    """One model's results."""

    judged: Judged
    rows: AlpacaRows | None
    fit: LengthControlled | None
    result: Mapping[str, Any]


def numbered(judged: Judged, settings: Settings) -> NDArray[np.int64]:
    """Official number of each row's instruction, for its difficulty and for what it varies together with.

    Raises:
        DataError: difficulties are to be used, and nothing says which row has which.
    """
    known = settings.difficulties
    rows = np.arange(judged.preferences.size)
    if settings.by_position:
        return rows
    if judged.indices is not None:
        return np.array(judged.indices)
    if judged.instructions is None:
        return rows
    if known is None or settings.variant == "minimal":
        return np.unique(np.array(judged.instructions), return_inverse=True)[1]
    if known.numbers:
        missing = next((text for text in judged.instructions if text not in known.numbers), None)
        if missing is not None:
            raise DataError(f"{judged.name}: no difficulty is known for {missing[:60]!r}. Use --variant minimal.")
        return np.array([known.numbers[text] for text in judged.instructions])
    if rows.size != len(known.values):
        raise DataError(
            f"{judged.name}: {rows.size} rows without an index meet {len(known.values)} difficulties without texts. "
            "Add a column index to the rows or instruction to the difficulties, or take row numbers: --by-position."
        )
    return rows


def _numbered_by(judged: Judged, settings: Settings) -> str | None:
    """How `numbered` found the difficulties; None where they are not used."""
    if settings.difficulties is None or settings.variant == "minimal":
        return None
    if settings.by_position or (judged.indices is None and not settings.difficulties.numbers):
        return "row number"
    return "instruction" if judged.indices is None else "index"


def alpaca_rows(judged: Judged, settings: Settings) -> AlpacaRows | None:
    """What the length-controlled fit takes; None where lengths are unknown.

    Raises:
        DataError: an instruction has no difficulty, or the variant needs a file that was not given.
    """
    if judged.lengths is None:
        return None
    numbers = numbered(judged, settings)
    difficulty = gamed = None
    if settings.variant != "minimal":
        if settings.difficulties is None:
            raise DataError(f"the variant {settings.variant} needs difficulties. Name their file: --difficulty.")
        known = settings.difficulties.values
        if (missing := next((int(number) for number in numbers if number not in known), None)) is not None:
            raise DataError(f"{judged.name}: no difficulty is known for instruction {missing}. Use --variant minimal.")
        difficulty = np.array([known[number] for number in numbers])
    if settings.variant == "full":
        if settings.gamed is None:
            raise DataError("the variant full needs the gamed baselines. Name their file: --gamed.")
        gamed = settings.gamed
    return AlpacaRows(judged.preferences, *judged.lengths, numbers, difficulty, gamed)


def score(judged: Judged, settings: Settings) -> Scored:
    """A leaderboard row, with intervals over instructions and what there is to be warned of.

    Raises:
        DataError: no judgment succeeded, or the fit cannot be made.
    """
    known = ~np.isnan(judged.preferences)
    if not known.any():
        raise DataError(f"{judged.name}: none of its {known.size} judgments succeeded.")
    plain = win_rate(judged.preferences)
    rows = alpaca_rows(judged, settings)
    clusters = numbered(judged, settings) if rows is None else rows.instructions
    share = clustered_share(judged.preferences[known], clusters[known], seed=settings.seed, draws=settings.draws)
    rounded = clustered_share(
        discrete(judged.preferences[known]), clusters[known], seed=settings.seed, draws=settings.draws
    )
    result: dict[str, Any] = {
        "win_rate": plain.win_rate,
        "standard_error": finite(plain.standard_error),
        "n_wins": plain.n_wins,
        "n_wins_base": plain.n_wins_base,
        "n_draws": plain.n_draws,
        "n_total": plain.n_total,
        "discrete_win_rate": plain.discrete_win_rate,
        "discrete_interval": interval_or_none((100 * rounded.interval[0], 100 * rounded.interval[1])),
        "interval": interval_or_none((100 * share.interval[0], 100 * share.interval[1])),
        "n_failed": int((~known).sum()),
    }
    fit = None
    if rows is None:
        result |= dict.fromkeys((*_CONTROLLED, "avg_length", "avg_length_interval"), None)
    else:
        length = clustered_mean(rows.length_model, clusters)
        result |= {"avg_length": floor(length.value), "avg_length_interval": interval_or_none(length.interval)}
        fit, controlled = _controlled(rows, settings, judged.name)
        result |= controlled
    result |= {
        "difficulty_by": _numbered_by(judged, settings),
        "variant": settings.variant,
        "interval_method": INTERVAL,
        "warnings": _warnings(judged, result),
    }
    if judged.switched is not None:
        stored = [None if isnan(value) else 1.0 + value for value in judged.preferences.tolist()]
        result |= {"switched": list(judged.switched), "preference": stored}
    return Scored(judged, rows, fit, result)


_CONTROLLED = (
    "length_controlled_winrate",
    "lc_standard_error",
    "lc_interval",
    "lc_interval_c",
    "c",
    "coefficients",
    "identification",
)


def _controlled(rows: AlpacaRows, settings: Settings, name: str) -> tuple[LengthControlled, dict[str, Any]]:
    try:
        same = is_baseline(rows)
        c = inf if same else search_c(rows).c if settings.c == "search" else settings.c
    except ValueError as error:
        raise DataError(f"{name}: {error}. Name a penalty: --c 100.") from None
    fit = fit_alpaca_eval(rows, c=c)
    # A penalty that the search made strong pulls towards 50, resamples as much as the value: their interval would miss.
    weak = max(c, DEFAULT_C)
    estimate = bca_bootstrap(
        alpaca_eval_statistic(rows, c=weak), rows.instructions, seed=settings.seed, draws=settings.draws
    )
    interval = estimate.interval
    known = rows.preferences[~np.isnan(rows.preferences)]
    if estimate.clusters > 1 and known.min() == known.max() and known[0] in {0.0, 1.0}:
        low, high = mid_p_interval(float(known[0]), np.unique(rows.instructions).size)
        interval = (100 * low, 100 * high)
    sure = identification(rows, fit)
    coefficients = {
        "length": fit.length,
        "difficulty": fit.covariates[0] if rows.difficulty is not None else None,
        "quality": fit.covariates[-1],
    }
    return fit, {
        "length_controlled_winrate": fit.length_controlled_winrate,
        "lc_standard_error": finite(fit.lc_standard_error),
        "lc_interval": interval_or_none(interval),
        "lc_interval_c": finite(weak),
        "c": finite(c),
        "coefficients": coefficients,
        "identification": None if same else _said(sure),
    }


def _said(sure: Identification) -> dict[str, Any]:
    return {
        "log_likelihood_drop": sure.log_likelihood_drop,
        "variance_inflation": finite(sure.variance_inflation),
        "model_longer": sure.model_longer,
        "instructions": sure.instructions,
    }


def _repeated(judged: Judged) -> Iterator[str]:
    names = _names(judged)
    if repeated := names.size - np.unique(names).size:
        yield f"{repeated} rows are of an instruction that stands before: rows of one vary together"


def _warnings(judged: Judged, result: Mapping[str, Any]) -> list[str]:
    """What a reader of the numbers has to know, each with the number that says so."""
    found = list(_repeated(judged))
    if result["n_failed"]:
        found.append(f"{result['n_failed']} of {judged.preferences.size} judgments failed and are left out")
    if judged.one_answer:
        found.append("every instruction got the same answer: a constant answer can win without being good")
    controlled, sure = result["length_controlled_winrate"], result["identification"]
    if controlled is None:
        found.append("the rows have no lengths: length cannot be controlled for")
    if controlled is not None and is_extreme_change(result["win_rate"], controlled):
        found.append(f"control of length moves the win rate far, from {result['win_rate']:.2f} to {controlled:.2f}")
    if sure is None:
        return found
    interval = result["lc_interval"]
    if interval is not None and not interval[0] <= controlled <= interval[1]:
        found.append(f"the penalty C = {result['c']:.3g} pulls the length-controlled win rate out of its interval")
    if sure["instructions"] < FEW_INSTRUCTIONS:
        found.append(f"only {sure['instructions']} instructions: the fit of the length effect rests on few rows")
    inflation, drop = sure["variance_inflation"], sure["log_likelihood_drop"]
    longer = 100 * sure["model_longer"]
    if inflation is None or inflation > INFLATED:
        much = "cannot be told from quality" if inflation is None else f"multiplies the variance by {inflation:.1f}"
        found.append(f"weakly identified: the length effect {much}; the model is longer in {longer:.0f} % of the rows")
    elif 0 < drop < FLAT:
        found.append(f"weakly identified: moving the length coefficient by 1 costs only {drop:.2f} nats of likelihood")
    return found


def compare_scored(one: Scored, other: Scored, *, draws: int, seed: int) -> dict[str, Any] | None:
    """Difference of two models' win rates on the instructions that both met; None where there are fewer than two."""
    clusters = [_clusters(scored) for scored in (one, other)]
    names = np.intersect1d(clusters[0][0], clusters[1][0])
    if names.size < 2:
        return None
    totals = np.hstack(
        [totals_by_cluster(np.column_stack([values, np.ones(values.size)]), rows, names) for rows, values in clusters]
    )
    estimate = clustered_statistic(
        lambda total: 100.0 * (total[..., 0] / total[..., 1] - total[..., 2] / total[..., 3]),
        totals,
        rows=int(totals[:, [1, 3]].sum()),
        seed=seed,
        draws=draws,
    )
    return {
        "model": one.judged.name,
        "against": other.judged.name,
        "difference": estimate.value,
        "standard_error": estimate.standard_error,
        "interval": list(estimate.interval),
        "detectable_difference": detectable_difference(estimate.standard_error),
        "n": estimate.clusters,
        "length_controlled": _at_equal_lengths(one, other, draws=draws, seed=seed),
    }


Refits = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""From weights of a model's rows to its coefficients."""


def _refitted_together(
    one: Scored,
    other: Scored,
    statistic: Callable[[tuple[NDArray[np.float64], NDArray[np.float64]], tuple[Refits, Refits]], NDArray[np.float64]],
    *,
    draws: int,
    seed: int,
) -> ClusteredEstimate | None:
    """A statistic of two fits over resampled instructions, which both models' rows of them take part in."""
    if one.rows is None or other.rows is None or one.fit is None or other.fit is None:
        return None
    sides = (one, other)
    texts = [_names(scored.judged) for scored in sides]
    names = np.unique(np.concatenate(texts))
    places = [np.searchsorted(names, text) for text in texts]
    refits = (alpaca_eval_refits(one.rows, c=_weak(one.result)), alpaca_eval_refits(other.rows, c=_weak(other.result)))

    def of(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return statistic((weights[:, places[0]], weights[:, places[1]]), refits)

    return cluster_bootstrap(of, np.arange(names.size), seed=seed, draws=draws)


def _weak(result: Mapping[str, Any]) -> float:
    """The penalty of a model's resamples; infinite where it cannot be told from the baseline."""
    return inf if result["lc_interval_c"] is None else result["lc_interval_c"]


def _at_equal_lengths(one: Scored, other: Scored, *, draws: int, seed: int) -> dict[str, Any] | None:
    """Difference of two length-controlled win rates; None where there is no fit."""

    def differences(
        drawn: tuple[NDArray[np.float64], NDArray[np.float64]], refits: tuple[Refits, Refits]
    ) -> NDArray[np.float64]:
        rates = [
            _rates(scored.rows.covariates, refit(weights), weights)
            for scored, refit, weights in zip((one, other), refits, drawn, strict=True)
            if scored.rows is not None
        ]
        return rates[0] - rates[1]

    estimate = _refitted_together(one, other, differences, draws=draws, seed=seed)
    if estimate is None or one.fit is None or other.fit is None:
        return None
    return {
        "difference": one.fit.length_controlled_winrate - other.fit.length_controlled_winrate,
        "standard_error": finite(estimate.standard_error),
        "interval": interval_or_none(estimate.interval),
        "detectable_difference": finite(detectable_difference(estimate.standard_error)),
        "interval_method": PERCENTILE,
    }


def _rates(
    covariates: NDArray[np.float64], coefficients: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Win rates in percent at equal lengths."""
    predicted = 1.0 / (1.0 + np.exp(-(coefficients[:, 1:] @ covariates.T)))
    return 100.0 * (weights * predicted).sum(-1) / weights.sum(-1)


def _clusters(scored: Scored) -> tuple[NDArray[Any], NDArray[np.float64]]:
    judged = scored.judged
    known = ~np.isnan(judged.preferences)
    return _names(judged)[known], judged.preferences[known]


def _names(judged: Judged) -> NDArray[Any]:
    """What each row's instruction is called, by all files alike."""
    if judged.indices is not None:
        return np.array(judged.indices)
    return np.arange(judged.preferences.size) if judged.instructions is None else np.array(judged.instructions)


def interval_against(one: Scored, baseline: Scored, *, draws: int, seed: int) -> list[float] | None:
    """Of `winrate_against`, by refits on the same resampled instructions; None without a fit."""
    if one.rows is None:
        return None
    covariates = one.rows.covariates

    def rates(
        drawn: tuple[NDArray[np.float64], NDArray[np.float64]], refits: tuple[Refits, Refits]
    ) -> NDArray[np.float64]:
        return _rates(covariates, refits[0](drawn[0]) - refits[1](drawn[1]), drawn[0])

    estimate = _refitted_together(one, baseline, rates, draws=draws, seed=seed)
    return None if estimate is None else interval_or_none(estimate.interval)


def winrate_against(one: Scored, baseline: Scored) -> float | None:
    """Length-controlled win rate of one model against another that met the same baseline; None without a fit.

    Raises:
        DataError: the models were judged on different instructions, so that there is no one mean.
    """
    if one.rows is None or one.fit is None or baseline.fit is None:
        return None
    return against_another(one.fit, baseline.fit, one.rows.difficulty)


def evaluate_alpaca(
    paths: Sequence[Path],
    settings: Settings,
    *,
    order_coin: bool = False,
    p_label_flip: float = 0.0,
    baseline: str | None = None,
) -> dict[str, Any]:
    """All models' leaderboard rows, every later one compared with the first, and all with another baseline if asked.

    Raises:
        DataError: a file cannot be used, or `baseline` is none of them.
    """
    names = names_of(paths)
    scored = {
        name: score(read_judged(path, name, order_coin=order_coin, p_label_flip=p_label_flip), settings)
        for path, name in zip(paths, names, strict=True)
    }
    if baseline is not None and baseline not in scored:
        raise DataError(f"--baseline is {baseline!r}, expected one of the files: {', '.join(scored)}.")
    models = {name: dict(one.result) for name, one in scored.items()}
    if baseline is not None:
        for name, one in scored.items():
            theirs = scored[baseline]
            models[name]["against"] = {baseline: winrate_against(one, theirs)}
            interval = None
            if one is not theirs:
                interval = interval_against(one, theirs, draws=settings.draws, seed=settings.seed)
            models[name]["against_interval"] = {baseline: interval}
    first, *others = scored.values()
    paired = [compare_scored(other, first, draws=settings.draws, seed=settings.seed) for other in others]
    return {"models": models, "paired": [one for one in paired if one is not None]}
