"""LLaMA-Factory's alpaca and sharegpt files, with their default column names.

https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md
"""

from prefloop.data.formats.assembly import (
    ABOUT_PAIR,
    Answer,
    given_dialogue,
    given_pair,
    judged_answers,
    labelled,
    prompt_of,
)
from prefloop.data.formats.fields import ABOUT_PROMPT, Values, asked, required
from prefloop.data.formats.registry import FLAG, MAPPING, MESSAGES, TEXT, Format, register
from prefloop.data.given import Given
from prefloop.data.messages import answer_of, shown, text_of
from prefloop.data.problems import RowRefused
from prefloop.records import Message, Prompt

ALPACA = ABOUT_PROMPT | {"input", "history"}


def alpaca_prompt(values: Values, place: str, instruction: str, further: str | None = None) -> Prompt:
    r"""The turns of `history`, then the instruction, and after a line break the input where there is one.

    Raises:
        RowRefused: a column is absent or malformed.
    """
    asks = text_of(required(values, instruction), instruction)
    more = values.get(further) if further is not None else None
    if more is not None and further is not None and more != "":
        asks = f"{asks}\n{text_of(more, further)}"
    return prompt_of((*_history(values.get("history")), Message(role="user", content=asks)), values, place, instruction)


def _history(value: object) -> list[Message]:
    """Earlier turns, as pairs of what the user and the assistant said."""
    turns: list[Message] = []
    if value is not None and not isinstance(value, list):
        raise RowRefused("wrong_type", f"history is {shown(value)}, expected a list of pairs of texts")
    for number, exchange in enumerate(value or []):
        if not isinstance(exchange, list) or len(exchange) != 2:
            raise RowRefused("wrong_type", f"history[{number}] is {shown(exchange)}, expected a pair of texts")
        asks, says = (text_of(said, f"history[{number}]") for said in exchange)
        turns += [Message(role="user", content=asks), Message(role="assistant", content=says)]
    return turns


def _alpaca_pair(values: Values, place: str) -> Given:
    prompt = alpaca_prompt(values, place, "instruction", "input")
    chosen, rejected = (text_of(required(values, key), key) for key in ("chosen", "rejected"))
    return given_pair(prompt, chosen, rejected, values, place)


def _alpaca(values: Values, place: str) -> Given:
    prompt = alpaca_prompt(values, place, "instruction", "input")
    return judged_answers(prompt, [Answer(text_of(required(values, "output"), "output"))], {}, values, place)


def _alpaca_label(values: Values, place: str) -> Given:
    prompt = alpaca_prompt(values, place, "instruction", "input")
    return labelled(prompt, text_of(required(values, "output"), "output"), "kto_tag", values, place)


def _sharegpt_pair(values: Values, place: str) -> Given:
    prompt = prompt_of(asked(values, "conversations"), values, place, "conversations")
    chosen, rejected = (answer_of(required(values, key), key) for key in ("chosen", "rejected"))
    return given_pair(prompt, chosen, rejected, values, place)


def _sharegpt(values: Values, place: str) -> Given:
    return given_dialogue(asked(values, "conversations"), values, place, "conversations")


def _sharegpt_label(values: Values, place: str) -> Given:
    return given_dialogue(asked(values, "conversations"), values, place, "conversations", "kto_tag")


register(
    Format(
        "alpaca_preference",
        "LLaMA-Factory alpaca preference",
        {"instruction": TEXT, "chosen": TEXT, "rejected": TEXT},
        ABOUT_PAIR | ALPACA,
        _alpaca_pair,
        '{"instruction": "Translate into French.", "input": "Hello", "chosen": "Bonjour", "rejected": "Hola", '
        '"system": "Be brief.", "history": [["Hello!", "Hello. What can I do?"]]}',
    )
)
register(
    Format(
        "alpaca",
        "LLaMA-Factory alpaca",
        {"instruction": TEXT, "output": TEXT},
        ALPACA,
        _alpaca,
        '{"instruction": "Translate into French.", "input": "Hello", "output": "Bonjour"}',
    )
)
register(
    Format(
        "alpaca_unpaired",
        "LLaMA-Factory alpaca with kto_tag",
        {"instruction": TEXT, "output": TEXT, "kto_tag": FLAG},
        ALPACA,
        _alpaca_label,
        '{"instruction": "Translate into French.", "input": "Hello", "output": "Hola", "kto_tag": false}',
        {"kto_tag": ("label",)},
    )
)
register(
    Format(
        "sharegpt_preference",
        "LLaMA-Factory sharegpt preference",
        {"conversations": MESSAGES, "chosen": MAPPING, "rejected": MAPPING},
        ABOUT_PAIR,
        _sharegpt_pair,
        '{"conversations": [{"from": "human", "value": "How are you?"}], '
        '"chosen": {"from": "gpt", "value": "Fine, thanks."}, "rejected": {"from": "gpt", "value": "Go away."}}',
    )
)
register(
    Format(
        "sharegpt",
        "ShareGPT dialogues",
        {"conversations": MESSAGES},
        ABOUT_PROMPT,
        _sharegpt,
        '{"conversations": [{"from": "human", "value": "Turn on the light."}, '
        '{"from": "function_call", "value": "{\\"name\\": \\"switch\\", \\"arguments\\": {\\"on\\": true}}"}, '
        '{"from": "observation", "value": "ok"}, {"from": "gpt", "value": "Done."}], '
        '"tools": "[{\\"name\\": \\"switch\\"}]"}',
    )
)
register(
    Format(
        "sharegpt_unpaired",
        "LLaMA-Factory sharegpt with kto_tag",
        {"conversations": MESSAGES, "kto_tag": FLAG},
        ABOUT_PROMPT,
        _sharegpt_label,
        '{"conversations": [{"from": "human", "value": "How are you?"}, {"from": "gpt", "value": "Go away."}], '
        '"kto_tag": false}',
        {"kto_tag": ("label",)},
    )
)
