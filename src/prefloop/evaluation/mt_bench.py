"""MT-Bench (arXiv:2306.05685): which prompt grades what, ratings and verdicts of judges' texts, and tables of them."""

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from prefloop.errors import DataError
from prefloop.evaluation.lines import Line, read_lines
from prefloop.evaluation.uncertainty import INTERVAL, interval_or_none
from prefloop.statistics import (
    bca_bootstrap,
    clustered_share,
    clustered_statistic,
    detectable_difference,
    totals_by_cluster,
)

REFERENCE_CATEGORIES = frozenset({"math", "reasoning", "coding"})
"""Their answers are graded beside a reference answer."""

NO_RATING = -1

_DOUBLE, _SINGLE = re.compile(r"\[\[(\d+\.?\d*)\]\]"), re.compile(r"\[(\d+\.?\d*)\]")
_SCORES = re.compile(r"\[\[(\d+\.?\d*),\s*(\d+\.?\d*)\]\]")
_CLOSE = 0.1  # two scores no further apart than this are a tie

Winner = Literal["A", "B", "tie"]


@dataclass(frozen=True)
class PairGame:
    """Two models' answers to one question, judged twice with the places exchanged."""

    question: str
    turn: int
    model_1: str
    model_2: str
    winners: tuple[str, str]
    """Of either game "model_1", "model_2", "tie" or "error"; in the first game model 1 was shown first."""


def judge_prompt_name(category: str, turn: int, *, pairwise: bool = False) -> str:
    """FastChat's name of the prompt for a question's category and turn, 1 or 2."""
    reference = "-math" if category in REFERENCE_CATEGORIES else ""
    return f"{'pair' if pairwise else 'single'}{reference}-v1{'-multi-turn' if turn == 2 else ''}"


def rating(text: str) -> int | float:
    """The first number in double square brackets, else the first in single ones, as it is; -1 without either."""
    found = _DOUBLE.search(text) or _SINGLE.search(text)
    if found is None:
        return NO_RATING
    return float(found[1]) if "." in found[1] else int(found[1])


def pair_winner(text: str) -> Winner | None:
    """Who won a game, by what is in double square brackets: A, B, C for a tie, or two scores; None without any."""
    labels: dict[str, Winner] = {"[[A]]": "A", "[[B]]": "B", "[[C]]": "tie"}
    for label, winner in labels.items():
        if label in text:
            return winner
    if (scores := _SCORES.search(text)) is None:
        return None
    gap = float(scores[1]) - float(scores[2])
    return "tie" if abs(gap) <= _CLOSE + 1e-12 else "A" if gap > 0 else "B"


