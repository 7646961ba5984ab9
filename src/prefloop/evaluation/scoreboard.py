"""A policy's answers against an opponent's on the same prompts: win rates with intervals, length, KL."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefloop.errors import DataError
from prefloop.evaluation.text import distinct_2
from prefloop.evaluation.uncertainty import finite, interval_or_none
from prefloop.records import Response, seed_for
from prefloop.statistics import (
    ClusteredEstimate,
    cluster_bootstrap,
    clustered_mean,
    kl_estimate,
    length_controlled,
    length_controlled_statistic,
    win_rate,
)

Scores = Mapping[str, float]
"""Score by response id, from one judge."""


@dataclass(frozen=True)
class Answers:
    """One policy's answers to a suite, and what each judge made of them ("judge", "truth")."""

    responses: tuple[Response, ...]
    scores: Mapping[str, Scores]

    def by_prompt(self) -> dict[str, list[Response]]:
        """Answers to each prompt, in the order of their index."""
        found: dict[str, list[Response]] = {}
        for response in self.responses:
            found.setdefault(response.prompt_id, []).append(response)
        return found


@dataclass(frozen=True)
class Meeting:
    """Every answer of ours met every answer of theirs to the same prompt."""

    preferences: NDArray[np.float64]
    """1 ours scored higher, 0 theirs did, 0.5 equal."""
    ours_length: NDArray[np.float64]
    """Characters, as AlpacaEval counts."""
    theirs_length: NDArray[np.float64]
    prompts: NDArray[np.str_]


def meet(ours: Answers, theirs: Answers, judge: str) -> Meeting:
    """Compares scores; an answer that the judge could not score meets nobody.

    Raises:
        DataError: no answer met another.
    """
    ours_scores, theirs_scores, opponents = ours.scores[judge], theirs.scores[judge], theirs.by_prompt()
    rows = [
        (
            0.5 + 0.5 * float(np.sign(ours_scores[our.response_id] - theirs_scores[their.response_id])),
            float(len(our.text)),
            float(len(their.text)),
            our.prompt_id,
        )
        for our in ours.responses
        for their in opponents.get(our.prompt_id, ())
        if our.response_id in ours_scores and their.response_id in theirs_scores
    ]
    if not rows:
        raise DataError(
            f"no held-out prompt has an answer of both sides that {judge} could score. Look at its judgments."
        )
    preferences, ours_length, theirs_length, prompts = zip(*rows, strict=True)
    return Meeting(np.array(preferences), np.array(ours_length), np.array(theirs_length), np.array(prompts))


def duel(ours: Answers, theirs: Answers, judge: str, *, seed: int, resamples: int) -> dict[str, Any]:
    """Win rate and length-controlled win rate of ours against theirs, percent, with intervals clustered by prompt.

    The length-controlled one is AlpacaEval 2's GLM in its `minimal` variant: no difficulties, no gamed baselines.
    """
    met = meet(ours, theirs, judge)
    plain = win_rate(met.preferences)
    controlled = length_controlled(met.preferences, met.theirs_length, met.ours_length)
    raw_interval = cluster_bootstrap(
        lambda weights: 100 * (weights @ met.preferences) / weights.sum(-1), met.prompts, seed=seed, draws=resamples
    )
    lc_interval = cluster_bootstrap(
        length_controlled_statistic(met.preferences, met.theirs_length, met.ours_length),
        met.prompts,
        seed=seed,
        draws=resamples,
    )
    return {
        "win_rate": plain.win_rate,
        "standard_error": finite(raw_interval.standard_error),
        "interval": interval_or_none(raw_interval.interval),
        "length_controlled_winrate": controlled.length_controlled_winrate,
        "lc_standard_error": finite(lc_interval.standard_error),
        "lc_interval": interval_or_none(lc_interval.interval),
        "n": plain.n_total,
        "clusters": raw_interval.clusters,
        "n_wins": plain.n_wins,
        "n_wins_base": plain.n_wins_base,
        "n_draws": plain.n_draws,
        "discrete_win_rate": plain.discrete_win_rate,
    }


def scoreboard(
    ours: Answers,
    opponents: Mapping[str, Answers],
    log_ratios: Sequence[float],
    *,
    seed: int,
    resamples: int,
) -> dict[str, Any]:
    """Everything that is measured of a round.

    Args:
        ours: this round's answers.
        opponents: `initial` and others.
        log_ratios: log pi(y|x) - log pi_initial(y|x) of our answers, in their order, nats.
        seed: of the bootstrap.
        resamples: of the bootstrap.
    """
    initial = opponents["initial"]
    lengths, length = _lengths(ours)
    initial_length = float(_lengths(initial)[0].mean())
    kl = kl_estimate(np.array(log_ratios), np.array([response.prompt_id for response in ours.responses])).k1
    return {
        "against": {
            opponent: {
                judge: duel(ours, answers, judge, seed=seed_for(seed, opponent, judge), resamples=resamples)
                for judge in ours.scores
            }
            for opponent, answers in opponents.items()
        },
        "length": {
            "mean": length.value,
            **_uncertainty(length),
            "unit": "tokens",
            "initial": initial_length,
            "ratio": float(lengths.mean()) / initial_length,
        },
        "finish_rate": {"value": _finish_rate(ours), "initial": _finish_rate(initial)},
        "distinct_2": {
            "value": distinct_2(response.text for response in ours.responses),
            "initial": distinct_2(response.text for response in initial.responses),
        },
        "kl": {"value": kl.value, **_uncertainty(kl), "unit": "nats", "per_token": kl.value / float(lengths.mean())},
        "score": {
            judge: {"mean": _mean_score(ours, judge), "initial": _mean_score(initial, judge)} for judge in ours.scores
        },
    }


def _lengths(answers: Answers) -> tuple[NDArray[np.float64], ClusteredEstimate]:
    lengths = np.array([float(response.num_tokens) for response in answers.responses])
    return lengths, clustered_mean(lengths, np.array([response.prompt_id for response in answers.responses]))


def _mean_score(answers: Answers, judge: str) -> float:
    return float(np.mean(list(answers.scores[judge].values())))


def _finish_rate(answers: Answers) -> float:
    return float(np.mean([response.finish_reason != "length" for response in answers.responses]))


def _uncertainty(estimate: ClusteredEstimate) -> dict[str, Any]:
    return {
        "standard_error": finite(estimate.standard_error),
        "interval": interval_or_none(estimate.interval),
        "n": estimate.n,
    }
