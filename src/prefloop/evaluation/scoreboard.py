"""A policy's answers against an opponent's on the same prompts: win rates with intervals, length, KL."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefloop.errors import DataError
from prefloop.evaluation.text import distinct_2, distinct_2_estimate
from prefloop.evaluation.uncertainty import ANALYTIC, INTERVAL, JACKKNIFE, PERCENTILE, finite, interval_or_none
from prefloop.records import Judgment, Response, read_folder, seed_for
from prefloop.statistics import (
    AnswerKl,
    ClusteredEstimate,
    cluster_bootstrap,
    clustered_mean,
    clustered_share,
    clustered_statistic,
    discrete,
    length_controlled,
    length_controlled_statistic,
    ratio_of_means,
    totals_by_cluster,
    win_rate,
)

KL_ESTIMATOR = "KL of the next token over the whole vocabulary, summed along sampled answers"
COMPARING = "judge"
"""What the judge of two is called."""

Scores = Mapping[str, float]
"""Score by response id, from one judge."""


@dataclass(frozen=True)
class Question:
    """What an answer answers, whoever gave it: second turns follow other first answers, and are the same question."""

    prompt: str
    """The first turn's prompt. Answers to all turns of it vary together."""
    turn: int


@dataclass(frozen=True)
class Answers:
    """One policy's answers to a suite, and what each judge made of them ("judge", "truth")."""

    responses: tuple[Response, ...]
    scores: Mapping[str, Scores]
    turns: Mapping[str, int] = field(default_factory=dict[str, int])
    """Turn by response id, of answers that are not to the first one."""

    compared: Mapping[tuple[str, str], float] | None = None
    """What a judge of two said: the probability that one of these answers is better than another's, by both ids."""

    @property
    def judges(self) -> tuple[str, ...]:
        """Who said something."""
        return (*self.scores, *self.compared_by)

    @property
    def compared_by(self) -> tuple[str, ...]:
        """Who compared these answers with others'."""
        return () if self.compared is None else (COMPARING,)

    def question(self, response: Response) -> Question:
        """What one of the answers answers."""
        turn = self.turns.get(response.response_id, 1)
        return Question(response.prompt_id if turn == 1 else response.root_id, turn)

    def by_question(self) -> dict[Question, list[Response]]:
        """Answers to each question, in the order of their index."""
        found: dict[Question, list[Response]] = {}
        for response in self.responses:
            found.setdefault(self.question(response), []).append(response)
        return found


def together(members: Iterable[Answers]) -> Answers:
    """The answers of several policies as those of one opponent."""
    listed = list(members)
    return Answers(
        tuple(response for one in listed for response in one.responses),
        {judge: {k: v for one in listed for k, v in one.scores[judge].items()} for judge in listed[0].scores},
        {k: v for one in listed for k, v in one.turns.items()},
    )


def read_scores(folder: Path) -> dict[str, float]:
    """Score by response id from a judge step's folder; invalid judgments are left out."""
    return {
        judgment.subjects[0]: judgment.values[0]
        for judgment in read_folder(folder, Judgment)
        if judgment.values[0] is not None
    }


def comparisons(ours: Answers, said: Iterable[Judgment]) -> dict[tuple[str, str], float] | None:
    """The mean over orders of P(our answer is better), by our answer's and the other's id; None where nobody compared.

    A pair of which one order has no verdict has the other's.
    """
    mine = {response.response_id for response in ours.responses}
    found: dict[tuple[str, str], list[float]] = {}
    judgments = list(said)
    for judgment in judgments:
        first, second = judgment.subjects
        if (value := judgment.values[0]) is not None:
            pair, won = ((first, second), value) if first in mine else ((second, first), 1.0 - value)
            found.setdefault(pair, []).append(won)
    return {pair: sum(values) / len(values) for pair, values in found.items()} if judgments else None


@dataclass(frozen=True)
class Meeting:
    """Every answer of ours met every answer of theirs to the same prompt."""

    preferences: NDArray[np.float64]
    """1 ours scored higher, 0 theirs did, 0.5 equal; of a judge of two the probability that ours is better."""
    ours_length: NDArray[np.float64]
    """Characters, as AlpacaEval counts."""
    theirs_length: NDArray[np.float64]
    prompts: NDArray[np.str_]


