"""Given pairs, with versions of the chosen answer from which ever more of its key content was taken (SPO).

arXiv:2409.17791 removes key content and has the model tell the degrees apart; how it finds key content is not known
here. It is RAKE (Rose et al. 2010): runs of words between function words and punctuation are key phrases, and a phrase
scores the sum over its words of (how many words it stands beside in phrases) / (how often it occurs).
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated

from pydantic import Field

from prefloop.pairing.given import given
from prefloop.pairing.registry import Dropped, rule
from prefloop.records import Example, Group, Member, digest

Span = tuple[int, int]
"""Characters from the first to behind the last."""

_FUNCTION_WORDS = (
    "a about above after again all also am an and any are as at be because been before being below between both but "
    "by can could did do does doing down during each few for from further had has have having he her here hers him "
    "his how i if in into is it its just like me more most my no nor not now of off on once only or other our out "
    "over own same she should so some such than that the their theirs them then there these they this those through "
    "to too under until up very was we were what when where which while who whom why will with would you your yours"
)
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
_WORDS = re.compile(r"\w+(?:['\u2019-]\w+)*")
_BREAKS = re.compile(r"[^\w\s]|\n")


def key_phrases(text: str) -> list[Span]:
    """Where the key phrases of a text stand, the highest score first; of equal ones the first."""
    phrases: list[list[re.Match[str]]] = [[]]
    end = 0
    for word in _WORDS.finditer(text):
        if _BREAKS.search(text, end, word.start()):
            phrases.append([])
        if word[0].lower() in FUNCTION_WORDS:
            phrases.append([])
        else:
            phrases[-1].append(word)
        end = word.end()
    phrases = [phrase for phrase in phrases if phrase]
    frequency, beside = Counter[str](), Counter[str]()
    for phrase in phrases:
        for word in phrase:
            frequency[word[0].lower()] += 1
            beside[word[0].lower()] += len(phrase)

    def score(phrase: Sequence[re.Match[str]]) -> float:
        return sum(beside[word[0].lower()] / frequency[word[0].lower()] for word in phrase)

    return [(phrase[0].start(), phrase[-1].end()) for phrase in sorted(phrases, key=lambda one: -score(one))]


def graded_versions(text: str, grades: int) -> list[tuple[int, str]]:
    """Versions of a text with their grades: grade g of G lacks the first g / G of its key phrases.

    Grade 0 is the text itself; what one grade lacks the next one lacks too. A grade that lacks no more than the one
    before it, or of which nothing is left, is left out.

    Args:
        text: an answer.
        grades: G, how many there are at most, >= 2.
    """
    phrases = key_phrases(text)
    found = [(0, text)]
    for grade in range(1, grades):
        version = _without(text, phrases[: round(grade * len(phrases) / grades)])
        if version and version != found[-1][1]:
            found.append((grade, version))
    return found


def _without(text: str, spans: Sequence[Span]) -> str:
    kept, end = "", 0
    for start, stop in sorted(spans):
        kept, end = kept + text[end:start], stop
    return re.sub(r" {2,}", " ", kept + text[end:]).strip() if spans else text


@rule(writes=Example, roles=("chosen", "rejected", "degree"), reads_given=True)
def degraded(group: Group, *, grades: Annotated[int, Field(ge=2)] = 4) -> Iterator[Example | Dropped]:
    """Every given preference between two answers, and graded versions of the chosen one beside them.

    A short answer has fewer versions than there are grades; the untouched one is always there.

    Args:
        group: a prompt with answers and preference judgments.
        grades: degrees at most; the last lacks all but one part in so many of the key phrases.
    """
    for one in given(group):
        if isinstance(one, Dropped):
            yield one
            continue
        chosen = one.member("chosen")
        versions = graded_versions(chosen.text, grades)
        members = [
            Member(
                role="degree",
                response_id=digest([chosen.response_id, "degree", text])[:16],
                text=text,
                finished=chosen.finished,
                numbers={"grade": float(grade)},
            )
            for grade, text in versions
        ]
        why = f"degraded: {len(versions)} of {grades} degrees; {one.why}"
        yield one.model_copy(update={"members": (*one.members, *members), "why": why})