def evaluate_mt_bench(
    path: Path,
    *,
    categories: Mapping[str, str] | None = None,
    baseline: str | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Tables of a file of single ratings, or of pairwise games.

    Args:
        path: JSON lines.
        categories: Category by question, for means by category.
        baseline: Of pairwise games only those with this model.
        draws: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        DataError: a line is not of this form, or `baseline` is in no game.
    """
    lines = read_lines(path)
    if "model_1" in lines[0].values:
        return _pairwise([_game(line) for line in lines], baseline, draws=draws, seed=seed)
    if baseline is not None:
        raise DataError(f"{path.name}: holds ratings of single answers, which have no baseline.")
    return _single(lines, categories, draws=draws, seed=seed)


def read_categories(path: Path) -> dict[str, str]:
    """Category by question, from a file of MT-Bench's questions."""
    return {str(line.given("question_id")): line.text("category") for line in read_lines(path)}


def _single(lines: Sequence[Line], categories: Mapping[str, str] | None, *, draws: int, seed: int) -> dict[str, Any]:
    ratings = [rating(line.text("judgment")) if line.given("judgment") is not None else NO_RATING for line in lines]
    by_model: dict[str, list[tuple[Line, float]]] = {}
    for line, given in zip(lines, ratings, strict=True):
        if line.whole("turn") not in {1, 2}:
            raise line.wrong("turn", "1 or 2")
        by_model.setdefault(line.text("model"), []).append((line, float(given)))
    return {
        "ratings": ratings,
        "models": {name: _model(rows, categories, draws=draws, seed=seed) for name, rows in sorted(by_model.items())},
        "paired": list(_compared(by_model, draws=draws, seed=seed)),
        "interval_method": INTERVAL,
        "warnings": list(_wrong_prompts(lines, categories or {})),
    }


def _model(
    rows: Sequence[tuple[Line, float]], categories: Mapping[str, str] | None, *, draws: int, seed: int
) -> dict[str, Any]:
    kept = [(line, value) for line, value in rows if value != NO_RATING]
    parts: dict[str, list[tuple[Line, float]]] = {
        "turn1": [one for one in kept if one[0].whole("turn") == 1],
        "turn2": [one for one in kept if one[0].whole("turn") == 2],
        "average": kept,
    }
    found: dict[str, Any] = {name: _mean(part) for name, part in parts.items()}
    found |= {"unparsed": len(rows) - len(kept), "n": len(kept)}
    found["intervals"] = {name: _interval(part, draws=draws, seed=seed) for name, part in parts.items()}
    if categories is not None:
        known: dict[str, list[tuple[Line, float]]] = {}
        for line, value in kept:
            known.setdefault(_category(line, categories), []).append((line, value))
        found["categories"] = {name: _mean(part) for name, part in sorted(known.items())}
    return found


def _compared(
    by_model: Mapping[str, Sequence[tuple[Line, float]]], *, draws: int, seed: int
) -> Iterable[dict[str, Any]]:
    """Difference of mean ratings to the first model's, on the questions that both were rated on."""
    names = sorted(by_model)
    columns = {
        name: [(str(line.given("question_id")), value) for line, value in by_model[name] if value >= 0]
        for name in names
    }
    for name in names[1:]:
        shared = np.array(sorted({key for key, _ in columns[names[0]]} & {key for key, _ in columns[name]}))
        if shared.size < 2:
            continue
        totals = np.hstack([_totals(columns[one], shared) for one in (name, names[0])])
        estimate = clustered_statistic(
            lambda total: total[..., 0] / total[..., 1] - total[..., 2] / total[..., 3],
            totals,
            rows=int(totals[:, [1, 3]].sum()),
            seed=seed,
            draws=draws,
        )
        yield {
            "model": name,
            "against": names[0],
            "difference": estimate.value,
            "standard_error": estimate.standard_error,
            "interval": list(estimate.interval),
            "detectable_difference": detectable_difference(estimate.standard_error),
            "n": estimate.clusters,
        }


def _totals(rows: Sequence[tuple[str, float]], questions: NDArray[Any]) -> NDArray[np.float64]:
    keys, values = zip(*rows, strict=True)
    return totals_by_cluster(np.column_stack([values, np.ones(len(values))]), np.array(keys), questions)


def _mean(rows: Sequence[tuple[Line, float]]) -> float | None:
    return float(np.mean([value for _, value in rows])) if rows else None


def _interval(rows: Sequence[tuple[Line, float]], *, draws: int, seed: int) -> list[float] | None:
    if not rows:
        return None
    values = np.array([value for _, value in rows])
    questions = np.array([str(line.given("question_id")) for line, _ in rows])
    estimate = bca_bootstrap(lambda weights: weights @ values / weights.sum(-1), questions, seed=seed, draws=draws)
    return interval_or_none(estimate.interval)


def _category(line: Line, categories: Mapping[str, str]) -> str:
    question = str(line.given("question_id"))
    if question not in categories:
        raise DataError(f"{line.place}: question {question} is not in the file of questions.")
    return categories[question]


def _wrong_prompts(lines: Iterable[Line], categories: Mapping[str, str]) -> Iterable[str]:
    """References belong to three categories: judgments with the other kind of prompt are counted."""
    wrong = sum(
        str(line.values["judge_prompt"]) != judge_prompt_name(_category(line, categories), line.whole("turn"))
        for line in lines
        if categories and "judge_prompt" in line.values
    )
    if wrong:
        yield f"{wrong} judgments were made with another prompt than the one of their category and turn"


def _game(line: Line) -> PairGame:
    winners = (_winner(line, 1), _winner(line, 2))
    turn = line.whole("turn") if "turn" in line.values else 1
    return PairGame(str(line.given("question_id")), turn, line.text("model_1"), line.text("model_2"), winners)


def _winner(line: Line, game: Literal[1, 2]) -> str:
    """From the judge's text where there is one, in which A is the model shown first; else as it is stored."""
    text = line.values.get(f"g{game}_judgment")
    if isinstance(text, str):
        shown = {"A": "model_1", "B": "model_2"} if game == 1 else {"A": "model_2", "B": "model_1"}
        winner = pair_winner(text)
        return "error" if winner is None else shown.get(winner, "tie")
    stored = line.text(f"g{game}_winner")
    if stored not in {"model_1", "model_2", "tie", "error"}:
        raise line.wrong(f"g{game}_winner", "model_1, model_2, tie or error")
    return stored


def _pairwise(games: Sequence[PairGame], baseline: str | None, *, draws: int, seed: int) -> dict[str, Any]:
    names = sorted({name for game in games for name in (game.model_1, game.model_2)})
    if baseline is not None and baseline not in names:
        raise DataError(f"--baseline is {baseline!r}, expected one of the models: {', '.join(names)}.")
    taken = [game for game in games if baseline is None or baseline in {game.model_1, game.model_2}]
    sound = [game for game in taken if "error" not in game.winners]
    firsts = [
        winner == shown
        for game in sound
        for winner, shown in zip(game.winners, ("model_1", "model_2"), strict=True)
        if winner != "tie"
    ]
    same = [game.winners[0] == game.winners[1] for game in sound]
    return {
        "models": {
            name: _record(name, sound, draws=draws, seed=seed)
            for name in names
            if any(name in {game.model_1, game.model_2} for game in taken)
        },
        "consistency": float(np.mean(same)) if same else None,
        "first_bias": float(np.mean(firsts)) - 0.5 if firsts else None,  # of games that have a winner
        "errors": len(taken) - len(sound),
        "n": len(sound),
        "interval_method": INTERVAL,
        "warnings": [],
    }


def _record(name: str, games: Sequence[PairGame], *, draws: int, seed: int) -> dict[str, Any]:
    """Wins, losses and ties of a model; a win counts only where both games agree on it."""
    mine = [game for game in games if name in {game.model_1, game.model_2}]
    side = ["model_1" if game.model_1 == name else "model_2" for game in mine]
    outcomes = [
        0.5 if game.winners[0] != game.winners[1] or game.winners[0] == "tie" else float(game.winners[0] == own)
        for game, own in zip(mine, side, strict=True)
    ]
    win, loss, tie = (outcomes.count(value) for value in (1.0, 0.0, 0.5))
    found: dict[str, Any] = {"win": win, "loss": loss, "tie": tie}
    if not outcomes:
        return {**found, "win_rate": None, "win_rate_adjusted": None, "interval": None}
    questions = np.array([game.question for game in mine])
    adjusted = clustered_share(np.array(outcomes), questions, seed=seed, draws=draws)
    found |= {"win_rate": win / len(outcomes), "win_rate_adjusted": adjusted.value}
    return {**found, "interval": interval_or_none(adjusted.interval)}


def vote_agreement(
    one: Mapping[Hashable, Sequence[str]], other: Mapping[Hashable, Sequence[str]], *, with_ties: bool
) -> tuple[float, int]:
    """Agreement of two judges' votes on the same keys, and how many comparisons it is of.

    Args:
        one: Votes by key - question, models in one order, turn - as names of winners; a text with "tie" in it is a tie.
        other: Those of the other judge. The same mapping gives agreement inside it, over all pairs of votes of a key.
        with_ties: Ties agree with ties; otherwise comparisons with a tie are left out.

    Returns:
        A share, NaN where there is no comparison; and the comparisons.
    """
    matches = total = 0
    for key, votes in one.items():
        theirs = other.get(key, ())
        pairs = (
            [(vote, again) for place, vote in enumerate(votes) for again in votes[place + 1 :]]
            if one is other
            else [(vote, again) for vote in votes for again in theirs]
        )
        for vote, again in pairs:
            first, second = ("tie" if "tie" in label else label for label in (vote, again))
            if with_ties or "tie" not in {first, second}:
                matches += first == second
                total += 1
    return (matches / total if total else float("nan")), total


_SINGLE_REQUEST = (
    "You are an impartial judge. Grade the quality of the assistant's answer to the user's question{part} below: is it "
    "helpful, relevant, accurate, deep, creative, detailed enough? Begin with a short explanation and be as objective "
    "as possible. Then give a rating from 1 to 10 in exactly this form: [[rating]], for example: Rating: [[5]]."
)
_REFERENCE_REQUEST = (
    "You are an impartial judge. Grade the assistant's answer to the user's question{part} below for correctness and "
    "helpfulness. A reference answer is given: compare the assistant's answer with it, find every mistake and correct "
    "it. Be as objective as possible. Then give a rating from 1 to 10 in exactly this form: [[rating]], for example: "
    "Rating: [[5]]."
)


def grading_messages(
    questions: Sequence[str], answers: Sequence[str], references: Sequence[str] | None, *, category: str
) -> list[dict[str, str]]:
    """The messages that ask a judge for a rating of the last answer.

    Args:
        questions: The first question, or both.
        answers: As many.
        references: Good answers to the same questions; exactly for math, reasoning and coding.
        category: Of the question.

    Returns:
        A system and a user message. With one question the request stands before the question; with two it is the
        system message, and the user message is the conversation.

    Raises:
        ValueError: there are not as many answers as questions, or references where none belong or the other way.
    """
    if len(questions) not in {1, 2} or len(answers) != len(questions):
        raise ValueError(f"{len(questions)} questions and {len(answers)} answers, expected one or two of each")
    if (references is not None) != (category in REFERENCE_CATEGORIES) or len(references or questions) != len(questions):
        raise ValueError(f"references belong to {', '.join(sorted(REFERENCE_CATEGORIES))}, one a question")
    request = _SINGLE_REQUEST if references is None else _REFERENCE_REQUEST
    parts: list[str] = []
    if len(questions) == 1:
        parts = [request.format(part=""), f"[Question]\n{questions[0]}"]
        if references is not None:
            parts.append(_between("Reference Answer", references[0]))
        parts.append(_between("Assistant's Answer", answers[0]))
        return _messages("You are a helpful assistant.", "\n\n".join(parts))
    if references is not None:
        parts.append(_between("Reference Conversation", _talk(questions, references, "Reference answer")))
    parts.append(_between("Conversation with Assistant", _talk(questions, answers, "Assistant")))
    part = "s; the rating is of the answer to the second question, and so is your attention"
    return _messages(request.format(part=part), "\n\n".join(parts))


def _messages(system: str, user: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def _between(title: str, text: str) -> str:
    return f"[The Start of {title}]\n{text}\n[The End of {title}]"


def _talk(questions: Sequence[str], answers: Sequence[str], who: str) -> str:
    return "\n\n".join(
        f"### User:\n{question}\n\n### {who}:\n{answer}" for question, answer in zip(questions, answers, strict=True)
    )
