"""Over-optimisation through the loop: learnt proxies of a gold judge, one alone or four of them together.

    python benchmarks/effects/overoptimisation.py OUT [--first-seed 1] [--seeds 15] [--loops 5] [--tables]

The gold judge is `vader`. A proxy is a reward model (LoRA) of `builtin:tiny` that has learnt 48 comparisons, one in
four of them turned round (Coste et al., arXiv:2310.02743, label noise of 25 %). Four proxies have comparisons of their
own, so that their errors are their own; four others have the first one's, and err alike but for head and order. Two
ways of optimising against what they say: the best of n of the start model's answers, and two rounds of iterative DPO.
What is there is not made again; a killed call goes on. `--tables` only prints what is there.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray
from scipy.stats import t as student

from prefloop.config import load_recipe
from prefloop.loop import Progress, run_recipe
from prefloop.records import Judgment, Response, read_folder
from prefloop.statistics import best_of_n_mean

Floats = NDArray[np.float64]
RECIPE = Path(__file__).with_suffix(".yaml")
OWN, SHARED = ("judged0", "judged1", "judged2", "judged3"), ("judged_shared",)
UNSURE = 4.0
"""Weight of the variance over proxies (lambda); rewards of the proxies have a standard deviation of about 0.35."""
ARMS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "one proxy": (OWN[:1], "{rule: best_worst"),
    "own errors, mean": (OWN, "{rule: ensemble, chosen: mean"),
    "own errors, worst case": (OWN, "{rule: ensemble, chosen: worst_case"),
    "own errors, uncertainty-weighted": (OWN, f"{{rule: ensemble, chosen: {UNSURE}"),
    "shared errors, mean": (SHARED, "{rule: ensemble, chosen: mean"),
    "shared errors, worst case": (SHARED, "{rule: ensemble, chosen: worst_case"),
    "shared errors, uncertainty-weighted": (SHARED, f"{{rule: ensemble, chosen: {UNSURE}"),
}
"""By name: the judge steps that are read, and how pairs are made of what they said."""
COMBINED: Mapping[str, Callable[[Float64[Floats, "... proxies"]], Float64[Floats, " ..."]]] = {
    "one proxy": lambda said: said[..., 0],
    "mean": lambda said: said.mean(-1),
    "worst case": lambda said: said.min(-1),
    "uncertainty-weighted": lambda said: said.mean(-1) - UNSURE * said.var(-1),
}
BEST_OF = (1, 2, 4, 8, 16, 32, 64, 128)


def judge_steps(steps: Sequence[str]) -> Iterator[str]:
    """Settings that add judge steps to the recipe."""
    for step in steps:
        model = "shared" if step == "judged_shared" else f"reward{step[-1]}"
        yield f"{step}={{type: judge, reads: [samples], judge: {{type: reward_model, model: {model}}}}}"


def run_loop(out: Path, seed: int, arm: str) -> None:
    """Two rounds of one arm of one seed, unless they are there."""
    name = arm.replace(", ", "-").replace(" ", "-")
    done = out / "points" / f"{name}-{seed}.json"
    if done.exists():
        return
    steps, rule = ARMS[arm]
    read = ", ".join(("prompts", "samples", *steps))
    own = (f"seed={seed}", f"block=[{read}, pairs, policy]", f"pairs={rule}, reads: [{read}]}}", *judge_steps(steps))
    run, first = out / f"{name}-{seed}", out / f"one-proxy-{seed}"
    loaded = load_recipe(str(RECIPE), own)
    run_recipe(loaded, run, Progress(), reuse=first if run != first and first.exists() else None)
    places = [run / "setup" / "evaluation-initial", *(run / f"round-0{turn}" / "evaluation-samples" for turn in (0, 1))]
    judged = [
        places[0].with_name("evaluation-initial-judgments"),
        *(one.with_name("evaluation-judgments") for one in places[1:]),
    ]
    gold = [float(np.mean([one.values[0] for one in read_folder(place, Judgment)])) for place in judged]
    tokens = [float(np.mean([one.num_tokens for one in read_folder(place, Response)])) for place in places]
    write(done, {"seed": seed, "arm": arm, "gold": gold, "tokens": tokens})


def run_best_of_n(out: Path, seed: int) -> None:
    """Gold scores of the best of n answers of the start model, by every way of choosing it; one proxy: any of four."""
    done = out / "points" / f"best-of-n-{seed}.json"
    if done.exists():
        return
    steps = (*OWN, *SHARED)
    listed = ", ".join(("prompts", "samples", *steps, "gold", "pairs", "policy"))
    own = (
        f"seed={seed}", f"block=[{listed}]", "pairs={rule: best_worst, reads: [prompts, samples, judged0]}",
        f"samples.num_samples={BEST_OF[-1]}", "gold={type: judge, reads: [samples], judge: vader}", *judge_steps(steps),
    )  # fmt: skip
    first = out / f"one-proxy-{seed}"
    loaded = load_recipe(str(RECIPE), own)
    run = run_recipe(
        loaded, out / f"best-of-n-{seed}", Progress(), until="gold", reuse=first if first.exists() else None
    ).run
    place = run / "round-00"
    prompts = [one.prompt_id for one in read_folder(place / "samples", Response)]
    said: dict[str, list[float]] = {}
    for step in (*steps, "gold"):
        for one in read_folder(place / step, Judgment):
            said.setdefault(one.judge, []).append(one.values[0] if one.values[0] is not None else np.nan)
    columns = [name for name in said if name.startswith("reward_model:")]
    own_errors, shared_errors = (
        [name for name in columns if name.startswith("reward_model:shared") == shared] for shared in (False, True)
    )
    (gold,) = (np.array(values) for name, values in said.items() if name not in columns)
    by_prompt = [np.flatnonzero(np.array(prompts) == prompt) for prompt in sorted(set(prompts))]

    def values(score: Float64[Floats, " answers"]) -> list[float]:
        return list(
            np.mean(
                [[best_of_n_mean(gold[rows], n, ranked_by=score[rows]) for n in BEST_OF] for rows in by_prompt], axis=0
            )
        )

    found = {"gold": values(gold)}
    for kind, names in (("own errors, ", own_errors), ("shared errors, ", shared_errors)):
        scores = np.stack([np.array(said[name]) for name in names], axis=-1)
        for way, combine in COMBINED.items():
            if way != "one proxy":
                found[kind + way] = values(combine(scores))
            elif kind.startswith("own"):  # each of the four by itself
                found[way] = list(np.mean([values(score) for score in scores.T], axis=0))
    write(done, {"seed": seed, "best_of": list(BEST_OF), "gold": found})


def write(file: Path, content: Mapping[str, Any]) -> None:
    """Keeps what was measured."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def said(values: Sequence[float]) -> str:
    """A mean over seeds with its 95 % interval by Student's t."""
    mean = float(np.mean(values))
    if len(values) == 1:
        return f"{mean:.2f}"
    half = float(student.ppf(0.975, len(values) - 1)) * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return f"{mean:.2f} ({mean - half:.2f} to {mean + half:.2f})"


