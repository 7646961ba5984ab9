"""Reward against KL: points of methods with intervals, envelopes, rewards at equal KL, and best-of-n beside them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefloop.errors import DataError
from prefloop.evaluation.lines import read_lines
from prefloop.evaluation.uncertainty import ANALYTIC, interval_or_none
from prefloop.statistics import (
    area_under_envelope,
    best_of_n_kl,
    best_of_n_mean,
    clustered_mean,
    detectable_difference,
    envelope,
    frontier_band,
    reward_at_kl,
)

Floats = NDArray[np.float64]
NORMAL_95 = 1.959963984540054
INTERVALS = f"of points {ANALYTIC}; of envelopes 95 %, expanded percentile bootstrap over prompts"


@dataclass(frozen=True)
class Measured:
    """What one policy is worth on one prompt, and how far it is from the reference there."""

    method: str
    point: str
    """Of the method: a round, a beta, a step."""
    prompt: str
    kl: float
    """Nats."""
    reward: float


@dataclass(frozen=True)
class FrontierSettings:
    """What is read off the envelopes."""

    at: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0)
    """KLs at which rewards are compared, nats."""
    up_to: float | None = None
    """End of the area under an envelope; None: the largest KL that all methods reach."""
    draws: int = 1000
    seed: int = 0


def read_measured(path: Path, method: str | None = None) -> list[Measured]:
    """Lines of `point, prompt, kl, reward`, with `method` where a file holds several.

    Args:
        path: JSON lines, JSON or CSV.
        method: what those without one are called.

    Raises:
        DataError: a line has not these columns.
    """
    return [
        Measured(
            line.name("method") if method is None else method,
            line.name("point"),
            line.name("prompt"),
            line.number("kl"),
            line.number("reward"),
        )
        for line in read_lines(path)
    ]


def read_reward_sets(path: Path) -> dict[str, Floats]:
    """Lines of `prompt, rewards`: what several samples of the reference are worth.

    Raises:
        DataError: a line has not these columns.
    """
    found: dict[str, Floats] = {}
    for line in read_lines(path):
        rewards, prompt = line.given("rewards"), line.name("prompt")
        if not isinstance(rewards, list) or not rewards or not all(_is_number(one) for one in rewards):
            raise line.wrong("rewards", "a list of numbers")
        if prompt in found:
            raise DataError(f"{line.place}: prompt {prompt!r} stands twice. Put all rewards of a prompt into one line.")
        found[prompt] = np.array(rewards, np.float64)
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


@dataclass(frozen=True)
class _Method:
    """KL and reward of every prompt (line) and point (column)."""

    points: tuple[str, ...]
    prompts: NDArray[np.str_]
    kl: Floats
    reward: Floats
    left_out: int

    def on(self, prompts: NDArray[np.str_]) -> tuple[Floats, Floats]:
        """Only some of the prompts, which it has."""
        lines = np.searchsorted(self.prompts, prompts)
        return self.kl[lines], self.reward[lines]


def evaluate_frontier(
    measured: Iterable[Measured], settings: FrontierSettings, samples: Mapping[str, Floats] | None = None
) -> dict[str, Any]:
    """Every method's points and envelope, all methods against the first at equal KL, and best-of-n of the reference.

    Args:
        measured: Several of one prompt and point are averaged. A method is measured on prompts that all of its points
            have.
        settings: What is read off.
        samples: Rewards of several samples of the reference, by prompt.

    Raises:
        DataError: there is nothing to measure, or an area is asked for where an envelope has not begun.
    """
    methods = _methods(measured)
    reached = {
        name: float(one.kl.mean(0)[envelope(one.kl.mean(0), one.reward.mean(0))].max()) for name, one in methods.items()
    }
    begun = {name: float(one.kl.mean(0).min()) for name, one in methods.items()}
    up_to = min(reached.values()) if settings.up_to is None else settings.up_to
    late = [name for name, start in begun.items() if start > up_to]
    if settings.up_to is not None and late:
        raise DataError(
            f"--up-to {up_to:g}: the points of {late[0]} begin at {begun[late[0]]:.3g} nats. Name a larger KL."
        )
    up_to = max(up_to, *begun.values())
    names = list(methods)
    return {
        "methods": {name: _of_method(one, settings, up_to) for name, one in methods.items()},
        "paired": [row for name in names[1:] for row in _paired(methods, name, names[0], settings)],
        "best_of_n": [] if samples is None else list(_best_of_n(samples)),
        "interval_method": INTERVALS,
    }


def _methods(measured: Iterable[Measured]) -> dict[str, _Method]:
    sums: dict[str, dict[str, dict[str, list[tuple[float, float]]]]] = {}
    for one in measured:
        at = sums.setdefault(one.method, {}).setdefault(one.point, {})
        at.setdefault(one.prompt, []).append((one.kl, one.reward))
    if not sums:
        raise DataError("there is no point. Name runs, or files of points.")
    return {name: _method(name, points) for name, points in sums.items()}


def _method(name: str, points: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]) -> _Method:
    everywhere = set.intersection(*(set(prompts) for prompts in points.values()))
    if not everywhere:
        raise DataError(f"{name}: no prompt was measured at all of its points ({', '.join(points)}).")
    prompts = np.array(sorted(everywhere))
    means = np.array([[np.mean(at[str(prompt)], axis=0) for at in points.values()] for prompt in prompts])
    seen = {prompt for at in points.values() for prompt in at}
    return _Method(tuple(points), prompts, means[..., 0], means[..., 1], len(seen) - prompts.size)


def _of_method(one: _Method, settings: FrontierSettings, up_to: float) -> dict[str, Any]:
    kept = set(envelope(one.kl.mean(0), one.reward.mean(0)).tolist())
    at = settings.at

    def read_off(kl: Floats, reward: Floats) -> Floats:
        return np.append(
            reward_at_kl(kl, reward, at), area_under_envelope(kl, reward, up_to=max(up_to, float(kl.min())))
        )

    values = _valued(*frontier_band(one.kl, one.reward, read_off, seed=settings.seed, draws=settings.draws))
    return {
        "points": {
            point: {
                "kl": _mean(one.kl[:, column], one.prompts),
                "reward": _mean(one.reward[:, column], one.prompts),
                "on_envelope": column in kept,
            }
            for column, point in enumerate(one.points)
        },
        "reward_at": [{"kl": kl, **value} for kl, value in zip(at, values, strict=False)],
        "area": {"up_to": up_to, **values[-1]},
        "n": int(one.prompts.size),
        "left_out": one.left_out,
    }


def _paired(
    methods: Mapping[str, _Method], name: str, first: str, settings: FrontierSettings
) -> Iterator[dict[str, Any]]:
    """A method against another at equal KL, on the same resampled prompts."""
    ours, theirs = methods[name], methods[first]
    prompts = np.intersect1d(ours.prompts, theirs.prompts)
    if prompts.size == 0:
        return
    (kl, reward), (other_kl, other_reward) = ours.on(prompts), theirs.on(prompts)
    split = kl.shape[1]

    def difference(kls: Floats, rewards: Floats) -> Floats:
        own = reward_at_kl(kls[:split], rewards[:split], settings.at)
        return own - reward_at_kl(kls[split:], rewards[split:], settings.at)

    found = frontier_band(
        np.hstack([kl, other_kl]),
        np.hstack([reward, other_reward]),
        difference,
        seed=settings.seed,
        draws=settings.draws,
    )
    for at, one in zip(settings.at, _valued(*found), strict=True):
        if one["value"] is not None:
            interval = one["interval"]
            error = None if interval is None else (interval[1] - interval[0]) / (2 * NORMAL_95)
            yield {
                "model": name,
                "against": first,
                "kl": at,
                "difference": one["value"],
                "interval": interval,
                "detectable_difference": None if error is None else detectable_difference(error),
                "n": int(prompts.size),
            }


def _best_of_n(samples: Mapping[str, Floats]) -> Iterator[dict[str, Any]]:
    """Best of 1, 2, 4, ... samples of the reference: reward by the unbiased estimator, KL in closed form."""
    most = min(rewards.size for rewards in samples.values())
    prompts = np.array(list(samples))
    for n in takewhile(lambda n: n <= most, (2**power for power in range(64))):
        each = np.array([best_of_n_mean(rewards, n) for rewards in samples.values()])
        yield {"n_samples": n, "kl": best_of_n_kl(n), "reward": _mean(each, prompts)}


def _mean(values: Floats, prompts: NDArray[np.str_]) -> dict[str, Any]:
    found = clustered_mean(np.ascontiguousarray(values), prompts)
    return {"value": found.value, "interval": interval_or_none(found.interval), "n": found.n}


def _valued(value: Floats, low: Floats, high: Floats) -> list[dict[str, Any]]:
    return [
        {"value": one if isfinite(one) else None, "interval": interval_or_none((a, b))}
        for one, a, b in zip(value.tolist(), low.tolist(), high.tolist(), strict=True)
    ]
