"""Arena-Hard's form (arXiv:2406.11939): verdicts, battles, style, and every model's score against a baseline."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefloop.errors import DataError
from prefloop.evaluation.lines import Line, read_lines
from prefloop.evaluation.uncertainty import interval_or_none
from prefloop.pairing import VERDICTS, verdict
from prefloop.statistics import (
    Battles,
    BradleyTerry,
    Graph,
    analytic_interval,
    bca_bounds,
    bradley_terry,
    detectable_difference,
    graph_of,
    influences,
    mid_p_interval,
    normalised_differences,
    resampled,
    score_interval,
    standardised,
)

Z95 = 1.959963984540054
"""The normal distribution's quantile at 97.5 %."""

_FENCE = re.compile(r"```.*?```", re.DOTALL)
_HEADER = re.compile(r"^#{1,6}\s", re.MULTILINE)
_LIST = re.compile(r"^\s*(?:\d+\.\s|[-*+]\s)", re.MULTILINE)
_BOLD = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")
_HEADER_MARKS = re.compile(r"^(#{1,6})\s", re.MULTILINE)
_ORDERED, _UNORDERED = (re.compile(rf"^\s*{mark}\s", re.MULTILINE) for mark in (r"\d+\.", "[-*+]"))
_STARS, _LINES = re.compile(r"\*\*[^*\n]+\*\*"), re.compile(r"__[^_\n]+__")


@dataclass(frozen=True)
class Battle:
    """One comparison of two models' answers to one prompt."""

    prompt: str
    first: str
    second: str
    outcome: float
    """1 where the first won, 0.5 for a tie."""
    weight: float
    place: str = ""


def battles_of_games(prompt: str, baseline: str, model: str, games: Sequence[str | None], *, form: str) -> list[Battle]:
    """Battles of a prompt's two games: the first shows the baseline as A, the second the model.

    Args:
        prompt: Its name.
        baseline: Becomes the first of each battle.
        model: Becomes the second.
        games: Verdicts; None where the judge gave none.
        form: "v2.0" leaves a prompt out if either game has no verdict, "v0.1" that game only.
    """
    if form == "v2.0" and any(game not in VERDICTS for game in games):
        return []
    found: list[Battle] = []
    for number, game in enumerate(games):
        if game is not None and game in VERDICTS:
            outcome, weight = VERDICTS[game]
            found.append(Battle(prompt, baseline, model, outcome if number == 0 else 1.0 - outcome, weight))
    return found


def markdown_counts(text: str) -> dict[str, int]:
    """Headers, list items and bold spans of an answer, outside of text between triple backticks."""
    outside = _FENCE.sub("", text)
    return {
        "header": len(_HEADER.findall(outside)),
        "list": len(_LIST.findall(outside)),
        "bold": len(_BOLD.findall(outside)),
    }


def markdown_metadata(text: str) -> dict[str, dict[str, int]]:
    """The same counts by kind, as Arena-Hard's files of answers hold them."""
    outside = _FENCE.sub("", text)
    levels = [len(marks) for marks in _HEADER_MARKS.findall(outside)]
    return {
        "header_count": {f"h{level}": levels.count(level) for level in range(1, 7)},
        "list_count": {"ordered": len(_ORDERED.findall(outside)), "unordered": len(_UNORDERED.findall(outside))},
        "bold_count": {"**": len(_STARS.findall(outside)), "__": len(_LINES.findall(outside))},
    }


def read_battles(path: Path, *, baseline: str | None = None) -> list[Battle]:
    """Battles as lines of `q, a, b, winner, n` or as Arena-Hard v0.1 writes them, or judgments with their `games`.

    Args:
        path: The file.
        baseline: Whom judgments with games were held against; battles name both models themselves.

    Raises:
        DataError: a line is neither.
    """
    found: list[Battle] = []
    for line in read_lines(path):
        found += _games(line, baseline) if "games" in line.values else [_battle(line)]
    if not found:
        raise DataError(f"{path.name}: no judgment has a verdict, so that there is no battle.")
    return found


V0_1 = ("question_id", "model_a", "model_b")
"""What Arena-Hard v0.1's own files of battles call q, a and b."""


