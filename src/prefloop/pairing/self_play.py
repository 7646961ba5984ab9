"""Demonstrations against the policy's own answers: nobody judges (SPIN, arXiv:2401.01335; SPRec, arXiv:2412.09243)."""

from collections.abc import Iterator

from prefloop.pairing.groups import member, pair
from prefloop.pairing.recommendation import first_item
from prefloop.pairing.registry import Dropped, rule
from prefloop.records import Example, Group


@rule(writes=Example, roles=("chosen", "rejected"), needs=("responses",))
def self_play(group: Group, *, first_quoted: bool = False) -> Iterator[Example | Dropped]:
    """Every given answer against every own one.

    Args:
        group: a prompt with given answers and sampled ones.
        first_quoted: the rejected answer is the first quoted item of the own text, in quotes with a newline behind it,
            as a recommender's data has them (SPRec); it is a text without the sampled tokens. An answer without one
            gives nothing.
    """
    given = [response for response in group.responses if response.step == "given"]
    own = [response for response in group.responses if response.step != "given"]
    if not given or not own:
        yield Dropped("no own answer" if given else "no given answer")
    for chosen in given:
        for sampled in own:
            text = first_item(sampled.text) if first_quoted else sampled.text
            if text is None:
                yield Dropped("no quoted item")
                continue
            if text == chosen.text:
                yield Dropped("same text")
                continue
            rejected = sampled
            if first_quoted:
                rejected = sampled.model_copy(
                    update={
                        "text": text,
                        "token_ids": None,
                        "ids_from": "text",
                        "num_thinking": 0,
                        "thinking": "",
                        "sum_logp": None,
                        "finish_reason": "given",
                    }
                )
            yield pair(
                group,
                member("chosen", chosen),
                member("rejected", rejected),
                why=f"self_play: given answer against own answer {sampled.index}",
            )
