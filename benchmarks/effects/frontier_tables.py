"""What `reward_kl_frontier.py` measured, as tables and a plot: intervals are 95 %, Student's t over seeds."""

import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from prefloop.report.plots import nice_ticks
from prefloop.statistics import area_under_envelope, envelope

METHODS = {
    "dpo": ("DPO", "#1f5fa8"),
    "ppo": ("PPO, learnt reward", "#c2571a"),
    "ppo_true": ("PPO, true reward", "#7a3e9d"),
    "preferred_ft": ("Preferred-FT", "#3d8b40"),
    "unlikelihood": ("unlikelihood", "#8a6d00"),
    "best_of_n": ("best of n, learnt reward", "#555555"),
}
BANDS = ((0.0, 1.0), (1.0, 2.0), (2.0, 4.0), (4.0, 8.0), (8.0, 16.0))
"""Of KL to the initial model, nats."""
ONLY_PPO = ("reward_model", "reward_model-tokens", "own-samples", "own-judgments", "own-rollouts")

Found = Mapping[str, Any]


def write_tables(out: Path) -> None:
    """Prints all tables, and writes them and the plot."""
    found = [json.loads(file.read_text(encoding="utf-8")) for file in sorted((out / "points").glob("*.json"))]
    parts: dict[str, list[Found]] = defaultdict(list)
    for one in found:
        parts[one["part"]].append(one)
    whole = of_all_seeds(parts["frontier"])
    lines = [
        *(_frontier_lines(whole) if whole else ()),
        *(_trial_lines(parts["frontier"]) if parts["frontier"] else ()),
        *(_update_lines(parts["updates"]) if parts["updates"] else ()),
        *(_reference_lines(parts["references"]) if parts["references"] else ()),
    ]
    text = "\n".join(lines) + "\n"
    (out / "tables.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    if whole:
        (out / "frontier.svg").write_text(_plot(whole), encoding="utf-8")


def of_all_seeds(found: Sequence[Found]) -> list[Found]:
    """What envelopes are made of: the trials that every seed has, so that all have had the same choice of settings."""
    seeds: dict[tuple[str, str], set[int]] = defaultdict(set)
    for one in found:
        seeds[one["method"], one["setting"]].add(one["seed"])
    everyone = {seed for trial, of in seeds.items() if trial[0] == "best_of_n" for seed in of}
    return [one for one in found if one["seed"] in everyone and seeds[one["method"], one["setting"]] >= everyone]


# ------------------------------------------------------------------------------------------------------------- numbers


def estimate(values: Sequence[float]) -> tuple[float, float]:
    """Mean over seeds and half the width of its interval; NaN of one seed."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, float("nan")
    return mean, float(student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)


def written(values: Sequence[float], digits: int = 3) -> str:
    """A mean with its interval."""
    mean, half = estimate(values)
    text = f"{mean:.{digits}f}"
    return text if np.isnan(half) else f"{text} ({mean - half:.{digits}f} to {mean + half:.{digits}f})"


def curves(found: Sequence[Found]) -> dict[str, dict[int, tuple[Any, Any]]]:
    """KL and reward of all points of a method, by seed; each has the initial model as its first."""
    points: dict[str, dict[int, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    initial = {one["seed"]: one["points"][0]["initial"] for one in found if "initial" in one["points"][0]}
    for one in found:
        points[one["method"]][one["seed"]] += [(max(point["kl"], 0.0), point["reward"]) for point in one["points"]]
    return {
        method: {
            seed: (np.array([0.0, *(kl for kl, _ in rows)]), np.array([initial[seed], *(r for _, r in rows)]))
            for seed, rows in by_seed.items()
            if seed in initial
        }
        for method, by_seed in points.items()
    }


def heights(found: Sequence[Found]) -> dict[str, dict[int, list[float]]]:
    """Mean height of a method's envelope in each band of KL, by seed; beyond its last point it goes on level."""
    return {
        method: {
            seed: [
                (area_under_envelope(kl, reward, up_to=high) - area_under_envelope(kl, reward, up_to=low))
                / (high - low)
                for low, high in BANDS
            ]
            for seed, (kl, reward) in by_seed.items()
        }
        for method, by_seed in curves(found).items()
    }


# -------------------------------------------------------------------------------------------------------------- tables


def _frontier_lines(found: Sequence[Found]) -> Iterator[str]:
    seeds = sorted({one["seed"] for one in found})
    measured = heights(found)
    names = [method for method in METHODS if method in measured]
    yield f"Seeds: {', '.join(map(str, seeds))}. Mean height of the envelope of reward in each band of KL."
    yield ""
    bands = [f"{low:g} to {high:g} nats" for low, high in BANDS]
    yield f"| | {' | '.join(bands)} | furthest point, nats |"
    yield "|---" * (len(bands) + 2) + "|"
    for method in names:
        cells = [written([row[band] for row in measured[method].values()]) for band in range(len(BANDS))]
        reached = written([float(kl.max()) for kl, _ in curves(found)[method].values()], 1)
        yield f"| {METHODS[method][0]} | {' | '.join(cells)} | {reached} |"
    yield ""
    yield "DPO less each method, seed by seed; an interval above 0 shows that DPO is higher in that band."
    yield ""
    yield f"| DPO less | {' | '.join(bands)} |"
    yield "|---" * (len(bands) + 1) + "|"
    for method in names:
        if method == "dpo" or "dpo" not in measured:
            continue
        both = sorted({*measured["dpo"]} & {*measured[method]})
        cells = [
            written([measured["dpo"][seed][band] - measured[method][seed][band] for seed in both])
            for band in range(len(BANDS))
        ]
        yield f"| {METHODS[method][0]} | {' | '.join(cells)} |"
    yield ""


def _trial_lines(found: Sequence[Found]) -> Iterator[str]:
    trials: dict[tuple[str, str], list[Found]] = defaultdict(list)
    for one in found:
        if one["method"] != "best_of_n":
            trials[one["method"], one["setting"]].append(one)
    yield "All trials at their last point, means over seeds."
    yield ""
    yield "| method | trial | reward | KL, nats | distinct-2 | seconds of training | seeds |"
    yield "|---|---|---|---|---|---|---|"
    for method in METHODS:
        for setting in dict.fromkeys(name for kind, name in trials if kind == method):
            group = trials[method, setting]
            last = [one["points"][-1] for one in group]
            cells = [written([point[key] for point in last], 3) for key in ("reward", "kl", "distinct_2")]
            spent = np.mean([one["seconds"]["policy"] for one in group])
            yield f"| {METHODS[method][0]} | {setting} | {' | '.join(cells)} | {spent:.0f} | {len(group)} |"
    yield ""
    ns: dict[int, list[Found]] = defaultdict(list)
    for one in found:
        for point in one["points"] if one["method"] == "best_of_n" else ():
            ns[point["n"]].append(point)
    if ns:
        yield "| best of | KL, nats | reward by the learnt reward | by the truth |"
        yield "|---|---|---|---|"
        for n, group in sorted(ns.items()):
            cells = [written([point[key] for point in group]) for key in ("reward", "reward_of_truth")]
            yield f"| {n} | {group[0]['kl']:.2f} | {' | '.join(cells)} |"
        yield ""


def _update_lines(found: Sequence[Found]) -> Iterator[str]:
    groups: dict[tuple[str, str], list[Found]] = defaultdict(list)
    for one in found:
        groups[one["method"], one["setting"]].append(one)
    by_seed: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    yield "| 20 % new pairs | reward | KL, nats | seconds of the update, without new answers and their judge | seeds |"
    yield "|---|---|---|---|---|"
    for method, name in (("dpo", "DPO, continued"), ("ppo", "reward model fitted again, PPO again")):
        for setting in ("before", "after"):
            group = groups[method, setting]
            if not group:
                continue
            last = [one["points"][-1] for one in group]
            cells = [written([point[key] for point in last]) for key in ("reward", "kl")]
            steps = ("policy", "policy-tokens", *(ONLY_PPO if method == "ppo" else ()))
            spent = [sum(one["seconds"].get(step, 0.0) for step in steps) for one in group]
            by_seed[method, setting] = dict(zip((one["seed"] for one in group), spent, strict=True))
            yield f"| {name}: {setting} | {' | '.join(cells)} | {written(spent, 0)} | {len(group)} |"
    dpo, ppo = by_seed["dpo", "after"], by_seed["ppo", "after"]
    ratios = [f"{ppo[seed] / dpo[seed]:.0f}" for seed in sorted({*dpo} & {*ppo})]
    yield ""
    yield f"Seconds of PPO's update over those of DPO's, seed by seed: {', '.join(ratios)}."
    yield ""


def _reference_lines(found: Sequence[Found]) -> Iterator[str]:
    groups: dict[tuple[str, str], list[Found]] = defaultdict(list)
    for one in found:
        groups[one["method"], one["setting"]].append(one)
    betas = sorted({setting for _, setting in groups}, key=lambda name: float(name.removeprefix("beta")))
    seeds = sorted({one["seed"] for one in found})
    yield f"Seeds: {', '.join(map(str, seeds))}. Reward at KL to the initial model."
    yield ""
    yield f"| reference | round | {' | '.join(betas)} |"
    yield "|---" * (len(betas) + 2) + "|"
    for reference in ("initial", "previous", "better", "none"):
        for number in range(max(len(one["points"]) for one in found)):
            cells: list[str] = []
            for beta in betas:
                of_round = [one["points"][number] for one in groups[reference, beta]]
                text = [
                    written([point[key] for point in of_round], digits) for key, digits in (("reward", 3), ("kl", 1))
                ]
                cells.append(f"{text[0]} at {text[1]}" if of_round else "")
            yield f"| {reference} | {number + 1} | {' | '.join(cells)} |"
    yield ""


# ---------------------------------------------------------------------------------------------------------------- plot

_LEFT, _RIGHT, _TOP, _BOTTOM, _LEGEND = 52.0, 560.0, 22.0, 330.0, 176.0
_GRID = np.linspace(0.0, BANDS[-1][1], 81)


def _plot(found: Sequence[Found]) -> str:
    """Every point of every trial; the mean of the seeds' envelopes with its interval, as far as all seeds reach."""
    by_method = curves(found)
    floor = min(float(reward.min()) for seeds in by_method.values() for _, reward in seeds.values())
    ticks = nice_ticks(max(floor, 0.4), 1.0)

    def x(kl: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * min(kl, _GRID[-1]) / _GRID[-1]

    def y(reward: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * (max(reward, ticks[0]) - ticks[0]) / (ticks[-1] - ticks[0])

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_RIGHT + _LEGEND:g} 372" font-family="sans-serif" '
        'font-size="12"><title>Reward against KL</title><rect width="100%" height="100%" fill="#fff"/>'
    ]
    for tick in ticks:
        parts.append(f'<path d="M{_LEFT} {y(tick):.1f}H{_RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for kl in range(0, int(_GRID[-1]) + 1, 2):
        parts.append(f'<text x="{x(kl):.1f}" y="{_BOTTOM + 16}" text-anchor="middle">{kl}</text>')
    parts.append(f'<text x="{_LEFT}" y="12">reward: P(positive)</text>')
    parts.append(f'<text x="{_RIGHT}" y="{_BOTTOM + 34}" text-anchor="end">KL to the initial model, nats</text>')
    for number, method in enumerate(name for name in METHODS if name in by_method):
        label, colour = METHODS[method]
        for kl, reward in by_method[method].values():
            parts += [
                f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="2" fill="{colour}" opacity=".35"/>'
                for a, b in zip(kl[1:], reward[1:], strict=True)
                if a <= _GRID[-1]
            ]
        parts += _envelope(by_method[method], colour, x, y)
        at = _TOP + 20 * number
        parts.append(f'<path d="M{_RIGHT + 10} {at}h18" stroke="{colour}" stroke-width="2.5"/>')
        parts.append(f'<text x="{_RIGHT + 34}" y="{at + 4}">{label}</text>')
    return "".join(parts) + "</svg>\n"


def _envelope(seeds: Mapping[int, tuple[Any, Any]], colour: str, x: Any, y: Any) -> Iterator[str]:
    reach = min(float(kl[envelope(kl, reward)].max()) for kl, reward in seeds.values())
    grid = _GRID[: max(2, int(np.searchsorted(_GRID, reach, side="right")))]
    rows = []
    for kl, reward in seeds.values():
        kept = envelope(kl, reward)
        rows.append(np.interp(grid, kl[kept], reward[kept]))
    both = [estimate(column) for column in np.array(rows).T]
    line = " ".join(f"{x(kl):.1f},{y(mean):.1f}" for kl, (mean, _) in zip(grid, both, strict=True))
    if len(seeds) > 1:
        upper = [f"{x(kl):.1f},{y(mean + half):.1f}" for kl, (mean, half) in zip(grid, both, strict=True)]
        lower = [f"{x(kl):.1f},{y(mean - half):.1f}" for kl, (mean, half) in zip(grid, both, strict=True)]
        yield f'<polygon points="{" ".join([*upper, *reversed(lower)])}" fill="{colour}" opacity=".15"/>'
    yield f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>'
