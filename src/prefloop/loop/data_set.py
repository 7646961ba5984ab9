"""What a data step reads, for the step itself and for the plan: sources mixed, by prompt, with a part kept apart."""

from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from heapq import heappush, heappushpop
from pathlib import Path
from shutil import copyfileobj
from typing import Generic, TypeVar

from prefloop.config import DataStep, Recipe, ValidationShare, ValidationSource
from prefloop.data import (
    Collection,
    Given,
    GivenGroup,
    LintReport,
    Part,
    Seen,
    find_source,
    is_for_validation,
    part_names,
    rank_in_mixture,
    require_rows,
    rows_taken,
)
from prefloop.errors import DataError
from prefloop.loop.reading import held_out, reading_of, sources_of
from prefloop.loop.remembered import Remembered
from prefloop.records import Prompt, digest

QUARANTINE = "quarantine.jsonl"
LONGEST = 256
"""So many prompts, the longest in characters, are kept to find the longest in tokens."""

T = TypeVar("T")


@dataclass(frozen=True)
class DataSet:
    """The rows of a data step, grouped by prompt."""

    collection: Collection
    counts: Counter[str]
    reports: list[LintReport]
    """What was found in each source, in order; a validation source comes last."""
    seen: Seen
    """The rows of all sources: one may repeat or deny what stands in another."""

    def groups(self, *, validation: bool = False) -> Iterator[GivenGroup]:
        """Prompts with what was given for them: those that are trained on, or those that are kept apart."""
        return self.collection.groups(apart=validation)


@dataclass(frozen=True)
class Survey:
    """How much a data step gives, and the longest of it."""

    prompts: int
    pairs: int
    """Preferences between two answers."""
    answers: int
    longest: tuple[GivenGroup, ...]
    """Prompts that are longest together with one of their answers, the longest first."""
    longest_prompts: tuple[Prompt, ...]


@contextmanager
def data_set(step: str, settings: DataStep, recipe: Recipe, folder: Path | None = None) -> Generator[DataSet]:
    """Reads all sources of a data step.

    Args:
        step: its name.
        settings: what it is told.
        recipe: that it belongs to.
        folder: gets `quarantine.jsonl` with the refused rows, where there are any.

    Raises:
        DataError: a source has no usable row; or one side of the split would have no prompt.
    """
    with Collection() as collection, closing(Seen()) as seen:
        made = DataSet(collection, Counter(), [], seen)
        _add_training(made, step, settings, recipe, folder)
        if isinstance(settings.validation, ValidationSource):
            held = settings.validation
            for given in _read(made, step, held.source, held.format, recipe, folder):
                collection.add(given, len(settings.sources), apart=True)
            made.counts["left out: prompt of validation"] += collection.without_prompts_apart()
        made.counts["prompts"], made.counts["pairs"] = collection.size(apart=False)
        if settings.validation is not None:
            made.counts["validation prompts"], made.counts["validation pairs"] = collection.size(apart=True)
            _require_both_sides(step, made.counts)
        yield made


def _add_training(made: DataSet, step: str, settings: DataStep, recipe: Recipe, folder: Path | None) -> None:
    """Rows of all sources, as much of each as the mixture takes; a share of the prompts is marked as kept apart."""
    share = settings.validation.share if isinstance(settings.validation, ValidationShare) else 0.0
    parts = [Part(one.weight, one.cap) for one in settings.sources]
    chosen_by_rank = any(part != Part() for part in parts)
    names = part_names([find_source(source.source).name for source in settings.sources])
    for number, source in enumerate(settings.sources):
        for given in _read(made, step, source.source, source.format, recipe, folder):
            prompt_id = given.prompt.prompt_id
            rank = rank_in_mixture(prompt_id, recipe.seed) if chosen_by_rank else 0
            apart = share > 0 and is_for_validation(prompt_id, share, recipe.seed)
            made.collection.add(_of_part(given, names[number]), number, rank=rank, apart=apart)
    if not chosen_by_rank and len(parts) == 1:
        return
    available = [made.collection.rows_of(number) for number in range(len(parts))]
    for number, rows in enumerate(rows_taken(available, parts)):
        made.collection.cut(number, rows)
        made.counts[f"rows of {names[number] or made.reports[number].source}"] += rows
        made.counts["left out: mixture"] += available[number] - rows


def _of_part(given: Given, name: str) -> Given:
    return given.model_copy(update={"prompt": given.prompt.model_copy(update={"part": name})}) if name else given


def _read(
    made: DataSet, step: str, name: str, format: str | None, recipe: Recipe, folder: Path | None
) -> Iterator[Given]:
    """The accepted rows of a source; counts the others."""
    aside = None if folder is None else folder / f".{QUARANTINE}"
    reading = reading_of(step, find_source(name), recipe, format=format, quarantine=aside, seen=made.seen)
    yield from reading
    report = reading.report
    made.reports.append(report)
    made.counts.update({"rows": report.rows, "refused": report.refused, "warned": report.warned, **report.counts()})
    if folder is not None and aside is not None and aside.exists():
        with (folder / QUARANTINE).open("a", encoding="utf-8") as all_refused, aside.open(encoding="utf-8") as refused:
            copyfileobj(refused, all_refused)
        aside.unlink()
    require_rows(report, name)


def _require_both_sides(step: str, counts: Mapping[str, int]) -> None:
    for side, what in (("prompts", "to train on"), ("validation prompts", "for validation")):
        if not counts[side]:
            total = counts["prompts"] + counts["validation prompts"]
            raise DataError(f"{step}.validation leaves none of {total} prompts {what}. Choose another share or source.")


def survey(step: str, settings: DataStep, recipe: Recipe) -> Survey:
    """How much a data step gives; read once a process while its files stay as they are."""
    named = [*(source for source, _ in sources_of(settings)), *held_out(step, recipe)]
    key = digest([settings.told(), recipe.seed, *(find_source(name).identity for name in named)])
    return _SURVEYS.found(key, lambda: _surveyed(step, settings, recipe))


_SURVEYS = Remembered[Survey]()


def _surveyed(step: str, settings: DataStep, recipe: Recipe) -> Survey:
    pairs = answers = 0
    longest, longest_prompts = _Longest[GivenGroup](), _Longest[Prompt]()
    with data_set(step, settings, recipe) as found:
        for group in found.groups():
            answers += len(group.responses)
            pairs += sum(judgment.kind == "preference" for judgment in group.judgments)
            characters = sum(len(message.content) for message in group.prompt.messages)
            longest_prompts.add(characters, group.prompt)
            longest.add(characters + max((len(response.text) for response in group.responses), default=0), group)
        return Survey(found.counts["prompts"], pairs, answers, longest.found(), longest_prompts.found())


class _Longest(Generic[T]):
    """The longest of many things, without keeping the others."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, T]] = []
        self._seen = 0

    def add(self, characters: int, thing: T) -> None:
        """Keeps a thing if it is among the longest; of equally long ones the first."""
        self._seen += 1
        push = heappush if len(self._heap) < LONGEST else heappushpop
        push(self._heap, (characters, -self._seen, thing))

    def found(self) -> tuple[T, ...]:
        """The longest first."""
        return tuple(thing for _, _, thing in sorted(self._heap, key=lambda kept: kept[:2], reverse=True))
