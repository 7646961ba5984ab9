"""Arms of a comparison: which runs are seeds of one, and the shortest truthful name of each."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

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
    """The recipe's; where arms share it, with the fewest settings that no other of these arms has. Of three or more the
    first has the recipe's name alone: it is what the others are changes of."""
    label: str
    """The same without what all arms share."""
    unsaid: tuple[str, ...]
    """Settings in which arms of this recipe differ and that the name leaves out."""
    runs: tuple[RunAnswers, ...]


@dataclass(frozen=True)
class _Detail:
    """Settings of one arm, as people say them."""

    said: str
    unsaid: tuple[str, ...]


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
    alike = len({arm[0].name for arm in arms}) == 1
    return tuple(_named(arm, _detail(arm, arms), alike=alike) for arm in arms)


def _named(arm: tuple[RunAnswers, ...], detail: _Detail, *, alike: bool) -> ArmRuns:
    name = f"{arm[0].name}, {detail.said}" if detail.said else arm[0].name
    return ArmRuns(name, detail.said if alike and detail.said else name, detail.unsaid, arm)


def _detail(arm: tuple[RunAnswers, ...], arms: Sequence[tuple[RunAnswers, ...]]) -> _Detail:
    """What tells an arm from those of the same name; nothing where the name is its own."""
    own = dict(_leaves(arm[0].settings))
    sharing = [one for one in arms if one[0].name == arm[0].name]
    if len(sharing) > 2 and arm is sharing[0]:
        return _Detail("", ())
    others = [dict(_leaves(one[0].settings)) for one in sharing if one is not arm]
    paths = dict.fromkeys(path for one in (own, *others) for path in one)
    differing = [path for path in paths if any(_of(one, path) != _of(own, path) for one in others)]
    present = [path for path in differing if path in own]

    def apart(some: Sequence[KeyPath]) -> bool:
        return all(any(_of(one, path) != _of(own, path) for path in some) for one in others)

    subsets = (some for size in range(1, len(present) + 1) for some in combinations(present, size))
    # where all together do not tell it apart, none of their subsets does, and there are 2^n of them
    chosen = next(filter(apart, subsets), ()) if apart(present) else tuple(differing)
    words = {path: f"{_short(path, differing)} {_words_of(own, path)}" for path in differing}
    return _Detail(
        said=", ".join(words[path] for path in chosen),
        unsaid=tuple(words[path] for path in present if path not in chosen),
    )


def _of(leaves: Mapping[KeyPath, JsonValue], path: KeyPath) -> str:
    return digest(leaves[path]) if path in leaves else ""


def _leaves(value: Mapping[str, JsonValue], above: KeyPath = ()) -> Iterator[tuple[KeyPath, JsonValue]]:
    for key, item in value.items():
        if isinstance(item, dict) and not item.keys() & {"fitted", "by_round"}:
            yield from _leaves(item, (*above, key))
        else:
            yield (*above, key), item


def _short(path: KeyPath, others: Sequence[KeyPath]) -> str:
    """The last key, with as many keys above it as it takes to mean no other setting."""
    said = _said(path)
    for size in range(1, len(said) + 1):
        if sum(_said(other)[-size:] == said[-size:] for other in others) == 1:
            return ".".join(said[-size:])
    return ".".join(path)


def _said(path: KeyPath) -> KeyPath:
    return path[:-1] if path[-1] in NOT_SAID and len(path) > 1 else path


def _words_of(leaves: Mapping[KeyPath, JsonValue], path: KeyPath) -> str:
    return _value(leaves[path]) if path in leaves else "not set"


def _value(value: JsonValue) -> str:
    """As a person would say it: `0.5 fitted`, `1, 2, 3 by round`."""
    if isinstance(value, dict) and value.keys() == {"fitted"}:
        return f"{_value(value['fitted'])} fitted"
    if isinstance(value, dict) and value.keys() == {"by_round"}:
        entries = value["by_round"]
        return f"{', '.join(map(_value, entries)) if isinstance(entries, list) else entries} by round"
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:g}"
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n...\n").strip()
