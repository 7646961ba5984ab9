"""MT-Bench (arXiv:2306.05685): which prompt grades what, ratings and verdicts of judges' texts, and tables of them."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from prefloop.errors import DataError
from prefloop.evaluation.lines import Line, read_lines
from prefloop.evaluation.uncertainty import INTERVAL, interval_or_none
from prefloop.pairing import NO_RATING, judge_prompt_name, pair_winner, rating
from prefloop.statistics import (
    bca_bootstrap,
    clustered_share,
    clustered_statistic,
    detectable_difference,
    totals_by_cluster,
)


@dataclass(frozen=True)
class PairGame:
    """Two models' answers to one question, judged twice with the places exchanged."""

    question: str
    turn: int
    model_1: str
    model_2: str
    winners: tuple[str, str]
    """Of either game "model_1", "model_2", "tie" or "error"; in the first game model 1 was shown first."""


@dataclass(frozen=True)
class Rated:
    """One judged answer."""

    model: str
    question: str
    turn: int
    value: float | None
    """None where the judge gave no rating."""
    category: str | None = None


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
    return {line.name("question_id"): line.text("category") for line in read_lines(path)}


def _single(lines: Sequence[Line], categories: Mapping[str, str] | None, *, draws: int, seed: int) -> dict[str, Any]:
    ratings = [rating(line.text("judgment")) if line.given("judgment") is not None else NO_RATING for line in lines]
    rated = [_rated(line, given, categories) for line, given in zip(lines, ratings, strict=True)]
    return {
        "ratings": ratings,
        **rating_tables(rated, draws=draws, seed=seed),
        "warnings": list(_wrong_prompts(lines, categories or {})),
    }


def _rated(line: Line, given: float, categories: Mapping[str, str] | None) -> Rated:
    if (turn := line.whole("turn")) not in {1, 2}:
        raise line.wrong("turn", "1 or 2")
    category = None if categories is None else _category(line, categories)
    value = None if given == NO_RATING else float(given)
    return Rated(line.name("model"), line.name("question_id"), turn, value, category)


def rating_tables(rated: Sequence[Rated], *, draws: int, seed: int) -> dict[str, Any]:
    """Mean ratings of every model by turn and category with their intervals; all models compared with the first.

    Args:
        rated: One judged answer each; several runs of a model are averaged over.
        draws: Of the bootstrap.
        seed: Of the bootstrap.
    """
    by_model: dict[str, list[Rated]] = {}
    for one in rated:
        by_model.setdefault(one.model, []).append(one)
    return {
        "models": {name: _model(rows, draws=draws, seed=seed) for name, rows in sorted(by_model.items())},
        "paired": list(_compared(by_model, draws=draws, seed=seed)),
        "interval_method": INTERVAL,
    }


def _model(rows: Sequence[Rated], *, draws: int, seed: int) -> dict[str, Any]:
    kept = [one for one in rows if one.value is not None]
    parts = {
        "turn1": [one for one in kept if one.turn == 1],
        "turn2": [one for one in kept if one.turn == 2],
        "average": kept,
    }
    found: dict[str, Any] = {name: _mean(part) for name, part in parts.items()}
    found |= {"unparsed": len(rows) - len(kept), "n": len(kept)}
    found["intervals"] = {name: _interval(part, draws=draws, seed=seed) for name, part in parts.items()}
    known: dict[str, list[Rated]] = {}
    for one in kept:
        if one.category is not None:
            known.setdefault(one.category, []).append(one)
    if known:
        ordered = sorted(known.items())
        found["categories"] = {name: _mean(part) for name, part in ordered}
        found["category_intervals"] = {name: _interval(part, draws=draws, seed=seed) for name, part in ordered}
        found["category_n"] = {name: len(part) for name, part in ordered}
    return found


def _compared(by_model: Mapping[str, Sequence[Rated]], *, draws: int, seed: int) -> Iterable[dict[str, Any]]:
    """Difference of mean ratings to the first model's, on the questions that both were rated on."""
    names = sorted(by_model)
    columns = {name: [(one.question, one.value) for one in by_model[name] if one.value is not None] for name in names}
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


def _mean(rows: Sequence[Rated]) -> float | None:
    return float(np.mean([one.value for one in rows if one.value is not None])) if rows else None


def _interval(rows: Sequence[Rated], *, draws: int, seed: int) -> list[float] | None:
    if not rows:
        return None
    values = np.array([one.value for one in rows], np.float64)
    questions = np.array([one.question for one in rows])
    estimate = bca_bootstrap(lambda weights: weights @ values / weights.sum(-1), questions, seed=seed, draws=draws)
    return interval_or_none(estimate.interval)


def _category(line: Line, categories: Mapping[str, str]) -> str:
    question = line.name("question_id")
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
    first, second = line.name("model_1"), line.name("model_2")
    if first == second:
        raise line.wrong("model_2", "another model than model_1")
    return PairGame(line.name("question_id"), turn, first, second, winners)


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
        (game.question, float(winner == shown))
        for game in sound
        for winner, shown in zip(game.winners, ("model_1", "model_2"), strict=True)
        if winner != "tie"
    ]
    same = [(game.question, float(game.winners[0] == game.winners[1])) for game in sound]
    consistency = _share(same, draws=draws, seed=seed)
    first = _share(firsts, draws=draws, seed=seed)  # of games that have a winner
    half = None if first.interval is None else [bound - 0.5 for bound in first.interval]
    return {
        "models": {
            name: _record(name, sound, draws=draws, seed=seed)
            for name in names
            if any(name in {game.model_1, game.model_2} for game in taken)
        },
        "consistency": consistency.value,
        "consistency_interval": consistency.interval,
        "first_bias": None if first.value is None else first.value - 0.5,
        "first_bias_interval": half,
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
    wins = [(game.question, float(outcome == 1.0)) for game, outcome in zip(mine, outcomes, strict=True)]
    won = _share(wins, draws=draws, seed=seed)
    scored = [(game.question, outcome) for game, outcome in zip(mine, outcomes, strict=True)]
    adjusted = _share(scored, draws=draws, seed=seed)
    return {
        **found,
        "win_rate": won.value,
        "win_rate_interval": won.interval,
        "win_rate_adjusted": adjusted.value,
        "interval": adjusted.interval,
        "n": len(outcomes),
    }


@dataclass(frozen=True)
class _Share:
    """A mean of numbers in [0, 1] with its interval over questions; None where there is none."""

    value: float | None
    interval: list[float] | None


def _share(rows: Sequence[tuple[str, float]], *, draws: int, seed: int) -> _Share:
    if not rows:
        return _Share(None, None)
    questions, values = zip(*rows, strict=True)
    found = clustered_share(np.array(values), np.array(questions), seed=seed, draws=draws)
    return _Share(found.value, interval_or_none(found.interval))


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
