"""Runs side by side: every arm against its own initial model, and arms against each other on the same prompts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product
from math import isfinite
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from prefloop.errors import DataError
from prefloop.evaluation import Answers, Meeting, meet
from prefloop.records import Estimate, Response
from prefloop.report.compare_arms import ArmRuns, arms_of
from prefloop.report.compare_read import RunAnswers, read_runs
from prefloop.report.view import Evaluation
from prefloop.statistics import (
    ClusteredEstimate,
    Statistic,
    cluster_bootstrap,
    clustered_statistic,
    detectable_difference,
    ratio_of_means,
    totals_by_cluster,
    warm_length_controlled_statistic,
)

Floats = NDArray[np.float64]
Words = NDArray[np.str_]

SEED = 0
"""Of the bootstrap. One for all, so that no number depends on the order in which runs are named."""
DRAWS = 1000


@dataclass(frozen=True)
class Measured:
    """A policy against its own initial model. What was not recorded is None."""

    truth: Estimate | None
    """Win rate by the judge without its planted flaws, percent."""
    judge: Estimate | None
    """Win rate, percent."""
    controlled: Estimate | None
    """The judge's, if both answers were equally long, percent."""
    length: Estimate
    """Mean length as a multiple of the initial answers', in tokens."""
    finished: Estimate
    """Answers that ended by themselves, percent."""
    kl: Estimate | None
    """From the initial model, nats an answer."""


@dataclass(frozen=True)
class RoundMeasured:
    """One round of an arm, over the seeds that have it."""

    number: int
    seeds: tuple[int, ...]
    refused: tuple[int, ...]
    """Seeds in which this round was not accepted."""
    measured: Measured

    @property
    def label(self) -> str:
        """How people count: 1 is the folder round-00."""
        return str(self.number + 1)


@dataclass(frozen=True)
class SeedMeasured:
    """One run, after its last accepted round."""

    seed: int
    run: str
    identity: str
    """Of the recipe, seed included."""
    policy: str
    """Identity of the last accepted policy."""
    last_accepted: int | None
    """The round, from 0; None: no round was accepted, so it stands on its initial model."""
    ended: int
    """Rounds that have a decision and answers."""
    planned: int
    measured: Measured


@dataclass(frozen=True)
class Arm:
    """All seeds of one recipe."""

    name: str
    """The recipe's; where arms share it, with the fewest settings that no other of these arms has."""
    label: str
    """The same without what all arms share."""
    unsaid: tuple[str, ...]
    """Settings in which arms of this recipe differ and that the name leaves out."""
    last: Measured
    """Every seed after its own last accepted round, pooled."""
    judge_over_truth: Estimate | None
    """Then: win rate by the judge minus win rate by the truth, points."""
    controlled_over_truth: Estimate | None
    """Then: the length-controlled win rate minus the win rate by the truth, points."""
    rounds: tuple[RoundMeasured, ...]
    seeds: tuple[SeedMeasured, ...]


@dataclass(frozen=True)
class Difference:
    """An arm minus the first arm, on the same prompts."""

    estimate: Estimate
    detectable: float | None
    """The true difference that would be found in four of five such comparisons: at 80 % power, 5 % two-sided."""
    same_sign: tuple[int, ...]
    """Paired seeds whose own difference has the same sign."""


@dataclass(frozen=True)
class Against:
    """An arm against the first arm."""

    arm: str
    """Its label, as that of the first arm."""
    first: str
    prompts: int
    """On which both have answers."""
    left_out: int
    """Prompts of either arm on which the other has no answer."""
    seeds: tuple[int, ...]
    """Paired seeds; empty where the arms share none, so that only prompts are paired."""
    seeds_apart: int
    """Seeds that only one of the arms has, where others are paired: they enter no difference."""
    differences: Mapping[str, Difference]
    """Of win rate against the initial model (`truth`, `judge`: points) and of `length` (multiples of the initial)."""
    duels: Mapping[str, Estimate]
    """How often this arm's answer beats the first arm's to the same prompt (and seed), percent."""
    not_comparable: tuple[str, ...]
    """Judges that differ between the arms."""


@dataclass(frozen=True)
class RunComparison:
    """Everything on the page."""

    arms: tuple[Arm, ...]
    against: tuple[Against, ...]
    """One for each arm but the first."""


