"""What is made of a suite's judged answers: win rates, ratings, AlpacaEval's row, or Bradley-Terry scores."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from prefloop.config import SuiteFile
from prefloop.errors import DataError
from prefloop.evaluation.alpaca_eval import Settings, score
from prefloop.evaluation.alpaca_files import Judged
from prefloop.evaluation.arena_hard import ArenaSettings, Battle, evaluate_arena
from prefloop.evaluation.mt_bench import Rated, rating_tables
from prefloop.evaluation.scoreboard import Answers, clusters, duel, finish_rate, meet, variety
from prefloop.evaluation.uncertainty import INTERVAL, interval_or_none
from prefloop.records import Prompt
from prefloop.statistics import bca_bootstrap


@dataclass(frozen=True)
class Answered:
    """A policy under its name, with its judged answers."""

    name: str
    answers: Answers


def suite_result(
    suite: SuiteFile,
    ours: Answered,
    opponents: Sequence[Answered],
    prompts: Mapping[str, Prompt],
    *,
    seed: int,
    draws: int,
) -> dict[str, Any]:
    """The table that a suite asks for, and what the answers are like.

    Args:
        suite: Says which table.
        ours: The policy that is evaluated.
        opponents: Others, in the order in which they are named; tables with a baseline take the first.
        prompts: Of first turns, by id.
        seed: Of the bootstraps.
        draws: Of the bootstraps.

    Raises:
        DataError: the table needs an opponent, and there is none.
    """
    head = {
        "table": suite.table,
        "questions": len({ours.answers.question(one) for one in ours.answers.responses}),
        "answers": {one.name: described(one.answers, seed=seed, draws=draws) for one in (ours, *opponents)},
    }
    if not ours.answers.judges:
        return head
    if suite.table != "ratings" and not opponents:
        if suite.table == "win_rates":
            return head
        raise DataError(f"{suite.title or 'this suite'}: {suite.table} are against somebody. Name an opponent.")
    match suite.table:
        case "win_rates":
            return {**head, "against": dict(_win_rates(ours, opponents, seed=seed, draws=draws))}
        case "ratings":
            return {**head, **rating_tables(_rated((ours, *opponents), prompts), draws=draws, seed=seed)}
        case "preferences":
            return {**head, **_preferences(ours, opponents, prompts, seed=seed, draws=draws)}
        case "battles":
            settings = ArenaSettings(baseline=opponents[0].name, draws=draws, seed=seed)
            return {**head, **evaluate_arena(battles_of((ours, *opponents)), settings)}


def described(answers: Answers, *, seed: int, draws: int) -> dict[str, Any]:
    """Length, finish rate and variety of some answers, and what each judge gave them on average."""
    prompts = clusters(answers)

    def mean(values: Sequence[float], prompts: Any) -> dict[str, Any]:
        array = np.array(values, np.float64)
        found = bca_bootstrap(lambda weights: weights @ array / weights.sum(-1), prompts, seed=seed, draws=draws)
        return {"value": found.value, "interval": interval_or_none(found.interval), "n": len(values)}

    finished = finish_rate(answers, seed=seed, draws=draws)
    scores: dict[str, Any] = {}
    for judge, given in answers.scores.items():
        judged = [one for one in answers.responses if one.response_id in given]
        if judged:
            scores[judge] = mean(
                [given[one.response_id] for one in judged],
                np.array([answers.question(one).prompt for one in judged]),
            ) | {"invalid": len(answers.responses) - len(judged)}
    return {
        "tokens": mean([float(one.num_tokens) for one in answers.responses], prompts),
        "characters": mean([float(len(one.text)) for one in answers.responses], prompts),
        "finish_rate": {
            "value": finished.value,
            "interval": interval_or_none(finished.interval),
            "n": finished.n,
        },
        "distinct_2": variety(answers),
        "score": scores,
        "interval_method": INTERVAL,
    }


def _win_rates(
    ours: Answered, opponents: Sequence[Answered], *, seed: int, draws: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    for theirs in opponents:
        yield (
            theirs.name,
            {judge: _duel(ours.answers, theirs.answers, judge, seed, draws) for judge in ours.answers.judges},
        )


def _duel(ours: Answers, theirs: Answers, judge: str, seed: int, draws: int) -> dict[str, Any]:
    """With the number of pairs of answers that the judge said nothing of."""
    met = duel(ours, theirs, judge, seed=seed, resamples=draws)
    opponents = theirs.by_question()
    pairs = sum(len(opponents.get(ours.question(one), ())) for one in ours.responses)
    return {**met, "unjudged": pairs - met["n"]}


def _rated(policies: Sequence[Answered], prompts: Mapping[str, Prompt]) -> list[Rated]:
    """Every judged answer of every policy, by question, turn and category."""
    return [
        Rated(
            one.name,
            question.prompt,
            question.turn,
            one.answers.scores["judge"].get(response.response_id),
            (prompts[question.prompt].labels or {}).get("category"),
        )
        for one in policies
        for response in one.answers.responses
        for question in (one.answers.question(response),)
    ]


def _preferences(
    ours: Answered, opponents: Sequence[Answered], prompts: Mapping[str, Prompt], *, seed: int, draws: int
) -> dict[str, Any]:
    """AlpacaEval's row in the variant for instructions and a baseline of one's own, against each opponent."""
    settings = Settings(variant="minimal", draws=draws, seed=seed)
    models: dict[str, Any] = {}
    for theirs in opponents:
        met = meet(ours.answers, theirs.answers, "judge")
        judged = Judged(
            name=f"{ours.name} against {theirs.name}",
            preferences=met.preferences,
            lengths=(met.theirs_length, met.ours_length),
            indices=None,
            instructions=tuple(prompts[str(prompt)].prompt_id for prompt in met.prompts),
        )
        models[theirs.name] = dict(score(judged, settings).result)
    return {"against": models}


def battles_of(policies: Sequence[Answered]) -> list[Battle]:
    """Every two policies' answers to the same question, as battles; the opponent stands first, as a baseline does.

    Raises:
        DataError: no two answers met.
    """
    found: list[Battle] = []
    for second, first in combinations(policies, 2):
        if second.answers.compared is None and not second.answers.scores:
            continue  # a judge of two compared our answers with each opponent's, and not theirs with each other
        met = meet(second.answers, first.answers, "judge")
        found += [
            Battle(str(prompt), first.name, second.name, 1.0 - float(won), 1.0)
            for prompt, won in zip(met.prompts, met.preferences, strict=True)
        ]
    return found
