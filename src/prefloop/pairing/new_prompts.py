"""New prompts that the policy itself writes (Self-Rewarding Language Models, arXiv:2401.10020, section 2.3)."""

import re
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from prefloop.pairing.registry import Dropped, rule
from prefloop.records import Group, Message, Prompt

NUMBERING = re.compile(r"^\W*(?:\d+\s*[.):]\s*)?")
"""What a line of a list begins with."""


@rule(writes=Prompt, needs=())
def prompt_writing(
    group: Group,
    *,
    examples: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)],
    instruction: Annotated[str, Field(min_length=1)] = "Things that people say to an assistant, all of them different:",
) -> Iterator[Prompt | Dropped]:
    """The request for one more prompt like some examples, the group's own question the last of them.

    `written_prompts` makes prompts of what comes of it.

    Args:
        group: a prompt; its last question is an example.
        examples: the others, in their order.
        instruction: stands before them.
    """
    asked = [message.content for message in group.root.messages if message.role == "user"]
    if not asked:
        yield Dropped("no question to be an example")
        return
    lines = [f"{number}. {' '.join(text.split())}" for number, text in enumerate([*examples, asked[-1]], 1)]
    text = "\n".join([instruction, *lines, f"{len(lines) + 1}."])
    yield group.root.derived(messages=(Message(role="user", content=text),))


@rule(writes=Prompt, needs=("responses",), of_each="answer")
def written_prompts(
    group: Group, *, min_words: Annotated[int, Field(ge=1)] = 3, like_others: bool = True
) -> Iterator[Prompt | Dropped]:
    """The first line of every finished answer as a prompt of its own.

    Too short ones, those that stood in the request, and what was written twice are left out.

    Args:
        group: a prompt with a request derived from it (`prompt_writing`), and what was written on it.
        min_words: of a prompt.
        like_others: what stands before the group's last question - a system turn, a greeting - stands before it, too.
    """
    before = group.root.messages[:-1] if like_others else ()
    requests = {" ".join(message.content.lower().split()) for one in group.prompts for message in one.messages}
    for response in group.responses:
        lines = [line for line in response.text.splitlines() if line.strip()]
        text = NUMBERING.sub("", lines[0]).strip() if lines else ""
        if response.finish_reason == "length":
            yield Dropped("not finished")
        elif len(text.split()) < min_words:
            yield Dropped("too short")
        elif any(text.lower() in request for request in requests):
            yield Dropped("nothing new")
        else:
            requests.add(text.lower())
            yield Prompt.of((*before, Message(role="user", content=text)), source=group.root.source)