@dataclass(frozen=True)
class _Side:
    """A policy's answers and its opponent's, of one seed."""

    seed: int
    ours: Answers
    initial: Answers
    evaluation: Evaluation | None
    """None: the policy is the initial model itself."""


@dataclass(frozen=True)
class _Rows:
    """Numbers that are summed by prompt."""

    columns: Floats
    """Rows by columns; the last one counts."""
    prompts: Words


@dataclass(frozen=True)
class _Pairing:
    """What two arms have in common."""

    seeds: tuple[int, ...]
    prompts: frozenset[str]
    left_out: int
    first: tuple[_Side, ...]
    arm: tuple[_Side, ...]


def read_comparison(paths: Sequence[Path]) -> RunComparison:
    """Reads the runs and compares all arms with the first.

    Raises:
        DataError: a folder is no run, was not evaluated or is named twice, or arms share no held-out prompt.
    """
    return compare_runs(read_runs(paths))


def compare_runs(runs: Sequence[RunAnswers]) -> RunComparison:
    """The comparison of runs that were read."""
    first, *others = arms_of(runs)
    pairings = [_pairing(first, other) for other in others]  # what cannot be paired is said before anything is computed
    return RunComparison(
        arms=tuple(map(_arm, (first, *others))),
        against=tuple(_against(first, other, pairing) for other, pairing in zip(others, pairings, strict=True)),
    )


def _arm(arm: ArmRuns) -> Arm:
    sides = [_last(run) for run in arm.runs]
    rounds = tuple(_rounds(arm.runs))
    standing = {None if run.last_accepted is None else run.last_accepted.number for run in arm.runs}
    same = next((one for one in rounds if {one.number} == standing), None)
    truth, judge = _meetings(sides, "truth"), _meetings(sides, "judge")
    known = None if truth is None or judge is None else (judge, truth)
    return Arm(
        name=arm.name,
        label=arm.label,
        unsaid=arm.unsaid,
        last=_measured(sides) if same is None else same.measured,
        judge_over_truth=None
        if known is None
        else _over_prompts([_wins(truth) for truth in known[::-1]], _minus(_percent)),
        controlled_over_truth=None if known is None else _controlled_gap(*known),
        rounds=rounds,
        seeds=tuple(map(_seed, arm.runs)),
    )


def _last(run: RunAnswers) -> _Side:
    last = run.last_accepted
    if last is None:
        return _Side(run.seed, run.initial, run.initial, None)
    return _Side(run.seed, last.answers, run.initial, last.evaluation)


def _seed(run: RunAnswers) -> SeedMeasured:
    last = run.last_accepted
    return SeedMeasured(
        seed=run.seed,
        run=run.place,
        identity=run.identity,
        policy="" if last is None else last.policy,
        last_accepted=None if last is None else last.number,
        ended=len(run.rounds),
        planned=run.planned,
        measured=_measured([_last(run)]),
    )


def _rounds(runs: Sequence[RunAnswers]) -> Iterator[RoundMeasured]:
    for number in sorted({one.number for run in runs for one in run.rounds}):
        found = [(run, one) for run in runs for one in run.rounds if one.number == number]
        yield RoundMeasured(
            number=number,
            seeds=tuple(run.seed for run, _ in found),
            refused=tuple(run.seed for run, one in found if not one.accepted),
            measured=_measured([_Side(run.seed, one.answers, run.initial, one.evaluation) for run, one in found]),
        )


def _measured(sides: Sequence[_Side]) -> Measured:
    """Pooled over seeds. What a single run measured is quoted from its evaluation: its report says the same."""
    only = sides[0].evaluation if len(sides) == 1 else None
    quoted = {} if only is None else only.against.get("initial", {})
    truth, judge = _meetings(sides, "truth"), _meetings(sides, "judge")
    return Measured(
        truth=quoted["truth"].raw if "truth" in quoted else _win_rate(truth),
        judge=quoted["judge"].raw if "judge" in quoted else _win_rate(judge),
        controlled=quoted["judge"].controlled if "judge" in quoted else _controlled(judge),
        length=_over_prompts(_lengths(sides), ratio_of_means),
        finished=_over_prompts([_finished(sides)], _percent),
        kl=_kl(sides),
    )


