"""Arms of a comparison: which runs are seeds of one, and the shortest truthful name of each."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import yaml
from pydantic import JsonValue

from prefloop.errors import DataError
from prefloop.records import digest
from prefloop.report.compare_read import RunAnswers

KeyPath = tuple[str, ...]
NOT_SAID = frozenset({"name", "type", "path"})
"""Keys whose value is named by the key above them: `objective dpo`."""


@dataclass(frozen=True)
class ArmRuns:
    """Runs that differ in nothing but the seed, by seed."""

    name: str
    """The recipe's, with the settings in which arms of the same name differ."""
    label: str
    """The same without what all arms share: for plots."""
    runs: tuple[RunAnswers, ...]


def arms_of(runs: Sequence[RunAnswers]) -> tuple[ArmRuns, ...]:
    """The arms in the order in which their first runs are named.

    Raises:
        DataError: two runs are the same recipe with the same seed.
    """
    by_settings: dict[str, list[RunAnswers]] = {}
    for run in runs:
        seeds = by_settings.setdefault(digest(run.settings), [])
        same = next((known for known in seeds if known.seed == run.seed), None)
        if same is not None:
            raise DataError(
                f"{run.path}: the same recipe and the same seed ({run.seed}) as {same.path}, "
                "so its answers would count twice. Name only one of them."
            )
        seeds.append(run)
    arms = [tuple(sorted(seeds, key=lambda run: run.seed)) for seeds in by_settings.values()]
    names = [arm[0].name for arm in arms]
    details = _details(arms)
    all_alike = len(set(names)) == 1
    return tuple(
        ArmRuns(
            name=f"{name}, {detail}" if detail else name,
            label=detail if detail and all_alike else f"{name}, {detail}" if detail else name,
            runs=arm,
        )
        for arm, name, detail in zip(arms, names, details, strict=True)
    )


def _details(arms: Sequence[tuple[RunAnswers, ...]]) -> list[str]:
    """For each arm, the settings in which it differs from arms of the same name; empty where the name is its own."""
    leaves = [dict(_leaves(arm[0].settings)) for arm in arms]
    details: list[str] = []
    for arm, own in zip(arms, leaves, strict=True):
        namesakes = [other for mate, other in zip(arms, leaves, strict=True) if mate[0].name == arm[0].name]
        differing = [path for path in _paths(namesakes) if len({digest(one.get(path)) for one in namesakes}) > 1]
        said = {path: own[path] for path in differing if path in own}
        parts = [f"{_short(path, differing)} {_value(value)}" for path, value in said.items()]
        details.append(", ".join(parts or [f"{_short(path, differing)} not set" for path in differing]))
    return details


def _leaves(value: Mapping[str, JsonValue], above: KeyPath = ()) -> Iterator[tuple[KeyPath, JsonValue]]:
    for key, item in value.items():
        if isinstance(item, dict) and not item.keys() & {"fitted", "by_round"}:
            yield from _leaves(item, (*above, key))
        else:
            yield (*above, key), item


def _paths(leaves: Sequence[Mapping[KeyPath, JsonValue]]) -> tuple[KeyPath, ...]:
    """All of them, each once, in the order of the recipes."""
    return tuple(dict.fromkeys(path for one in leaves for path in one))


def _short(path: KeyPath, others: Sequence[KeyPath]) -> str:
    """The last key, with as many keys above it as it takes to mean no other setting."""
    said = _said(path)
    for size in range(1, len(said) + 1):
        if sum(_said(other)[-size:] == said[-size:] for other in others) == 1:
            return ".".join(said[-size:])
    return ".".join(path)


def _said(path: KeyPath) -> KeyPath:
    return path[:-1] if path[-1] in NOT_SAID and len(path) > 1 else path


def _value(value: JsonValue) -> str:
    """As a person would say it: `0.5 fitted`, `1, 2, 3 by round`."""
    if isinstance(value, dict) and value.keys() == {"fitted"}:
        return f"{value['fitted']} fitted"
    if isinstance(value, dict) and value.keys() == {"by_round"}:
        entries = value["by_round"]
        return f"{', '.join(map(_value, entries)) if isinstance(entries, list) else entries} by round"
    if isinstance(value, str):
        return value
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n...\n").strip()
