"""Demonstrations cut open, and what comes of a rewritten segment (SAPO, arXiv:2405.20830)."""

import random
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from prefloop.pairing.groups import member, pair
from prefloop.pairing.registry import Dropped, rule
from prefloop.pairing.segments import segment_range, splice
from prefloop.pairing.tokens import Tokens, ids_of
from prefloop.records import Example, Group, Prompt, digest, seed_for

Length = Annotated[int, Field(ge=1)]


@rule(writes=Prompt, needs=("responses",))
def cut_open(
    group: Group,
    tokens: Tokens,
    *,
    segment_length: Length = 256,
    max_length: Annotated[int, Field(ge=2)] = 2048,
    max_prompt_length: Length = 1792,
    seed: int = 0,
) -> Iterator[Prompt | Dropped]:
    """Every given answer up to where a segment of it is to be rewritten: a prompt with the beginning of its answer.

    Where the segment begins is drawn by answer and seed, evenly among the places that leave room for it. A sample step
    with `max_new_tokens` of that length writes it, and `spliced` puts it in.

    Args:
        group: a prompt with demonstrations.
        tokens: of the policy.
        segment_length: tokens that are rewritten at most; a shorter answer is rewritten whole.
        max_length: tokens of prompt and answer.
        max_prompt_length: tokens that the prompt is cut to at most.
        seed: another seed cuts elsewhere; `{by_round: [0, 1, ...]}` does so every round.
    """
    given = [response for response in group.responses if response.step == "given"]
    if not given:
        yield Dropped("no given answer")
    for response in given:
        prompt, ids = group.prompt_of(response.response_id), ids_of(response, tokens)
        _, (first, last) = segment_range(
            len(ids),
            len(tokens.prompt_ids(prompt)),
            segment_length=segment_length,
            max_length=max_length,
            max_prompt_length=max_prompt_length,
        )
        start = random.Random(seed_for("cut_open", seed, response.response_id)).randint(first, last)
        made = Prompt.of(
            prompt.messages,
            source=prompt.source,
            root_id=prompt.root_id,
            prefix_ids=ids[:start],
            answer=prompt.answer,
            tools=prompt.tools,
            numbers=prompt.numbers,
        )
        yield made.model_copy(update={"part": prompt.part})


@rule(writes=Example, roles=("chosen", "rejected"), needs=("responses",))
def spliced(group: Group, tokens: Tokens) -> Iterator[Example | Dropped]:
    """Every demonstration against itself with a segment rewritten by what was sampled behind its beginning.

    The segment takes the place of as many tokens as the sample step could write. Where it ends the answer, nothing
    follows it. Needs `finished_only: false`: a segment that was cut at its length is a whole one.

    Args:
        group: a prompt with demonstrations, and answers that begin as one of them does (`cut_open`).
        tokens: of the policy.
    """
    given = [(one, ids_of(one, tokens)) for one in group.responses if one.step == "given"]
    rewritten = [one for one in group.responses if one.step != "given" and one.token_ids is not None]
    if not given or not rewritten:
        yield Dropped("no rewritten segment" if given else "no given answer")
    for response in rewritten:
        begun = group.prompt_of(response.response_id).prefix_ids
        for chosen, ids in given:
            if ids[: len(begun)] != begun:
                continue
            length = min(int(str(response.settings["max_new_tokens"])), len(ids))
            segment = (response.token_ids or ())[len(begun) :][:length]
            eos = tokens.response_ids("", finished=True)[-1]
            made = tuple(splice(ids, len(begun), length, segment, eos))
            if made == ids:
                yield Dropped("same text")
                continue
            rejected = response.model_copy(
                update={
                    "response_id": digest([response.response_id, chosen.response_id])[:16],
                    "token_ids": made,
                    "text": tokens.text_of(made),
                    "finish_reason": "stop" if made[-1] == eos else "length",
                }
            )
            demonstrated = chosen.model_copy(update={"token_ids": ids})
            example = pair(
                group,
                member("chosen", demonstrated),
                member("rejected", rejected),
                why=f"spliced: {len(segment)} tokens for {length} from token {len(begun)} of {len(ids)}",
                start=float(len(begun)),
            )
            yield example.model_copy(update={"prompt": group.prompt_of(chosen.response_id)})
