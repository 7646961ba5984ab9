"""Two answers as one text, in both orders: what pairwise models read and learn from (PairRM, arXiv:2306.02561)."""

import re
from collections.abc import Iterator

from prefloop.pairing.given import given
from prefloop.pairing.groups import member, pair
from prefloop.pairing.registry import Dropped, rule
from prefloop.records import Example, Group, Response

FORM = "Answer A:\n{first}\n\nAnswer B:\n{second}"
"""How models that are trained here are shown two answers."""
PLACES = re.compile(r"\{first\}|\{second\}")


def side_by_side_text(first: str, second: str, form: str = FORM) -> str:
    """Two answers in the order in which they are shown.

    Args:
        first: shown first.
        second: shown behind it.
        form: with `{first}` and `{second}`. What else stands in it is broken in the answers, by a space without width,
            so that none of them can begin the other.
    """
    headings = [part.strip() for part in PLACES.split(form) if part.strip()]
    shown = {"{first}": first, "{second}": second}
    for place, text in shown.items():
        safe = text
        for heading in headings:
            safe = safe.replace(heading, f"{heading[0]}\u200b{heading[1:]}")
        shown[place] = safe
    return PLACES.sub(lambda found: shown[found[0]], form)


@rule(writes=Example, roles=("chosen", "rejected"), reads_given=True)
def side_by_side(group: Group) -> Iterator[Example | Dropped]:
    """Every given pair as two texts, the better answer shown first and shown second (for objective `pair_ranker`).

    The chosen text is the one that begins with the better answer.

    Args:
        group: a prompt with answers and preference judgments, P(first wins).
    """
    for one in given(group):
        if isinstance(one, Dropped):
            yield one
            continue
        better, worse = (group.by_id[one.member(role).response_id] for role in ("chosen", "rejected"))
        made = pair(
            group,
            member("chosen", _shown(better, worse)),
            member("rejected", _shown(worse, better)),
            why=f"side_by_side: {one.why}",
            weight=one.weight,
            **one.numbers,
        )
        yield made


def _shown(first: Response, second: Response) -> Response:
    text = side_by_side_text(first.text, second.text)
    return first.model_copy(update={"text": text, "thinking": "", "token_ids": None, "finish_reason": "stop"})
