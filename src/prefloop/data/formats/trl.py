"""TRL's types of data sets: preferences with explicit and implicit prompt, unpaired answers, completions, dialogues.

https://huggingface.co/docs/trl/dataset_formats
"""

from itertools import takewhile

from prefloop.data.formats.assembly import (
    ABOUT_PAIR,
    Answer,
    given_dialogue,
    given_dialogues,
    given_pair,
    judged_answers,
    labelled,
    prompt_of,
)
from prefloop.data.formats.fields import (
    ABOUT_PROMPT,
    Values,
    asked,
    required,
)
from prefloop.data.formats.registry import ANSWERED, FLAG, MESSAGES, REPLY, TEXT, Format, register
from prefloop.data.given import Given
from prefloop.data.messages import answer_of, text_of
from prefloop.data.problems import RowRefused
from prefloop.records import Message


def _explicit(values: Values, place: str) -> Given:
    prompt = prompt_of(asked(values, "prompt"), values, place)
    chosen, rejected = (answer_of(required(values, key), key) for key in ("chosen", "rejected"))
    return given_pair(prompt, chosen, rejected, values, place)


def _implicit(values: Values, place: str) -> Given:
    return given_dialogues(asked(values, "chosen"), asked(values, "rejected"), values, place)


def _implicit_text(values: Values, place: str) -> Given:
    """The prompt is what both texts begin with, up to the last white space: a word is never split between the two."""
    chosen, rejected = (text_of(required(values, key), key) for key in ("chosen", "rejected"))
    if chosen == rejected:
        raise RowRefused("identical", "chosen and rejected are the same text")
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False)))
    begins = max((end + 1 for end in range(same) if chosen[end].isspace()), default=0)
    shared = chosen[:begins].strip()
    if not shared:
        raise RowRefused("different_prompts", "chosen and rejected do not begin with the same words")
    prompt = prompt_of((Message(role="user", content=shared),), values, place)
    answer, other = text_of(chosen[begins:], "chosen"), text_of(rejected[begins:], "rejected")
    return given_pair(prompt, answer, other, values, place)


def _unpaired(values: Values, place: str) -> Given:
    prompt = prompt_of(asked(values, "prompt"), values, place)
    return labelled(prompt, answer_of(required(values, "completion"), "completion"), "label", values, place)


def _completion(values: Values, place: str) -> Given:
    prompt = prompt_of(asked(values, "prompt"), values, place)
    return judged_answers(prompt, [Answer(answer_of(required(values, "completion"), "completion"))], {}, values, place)


def _dialogue(values: Values, place: str) -> Given:
    return given_dialogue(asked(values, "messages"), values, place, "messages")


register(
    Format(
        "trl_preference",
        "conversational TRL preference",
        {"prompt": MESSAGES, "chosen": REPLY, "rejected": REPLY},
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
        {"prompt": TEXT, "chosen": REPLY, "rejected": REPLY},
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
        {"prompt": TEXT | MESSAGES, "completion": REPLY, "label": FLAG},
        ABOUT_PROMPT,
        _unpaired,
        '{"prompt": "How are you?", "completion": "Fine, thanks.", "label": true}',
        {"prompt": ("instruction", "question")},
    )
)
register(
    Format(
        "trl_completion",
        "TRL prompt and completion",
        {"prompt": TEXT | MESSAGES, "completion": REPLY},
        ABOUT_PROMPT,
        _completion,
        '{"prompt": "How are you?", "completion": "Fine, thanks."}',
        {"prompt": ("instruction", "question")},
    )
)
register(
    Format(
        "trl_messages",
        "TRL dialogues (language modelling)",
        {"messages": ANSWERED},
        ABOUT_PROMPT,
        _dialogue,
        '{"messages": [{"role": "user", "content": "How are you?"}, {"role": "assistant", "content": "Fine."}]}',
    )
)
