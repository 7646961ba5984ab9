"""TRL's types of data sets: preferences with explicit and implicit prompt, unpaired answers, completions, dialogues.

https://huggingface.co/docs/trl/dataset_formats
"""

from itertools import takewhile

from prefloop.data.formats.fields import (
    ABOUT_PAIR,
    ABOUT_PROMPT,
    Answer,
    Values,
    asked,
    flag_of,
    given_pair,
    judged_answers,
    prompt_of,
    required,
)
from prefloop.data.formats.registry import ANSWER, MESSAGES, TEXT, Format, register
from prefloop.data.given import Given
from prefloop.data.messages import answer_of, messages_of, taken_apart, text_of
from prefloop.data.problems import RowRefused
from prefloop.records import Message


def _explicit(values: Values, place: str) -> Given:
    prompt = prompt_of(asked(values, "prompt"), values, place)
    chosen, rejected = (answer_of(required(values, key), key) for key in ("chosen", "rejected"))
    return given_pair(prompt, chosen, rejected, values, place)


def _implicit(values: Values, place: str) -> Given:
    sides = {key: messages_of(required(values, key), key) for key in ("chosen", "rejected")}
    (before, chosen), (other, rejected) = (taken_apart(messages, key) for key, messages in sides.items())
    if before != other:
        raise RowRefused("different_prompts", "chosen and rejected differ before their last turn")
    return given_pair(prompt_of(before, values, place, "chosen"), chosen, rejected, values, place)


def _implicit_text(values: Values, place: str) -> Given:
    """The prompt is what both texts begin with, up to the last white space: a word is never split between the two."""
    chosen, rejected = (text_of(required(values, key), key) for key in ("chosen", "rejected"))
    if chosen == rejected:
        raise RowRefused("identical", "chosen and rejected are the same text")
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False)))
    begins = max((place + 1 for place in range(same) if chosen[place].isspace()), default=0)
    shared = chosen[:begins].strip()
    if not shared:
        raise RowRefused("different_prompts", "chosen and rejected do not begin with the same words")
    prompt = prompt_of((Message(role="user", content=shared),), values, place)
    answer, other = text_of(chosen[begins:], "chosen"), text_of(rejected[begins:], "rejected")
    return given_pair(prompt, answer, other, values, place)


def _unpaired(values: Values, place: str) -> Given:
    prompt = prompt_of(asked(values, "prompt"), values, place)
    answer = Answer(answer_of(required(values, "completion"), "completion"))
    label = flag_of(required(values, "label"), "label")
    return judged_answers(prompt, [answer], {("label", "overall"): [float(label)]}, values, place)


def _completion(values: Values, place: str) -> Given:
    prompt = prompt_of(asked(values, "prompt"), values, place)
    return judged_answers(prompt, [Answer(answer_of(required(values, "completion"), "completion"))], {}, values, place)


def _dialogue(values: Values, place: str) -> Given:
    before, said = taken_apart(messages_of(required(values, "messages"), "messages"), "messages")
    return judged_answers(prompt_of(before, values, place, "messages"), [Answer(said)], {}, values, place)


register(
    Format(
        "trl_preference",
        "conversational TRL preference",
        {"prompt": MESSAGES, "chosen": ANSWER | TEXT, "rejected": ANSWER | TEXT},
        ABOUT_PAIR,
        _explicit,
        '{"prompt": [{"role": "user", "content": "How are you?"}], '
        '"chosen": [{"role": "assistant", "content": "Fine, thanks."}], '
        '"rejected": [{"role": "assistant", "content": "Go away."}], "score_chosen": 8.5, "score_rejected": 2.0}',
    )
)
register(
    Format(
        "trl_preference_text",
        "plain-text TRL preference",
        {"prompt": TEXT, "chosen": ANSWER | TEXT, "rejected": ANSWER | TEXT},
        ABOUT_PAIR,
        _explicit,
        '{"prompt": "How are you?", "chosen": "Fine, thanks.", "rejected": "Go away.", "weight": 0.5, "margin": 1.5}',
    )
)
register(
    Format(
        "trl_preference_implicit",
        "conversational TRL preference with implicit prompt",
        {"chosen": MESSAGES, "rejected": MESSAGES},
        ABOUT_PAIR,
        _implicit,
        '{"chosen": [{"role": "user", "content": "How are you?"}, {"role": "assistant", "content": "Fine, thanks."}], '
        '"rejected": [{"role": "user", "content": "How are you?"}, {"role": "assistant", "content": "Go away."}], '
        '"chosen_score": 4, "rejected_score": 2, "chosen_model": "large", "rejected_model": "small"}',
    )
)
register(
    Format(
        "trl_preference_implicit_text",
        "plain-text TRL preference with implicit prompt",
        {"chosen": TEXT, "rejected": TEXT},
        ABOUT_PAIR,
        _implicit_text,
        '{"chosen": "The sky is blue.", "rejected": "The sky is green."}',
    )
)
register(
    Format(
        "trl_unpaired",
        "TRL unpaired preference",
        {"prompt": TEXT | MESSAGES, "completion": ANSWER | TEXT, "label": frozenset({"flag", "number"})},
        ABOUT_PROMPT,
        _unpaired,
        '{"prompt": "How are you?", "completion": "Fine, thanks.", "label": true}',
    )
)
register(
    Format(
        "trl_completion",
        "TRL prompt and completion",
        {"prompt": TEXT | MESSAGES, "completion": ANSWER | TEXT},
        ABOUT_PROMPT,
        _completion,
        '{"prompt": "How are you?", "completion": "Fine, thanks."}',
    )
)
register(
    Format(
        "trl_messages",
        "TRL dialogues (language modelling)",
        {"messages": frozenset({"dialogue"})},
        ABOUT_PROMPT,
        _dialogue,
        '{"messages": [{"role": "user", "content": "How are you?"}, {"role": "assistant", "content": "Fine."}]}',
    )
)
