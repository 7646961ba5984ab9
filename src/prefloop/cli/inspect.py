"""`prefloop inspect`: rows as the model sees them, token by token, with what counts in the loss."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from prefloop.cli.console import say
from prefloop.cli.model_tokens import ModelTokens
from prefloop.errors import RecipeError

if TYPE_CHECKING:
    from prefloop.policy import ChatCodec, TokenRow
    from prefloop.records import Example

MEASURED = (
    "{measured} of {pairs} pairs were measured before and after training: the rejected answer was ahead in "
    "{behind_before} and is in {behind_after}; the chosen one lost ground in {fell}"
)
LEGEND = "(each token) in brackets: (is read)  [counts in the loss]; line breaks are shown as \\n"
COLOURS = {(True, False): "green", (True, True): "bold green", (False, False): "dim", (False, True): "dim cyan"}
"""By whether a token counts and whether it is a control token."""


@dataclass(frozen=True)
class ShownToken:
    """One token."""

    id: int
    text: str
    part: str
    """`prompt`, `answer`, or `control`: BOS, EOS, the headers' marks."""
    counted: bool


@dataclass(frozen=True)
class ShownRow:
    """One answer behind its prompt."""

    name: str
    """Its role: chosen, rejected, response."""
    tokens: tuple[ShownToken, ...]
    prompt_tokens: int


@dataclass(frozen=True)
class ShownExample:
    """A row of a data set, or a pair of a run."""

    where: str
    """Its place in the data set, or the id of the example."""
    rows: tuple[ShownRow, ...]
    left_out: str | None = None
    warned: tuple[str, ...] = ()
    margin: float | None = None
    """Nats by which the policy had the chosen answer ahead when it was last trained on it, each answer less the
    reference's where there is one."""
    before: float | None = None
    """The same of the policy from which the train step started, where it was measured."""
    after: float | None = None
    """The same of the policy that the train step wrote, where it was measured."""


def inspect_command(what: str, *, tokens: ModelTokens, rows: int, worst: int | None) -> dict[str, Any]:
    """Shows rows of a data set or of a run."""
    from prefloop.loop.journal import FILE

    heads, figures = [LEGEND], {}
    if (Path(what) / FILE).is_file():
        tokens.require_unused("a run has a model and settings of its own. Leave it out.")
        shown, figures = _of_run(Path(what), rows, worst)
        if figures:
            heads.append(MEASURED.format(**figures))
    else:
        if worst is not None:
            raise RecipeError("--worst: needs a run, whose policy has seen the pairs. Name its folder.")
        if (codec := tokens.codec()) is None:
            raise RecipeError("--model: is missing. Name the model whose tokens are shown, such as builtin:tiny.")
        shown = list(_of_data(what, codec, tokens, rows))
    say([*heads, *(line for example in shown for line in said(example))])
    return {"what": what, **figures, "rows": [_as_json(example) for example in shown]}


def _of_run(run: Path, rows: int, worst: int | None) -> tuple[list[ShownExample], dict[str, int]]:
    """The examples of a run, and what is to be counted of all that were measured before and after."""
    from prefloop.loop.tokens_of_run import tokens_of_run
    from prefloop.training import Margin

    found = tokens_of_run(run)
    order = list(range(len(found.examples)))
    if worst is not None:
        if not found.margins:
            raise RecipeError(f"--worst: {found.path} trained on no pairs, so that no answer could be ahead.")
        ids = found.examples.example_ids
        order.sort(key=lambda number: found.margins.get(ids[number], Margin(example_id=ids[number])).rank)
    shown: list[ShownExample] = []
    for number in order[: rows if worst is None else worst]:
        one = found.examples[number]
        known = found.margins.get(one.example_id, Margin(example_id=one.example_id))
        of_roles = tuple(_row(role, row, found.codec) for role, row in one.rows.items())
        shown.append(
            ShownExample(one.example_id, of_roles, margin=known.margin, before=known.before, after=known.after)
        )
    measured = [
        (one.before, one.after) for one in found.margins.values() if one.before is not None and one.after is not None
    ]
    if not measured:
        return shown, {}
    return shown, {
        "pairs": len(order),
        "measured": len(measured),
        "behind_before": sum(before < 0 for before, _ in measured),
        "behind_after": sum(after < 0 for _, after in measured),
        "fell": sum(after < before for before, after in measured),
    }


