"""What training did on examples that it was only measured on."""

from collections.abc import Iterator, Mapping
from math import sqrt

from prefloop.report.figures import ABSENT, count, fixed
from prefloop.report.plots import DataTable
from prefloop.report.view import RunView, Validation

HEADINGS = ("round", "examples", "", "loss before", "after", "chosen ahead before, %", "after, %")
NOTE = (
    "Examples of prompts that no training saw, before and after. Chosen ahead: its implicit reward is the larger one, "
    "a tie counts half; ± is the standard error of the share after training, examples taken as independent."
)
OF_REWARD_MODELS = ("reward model", "pairs", "prompts", "in order, %", "95 % interval")
REWARD_MODELS_NOTE = (
    "Pairs of prompts that no training saw. In order: the better answer has the higher reward, a tie counts half; the "
    "interval is over prompts. 50 % is what chance gives."
)


def validation_table(run: RunView) -> DataTable | None:
    """A line for each round that has such examples, and one more for each source of a mixture; None without any."""
    lines = tuple(
        (one.label, *cells)
        for one in run.rounds
        for train in one.training
        if train.validation is not None
        for cells in _lines(train.validation)
    )
    return DataTable(HEADINGS, lines, NOTE) if lines else None


def reward_models_table(run: RunView) -> DataTable | None:
    """A line for each reward model that was tried on pairs kept apart; None without any."""
    lines = tuple(
        (
            one.place,
            count(one.pairs),
            count(one.prompts),
            fixed(100 * one.accuracy, 1),
            ABSENT if one.interval is None else " to ".join(fixed(100 * end, 1) for end in one.interval),
        )
        for one in run.reward_models
        if one.accuracy is not None
    )
    return DataTable(OF_REWARD_MODELS, lines, REWARD_MODELS_NOTE) if lines else None


def _lines(found: Validation) -> Iterator[tuple[str, ...]]:
    parts = [name.removeprefix("examples@") for name in found.after if name.startswith("examples@")]
    yield _cells("all", found.examples, found.before, found.after, "")
    for part in parts:
        yield _cells(part, found.after[f"examples@{part}"], found.before, found.after, f"@{part}")


def _cells(
    name: str, examples: float, before: Mapping[str, float], after: Mapping[str, float], suffix: str
) -> tuple[str, ...]:
    loss, ahead = f"loss{suffix}", f"rewards/accuracies{suffix}"
    losses = (fixed(before[loss], 3), fixed(after[loss], 3))
    if ahead not in after:
        return (count(examples), name, *losses, ABSENT, ABSENT)
    share = after[ahead]
    error = sqrt(share * (1 - share) / examples)
    return (
        count(examples),
        name,
        *losses,
        fixed(100 * before[ahead], 1),
        f"{fixed(100 * share, 1)} ± {fixed(100 * error, 1)}",
    )
