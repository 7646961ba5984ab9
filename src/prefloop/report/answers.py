"""Held-out answers and what the judges gave them: all of a policy's, and some beside each other."""

from collections.abc import Iterator, Sequence
from math import isfinite
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prefloop.records import Estimate, Judgment, Prompt, Response, digest, read_folder, shards_in
from prefloop.report.view import Answer, Answers, Comparison
from prefloop.statistics import clustered_statistic, ratio_of_means, totals_by_cluster

COMPARISONS = 8
"""Held-out prompts on the page."""

JUDGES = {"judge": "judgments", "truth": "truth"}
"""Who judged -> how the step that asked it ends."""
NONE = Answers((), {})


def initial_answers(run: Path) -> Answers:
    """What the initial model answered."""
    return _read(run / "setup", "evaluation-initial", "evaluation-initial")


def round_answers(run: Path, folder: str) -> Answers:
    """What a round's policy answered."""
    return _read(run / folder, "evaluation-samples", "evaluation")


def held_out(run: Path) -> tuple[Prompt, ...]:
    """The prompts of the suite, in file order."""
    return tuple(read_folder(run / "setup/evaluation-prompts", Prompt))


def comparisons(prompts: Sequence[Prompt], before: Answers, after: Answers) -> Iterator[Comparison]:
    """The first prompts in the order of the sha256 of their id: nobody's choice, and the same ones in every run."""
    answered = [one for one in prompts if one.prompt_id in before.first and one.prompt_id in after.first]
    for prompt in sorted(answered, key=lambda one: digest(one.prompt_id))[:COMPARISONS]:
        yield Comparison(
            prompt=next((m.content for m in reversed(prompt.messages) if m.role == "user"), ""),
            earlier_turns=len(prompt.messages) - 1,
            before=before.first[prompt.prompt_id],
            after=after.first[prompt.prompt_id],
        )


def length_ratio(ours: Answers, initial: Answers) -> Estimate | None:
    """Mean tokens of our answers over those of the initial model's, both uncertain, on prompts that both answered."""
    common = {one.prompt_id for one in ours.all} & {one.prompt_id for one in initial.all}
    if not common:
        return None
    prompts = np.array(sorted(common))
    totals = np.hstack([_totals(answers, prompts) for answers in (ours, initial)])
    found = clustered_statistic(ratio_of_means, totals, rows=int(totals[:, 1].sum()), seed=0)
    known = isfinite(found.standard_error)
    return Estimate(
        value=found.value,
        standard_error=found.standard_error if known else None,
        interval=found.interval if known else None,
        n=found.n,
    )


def _totals(answers: Answers, prompts: NDArray[np.str_]) -> NDArray[np.float64]:
    """Tokens and number of answers, by prompt."""
    columns = np.array([[float(one.num_tokens), 1.0] for one in answers.all])
    return totals_by_cluster(columns, np.array([one.prompt_id for one in answers.all]), prompts)


def scores_of(folder: Path, stem: str) -> dict[str, dict[str, float]]:
    """Score by response id from every judge that was asked; invalid judgments are left out."""
    asked = {judge: folder / f"{stem}-{suffix}" for judge, suffix in JUDGES.items()}
    return {
        judge: {
            judgment.subjects[0]: judgment.values[0]
            for judgment in read_folder(judged, Judgment)
            if judgment.kind == "score" and judgment.values[0] is not None
        }
        for judge, judged in asked.items()
        if shards_in(judged)
    }


def _read(folder: Path, answers: str, stem: str) -> Answers:
    scores = scores_of(folder, stem)
    responses = tuple(read_folder(folder / answers, Response))
    made = tuple(
        Answer(
            prompt_id=response.prompt_id,
            text=response.text,
            num_tokens=response.num_tokens,
            cut=response.finish_reason == "length",
            scores={
                judge: given[response.response_id] for judge, given in scores.items() if response.response_id in given
            },
        )
        for response in responses
    )
    first = {
        response.prompt_id: answer for response, answer in zip(responses, made, strict=True) if response.index == 0
    }
    return Answers(made, first)
