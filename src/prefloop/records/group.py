"""A group: a root prompt with everything recorded about it. A view over aligned shards, never a record itself."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from prefloop.errors import DataError
from prefloop.records.nouns import Example, Judgment, Prompt, Response


@dataclass(frozen=True)
class Group:
    """One root prompt, the prompts derived from it, and all answers, judgments and earlier examples."""

    prompts: tuple[Prompt, ...]
    responses: tuple[Response, ...] = ()
    judgments: tuple[Judgment, ...] = ()
    examples: tuple[Example, ...] | None = None
    """Earlier examples of this prompt, where they were read: () has lost its examples, None was never asked for any."""

    @property
    def root(self) -> Prompt:
        """The prompt from which the others of this group were derived."""
        return self.prompts[0]

    @cached_property
    def by_id(self) -> dict[str, Response]:
        """Responses by their id."""
        return {response.response_id: response for response in self.responses}

    def text(self, response_id: str) -> str:
        """The text of a response."""
        return self.by_id[response_id].text

    def prompt_of(self, response_id: str) -> Prompt:
        """The prompt that a response answers."""
        wanted = self.by_id[response_id].prompt_id
        return next(prompt for prompt in self.prompts if prompt.prompt_id == wanted)


def grouped(
    prompts: Iterable[Prompt],
    responses: Iterable[Response] = (),
    judgments: Iterable[Judgment] = (),
    examples: Iterable[Example] | None = None,
) -> Iterator[Group]:
    """Groups in the order of their root prompts; give it one aligned shard at a time to keep memory flat.

    Raises:
        DataError: a judgment is about an answer that is not there.
    """
    of_root: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        members = of_root.setdefault(prompt.root_id, [])
        if prompt.prompt_id not in {known.prompt_id for known in members}:
            members.append(prompt)
    answers: dict[str, list[Response]] = {}
    root_of_response: dict[str, str] = {}
    for response in responses:
        answers.setdefault(response.root_id, []).append(response)
        root_of_response[response.response_id] = response.root_id
    said: dict[str, list[Judgment]] = {}
    for judgment in judgments:
        root = root_of_response.get(judgment.subjects[0])
        if root is None:
            raise DataError(
                f"answer {judgment.subjects[0]}, which {judgment.judge} judged, is not among those that are read here. "
                "Name the step that made it in `reads` as well."
            )
        said.setdefault(root, []).append(judgment)
    earlier: dict[str, list[Example]] = {}
    for example in examples or ():
        earlier.setdefault(example.prompt.root_id, []).append(example)
    for root_id, members in of_root.items():
        yield Group(
            prompts=tuple(members),
            responses=tuple(answers.get(root_id, ())),
            judgments=tuple(said.get(root_id, ())),
            examples=None if examples is None else tuple(earlier.get(root_id, ())),
        )
