"""`prefloop.pair`: which answers become examples, by the rules of the loop."""

from collections.abc import Iterator
from typing import Any

from prefloop.api.answers import together
from prefloop.api.rows import Row, Rows, givens, rows_of
from prefloop.errors import DataError
from prefloop.pairing import Dropped, find_rule, finished
from prefloop.records import Example, Group, Judgment


def pair(
    rows: Rows, rule: str = "best_worst", *, score: str = "score", finished_only: bool = True, **options: Any
) -> list[Row]:
    """Makes examples of scored answers: what a pair step does.

    Args:
        rows: with `prompt`, `completion` and a score, as `judge` returns them. All rows of a prompt are a group.
        rule: its name; docs/design.md lists the rules.
        score: key of the score in the rows.
        finished_only: leave out answers that were cut by the length limit.
        options: of the rule.

    Returns:
        Of pairs rows with `prompt`, `chosen`, `rejected`, the tokens and scores of both, and `why`; of single answers
        (`threshold_labels`, `rollouts`) with `completion`, and `label` where the rule gives one. `train` takes them.

    Raises:
        RecipeError: there is no such rule, or an option is wrong.
        DataError: a row lacks something, or no group gives an example.
    """
    given = rows_of(rows, "rows")
    found = find_rule(rule, "rule")
    settings = found.checked(options, "rule")
    original = {prompt.prompt_id: row["prompt"] for (prompt, _), row in zip(givens(given, "rows"), given, strict=True)}
    groups = list(_groups(given, score))
    usable = [finished(group) if finished_only else group for group in groups]
    constants = {name: fit["value"] for name, fit in found.fitted(lambda: iter(usable), settings).items()}
    made = [one for group in usable for one in found.apply(group, settings, constants)]
    rows_made = [_row(one, original) for one in made if isinstance(one, Example)]
    if not rows_made:
        why = sorted({one.reason for one in made if isinstance(one, Dropped)})
        cut = sum(len(one.responses) for one in groups) - sum(len(one.responses) for one in usable)
        raise DataError(
            f"pair: {rule} made nothing of {len(groups)} prompts ({', '.join(why) or 'nothing to pair'}; {cut} answers "
            "were cut by the length limit). Sample more answers a prompt, or longer ones, or set finished_only=False."
        )
    return rows_made


def _groups(rows: list[Row], score: str) -> Iterator[Group]:
    answers = list(givens(rows, "rows"))
    scores: dict[str, float] = {}
    for number, (row, (_, response)) in enumerate(zip(rows, answers, strict=True)):
        if score not in row:
            raise DataError(
                f"rows, row {number}: has no `{score}`. Judge the rows first, or name the key with `score`."
            )
        if row[score] is not None:
            scores[response.response_id] = float(row[score])
    for one in together(answers):
        judgments = tuple(
            Judgment(
                judge="rows", kind="score", subjects=(response.response_id,), values=(scores.get(response.response_id),)
            )
            for response in one.responses
        )
        yield Group((one.prompt,), one.responses, judgments)


def _row(example: Example, original: dict[str, Any]) -> Row:
    row: Row = {"prompt": original[example.prompt.root_id]}
    for member in example.members:
        key = "completion" if member.role == "response" else member.role
        row[key] = member.text
        if member.token_ids is not None:
            row["token_ids" if key == "completion" else f"{key}_ids"] = list(member.token_ids)
            row[f"{'' if key == 'completion' else f'{key}_'}finish_reason"] = "stop" if member.finished else "length"
        for name, value in member.numbers.items():
            row[name if key == "completion" else f"{key}_{name}"] = bool(value) if name == "label" else value
    return {**row, **example.numbers, "why": example.why}
