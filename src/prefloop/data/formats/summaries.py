"""Comparisons of summaries of forum posts (TL;DR), as published with arXiv:2009.01325.

https://github.com/openai/summarize-from-feedback
"""

from collections.abc import Mapping
from typing import Any

from prefloop.data.formats.assembly import Answer, judged_pair, prompt_of
from prefloop.data.formats.fields import ABOUT_PROMPT, Values, mappings_of, number_of, required
from prefloop.data.formats.registry import MAPPING, MAPPINGS, NUMBER, Format, register
from prefloop.data.given import Given
from prefloop.data.messages import shown, text_of
from prefloop.data.problems import RowRefused
from prefloop.records import Message


def _comparison(values: Values, place: str) -> Given:
    summaries = mappings_of(required(values, "summaries"), "summaries")
    if len(summaries) != 2:
        raise RowRefused("wrong_type", f"summaries has {len(summaries)} entries, expected two")
    answers = [
        Answer(text_of(required(one, "text"), f"summaries[{number}].text").strip(), str(one.get("policy") or ""))
        for number, one in enumerate(summaries)
    ]
    choice = number_of(required(values, "choice"), "choice")
    if choice not in (0, 1):
        raise RowRefused(
            "out_of_range", f"choice is {shown(choice)}, expected 0 or 1, the number of the better summary"
        )
    (info,) = mappings_of([required(values, "info")], "info")
    asked = Message(role="user", content=_request(info))
    return judged_pair(prompt_of((asked,), values, place, "info"), answers, 1 - choice, None, values, place)


def _request(info: Mapping[str, Any]) -> str:
    """A post with its heads, or a news article, and what is asked of it, as the paper's policies were given it."""
    if info.get("post") is None:
        return f"Article: {text_of(required(info, 'article'), 'info.article').strip()}\n\nTL;DR:"
    heads = {"SUBREDDIT": ("subreddit", "r/"), "TITLE": ("title", ""), "POST": ("post", "")}
    lines = [
        f"{head}: {before}{text_of(info[key], f'info.{key}').strip()}"
        for head, (key, before) in heads.items()
        if info.get(key)
    ]
    return "\n\n".join([*lines, "TL;DR:"])


register(
    Format(
        "summaries",
        "comparisons of two summaries (TL;DR)",
        {"info": MAPPING, "summaries": MAPPINGS, "choice": NUMBER},
        ABOUT_PROMPT | {"weight", "worker", "batch", "split", "extra"},
        _comparison,
        '{"info": {"subreddit": "tifu", "title": "A late train", "post": "I fell asleep and missed my stop."}, '
        '"summaries": [{"text": " Slept on a train.", "policy": "sup1"}, {"text": " Trains.", "policy": "ref"}], '
        '"choice": 0}',
    )
)