def _battle(line: Line) -> Battle:
    prompt, *models = V0_1 if "model_a" in line.values else ("q", "a", "b")
    first, second = (line.name(column) for column in models)
    weight = line.number("n") if "n" in line.values else 1.0
    if weight <= 0:
        raise line.wrong("n", "a number of battles > 0")
    if first == second:
        raise line.wrong(models[1], f"another model than {models[0]}")
    winner = line.text("winner")
    if winner in VERDICTS:
        outcome, times = VERDICTS[winner]
        weight *= times
    elif winner in {"model_a", "model_b"}:
        outcome = float(winner == "model_a")
    elif winner.startswith("tie") or winner in {"bothbad", "both_bad"}:
        outcome = 0.5
    else:
        raise line.wrong("winner", "model_a, model_b, tie, or a label such as A>>B")
    return Battle(line.name(prompt), first, second, outcome, weight, line.place)


def _games(line: Line, baseline: str | None) -> list[Battle]:
    """Arena-Hard v2.0 has `uid` and drops a prompt with a failed game; v0.1 has `question_id` and drops the game."""
    if baseline is None:
        raise DataError(f"{line.place}: holds games and not who they were held against. Name it: --baseline.")
    form, prompt = ("v2.0", "uid") if "uid" in line.values else ("v0.1", "question_id")
    games: Any = line.given("games")
    if not isinstance(games, list) or not all(isinstance(game, Mapping) and "score" in game for game in games):
        raise line.wrong("games", "a list of objects with a score")
    scores = [_game_verdict(game) for game in games]
    return battles_of_games(line.name(prompt), baseline, line.text("model"), scores, form=form)


def _game_verdict(game: Mapping[str, Any]) -> str | None:
    """As it is stored; where nothing is, from the judge's text."""
    if game["score"] is not None:
        return str(game["score"]).upper()
    text = game.get("judgment")
    return verdict(text) if isinstance(text, str) else None


def read_style(path: Path, columns: Sequence[str] | None) -> tuple[dict[tuple[str, str], list[float]], tuple[str, ...]]:
    """Style by prompt and model, and the names of its columns.

    Args:
        path: Lines of `q, model` and numbers >= 0.
        columns: Those that are wanted; None for all.

    Raises:
        DataError: a line lacks a column, or stands twice.
    """
    lines = read_lines(path)
    names = tuple(columns or (name for name in lines[0].values if name not in {"q", "model"}))
    if not names:
        raise DataError(f"{path.name}: has no column beside q and model.")
    found: dict[tuple[str, str], list[float]] = {}
    for line in lines:
        key = line.name("q"), line.name("model")
        if key in found:
            raise DataError(f"{line.place}: the style of {key[1]} on {key[0]} stands twice.")
        found[key] = [line.number(name) for name in names]
        if min(found[key]) < 0:
            raise line.wrong(names[found[key].index(min(found[key]))], "a number >= 0")
    return found, names


def _common_baseline(battles: Sequence[Battle]) -> tuple[str, bool]:
    """The model that is in every battle, the first `a` where that is no one model; and whether there is none."""
    common = {battles[0].first, battles[0].second}
    for battle in battles:
        common &= {battle.first, battle.second}
    none = not common
    return (common.pop() if len(common) == 1 else battles[0].first), none


def arrays_of(battles: Sequence[Battle], names: Sequence[str], features: NDArray[np.float64]) -> Battles:
    """Battles as numbers; a model is its place in `names`."""
    number = {name: index for index, name in enumerate(names)}
    return Battles(
        first=np.array([number[battle.first] for battle in battles]),
        second=np.array([number[battle.second] for battle in battles]),
        outcomes=np.array([float(battle.outcome) for battle in battles]),
        weights=np.array([float(battle.weight) for battle in battles]),
        clusters=np.array([battle.prompt for battle in battles]),
        features=features,
        models=len(names),
    )


def _features(
    battles: Sequence[Battle], style: Mapping[tuple[str, str], Sequence[float]], offset: float, *, centred: bool
) -> NDArray[np.float64]:
    sides: list[list[Sequence[float]]] = [[], []]
    for battle in battles:
        for side, model in zip(sides, (battle.first, battle.second), strict=True):
            if (battle.prompt, model) not in style:
                raise DataError(f"{battle.place}: the style of {model} on {battle.prompt} is not in the style file.")
            side.append(style[battle.prompt, model])
    differences = normalised_differences(np.array(sides[0]), np.array(sides[1]), offset=offset)
    return standardised(differences, np.array([float(battle.weight) for battle in battles]), centred=centred)


@dataclass(frozen=True)
class ArenaSettings:
    """How scores are computed."""

    baseline: str | None = None
    draws: int = 1000
    """Resamples; 0 for the sandwich's interval."""
    seed: int = 0
    clustered: bool = True
    style_offset: float = 0.0
    style_ridge: float = 0.0


