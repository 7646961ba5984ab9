"""Held-out answers and what the judges gave them: all of a policy's, and some beside each other."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from prefloop.records import Judgment, Prompt, Response, digest, read_folder, shards_in
from prefloop.report.view import Answer, Answers, Comparison

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