def _meetings(sides: Sequence[_Side], judge: str) -> Meeting | None:
    """Every seed's policy against its own initial model; None where a judge was not asked about all of them."""
    if not all(judge in side.ours.judges and judge in {*side.initial.scores, *side.ours.compared_by} for side in sides):
        return None
    return _together([meet(side.ours, side.initial, judge) for side in sides])


def _together(meetings: Sequence[Meeting]) -> Meeting:
    return Meeting(
        np.concatenate([one.preferences for one in meetings]),
        np.concatenate([one.ours_length for one in meetings]),
        np.concatenate([one.theirs_length for one in meetings]),
        np.concatenate([one.prompts for one in meetings]),
    )


def _win_rate(met: Meeting | None) -> Estimate | None:
    return None if met is None else _over_prompts([_wins(met)], _percent)


def _controlled(met: Meeting | None) -> Estimate | None:
    if met is None:
        return None
    statistic = warm_length_controlled_statistic(met.preferences, met.theirs_length, met.ours_length)
    return _estimate(cluster_bootstrap(statistic, met.prompts, seed=SEED, draws=DRAWS))


def _controlled_gap(judge: Meeting, truth: Meeting) -> Estimate:
    controlled = warm_length_controlled_statistic(judge.preferences, judge.theirs_length, judge.ours_length)
    rows = judge.preferences.size

    def gap(weights: Floats) -> Floats:
        counted = weights[:, rows:]
        return controlled(weights[:, :rows]) - 100.0 * (counted @ truth.preferences) / counted.sum(-1)

    prompts = np.concatenate([judge.prompts, truth.prompts])
    return _estimate(cluster_bootstrap(gap, prompts, seed=SEED, draws=DRAWS))


def _kl(sides: Sequence[_Side]) -> Estimate | None:
    """The mean over seeds.

    A run keeps its KL and not that of single answers, so how the seeds' errors go together is not known. The standard
    error is what it would be if they went wholly together: never too small.
    """
    found = [
        Estimate(value=0.0, standard_error=0.0) if side.evaluation is None else _recorded_kl(side) for side in sides
    ]
    known = [kl for kl in found if kl is not None]
    if len(known) < len(found):
        return None
    value = sum(kl.value for kl in known) / len(known)
    if len(known) == 1:
        return known[0]
    errors = [kl.standard_error for kl in known if kl.standard_error is not None]
    if len(errors) < len(known):
        return Estimate(value=value)
    error = sum(errors) / len(errors)
    prompts = min(len(side.initial.by_question()) for side in sides)
    margin = float(stdtrit(prompts - 1, 0.975)) * error
    return Estimate(value=value, standard_error=error, interval=(value - margin, value + margin))


def _recorded_kl(side: _Side) -> Estimate | None:
    kl = None if side.evaluation is None else side.evaluation.kl
    return None if kl is None else Estimate(value=kl.value, standard_error=kl.standard_error, interval=kl.interval)


def _pairing(first: ArmRuns, arm: ArmRuns) -> _Pairing:
    """Seeds that both have, where there are any; else all of them, paired by prompt only."""
    seeds = tuple(run.seed for run in first.runs if run.seed in {other.seed for other in arm.runs})
    ours, theirs = ([run for run in one.runs if run.seed in seeds or not seeds] for one in (arm, first))
    our_prompts, their_prompts = (frozenset[str]().union(*(run.prompts for run in runs)) for runs in (ours, theirs))
    if not our_prompts & their_prompts:
        raise DataError(
            f"{ours[0].path}: none of its {len(our_prompts)} held-out prompts is among the {len(their_prompts)} of "
            f"{theirs[0].path}, so nothing can be paired. Compare runs that were evaluated on the same suite."
        )
    return _Pairing(
        seeds=seeds,
        prompts=our_prompts & their_prompts,
        left_out=len(our_prompts ^ their_prompts),
        first=tuple(map(_last, theirs)),
        arm=tuple(map(_last, ours)),
    )