def evaluate_arena(
    battles: Sequence[Battle],
    settings: ArenaSettings,
    style: tuple[Mapping[tuple[str, str], Sequence[float]], Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Every model's score against the baseline, rating and interval.

    Raises:
        DataError: the baseline has no battle, or an answer's style is missing.
    """
    found, guessed = _common_baseline(battles)
    baseline = settings.baseline or found
    names = sorted({name for battle in battles for name in (battle.first, battle.second)})
    if baseline not in names:
        raise DataError(f"--baseline is {baseline!r}, expected one of the models: {', '.join(names)}.")
    columns = () if style is None else style[1]
    features = np.zeros((len(battles), 0))
    if style is not None:
        features = _features(battles, style[0], settings.style_offset, centred=True)
    data = arrays_of(battles, names, features)
    graph, fit = graph_of(data), bradley_terry(data, style_ridge=settings.style_ridge)
    base = names.index(baseline)
    scored = _Scored(data, graph, fit, base, settings)
    models = {names[index]: scored.model(index) for index in np.argsort(-fit.ratings, kind="stable")}
    if style is not None:
        features = _features(battles, style[0], settings.style_offset, centred=False)
        _add_equal_style(models, names, base, replace(data, features=features), settings)
    warnings = _graph_warnings(names, graph, fit)
    if settings.baseline is None and guessed:
        warnings.append(
            f"no model is in every battle: scores are against the first one, {baseline}; --baseline names another"
        )
    return {
        "models": models,
        "paired": scored.neighbours([name for name in models if name != baseline], names),
        "style": dict(zip(columns, fit.style.tolist(), strict=True)),
        "style_intervals": {name: scored.style(index) for index, name in enumerate(columns)},
        "baseline": baseline,
        "interval_method": scored.method,
        "ridge": fit.ridge,
        "prompts": int(np.unique(data.clusters).size),
        "warnings": warnings,
    }


def _add_equal_style(
    models: Mapping[str, dict[str, Any]], names: Sequence[str], base: int, data: Battles, settings: ArenaSettings
) -> None:
    """Scores of a fit whose features are not centred.

    z-scores, which the published recipes take, hold style at its mean difference between a and b, and not at none:
    where a is always the baseline, what its style is worth on average stays in the scores.
    """
    analytic = ArenaSettings(draws=0, clustered=settings.clustered)
    scored = _Scored(data, graph_of(data), bradley_terry(data, style_ridge=settings.style_ridge), base, analytic)
    for index, name in enumerate(names):
        one = scored.model(index)
        models[name].update(score_at_equal_style=one["score"], interval_at_equal_style=one["interval"])


class _Scored:
    """A fit with its resamples."""

    def __init__(self, data: Battles, graph: Graph, fit: BradleyTerry, base: int, settings: ArenaSettings) -> None:
        self.data, self.graph, self.fit, self.base, self.settings = data, graph, fit, base, settings
        alone = settings.clustered and np.unique(data.clusters).size == 1
        self.influences = influences(data, fit, clustered=settings.clustered)
        self.draws = (
            resampled(data, fit, clustered=settings.clustered, draws=settings.draws, seed=settings.seed)
            if settings.draws and not alone
            else None
        )
        self.known = not alone
        form = "BCa bootstrap over prompts" if settings.clustered else "percentile bootstrap over single battles"
        sandwich = f"sandwich, {'scores summed by prompt' if settings.clustered else 'by single battle'}"
        self.method = f"95 %, {form if settings.draws else sandwich}"

    def model(self, index: int) -> dict[str, Any]:
        """Score, rating and interval of a model."""
        ratings, base = self.fit.ratings, self.base
        mine = (self.data.first == index) | (self.data.second == index)
        comparable = self.graph.components[index] == self.graph.components[base]
        gap = float(ratings[index] - ratings[base])
        return {
            "score": 100.0 / (1.0 + float(np.exp(-gap))) if comparable else None,
            "rating": float(ratings[index]),
            "interval": interval_or_none(self._interval(index, gap)) if comparable else None,
            "n": float(self.data.weights[mine].sum()),
            "prompts": int(np.unique(self.data.clusters[mine]).size),
        }

    def _interval(self, index: int, gap: float) -> tuple[float, float]:
        if index == self.base:
            return 50.0, 50.0
        if not self.known:
            return float("nan"), float("nan")
        if self.graph.groups[index] != self.graph.groups[self.base]:
            return self._separated(index)
        influence = self.influences[:, index] - self.influences[:, self.base]
        if self.draws is None:
            return analytic_interval(gap, float(np.sqrt((influence**2).sum())))
        gaps = self.draws[:, index] - self.draws[:, self.base]
        return score_interval(gaps, gap, influence if self.settings.clustered else None)

    def _separated(self, index: int) -> tuple[float, float]:
        """Of a model that won all of its battles, all against the baseline, or lost them: mid-P. Else unknown."""
        data = self.data
        mine = (data.first == index) | (data.second == index)
        direct = mine & ((data.first == self.base) | (data.second == self.base))
        won = np.where(data.first == index, data.outcomes, 1.0 - data.outcomes)[mine]
        if not np.array_equal(mine, direct) or not (np.all(won == 1) or np.all(won == 0)):
            return float("nan"), float("nan")
        low, high = mid_p_interval(float(won[0]), int(np.unique(data.clusters[mine]).size))
        return 100.0 * low, 100.0 * high

    def neighbours(self, ranked: Sequence[str], names: Sequence[str]) -> list[dict[str, Any]]:
        """Each model against the next one of the table, on the same battles: the difference of their scores."""
        found = [self._against(names.index(one), names.index(other)) for one, other in pairwise(ranked)]
        named = zip(pairwise(ranked), found, strict=True)
        return [{"model": one, "against": other, **said} for (one, other), said in named if said is not None]

    def _against(self, one: int, other: int) -> dict[str, Any] | None:
        """None where the uncertainty of either is unknown: of a single prompt, or apart from the baseline's group."""
        groups = self.graph.groups
        if not self.known or groups[one] != groups[self.base] or groups[other] != groups[self.base]:
            return None
        sides = [self._scores(self.fit.ratings[None], index) for index in (one, other)]
        influence = self._influence(one) - self._influence(other)
        value, error = float(sides[0][0] - sides[1][0]), float(np.sqrt((influence**2).sum()))
        if self.draws is None:
            low, high = value - Z95 * error, value + Z95 * error
        else:
            draws = self._scores(self.draws, one) - self._scores(self.draws, other)
            draws = draws[~np.isnan(draws)]
            ends = (0.025, 0.975)
            clustered = self.settings.clustered
            low, high = bca_bounds(draws, influence, value) if clustered else np.quantile(draws, ends)
        return {
            "difference": value,
            "standard_error": error,
            "interval": [float(low), float(high)],
            "detectable_difference": detectable_difference(error),
        }

    def _scores(self, ratings: NDArray[np.float64], index: int) -> NDArray[np.float64]:
        """Percent against the baseline, of each line of ratings."""
        return 100.0 / (1.0 + np.exp(ratings[:, self.base] - ratings[:, index]))

    def _influence(self, index: int) -> NDArray[np.float64]:
        """What each cluster adds to a model's score, to first order."""
        share = self._scores(self.fit.ratings[None], index)[0] / 100.0
        return 100.0 * share * (1.0 - share) * (self.influences[:, index] - self.influences[:, self.base])

    def style(self, column: int) -> list[float] | None:
        """Interval of a feature's coefficient."""
        value, place = float(self.fit.style[column]), self.data.models + column
        if not self.known:
            return None
        error = float(np.sqrt((self.influences[:, place] ** 2).sum()))
        return [value - Z95 * error, value + Z95 * error]


def _graph_warnings(names: Sequence[str], graph: Graph, fit: BradleyTerry) -> list[str]:
    def listed(members: Iterable[Any]) -> str:
        return ", ".join(names[int(member)] for member in members)

    found: list[str] = []
    components = [np.flatnonzero(graph.components == number) for number in range(graph.components.max() + 1)]
    if len(components) > 1:
        parts = "; ".join(listed(component) for component in components)
        found.append(f"no chain of battles connects these {len(components)} groups, which cannot be compared: {parts}")
    for component in components:
        groups = [np.flatnonzero(graph.groups == number) for number in np.unique(graph.groups[component])]
        if len(groups) > 1:
            groups.sort(key=lambda group: -float(fit.ratings[group].mean()))
            order = " > ".join(listed(group) for group in groups)
            found.append(
                f"separated: all battles between these groups went one way, so that their difference is infinite: "
                f"{order}; ratings are those of a ridge of {fit.ridge:g}"
            )
    if fit.ridge and not any("separated" in warning for warning in found):
        found.append(f"separated: a feature tells wins from losses; ratings are those of a ridge of {fit.ridge:g}")
    if not fit.converged:
        found.append("the fit did not converge; its numbers are not to be used")
    return found
