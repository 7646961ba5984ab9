"""Reward and KL of a run's rounds, prompt by prompt: what a frontier is made of."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from prefloop.errors import DataError
from prefloop.evaluation import Answers, Measured, meet
from prefloop.report.compare_read import RoundAnswers, RunAnswers, read_answers

Reward = Literal["score", "win_rate"]


def measured_rounds(runs: Sequence[tuple[str | None, Path]], reward: Reward, judge: str) -> Iterator[Measured]:
    """The initial model and every round of some runs, on held-out prompts.

    Args:
        runs: each with the method that it is a part of, as several values of beta are; None: its recipe's name, or
            its folder's where recipes share one.
        reward: the judge's mean score, or the win rate against the initial model in percent.
        judge: `judge` or `truth`.

    Raises:
        DataError: a folder is no run, or was evaluated without what a frontier needs.
    """
    read = [(name, read_answers(path)) for name, path in runs]
    recipes = [run.name for name, run in read if name is None]
    for name, run in read:
        method = name or (run.path.resolve().name if recipes.count(run.name) > 1 else run.name)
        before = f"{run.path.resolve().name}/" if name is not None else ""
        initial = _rewards(run, run.initial, reward, judge)
        yield from (Measured(method, f"{before}initial", prompt, 0.0, value) for prompt, value in initial.items())
        for one in run.rounds:
            kls, rewards = _kls(run, one), _rewards(run, one.answers, reward, judge)
            yield from (
                Measured(method, f"{before}round {one.label}", prompt, kls[prompt], value)
                for prompt, value in rewards.items()
            )


def samples_of(path: Path, judge: str) -> Mapping[str, list[float]]:
    """Scores of all of a run's initial model's answers to each prompt."""
    run = read_answers(path)
    found: dict[str, list[float]] = {}
    for one in run.initial.responses:
        if (score := run.initial.scores.get(judge, {}).get(one.response_id)) is not None:
            found.setdefault(run.initial.question(one).prompt, []).append(score)
    return found


def _kls(run: RunAnswers, one: RoundAnswers) -> Mapping[str, float]:
    kl = one.evaluation.kl
    if kl is None or not kl.by_prompt:
        why = (
            "at another temperature than 1, which has no KL" if kl is None else "by a version that kept no KL by prompt"
        )
        raise DataError(
            f"{run.place}: round {one.label} was evaluated {why}. Run `prefloop run` again with temperature 1."
        )
    return kl.by_prompt


def _rewards(run: RunAnswers, answers: Answers, reward: Reward, judge: str) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    if reward == "win_rate":
        if answers is run.initial:
            return dict.fromkeys((answers.question(one).prompt for one in answers.responses), 50.0)
        if judge not in answers.judges:
            raise _unjudged(run, answers, judge)
        met = meet(answers, run.initial, judge)
        for prompt, won in zip(met.prompts.tolist(), met.preferences.tolist(), strict=True):
            found.setdefault(prompt, []).append(100 * won)
    else:
        if judge not in answers.scores:
            raise _unjudged(run, answers, judge)
        for one in answers.responses:
            if (score := answers.scores[judge].get(one.response_id)) is not None:
                found.setdefault(answers.question(one).prompt, []).append(score)
    return {prompt: sum(values) / len(values) for prompt, values in found.items()}


def _unjudged(run: RunAnswers, answers: Answers, judge: str) -> DataError:
    if any(judge in one.answers.compared_by for one in run.rounds):
        return DataError(f"{run.place}: its judge compares and gives no scores. Take the win rate: --reward win_rate.")
    return DataError(f"{run.place}: nobody called {judge} judged it. Known: {', '.join(answers.judges) or 'none'}.")
