"""The best of several answers: what a judge chooses, and what choosing is worth."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import inf
from typing import Any

import numpy as np

from prefloop.evaluation.scoreboard import Answers
from prefloop.records import Response
from prefloop.statistics import best_of_n_kl, best_of_n_mean

CHOOSING = "judge"
"""The judge whose score chooses."""


def best_of_each(answers: Answers, n: int) -> Answers:
    """Of every n answers to a question, in the order of their index, the one with the highest score.

    Of equal ones the first; where none of them has a score, the first, which then meets nobody.
    """
    scores = answers.scores[CHOOSING]
    kept = tuple(
        max(few, key=lambda one: scores.get(one.response_id, -inf))
        for of_question in _in_order(answers)
        for few in (of_question[start : start + n] for start in range(0, len(of_question), n))
    )
    ids = {one.response_id for one in kept}
    of_kept = {judge: {k: v for k, v in given.items() if k in ids} for judge, given in answers.scores.items()}
    return replace(answers, responses=kept, scores=of_kept)


def worth_of_choosing(answers: Answers, n: int) -> Mapping[str, Any]:
    """Mean scores of the best of 1 to n, each estimated without bias from all answers to a question.

    Every judge says what it thinks of the answers that `judge` chooses: where the truth falls while the judge rises,
    the choice pays for the judge's flaws. Questions with fewer than n scored answers are left out.

    Args:
        answers: all that were sampled.
        n: answers that one is chosen from.

    Returns:
        `n`, `questions`, `kl_at_most` (nats by which choosing moves the policy: log n - (n - 1) / n), and by judge the
        means `by_n` of the best of 1, 2, ..., n.
    """
    by_n: dict[str, list[float | None]] = {}
    chosen_by = answers.scores[CHOOSING]
    questions = 0
    for judge, scores in answers.scores.items():
        judged = [
            [one.response_id for one in of_question if one.response_id in chosen_by and one.response_id in scores]
            for of_question in _in_order(answers)
        ]
        enough = [ids for ids in judged if len(ids) >= n]
        arrays = [(np.array([scores[i] for i in ids]), np.array([chosen_by[i] for i in ids])) for ids in enough]
        by_n[judge] = [
            float(np.mean([best_of_n_mean(values, k, ranked_by=ranks) for values, ranks in arrays])) if arrays else None
            for k in range(1, n + 1)
        ]
        questions = len(enough) if judge == CHOOSING else questions
    return {"n": n, "questions": questions, "kl_at_most": best_of_n_kl(n), "by_n": by_n}


def _in_order(answers: Answers) -> Iterator[list[Response]]:
    for of_question in answers.by_question().values():
        yield sorted(of_question, key=lambda one: one.index)