def meet(ours: Answers, theirs: Answers, judge: str) -> Meeting:
    """Compares scores, or takes what a judge of two said; answers that it could not judge do not meet.

    Raises:
        DataError: no answer met another.
    """
    opponents = theirs.by_question()
    compared = ours.compared is not None and judge == COMPARING
    won = _by_comparison(ours) if compared else _by_scores(ours.scores[judge], theirs.scores[judge])
    rows = [
        (preference, float(len(our.text)), float(len(their.text)), ours.question(our).prompt)
        for our in ours.responses
        for their in opponents.get(ours.question(our), ())
        if (preference := won(our, their)) is not None
    ]
    if not rows:
        raise DataError(
            f"no held-out prompt has an answer of both sides that {judge} could score. Look at its judgments."
        )
    preferences, ours_length, theirs_length, prompts = zip(*rows, strict=True)
    return Meeting(np.array(preferences), np.array(ours_length), np.array(theirs_length), np.array(prompts))


Preference = Callable[[Response, Response], float | None]
"""How far ours is preferred to theirs; None where nobody says."""


def _by_scores(ours: Scores, theirs: Scores) -> Preference:
    def won(our: Response, their: Response) -> float | None:
        if our.response_id not in ours or their.response_id not in theirs:
            return None
        return 0.5 + 0.5 * float(np.sign(ours[our.response_id] - theirs[their.response_id]))

    return won


def _by_comparison(ours: Answers) -> Preference:
    said = ours.compared or {}
    return lambda our, their: said.get((our.response_id, their.response_id))


def duel(ours: Answers, theirs: Answers, judge: str, *, seed: int, resamples: int) -> dict[str, Any]:
    """Win rate and length-controlled win rate of ours against theirs, percent, with intervals clustered by prompt.

    The length-controlled one is AlpacaEval 2's GLM in its `minimal` variant: no difficulties, no gamed baselines.
    """
    met = meet(ours, theirs, judge)
    plain = win_rate(met.preferences)
    controlled = length_controlled(met.preferences, met.theirs_length, met.ours_length)
    raw = clustered_share(met.preferences, met.prompts, seed=seed, draws=resamples)
    statistic = length_controlled_statistic(met.preferences, met.theirs_length, met.ours_length)
    lc = cluster_bootstrap(statistic, met.prompts, seed=seed, draws=resamples)
    rounded = clustered_share(discrete(met.preferences), met.prompts, seed=seed, draws=resamples)
    raw_interval = (100 * raw.interval[0], 100 * raw.interval[1])
    one_sided = raw.clusters > 1 and raw.value in {0.0, 1.0}  # resamples cannot vary: mid-P, for both
    return {
        "win_rate": plain.win_rate,
        "standard_error": finite(100 * raw.standard_error),
        "interval": interval_or_none(raw_interval),
        "length_controlled_winrate": controlled.length_controlled_winrate,
        "lc_standard_error": finite(lc.standard_error),
        "lc_interval": interval_or_none(raw_interval if one_sided else lc.interval),
        "interval_method": INTERVAL,
        "lc_interval_method": PERCENTILE,
        "n": plain.n_total,
        "clusters": raw.clusters,
        "n_wins": plain.n_wins,
        "n_wins_base": plain.n_wins_base,
        "n_draws": plain.n_draws,
        "discrete_win_rate": plain.discrete_win_rate,
        "discrete_interval": interval_or_none((100 * rounded.interval[0], 100 * rounded.interval[1])),
    }


def scoreboard(
    ours: Answers,
    opponents: Mapping[str, Answers],
    kls: Sequence[AnswerKl] | None,
    *,
    pool: Mapping[str, Answers] | None = None,
    seed: int,
    resamples: int,
) -> dict[str, Any]:
    """Everything that is measured of a round.

    Args:
        ours: this round's answers.
        opponents: `initial` and others.
        kls: what each of our answers says of the KL to the initial model, in their order; None where they are no
            samples of the policy itself.
        pool: more opponents by name: together they are the opponent `pool`, whose `members` are listed one by one.
        seed: of the bootstraps.
        resamples: of the bootstraps.
    """
    initial = opponents["initial"]

    def duels(opponent: str, answers: Answers) -> dict[str, Any]:
        return {
            judge: duel(ours, answers, judge, seed=seed_for(seed, opponent, judge), resamples=resamples)
            for judge in ours.judges
        }

    against = {opponent: duels(opponent, answers) for opponent, answers in opponents.items()}
    if pool:
        members = {name: duels(f"pool {name}", answers) for name, answers in pool.items()}
        against["pool"] = {
            judge: {**one, "members": {name: member[judge] for name, member in members.items()}}
            for judge, one in duels("pool", together(pool.values())).items()
        }
    length, ratio = mean_length(ours), length_ratio(ours, initial, seed=seed_for(seed, "length"), draws=resamples)
    finished = finish_rate(ours, seed=seed_for(seed, "finished"), draws=resamples)
    return {
        "against": against,
        "length": {
            "mean": length.value,
            **_uncertainty(length),
            "unit": "tokens",
            "initial": mean_length(initial).value,
            "ratio": ratio.value,
            "ratio_standard_error": finite(ratio.standard_error),
            "ratio_interval": interval_or_none(ratio.interval),
            "ratio_interval_method": PERCENTILE,
        },
        "finish_rate": {
            "value": finished.value,
            **_uncertainty(finished, INTERVAL),
            "initial": float(np.mean(_finished(initial))),
        },
        "distinct_2": {
            **variety(ours),
            "initial": distinct_2(response.text for response in initial.responses),
        },
        "kl": None if kls is None else _kl(ours, kls, length.value),
        "score": {judge: _score(ours, initial, judge) for judge in ours.scores},
    }