def _against(first: ArmRuns, arm: ArmRuns, pairing: _Pairing) -> Against:
    ours, theirs = arm.runs[0].judges, first.runs[0].judges
    both = [judge for judge in ("truth", "judge") if judge in ours and judge in theirs]
    alike = [judge for judge in both if ours[judge] == theirs[judge]]
    return Against(
        arm=arm.label,
        first=first.label,
        prompts=len(pairing.prompts),
        left_out=pairing.left_out,
        seeds=pairing.seeds,
        seeds_apart=len(first.runs) + len(arm.runs) - 2 * len(pairing.seeds) if pairing.seeds else 0,
        differences={
            **{judge: _difference(pairing, _winning(judge), _percent) for judge in alike},
            "length": _difference(pairing, _lengths, ratio_of_means),
        },
        duels={judge: _over_prompts([_duel(pairing, judge)], _percent) for judge in alike},
        not_comparable=tuple(judge for judge in both if judge not in alike),
    )


def _difference(
    pairing: _Pairing, rows_of: Callable[[Sequence[_Side]], list[_Rows]], statistic: Statistic
) -> Difference:
    """The arm minus the first arm; both are left out, and drawn, prompt by prompt together."""
    parts = [*rows_of(pairing.first), *rows_of(pairing.arm)]
    estimate = _over_prompts(parts, _minus(statistic))
    by_seed = {
        ours.seed: _over_prompts([*rows_of([theirs]), *rows_of([ours])], _minus(statistic)).value
        for theirs, ours in zip(pairing.first, pairing.arm, strict=False)
        if pairing.seeds
    }
    return Difference(
        estimate=estimate,
        detectable=None if estimate.standard_error is None else detectable_difference(estimate.standard_error),
        same_sign=tuple(seed for seed, value in by_seed.items() if value * estimate.value > 0),
    )


def _duel(pairing: _Pairing, judge: str) -> _Rows:
    """Every answer of the arm against every answer of the first arm, of the same seed where seeds are paired."""
    sides = zip(pairing.arm, pairing.first, strict=True) if pairing.seeds else product(pairing.arm, pairing.first)
    return _wins(_together([meet(ours.ours, theirs.ours, judge) for ours, theirs in sides]))


# --- numbers summed by prompt ---


def _winning(judge: str) -> Callable[[Sequence[_Side]], list[_Rows]]:
    """Meetings of some sides with their initial models."""

    def rows_of(sides: Sequence[_Side]) -> list[_Rows]:
        return [_wins(_together([meet(side.ours, side.initial, judge) for side in sides]))]

    return rows_of


def _wins(met: Meeting) -> _Rows:
    return _Rows(np.column_stack([met.preferences, np.ones_like(met.preferences)]), met.prompts)


def _lengths(sides: Sequence[_Side]) -> list[_Rows]:
    """Tokens of our answers, and of the initial model's."""
    return [
        _rows([(response, float(response.num_tokens)) for answers in group for response in answers.responses])
        for group in ([side.ours for side in sides], [side.initial for side in sides])
    ]


def _finished(sides: Sequence[_Side]) -> _Rows:
    return _rows([(one, float(one.finish_reason != "length")) for side in sides for one in side.ours.responses])


def _rows(found: Sequence[tuple[Response, float]]) -> _Rows:
    return _Rows(
        np.array([[value, 1.0] for _, value in found]), np.array([response.prompt_id for response, _ in found])
    )


def _over_prompts(parts: Sequence[_Rows], statistic: Statistic) -> Estimate:
    """A statistic of totals over the prompts that all parts have, with its uncertainty over prompts."""
    prompts = reduce(np.intersect1d, [part.prompts for part in parts], parts[0].prompts)
    totals = np.hstack([totals_by_cluster(part.columns, part.prompts, prompts) for part in parts])
    rows = int(totals[:, -1].sum())
    return _estimate(clustered_statistic(statistic, totals, rows=rows, seed=SEED, draws=DRAWS))


def _percent(totals: Floats) -> Floats:
    return 100.0 * totals[..., 0] / totals[..., 1]


def _minus(statistic: Statistic) -> Statistic:
    """The statistic of the second half of the columns minus that of the first."""

    def difference(totals: Floats) -> Floats:
        half = totals.shape[-1] // 2
        return statistic(totals[..., half:]) - statistic(totals[..., :half])

    return difference


def _estimate(found: ClusteredEstimate) -> Estimate:
    known = isfinite(found.standard_error)
    return Estimate(
        value=found.value,
        standard_error=found.standard_error if known else None,
        interval=found.interval if known else None,
        n=found.n,
    )
