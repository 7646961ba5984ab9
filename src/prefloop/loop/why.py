"""How a pair came about, or why a prompt gave none: from the records of a run and what its journal says they are of.

Only what the present recipe made is looked at: what lies in `superseded/` is no part of a story.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from prefloop.config import STEP_CLASSES, PairStep
from prefloop.data import CODES
from prefloop.errors import DataError, RecipeError
from prefloop.loop.journal import SUPERSEDED, Entry, Journal, MadeFrom
from prefloop.loop.steps import STEP_TYPES
from prefloop.loop.tokens_of_run import codec_of_run
from prefloop.pairing import Dropped, find_rule, finished
from prefloop.records import (
    AVERAGED,
    Example,
    Group,
    Judgment,
    Prompt,
    Record,
    Response,
    Role,
    grouped,
    read_folder,
    shards_in,
)
from prefloop.training import EMA, left_out

R = TypeVar("R", bound=Record)
NEAREST = 3
"""Ids that a mistake is answered with."""


@dataclass(frozen=True)
class Sampler:
    """Who gave an answer."""

    policy: str
    """Identity; empty for an answer that a data set brought."""
    name: str
    """Its step, `start model`, or `data set`."""
    round: int | None
    """In which the policy was trained."""


@dataclass(frozen=True)
class AnswerOfGroup:
    """One of the K answers to the prompt."""

    role: Role | None
    """In the example; None: not chosen for it."""
    response: Response
    num_tokens: int
    sampler: Sampler


@dataclass(frozen=True)
class Training:
    """A train step that read the pairs."""

    step: str
    left_out: str | None
    """Why it was not trained on this example; None: it was."""


@dataclass(frozen=True)
class Story:
    """An example, or a prompt that gave none, with everything that decided about it."""

    step: str
    """The pair step, by its path in the run."""
    round: int | None
    rule: str
    options: dict[str, Any]
    finished_only: bool
    prompt: Prompt
    example: Example | None
    dropped: tuple[str, ...]
    """Why the rule gave no example, or not more."""
    answers: tuple[AnswerOfGroup, ...]
    judgments: tuple[Judgment, ...]
    """Of every judge, as they were said."""
    trained: tuple[Training, ...]
    present: bool
    """False: a step that it is of has been replaced since, so that the next call makes it again."""


def stories(run: Path, wanted: str) -> tuple[Story, ...]:
    """Everything that a run knows of an example or a prompt; several where rounds share it.

    Args:
        run: the run folder.
        wanted: an example's or a prompt's id, or how it begins.

    Raises:
        RecipeError: no id begins so, or several do.
        DataError: the folder is no run, or lacks what is to be read.
    """
    made = _Made(run)
    examples = {(step.identity, example.example_id): example for step in made.pairs for example in made.examples(step)}
    prompts: dict[str, list[Entry]] = {}
    for step in made.having(Prompt):
        for prompt in made.records(step, Prompt):
            prompts.setdefault(prompt.prompt_id, []).append(step)
    found = _only_one(wanted, {identity for _, identity in examples}, set(prompts), run)
    told = tuple(
        made.story(step, group, example)
        for step in made.pairs
        if (step.identity, found) in examples or made.reads_any(step, prompts.get(found, ()))
        for group in made.groups(step)
        for example in _of_group(group, found, [one for (of, _), one in examples.items() if of == step.identity])
    )
    if not told:
        raise RecipeError(f"{run}: prompt {found} is in {prompts[found][-1].path}, which no pair step has read.")
    return told


class _Made:
    """The steps of a run that lie in place, by what they were made from."""

    def __init__(self, run: Path) -> None:
        journal = Journal(run, read_only=True)
        self.run = run
        self.known = {entry.identity: entry for entry in journal.entries()}
        journal.close()
        self.steps = [entry for entry in self.known.values() if not entry.path.startswith(f"{SUPERSEDED}/")]
        if any(entry.made_from is None for entry in self.steps):
            raise DataError(
                f"{run}: an older version made this run and kept no list of what each step was made from. "
                "Give its `prefloop run` command again: it makes nothing twice, and notes it."
            )
        self.pairs = [entry for entry in self.steps if _type(entry) == "pair"]
        self.start_models = {
            identity.removesuffix(AVERAGED)
            for entry in self.steps
            if _type(entry) == "sample" and not _from(entry)["round"]
            for identity in _from(entry)["inputs"]["policy"]
        } - self.known.keys()

    def having(self, kind: type[Record]) -> Iterator[Entry]:
        """Steps whose artifacts hold records of a kind."""
        return (entry for entry in self.steps if kind in _holds(entry))

    def records(self, entry: Entry, kind: type[R], shard: str | None = None) -> Iterator[R]:
        """Records of one artifact."""
        folder = self.run / entry.path
        if not folder.exists():
            raise DataError(
                f"{folder}: is missing. Give the run's `prefloop run` command again: it makes what is missing."
            )
        return read_folder(folder / _holds(entry)[kind], kind, shard)

    def examples(self, step: Entry) -> Iterator[Example]:
        """Examples of a pair step."""
        return self.records(step, Example) if Example in _holds(step) else iter(())

    def reads_any(self, step: Entry, prompts: Sequence[Entry]) -> bool:
        """Whether a pair step read the prompts of one of some steps."""
        return any(entry.identity in _from(step)["inputs"]["prompts"] for entry in prompts)

    def groups(self, step: Entry) -> Iterator[Group]:
        """The groups that a pair step read."""
        shards = sorted({shard.name for entry in self._read(step, "prompts") for shard in self._shards(entry)})
        for shard in shards:
            yield from grouped(
                self._records(step, "prompts", Prompt, shard),
                self._records(step, "responses", Response, shard),
                self._records(step, "judgments", Judgment, shard),
                self._records(step, "examples", Example, shard) if "examples" in _from(step)["inputs"] else None,
            )

    def story(self, step: Entry, group: Group, example: Example | None) -> Story:
        """The story of an example of a group, or of a group that gave none."""
        settings = _settings(step)
        assert isinstance(settings, PairStep)
        members = () if example is None else example.members
        roles: dict[str, Role] = {member.response_id: member.role for member in members}
        usable = finished(group) if settings.finished_only else group
        return Story(
            step=step.path,
            round=_from(step)["round"],
            rule=settings.rule,
            options=dict(settings.options),
            finished_only=settings.finished_only,
            prompt=group.root if example is None else example.prompt,
            example=example,
            dropped=tuple(self._dropped(step, settings, usable)),
            answers=tuple(
                AnswerOfGroup(roles.get(one.response_id), one, one.num_tokens, self._sampler(one.policy))
                for one in group.responses
            ),
            judgments=group.judgments,
            trained=() if example is None else tuple(self._trained(step, example)),
            present=self._present(step),
        )

    def _dropped(self, step: Entry, settings: PairStep, usable: Group) -> Iterator[str]:
        """Why a rule made nothing, or not more, of a group: it is applied once more, with what was fitted then."""
        rule = find_rule(settings.rule, "rule")
        fitted = self.run / step.path / "fitted.json"
        fits: dict[str, Any] = json.loads(fitted.read_text(encoding="utf-8")) if fitted.exists() else {}
        constants = {name: fit["value"] for name, fit in fits.items()}
        tokens = codec_of_run(self.run) if rule.reads_tokens else None
        for result in rule.apply(usable, rule.checked(settings.options, step.step), constants, tokens):
            if isinstance(result, Dropped):
                yield result.reason

    def _trained(self, step: Entry, example: Example) -> Iterator[Training]:
        for entry in self.steps:
            if _type(entry) == "train" and step.identity in _from(entry)["inputs"]["examples"]:
                yield Training(entry.path, self._left_out(entry, example))

    def _left_out(self, entry: Entry, example: Example) -> str | None:
        """Why the tokens that a train step read lack this example, as it was found then."""
        for identity in _from(entry)["inputs"].get("tokens", ()):
            folder = self.run / self.known[identity].path
            for one in left_out(folder):
                if one.example_id == example.example_id:
                    return f"{one.reason}: {CODES[one.reason].meaning}"
        return None

    def _sampler(self, policy: str) -> Sampler:
        if not policy:
            return Sampler(policy, "data set", None)
        if (trained := self.known.get(policy.removesuffix(AVERAGED))) is not None:
            path = f"{trained.path}/{EMA}" if policy.endswith(AVERAGED) else trained.path
            return Sampler(policy, path, _from(trained)["round"])
        return Sampler(policy, "start model" if policy in self.start_models else "a policy that was removed", None)

    def _present(self, step: Entry) -> bool:
        """Whether everything that it is of, near or far, lies in place."""
        slots = _from(step)["inputs"].values()
        read = {identity.removesuffix(AVERAGED) for slot in slots for identity in slot} - self.start_models
        entries = [self.known.get(identity) for identity in read]
        return all(
            entry is not None and not entry.path.startswith(f"{SUPERSEDED}/") and self._present(entry)
            for entry in entries
        )

    def _read(self, step: Entry, slot: str) -> list[Entry]:
        identities: Sequence[str] = _from(step)["inputs"][slot]
        if any(identity not in self.known for identity in identities):
            raise DataError(
                f"{self.run}/{step.path}: its {slot} were replaced and removed; it cannot be told any more."
            )
        return [self.known[identity] for identity in identities]

    def _shards(self, entry: Entry) -> list[Path]:
        return shards_in(self.run / entry.path / _holds(entry)[Prompt])

    def _records(self, step: Entry, slot: str, kind: type[R], shard: str) -> Iterator[R]:
        return chain.from_iterable(self.records(entry, kind, shard) for entry in self._read(step, slot))


def _of_group(group: Group, found: str, examples: Sequence[Example]) -> Iterator[Example | None]:
    """The examples of a group that an id means: itself, or all of a prompt's; None where the prompt gave none."""
    if any(prompt.prompt_id == found for prompt in group.prompts):
        yield from [one for one in examples if one.prompt.root_id == group.root.root_id] or [None]
    else:
        yield from (one for one in examples if one.example_id == found and one.prompt.root_id == group.root.root_id)


