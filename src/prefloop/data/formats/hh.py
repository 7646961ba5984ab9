"""Anthropic's HH: dialogues as transcripts of Human and Assistant.

https://github.com/anthropics/hh-rlhf
"""

from prefloop.data.formats.assembly import ABOUT_PAIR, given_dialogues, given_pair, judged_answers, prompt_of
from prefloop.data.formats.fields import ABOUT_PROMPT, Values, required
from prefloop.data.formats.registry import TEXT, TRANSCRIPT, Format, register
from prefloop.data.given import Given
from prefloop.data.messages import text_of, transcript_of, transcript_prompt_of


def _pair(values: Values, place: str) -> Given:
    chosen, rejected = (transcript_of(required(values, key), key) for key in ("chosen", "rejected"))
    return given_dialogues(chosen, rejected, values, place)


def _explicit(values: Values, place: str) -> Given:
    prompt = prompt_of(transcript_prompt_of(required(values, "prompt"), "prompt"), values, place)
    chosen, rejected = (text_of(required(values, key), key).strip() for key in ("chosen", "rejected"))
    return given_pair(prompt, chosen, rejected, values, place)


def _prompt(values: Values, place: str) -> Given:
    prompt = prompt_of(transcript_prompt_of(required(values, "prompt"), "prompt"), values, place)
    return judged_answers(prompt, [], {}, values, place)


register(
    Format(
        "hh",
        "HH preference in transcripts",
        {"chosen": TRANSCRIPT, "rejected": TRANSCRIPT},
        ABOUT_PAIR,
        _pair,
        r'{"chosen": "\n\nHuman: How are you?\n\nAssistant: Fine, thanks.", '
        r'"rejected": "\n\nHuman: How are you?\n\nAssistant: Go away."}',
    )
)
register(
    Format(
        "hh_prompt",
        "HH preference with the prompt as transcript",
        {"prompt": TRANSCRIPT, "chosen": TEXT, "rejected": TEXT},
        ABOUT_PAIR,
        _explicit,
        r'{"prompt": "\n\nHuman: How are you?\n\nAssistant:", "chosen": " Fine, thanks.", "rejected": " Go away."}',
    )
)
register(
    Format(
        "hh_prompts",
        "prompts as transcripts",
        {"prompt": TRANSCRIPT},
        ABOUT_PROMPT,
        _prompt,
        r'{"prompt": "\n\nHuman: Hello.\n\nAssistant: Hello!\n\nHuman: How are you?\n\nAssistant:"}',
    )
)