def _of_data(name: str, codec: "ChatCodec", tokens: ModelTokens, rows: int) -> Iterator[ShownExample]:
    from prefloop.data import Reading, find_source
    from prefloop.policy import EncodingSettings, encoded
    from prefloop.policy.token_checks import WITHOUT_LIMIT

    settings = EncodingSettings(tokens.max_length or WITHOUT_LIMIT, tokens.truncation or "drop")
    for given in islice(Reading(find_source(name)), rows):
        for one in encoded(list(_examples(given)), codec, settings):
            names = [member.role for member in one.example.members]
            yield ShownExample(
                where=one.example.prompt.source,
                rows=tuple(_row(role, row, codec) for role, row in zip(names, one.rows, strict=False)),
                left_out=one.left_out,
                warned=one.warned,
            )


def _examples(given: Any) -> Iterator["Example"]:
    """The pairs of a row; where it prefers nothing, all of its answers."""
    from prefloop.pairing import Dropped, find_rule
    from prefloop.policy.token_checks import all_answers
    from prefloop.records import Example, Group

    rule = find_rule("given", "rule")
    group = Group((given.prompt,), given.responses, given.judgments)
    pairs = [one for one in rule.apply(group, rule.checked({}, "rule")) if not isinstance(one, Dropped)]
    if pairs:
        yield from (one for one in pairs if isinstance(one, Example))
    else:
        yield all_answers(given)


def _row(name: str, row: "TokenRow", codec: "ChatCodec") -> ShownRow:
    ids = row.prompt_ids + row.answer_ids
    counted = (False,) * len(row.prompt_ids) + row.counted
    control = codec.control_ids
    tokens = tuple(
        ShownToken(
            id=token,
            text=codec.token_text(token),
            part="control" if token in control else "prompt" if number < len(row.prompt_ids) else "answer",
            counted=counts,
        )
        for number, (token, counts) in enumerate(zip(ids, counted, strict=True))
    )
    return ShownRow(name, tokens, len(row.prompt_ids))


def said(example: ShownExample) -> Iterator[Text]:
    """An example in lines."""
    from prefloop.data import CODES

    margins = {"before": example.before, "when last trained on": example.margin, "after": example.after}
    known = ", ".join(f"{value:+.2f} nats {when}" for when, value in margins.items() if value is not None)
    yield Text()
    yield Text(f"{example.where}{', margin ' if known else ''}{known}", style="bold")
    for code in (*((example.left_out,) if example.left_out else ()), *example.warned):
        yield Text(f"  {code}: {CODES[code].meaning}")
    for row in example.rows:
        counted = sum(token.counted for token in row.tokens)
        answer = len(row.tokens) - row.prompt_tokens
        yield Text(f"  {row.name}: {row.prompt_tokens} tokens of prompt, {answer} behind it, {counted} in the loss")
        yield _marked(row)


def _marked(row: ShownRow) -> Text:
    """A row with every token in its brackets; a new line after each line break of the text."""
    text = Text("    ")
    for token in row.tokens:
        begin, end = "[]" if token.counted else "()"
        visible = token.text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
        text.append(f"{begin}{visible}{end}", style=COLOURS[token.counted, token.part == "control"])
        if token.text.endswith("\n"):
            text.append("\n    ")
    return text


def _as_json(example: ShownExample) -> Mapping[str, Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(ShownExample).dump_python(example, mode="json", exclude_none=True)