def _only_one(wanted: str, examples: set[str], prompts: set[str], run: Path) -> str:
    """The id that was meant."""
    known = examples | prompts
    if wanted in known:
        return wanted
    found = sorted(identity for identity in known if wanted and identity.startswith(wanted))
    if len(found) == 1:
        return found[0]
    if found:
        some = ", ".join(found[:NEAREST])
        raise RecipeError(f"{run}: {len(found)} ids begin with '{wanted}': {some}{', ...' * (len(found) > NEAREST)}.")
    nearest = get_close_matches(wanted, sorted(examples) or sorted(prompts), n=NEAREST, cutoff=0.0)
    kind = "example" if examples else "prompt"
    hint = f"Nearest {kind} ids: {', '.join(nearest)}." if nearest else "It has made no prompts yet."
    raise RecipeError(f"{run}: no example and no prompt of it has the id '{wanted}'. {hint}")


def _from(entry: Entry) -> MadeFrom:
    assert entry.made_from is not None
    return entry.made_from


def _type(entry: Entry) -> str:
    return _from(entry)["settings"]["type"]


def _settings(entry: Entry) -> Any:
    return STEP_CLASSES[_type(entry)].model_validate(_from(entry)["settings"])


def _holds(entry: Entry) -> Any:
    return STEP_TYPES[_type(entry)].holds(_settings(entry))
