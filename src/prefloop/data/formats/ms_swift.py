"""ms-swift's messages with a rejected answer or a label, and its query and response.

https://swift.readthedocs.io/en/latest/Customization/Custom-dataset.html
"""

from prefloop.data.formats.assembly import (
    ABOUT_PAIR,
    Answer,
    given_dialogue,
    given_dialogues,
    given_pair,
    judged_answers,
    prompt_of,
)
from prefloop.data.formats.fields import ABOUT_PROMPT, Values, asked, required
from prefloop.data.formats.llama_factory import alpaca_prompt
from prefloop.data.formats.registry import DIALOGUE, FLAG, TEXT, Format, register
from prefloop.data.given import Given
from prefloop.data.messages import taken_apart, text_of


def _rejected_response(values: Values, place: str) -> Given:
    before, chosen = taken_apart(asked(values, "messages"), "messages")
    rejected = text_of(required(values, "rejected_response"), "rejected_response")
    return given_pair(prompt_of(before, values, place, "messages"), chosen, rejected, values, place)


def _rejected_messages(values: Values, place: str) -> Given:
    fields = ("messages", "rejected_messages")
    return given_dialogues(asked(values, fields[0]), asked(values, fields[1]), values, place, fields)


def _label(values: Values, place: str) -> Given:
    return given_dialogue(asked(values, "messages"), values, place, "messages", "label")


def _query(values: Values, place: str) -> Given:
    answer = Answer(text_of(required(values, "response"), "response"))
    return judged_answers(alpaca_prompt(values, place, "query"), [answer], {}, values, place)


def _query_pair(values: Values, place: str) -> Given:
    prompt = alpaca_prompt(values, place, "query")
    chosen, rejected = (text_of(required(values, key), key) for key in ("response", "rejected_response"))
    return given_pair(prompt, chosen, rejected, values, place)


register(
    Format(
        "swift_preference",
        "ms-swift preference",
        {"messages": DIALOGUE, "rejected_response": TEXT},
        ABOUT_PAIR,
        _rejected_response,
        '{"messages": [{"role": "user", "content": "How are you?"}, {"role": "assistant", "content": "Fine."}], '
        '"rejected_response": "Go away."}',
    )
)
register(
    Format(
        "swift_preference_messages",
        "ms-swift preference with rejected messages",
        {"messages": DIALOGUE, "rejected_messages": DIALOGUE},
        ABOUT_PAIR,
        _rejected_messages,
        '{"messages": [{"role": "user", "content": "How are you?"}, {"role": "assistant", "content": "Fine."}], '
        '"rejected_messages": [{"role": "user", "content": "How are you?"}, '
        '{"role": "assistant", "content": "Go away."}]}',
    )
)
register(
    Format(
        "swift_unpaired",
        "messages with label (ms-swift, LLaMA-Factory)",
        {"messages": DIALOGUE, "label": FLAG},
        ABOUT_PROMPT,
        _label,
        '{"messages": [{"role": "user", "content": "How are you?"}, {"role": "assistant", "content": "Go away."}], '
        '"label": false}',
    )
)
register(
    Format(
        "swift_query",
        "ms-swift query and response",
        {"query": TEXT, "response": TEXT},
        ABOUT_PROMPT | {"history"},
        _query,
        '{"system": "Be polite.", "query": "How are you?", "response": "Fine.", "history": [["Hello!", "Hello."]]}',
    )
)
register(
    Format(
        "swift_query_preference",
        "ms-swift query and two responses",
        {"query": TEXT, "response": TEXT, "rejected_response": TEXT},
        ABOUT_PAIR | {"history"},
        _query_pair,
        '{"query": "How are you?", "response": "Fine, thanks.", "rejected_response": "Go away."}',
    )
)
