"""`prefloop why`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from rich import box
from rich.table import Table

from prefloop.cli.console import output
from prefloop.loop.why import AnswerOfGroup, Story, stories

ENDS = {"stop": "by itself", "length": "cut", "given": "given"}


def why_command(wanted: str, run: Path) -> dict[str, Any]:
    """Tells how a pair came about, or why a prompt gave none."""
    told = stories(run, wanted)
    console = output()
    for number, story in enumerate(told):
        if number:
            console.rule()
        for line in told_in_lines(story):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        console.print(answers_table(story))
    return {"run": str(run), "stories": TypeAdapter(tuple[Story, ...]).dump_python(told, mode="json")}


def told_in_lines(story: Story) -> Iterator[str]:
    """What is said above the table of answers."""
    prompt, example = story.prompt, story.example
    options = "".join(f", {name} {value}" for name, value in story.options.items())
    if example is not None:
        margin = "".join(f", {name} {value:.3g}" for name, value in example.numbers.items())
        yield f"example {example.example_id} of {story.step}"
        yield f"  why      {example.why}"
        yield f"  weight   {example.weight:g}{margin}"
        yield from (_training(step.step, step.left_out) for step in story.trained)
        if not story.trained:
            yield "  trained  not yet: no train step has read it"
    else:
        yield f"no pair of {story.step}"
        yield f"  why      {', '.join(story.dropped) or 'the rule says nothing of it'}"
    yield f"  rule     {story.rule}{options}"
    cut = sum(answer.response.finish_reason == "length" for answer in story.answers)
    if story.finished_only and cut:
        yield f"  left out {cut} of {len(story.answers)} answers, which the length limit cut"
    if not story.present:
        yield "  note     a step before it has been replaced since; the next `prefloop run` makes it again"
    yield f"  prompt   {prompt.prompt_id}, {prompt.source or 'no source'}"
    yield from (f"    {message.role}: {message.content}" for message in prompt.messages)
    samplers = dict.fromkeys((answer.sampler, answer.response.step) for answer in story.answers)
    for sampler, step in samplers:
        settings = next(a.response.settings for a in story.answers if (a.sampler, a.response.step) == (sampler, step))
        said = "".join(f", {name} {value}" for name, value in settings.items())
        round_said = "" if sampler.round is None else f", trained in round {sampler.round}"
        identity = f" ({sampler.policy[:12]})" if sampler.policy else ""
        yield f"  answers  {step} by {sampler.name}{identity}{round_said}{said}"
    for judgment in story.judgments:
        if judgment.kind != "score":
            yield f"  {judgment.judge} says of {' and '.join(judgment.subjects)}: {judgment.values}"


def answers_table(story: Story) -> Table:
    """All answers of the group; those of the example first."""
    judges = list(dict.fromkeys(one.judge for one in story.judgments if one.kind == "score"))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    for heading in ("role", "answer", *judges, "tokens", "ends", "seed", "text"):
        table.add_column(heading, overflow="fold")
    order = {"chosen": 0, "rejected": 1}
    for answer in sorted(story.answers, key=lambda one: (order.get(one.role or "", 2), one.response.index)):
        response = answer.response
        scores = (_score(story, judge, answer) for judge in judges)
        ends, seed = ENDS[response.finish_reason], str(response.seed) if answer.sampler.policy else "-"
        table.add_row(
            answer.role or "-", response.response_id, *scores, str(answer.num_tokens), ends, seed, response.text
        )
    return table


def _score(story: Story, judge: str, answer: AnswerOfGroup) -> str:
    """What a judge said of an answer, every time that it was asked."""
    said = [
        judgment.values[judgment.subjects.index(answer.response.response_id)]
        for judgment in story.judgments
        if judgment.judge == judge and answer.response.response_id in judgment.subjects
    ]
    return ", ".join("no verdict" if value is None else f"{value:.4g}" for value in said) or "-"


def _training(step: str, left_out: str | None) -> str:
    return f"  trained  {f'in {step}' if left_out is None else f'not in {step}: {left_out}'}"