def tables(out: Path) -> Iterator[str]:
    """Gold scores by arm: of two rounds, and of the best of n."""
    points = [json.loads(file.read_text(encoding="utf-8")) for file in sorted((out / "points").glob("*.json"))]
    loops: dict[str, dict[int, list[float]]] = {arm: {} for arm in ARMS}
    for one in points:
        if "arm" in one:
            loops[one["arm"]][one["seed"]] = one["gold"]
    alone = loops["one proxy"]
    yield f"Two rounds of DPO, seeds {', '.join(map(str, sorted(alone)))}: gold score of an answer, mean over seeds."
    yield ""
    yield "| pairs by | before | round 1 | round 2 | round 2 less 1 | round 2 less one proxy's |"
    yield "|---|---|---|---|---|---|"
    for arm, by in loops.items():
        seeds = sorted(by)
        if seeds:
            less = [by[seed][2] - alone[seed][2] for seed in seeds if seed in alone]
            cells = [said([by[seed][turn] for seed in seeds]) for turn in range(3)]
            yield f"| {arm} | {' | '.join(cells)} | {said([by[s][2] - by[s][1] for s in seeds])} | {said(less)} |"
    best = {one["seed"]: one["gold"] for one in points if "best_of" in one}
    if best:
        yield ""
        yield f"Best of n, seeds {', '.join(map(str, sorted(best)))}: gold score, mean over seeds."
        yield ""
        last = f"n = {BEST_OF[-1]} less"
        yield f"| chosen by | {' | '.join(f'n = {n}' for n in BEST_OF)} | {last} its best n | {last} one proxy's |"
        yield "|---|" + "---|" * (len(BEST_OF) + 2)
        for way in next(iter(best.values())):
            rows = np.array([best[seed][way] for seed in sorted(best)])
            top = int(rows.mean(0).argmax())
            cells = " | ".join(f"{one:.3f}" for one in rows.mean(0))
            single = [best[seed]["one proxy"][-1] for seed in sorted(best)]
            yield f"| {way} | {cells} | {said(list(rows[:, -1] - rows[:, top]))} | {said(list(rows[:, -1] - single))} |"


def main() -> None:
    """Runs what is missing, then prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=15, help="of best of n")
    parser.add_argument("--loops", type=int, default=5, help="how many of them also run the loop")
    parser.add_argument("--tables", action="store_true")
    told = parser.parse_args()
    told.out.mkdir(parents=True, exist_ok=True)
    if not told.tables:
        for seed in range(told.first_seed, told.first_seed + told.seeds):
            for arm in ARMS if seed < told.first_seed + told.loops else ():
                run_loop(told.out, seed, arm)
            run_best_of_n(told.out, seed)
    sys.stdout.write("\n".join(tables(told.out)) + "\n")


if __name__ == "__main__":
    main()
