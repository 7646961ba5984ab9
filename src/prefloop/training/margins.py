"""How far the chosen answer of each pair is ahead, before and after a train step: what a policy still gets wrong."""

from collections.abc import Iterator, Sequence
from math import inf, isnan
from pathlib import Path

from torch import Tensor

from prefloop.policy import Workbench
from prefloop.policy.model_heads import Heads
from prefloop.records import Record, in_pieces, read_records, write_records
from prefloop.training.columns import picked
from prefloop.training.engine import Engine
from prefloop.training.layout import NO_HEADS, Model
from prefloop.training.references import same_as_start
from prefloop.training.request import TrainRequest
from prefloop.training.scoring import frozen_scores

MARGINS_FILE = "margins.jsonl"
PAIR = ("chosen", "rejected")


class Margin(Record):
    """One pair: log-probability of the chosen answer less that of the rejected one, each less the reference's.

    In nats; where there is no reference called `ref`, the log-probabilities themselves. Below 0 a policy has the pair
    wrong. Of a reward model it is the difference of the two rewards.
    """

    example_id: str
    margin: float | None = None
    """As the policy stood just before the step that last trained on the pair; None where no step did."""
    before: float | None = None
    """Of the policy from which the train step started; None where it was not measured."""
    after: float | None = None
    """Of the policy that the train step wrote; None where it was not measured."""

    @property
    def rank(self) -> tuple[bool, float]:
        """Sorts pairs from the worst: measured ones first, by what the policy says now."""
        known = self.margin if self.after is None else self.after
        return self.after is None, inf if known is None else known


def margins_after(request: TrainRequest, engine: Engine) -> dict[int, float]:
    """Margins of the policy as it is, by example: of those that were least ahead when they were last trained on."""
    count = request.settings.measured_margins
    if not set(PAIR) <= {*request.objective.roles} or not count:
        return {}
    seen: list[float] = engine.margins.tolist()
    worst = sorted(range(len(seen)), key=lambda index: inf if isnan(seen[index]) else seen[index])[:count]
    return _ahead(request, engine, _scored(request, engine.trainable.model, worst, engine.trainable.heads))


def margins_before(request: TrainRequest, engine: Engine, indices: Sequence[int], bench: Workbench) -> dict[int, float]:
    """Margins of the policy from which training started; they cost nothing where it is one of the references.

    There are none before a reward model, whose head begins as random numbers.
    """
    if not indices or request.objective.told == "rewards":
        return {}
    if same := same_as_start(request):
        columns = [picked(engine.loss.frozen[same[0]][f"{role}_logps"], indices) for role in PAIR]
        differences: list[float] = (columns[0] - columns[1]).tolist()
        return _ahead(request, engine, dict(zip(indices, differences, strict=True)))
    with bench.for_scoring(request.start, request.settings.precision, request.quantize) as model:
        return _ahead(request, engine, _scored(request, model, indices))


def _scored(request: TrainRequest, model: Model, indices: Sequence[int], heads: Heads = NO_HEADS) -> dict[int, float]:
    """By how many nats a model finds chosen answers likelier than rejected ones; or how much higher it rewards them."""
    told = request.objective.told
    plan = list(in_pieces(indices, request.settings.batch_size))
    scores = frozen_scores(model, request.examples, PAIR, plan, request.budget.tokens, {told}, request.layout, heads)
    return {
        index: chosen - rejected
        for batch, of_batch in scores
        for index, chosen, rejected in zip(batch, of_batch[f"chosen_{told}"], of_batch[f"rejected_{told}"], strict=True)
    }


def _ahead(request: TrainRequest, engine: Engine, differences: dict[int, float]) -> dict[int, float]:
    """Differences of log-probabilities, less those of the reference where there is one."""
    if "ref" not in request.references:
        return differences
    frozen, indices = engine.loss.frozen["ref"], list(differences)
    chosen, rejected = (picked(frozen[f"{role}_logps"], indices).tolist() for role in PAIR)
    return {
        index: differences[index] - (of_chosen - of_rejected)
        for index, of_chosen, of_rejected in zip(indices, chosen, rejected, strict=True)
    }


def write_margins(
    folder: Path, example_ids: Sequence[str], margins: Tensor, before: dict[int, float], after: dict[int, float]
) -> None:
    """Writes the margins of all pairs of which something is known; no file where there are none.

    Args:
        folder: that the file is written to.
        example_ids: of all examples.
        margins: of all examples when they were last trained on; NaN where none was.
        before: of the policy from which training started, by index.
        after: of the policy that was trained, by index.
    """
    known = [
        Margin(
            example_id=name,
            margin=None if isnan(margin) else margin,
            before=before.get(number),
            after=after.get(number),
        )
        for number, (name, margin) in enumerate(zip(example_ids, margins.tolist(), strict=True))
        if not isnan(margin) or number in after
    ]
    if known:
        write_records(folder / MARGINS_FILE, known)


def read_margins(folder: Path) -> Iterator[Margin]:
    """The margins that a train step left; none where it trained on other than pairs."""
    file = folder / MARGINS_FILE
    return read_records(file, Margin) if file.is_file() else iter(())
