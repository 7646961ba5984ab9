"""Answers against what they were edited from, with the edited tokens marked (BMC, arXiv:2408.07471)."""

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from prefloop.pairing.edits import diff_masks, spans_of
from prefloop.pairing.given import given
from prefloop.pairing.groups import member, pair
from prefloop.pairing.registry import Dropped, rule
from prefloop.pairing.tokens import Tokens, ids_of
from prefloop.records import Example, Group, Message, Prompt, Response

EDITS = "edits"
"""Label of a prompt that asks for an edit: the id of the answer that is to be edited."""
PARTS = ("question", "rejected", "chosen")
TEMPLATE = """A question was answered twice. Improve the weak answer with as few changes as you can: keep its words \
wherever they will do, and take from the good answer what it lacks. Write the improved answer and nothing else.

Question:
{question}

Weak answer:
{rejected}

Good answer:
{chosen}"""
_ENGLISH = """
a about after again all am an and any are as at be because been before being between both but by can could did do does
doing down during each few for from further had has have having he her here hers him his how i if in into is it its just
me more most my no nor not of off on once only or other our out over own same she should so some such than that the
their them then there these they this those through to too under until up very was we were what when where which while
who whom why will with you your
"""
ENGLISH = frozenset(_ENGLISH.split())
"""Words that are everywhere; where one of them was changed, that says little."""


def _with_parts(template: str) -> str:
    if missing := [part for part in PARTS if f"{{{part}}}" not in template]:
        raise ValueError(f"expected {', '.join(f'{{{part}}}' for part in missing)} in the text")
    return template


Template = Annotated[str, AfterValidator(_with_parts)]


def editing_text(messages: Sequence[Message], rejected: str, chosen: str, template: str = TEMPLATE) -> str:
    """What an editor is asked: one message with the conversation and both answers.

    Args:
        messages: the conversation before the answers; of several turns each begins with who speaks.
        rejected: the answer that is to be edited.
        chosen: the answer to learn from.
        template: with {question}, {rejected} and {chosen}, each put in once and as it is.
    """
    alone = len(messages) == 1
    question = messages[0].content if alone else "\n".join(f"{one.role}: {one.content}" for one in messages)
    parts = {"question": question, "rejected": rejected, "chosen": chosen}
    return re.sub(r"\{(question|rejected|chosen)\}", lambda found: parts[found[1]], template)


@rule(writes=Prompt, reads_given=True)
def editing(group: Group, *, template: Template = TEMPLATE) -> Iterator[Prompt | Dropped]:
    """For every given pair, what an editor is asked: to improve the rejected answer with the chosen one as a guide.

    `edited` pairs what comes of it with what it was made of.

    Args:
        group: a prompt with given pairs.
        template: the question, with {question}, {rejected} and {chosen} in it.
    """
    for example in given(group):
        if isinstance(example, Dropped):
            yield example
            continue
        chosen, rejected = example.member("chosen"), example.member("rejected")
        asked = editing_text(example.prompt.messages, rejected.text, chosen.text, template)
        made = Prompt.of(
            (Message(role="user", content=asked),), source=example.prompt.source, root_id=example.prompt.root_id
        )
        yield made.model_copy(update={"part": example.prompt.part, "labels": {EDITS: rejected.response_id}})


def _edited_from(group: Group) -> list[tuple[Response, str]]:
    """Every edited answer, with the id of what it was made of."""
    asked = {prompt.prompt_id: (prompt.labels or {}).get(EDITS) for prompt in group.prompts}
    found = [(one, one.parent_id or asked.get(one.prompt_id)) for one in group.responses]
    return [(one, parent) for one, parent in found if parent is not None]


@rule(writes=Example, roles=("chosen", "rejected"), needs=("responses",))
def edited(
    group: Group,
    tokens: Tokens,
    *,
    ignored_words: Literal["english"] | tuple[str, ...] = "english",
    max_edited: Annotated[float, Field(gt=0, le=1)] = 1.0,
) -> Iterator[Example | Dropped]:
    """Every edited answer against the one that it was made of, behind their question; edits are marked spans.

    An answer is an edit of its `parent_id`, or of the one that its prompt asks to edit (rule `editing`).

    Args:
        group: a prompt with answers and edited answers.
        tokens: of the policy; the edits are found token by token.
        ignored_words: in small letters; a token that is such a word by itself is never marked. `english` are words that
            every English text has.
        max_edited: share of both answers' tokens that may differ; beyond it the edit is a new answer.
    """
    ignored = ENGLISH if ignored_words == "english" else ignored_words
    answers = _edited_from(group)
    if not answers:
        yield Dropped("no edited answer")
    for answer, parent in answers:
        original = group.by_id.get(parent)
        if original is None:
            yield Dropped("what was edited is missing")
            continue
        chosen, rejected = (one.model_copy(update={"token_ids": ids_of(one, tokens)}) for one in (answer, original))
        ids = chosen.token_ids or (), rejected.token_ids or ()
        changed = diff_masks(*ids)
        share = sum(map(sum, changed)) / max(sum(map(len, changed)), 1)
        if not share:
            yield Dropped("nothing was edited")
        elif share > max_edited:
            yield Dropped("edited too much")
        else:
            said = {token: tokens.text_of([token]).strip().lower() for token in {*ids[0], *ids[1]}}
            marks = diff_masks(*ids, {token for token, word in said.items() if word in ignored})
            made = pair(
                group,
                member("chosen", chosen),
                member("rejected", rejected),
                why=f"edited: {share:.0%} of tokens",
                edited=share,
            )
            members = tuple(
                one.model_copy(update={"marked": spans_of(mask)}) for one, mask in zip(made.members, marks, strict=True)
            )
            yield made.model_copy(update={"members": members, "prompt": group.prompt_of(original.response_id)})