def _kl(ours: Answers, kls: Sequence[AnswerKl], length: float) -> dict[str, Any]:
    """The KL of the sequences by all estimators; its value is the one with the least variance."""
    prompts = clusters(ours)
    exact, k1, k3 = np.array([(one.exact, one.k1, one.k3) for one in kls]).T
    estimates = {name: clustered_mean(each, prompts) for name, each in (("exact", exact), ("k1", k1), ("k3", k3))}
    value = estimates["exact"].value
    totals = totals_by_cluster(np.stack([exact, np.ones(exact.size)], 1), prompts, np.unique(prompts))
    return {
        "value": value,
        **_uncertainty(estimates["exact"]),
        "unit": "nats",
        "estimator": KL_ESTIMATOR,
        "per_token": value / length,
        "cut": 1.0 - float(np.mean(_finished(ours))),
        **{name: {"value": estimates[name].value, **_uncertainty(estimates[name])} for name in ("k1", "k3")},
        "by_prompt": dict(zip(np.unique(prompts).tolist(), (totals[:, 0] / totals[:, 1]).tolist(), strict=True)),
    }


def clusters(answers: Answers) -> NDArray[np.str_]:
    """What each answer varies together with: its prompt, of all turns the first one's."""
    return np.array([answers.question(response).prompt for response in answers.responses])


def mean_length(answers: Answers) -> ClusteredEstimate:
    """Tokens of an answer."""
    return clustered_mean(_tokens(answers), clusters(answers))


def length_ratio(ours: Answers, theirs: Answers, *, seed: int, draws: int) -> ClusteredEstimate:
    """Mean tokens of our answers over those of theirs, both uncertain, on prompts that both answered, all turns."""
    prompts = np.intersect1d(clusters(ours), clusters(theirs))

    def totals(answers: Answers) -> NDArray[np.float64]:
        tokens = _tokens(answers)
        return totals_by_cluster(np.stack([tokens, np.ones(tokens.size)], 1), clusters(answers), prompts)

    columns = np.hstack([totals(ours), totals(theirs)])
    return clustered_statistic(ratio_of_means, columns, rows=int(columns[:, 1].sum()), seed=seed, draws=draws)


def _tokens(answers: Answers) -> NDArray[np.float64]:
    return np.array([float(response.num_tokens) for response in answers.responses])


def _score(ours: Answers, initial: Answers, judge: str) -> dict[str, Any]:
    """Mean score of the answers that the judge could score."""
    given = ours.scores[judge]
    prompts = [ours.question(one).prompt for one in ours.responses if one.response_id in given]
    values = [given[one.response_id] for one in ours.responses if one.response_id in given]
    found = clustered_mean(np.array(values, np.float64), np.array(prompts))
    return {
        "mean": found.value,
        **_uncertainty(found),
        "invalid": len(ours.responses) - len(values),
        "initial": float(np.mean(list(initial.scores[judge].values()))),
    }


def finish_rate(answers: Answers, *, seed: int, draws: int) -> ClusteredEstimate:
    """Share of answers that were not cut by the length limit."""
    return clustered_share(_finished(answers), clusters(answers), seed=seed, draws=draws)


def _finished(answers: Answers) -> NDArray[np.float64]:
    return np.array([float(response.finish_reason != "length") for response in answers.responses])


def variety(answers: Answers) -> dict[str, Any]:
    """`distinct_2` with its uncertainty, as results say it."""
    found = distinct_2_estimate([one.text for one in answers.responses], clusters(answers).tolist())
    return {"value": found.value, **_uncertainty(found, JACKKNIFE)}


def _uncertainty(estimate: ClusteredEstimate, method: str = ANALYTIC) -> dict[str, Any]:
    return {
        "standard_error": finite(estimate.standard_error),
        "interval": interval_or_none(estimate.interval),
        "interval_method": method,
        "n": estimate.n,
    }
