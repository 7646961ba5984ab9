"""Step type `pair`: a rule over groups."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping

from prefloop.config import PairStep, StepConfig
from prefloop.errors import DataError
from prefloop.loop.artifact import Inputs
from prefloop.loop.scope import Scope
from prefloop.loop.steps.work import VALIDATION, StepType, Work, nearest
from prefloop.pairing import Dropped, find_rule, finished
from prefloop.records import Example, Group, Judgment, Prompt, Record, Response, grouped, shard_name, write_records


def make_pairs(work: Work) -> Mapping[str, float]:
    """Applies the rule to every group, writes what it makes, and counts what it drops and why.

    Raises:
        DataError: the rule made nothing of all groups; says why and which setting to change.
    """
    settings = work.settings
    assert isinstance(settings, PairStep)
    rule = find_rule(settings.rule, "rule")
    makes = "examples" if rule.writes is Example else "prompts"
    fits = rule.fitted(lambda: _groups(work, settings), rule.checked(settings.options, work.artifact.step))
    if fits:
        (work.out / "fitted.json").write_text(json.dumps(fits, indent=1) + "\n", encoding="utf-8")
    constants: dict[str, float] = {name: found["value"] for name, found in fits.items()}
    counts = _applied(work, settings, makes, constants)
    if not counts[makes]:
        why = ", ".join(
            f"{reason.removeprefix('dropped: ')} {count}"
            for reason, count in counts.items()
            if reason.startswith("dropped")
        )
        raise DataError(
            f"{work.artifact.place}/{work.artifact.step}: no usable pair in {counts['groups']} prompts "
            f"({why or 'nothing to pair'}; {counts['cut answers']} answers were cut by the length limit). "
            "Raise samples.num_samples, samples.temperature or samples.max_new_tokens, "
            f"or set {work.artifact.step}.finished_only=false."
        )
    held = _applied(work, settings, makes, constants, VALIDATION)
    if held["groups"] and not held[makes]:
        raise DataError(
            f"{work.artifact.place}/{work.artifact.step}: no usable pair in the {held['groups']} prompts kept for "
            "validation. Raise validation.share, or name another validation.source."
        )
    return {**counts, **({f"validation {makes}": held[makes]} if held["groups"] else {})}


def _applied(
    work: Work, settings: PairStep, makes: str, constants: Mapping[str, float], part: str = "."
) -> Counter[str]:
    """Writes what the rule makes of every group of a part, and counts."""
    rule = find_rule(settings.rule, "rule")
    options = rule.checked(settings.options, work.artifact.step)
    tokens = work.resources.bench.codec if rule.reads_tokens else None
    counts: Counter[str] = Counter({"groups": 0, makes: 0})
    for shard in range(work.num_shards("prompts", part)):
        made: list[Record] = []
        for group in _shard_groups(work, shard, part):
            usable = finished(group) if settings.finished_only else group
            counts["groups"] += 1
            counts["cut answers"] += len(group.responses) - len(usable.responses)
            for result in rule.apply(usable, options, constants, tokens):
                if isinstance(result, Dropped):
                    counts[f"dropped: {result.reason}"] += 1
                else:
                    made.append(result)
        counts[makes] += len(made)
        write_records(work.out / part / shard_name(shard), made)
    return counts


def _shard_groups(work: Work, shard: int, part: str) -> Iterator[Group]:
    earlier = work.records("examples", Example, shard, part) if "examples" in work.artifact.inputs else None
    return grouped(
        work.records("prompts", Prompt, shard, part),
        work.records("responses", Response, shard, part),
        work.records("judgments", Judgment, shard, part),
        earlier,
    )


def _groups(work: Work, settings: PairStep) -> Iterator[Group]:
    """All groups that a rule's constants are fitted on: those for training, without cut answers where so asked."""
    for shard in range(work.num_shards("prompts")):
        for group in _shard_groups(work, shard, "."):
            yield finished(group) if settings.finished_only else group


def _inputs(_name: str, settings: StepConfig, scope: Scope) -> Inputs:
    assert isinstance(settings, PairStep)
    kinds: Mapping[str, type[Record]] = {"prompts": Prompt, "responses": Response, "judgments": Judgment}
    read = {slot: nearest(settings, scope, kind, all_earlier=True) for slot, kind in kinds.items()}
    earlier = nearest(settings, scope, Example) if settings.reads else ()
    model = (scope.model,) if find_rule(settings.rule, "rule").reads_tokens else ()
    return {**read, **({"examples": earlier} if earlier else {}), **({"model": model} if model else {})}


def _holds(settings: StepConfig) -> Mapping[type[Record], str]:
    assert isinstance(settings, PairStep)
    return {find_rule(settings.rule, "rule").writes: "."}


PAIR = StepType(make_pairs, _inputs, holds=_holds)
