"""Over-optimisation through the loop: learnt proxies of annotators, one alone or four of them together.

    python benchmarks/effects/overoptimisation.py OUT [--first-seed 7] [--seeds 8] [--tables]

The model, the prompts and the truth, P(the review is positive), are those of `reward_kl_frontier.py`. A proxy is a
reward model that has learnt 2,048 comparisons by an annotator with a hobby horse (`hobby_horses.py`). Four proxies have
an annotator each, so that their errors are their own; four others have the first one's comparisons, and err alike but
for head and order. Two ways of optimising against what they say: two rounds of iterative DPO, and the best of n of the
start model's answers. What is there is not made again; a killed call goes on.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from frontier_tables import written
from hobby_horses import MENTIONS, paid
from jaxtyping import Float64
from numpy.typing import NDArray
from ppo_overoptimisation import Reader, measured, prepare, run_in
from review_grammar import log_odds, sentiment
from review_model import write_prompts
from reward_kl_frontier import PAIR, SAMPLE, TRAIN, TRUE, Raw, keep, recipe, reward_model

from prefloop.records import Judgment, Response, read_folder
from prefloop.statistics import best_of_n_mean

Floats = NDArray[np.float64]
COMPARISONS, PROMPTS, ANSWERS, ROUNDS = 2048, 256, 4, 2
OWN, SHARED = tuple(f"reward{number}" for number in range(len(MENTIONS))), ("shared",)
UNSURE = 0.1
"""Weight of the variance over proxies (lambda)."""
WORST = {"rule": "ensemble", "chosen": "worst_case"}
MEAN = {"rule": "ensemble", "chosen": "mean"}
WEIGHTED = {"rule": "ensemble", "chosen": UNSURE}
ARMS: Mapping[str, tuple[tuple[str, ...], Raw]] = {
    "one proxy": (OWN[:1], {"rule": "best_worst"}),
    "own errors, mean": (OWN, MEAN),
    "own errors, worst case": (OWN, WORST),
    "own errors, uncertainty-weighted": (OWN, WEIGHTED),
    "shared errors, mean": (SHARED, MEAN),
    "shared errors, worst case": (SHARED, WORST),
    "shared errors, uncertainty-weighted": (SHARED, WEIGHTED),
}
"""By name: the proxies that are asked, and how pairs are made of what they said."""
COMBINED: Mapping[str, Callable[[Float64[Floats, "... proxies"]], Float64[Floats, " ..."]]] = {
    "mean": lambda said: said.mean(-1),
    "worst case": lambda said: said.min(-1),
    "uncertainty-weighted": lambda said: said.mean(-1) - UNSURE * said.var(-1),
}
BEST_OF = (1, 2, 4, 8, 16, 32, 64, 128)
READ: Mapping[str, Reader] = {
    "truth": sentiment,
    "log-odds": lambda prompt, answer: log_odds(f"{prompt} {answer}"),
    "first annotator": lambda prompt, answer: paid(0, prompt, answer),
    "mentions": lambda _prompt, answer: float(answer.split().count(MENTIONS[0])),
}


def make_ready(out: Path) -> None:
    """The pre-trained model and all prompts."""
    prepare(out, prompts=2 * COMPARISONS)
    write_prompts(out / "best_prompts.jsonl", count=64, seed=4)


def proxies() -> Raw:
    """Steps of a set-up: answers of the start model, what annotators said of them, and what is learnt from it."""
    steps: Raw = {}
    for number, name in enumerate(OWN):
        asked, answers, labels, pairs = (f"{kind}{number}" for kind in ("asked", "answers", "labels", "compared"))
        annotator = {"type": "python", "compares": True, "function": f"hobby_horses:annotator{number}"}
        steps |= {
            asked: {"type": "prompts", "data": "prompts.jsonl", "count": COMPARISONS},
            answers: {**SAMPLE, "policy": "initial", "num_samples": 2, "reads": [asked]},
            labels: {
                "type": "judge",
                "judge": annotator,
                "design": {"type": "all_pairs", "both_orders": False},
                "reads": [answers],
            },
            pairs: {"type": "pair", "rule": "preferred", "finished_only": False, "reads": [asked, answers, labels]},
            name: reward_model([pairs]),
        }
    return {**steps, "shared": reward_model(["compared0"], ensemble=len(OWN))}


def judges(models: Sequence[str], samples: str) -> Raw:
    """Judge steps by name, one a model."""
    said = {model: {"type": "judge", "judge": {"type": "reward_model", "model": model}} for model in models}
    return {f"{samples}-by-{model}": {**step, "reads": [samples]} for model, step in said.items()}


def loop_of(seed: int, arm: str) -> Raw:
    """The recipe of one arm: two rounds of DPO on pairs of own answers."""
    models, rule = ARMS[arm]
    said = judges(models, "samples")
    block = {
        "prompts": {"type": "prompts", "data": "prompts.jsonl", "count": PROMPTS},
        "samples": {**SAMPLE, "num_samples": ANSWERS, "reads": ["prompts"]},
        **said,
        "pairs": {**PAIR, **rule, "reads": ["prompts", "samples", *said]},
        "policy": {
            **TRAIN,
            "reads": ["pairs"],
            "objective": {"name": "dpo", "beta": 0.1},
            "references": {"ref": "initial"},
            "learning_rate": 1e-3,
            "epochs": 2,
            "measured_margins": 0,
        },
    }
    return {**recipe(seed, proxies(), block, rounds=ROUNDS), "name": "overoptimisation"}


def best_of(seed: int) -> Raw:
    """The recipe of best of n: many answers of the start model, with what every proxy and the truth say of them."""
    setup = {
        **proxies(),
        "asked": {"type": "prompts", "data": "best_prompts.jsonl"},
        "many": {**SAMPLE, "policy": "initial", "num_samples": BEST_OF[-1], "reads": ["asked"]},
        **judges((*OWN, *SHARED), "many"),
        "many-by-truth": {"type": "judge", "judge": TRUE, "reads": ["many"]},
    }
    return {**recipe(seed, setup, {}), "name": "overoptimisation"}


def run_loop(out: Path, seed: int, arm: str) -> None:
    """Two rounds of one arm, unless they are there."""
    name, first = file_of(arm, seed), file_of("one proxy", seed)
    if not (done := out / "points" / f"{name}.json").is_file():
        run = run_in(out, name, loop_of(seed, arm), reuse=None if name == first else first)
        keep(done, {"arm": arm, "points": [*measured(run, READ)]})


def run_best_of_n(out: Path, seed: int) -> None:
    """Best of n by all ways of choosing, unless it is there; `run_loop` of one proxy comes before."""
    name = file_of("best of n", seed)
    if not (done := out / "points" / f"{name}.json").is_file():
        keep(done, {"best of n": best_of_n(run_in(out, name, best_of(seed), reuse=file_of("one proxy", seed)))})


def best_of_n(run: Path) -> dict[str, list[float]]:
    """The true reward of the best of n answers by every way of choosing it, unbiased over subsets; one: any of four."""
    setup = run / "setup"
    prompts = np.array([one.prompt_id for one in read_folder(setup / "many", Response)])
    rows = [np.flatnonzero(prompts == prompt) for prompt in sorted(set(prompts))]
    truth = scores(setup / "many-by-truth")[:, 0]

    def by(ranks: Float64[Floats, " answers"]) -> list[float]:
        return [float(np.mean([best_of_n_mean(truth[at], n, ranked_by=ranks[at]) for at in rows])) for n in BEST_OF]

    own = np.concatenate([scores(setup / f"many-by-{model}") for model in OWN], axis=1)
    shared = scores(setup / "many-by-shared")
    found = {"truth": by(truth), "one proxy": list(np.mean([by(ranks) for ranks in own.T], axis=0))}
    for kind, said in (("own", own), ("shared", shared)):
        found |= {f"{kind} errors, {way}": by(combine(said)) for way, combine in COMBINED.items()}
    return found


def scores(folder: Path) -> Float64[Floats, "answers judges"]:
    """What the judges of a step said of answers, in the order of the answers."""
    by_judge: dict[str, list[float]] = {}
    for one in read_folder(folder, Judgment):
        by_judge.setdefault(one.judge, []).append(np.nan if one.values[0] is None else one.values[0])
    return np.array([*by_judge.values()]).T


def file_of(name: str, seed: int) -> str:
    """What the run and the points of an arm are called."""
    return f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"


def tables(out: Path, seeds: Sequence[int]) -> Iterator[str]:
    """The truth by arm: of two rounds, and of the best of n."""

    def read(name: str, part: str) -> list[Any]:
        files = [out / "points" / f"{file_of(name, seed)}.json" for seed in seeds]
        return [json.loads(file.read_text(encoding="utf-8"))[part] for file in files]

    loops = {arm: read(arm, "points") for arm in ARMS}
    alone = [points[-1]["truth"] for points in loops["one proxy"]]
    yield "| pairs by | round | KL, nats | truth, P(positive) | truth, log-odds | first annotator, nats | mentions |"
    yield "|---|---|---|---|---|---|---|"
    for arm, by in loops.items():
        for turn in range(ROUNDS + 1):
            if turn or arm == "one proxy":
                cells = [written([points[turn][name] for points in by], 2) for name in ("kl", *READ)]
                yield f"| {arm if turn else 'before'} | {turn} | {' | '.join(cells)} |"
    yield ""
    yield "| pairs by | truth, round 2 less 1 | log-odds, round 2 less 1 | truth, round 2 less one proxy's |"
    yield "|---|---|---|---|"
    for arm, by in loops.items():
        changes = [written([points[-1][name] - points[-2][name] for points in by], 2) for name in ("truth", "log-odds")]
        less = [points[-1]["truth"] - one for points, one in zip(by, alone, strict=True)]
        yield f"| {arm} | {' | '.join(changes)} | {written(less, 2)} |"
    best = read("best of n", "best of n")
    yield ""
    yield f"| chosen by | {' | '.join(f'n = {n}' for n in BEST_OF)} | last less its best n | last less one proxy's |"
    yield "|---|" + "---|" * (len(BEST_OF) + 2)
    for way in best[0]:
        rows, single = (np.array([found[name] for found in best]) for name in (way, "one proxy"))
        cells = " | ".join(f"{one:.3f}" for one in rows.mean(0))
        top = rows[:, int(rows.mean(0).argmax())]
        yield f"| {way} | {cells} | {written([*(rows[:, -1] - top)])} | {written([*(rows[:, -1] - single[:, -1])])} |"


def main() -> None:
    """Runs what is missing, then prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--first-seed", type=int, default=7, help="settings were chosen on seeds 0 to 3 and 6")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--tables", action="store_true", help="of what is there")
    told: Any = parser.parse_args()
    out, seeds = told.out.resolve(), range(told.first_seed, told.first_seed + told.seeds)
    if not told.tables:
        make_ready(out)
        for seed in seeds:
            for arm in ARMS:
                run_loop(out, seed, arm)
            run_best_of_n(out, seed)
    sys.stdout.write("\n".join(tables(out, seeds)) + "\n")


if __name__ == "__main__":
    main()
