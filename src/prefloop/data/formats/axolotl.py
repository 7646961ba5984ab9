"""axolotl's preference files.

https://docs.axolotl.ai/docs/rlhf.html

`chatml.ultra`, `chatml.prompt_pairs`, `*.argilla_chat` and `zephyr.nectar` have the columns of other formats.
"""

from prefloop.data.formats.assembly import ABOUT_PAIR, given_pair, prompt_of
from prefloop.data.formats.fields import Values, asked, required
from prefloop.data.formats.registry import REPLY, TEXT, UNANSWERED, Format, register
from prefloop.data.given import Given
from prefloop.data.messages import answer_of, text_of


def _chat(values: Values, place: str) -> Given:
    prompt = prompt_of(asked(values, "messages"), values, place, "messages")
    chosen, rejected = (answer_of(required(values, key), key) for key in ("chosen", "rejected"))
    return given_pair(prompt, chosen, rejected, values, place)


def _question(values: Values, place: str) -> Given:
    prompt = prompt_of(asked(values, "question"), values, place, "question")
    chosen, rejected = (text_of(required(values, key), key) for key in ("chosen", "rejected"))
    return given_pair(prompt, chosen, rejected, values, place)


def _argilla(values: Values, place: str) -> Given:
    prompt = prompt_of(asked(values, "instruction"), values, place, "instruction")
    chosen, rejected = (text_of(required(values, key), key) for key in ("chosen_response", "rejected_response"))
    return given_pair(prompt, chosen, rejected, values, place)


register(
    Format(
        "axolotl_chat",
        "axolotl chat_template preference",
        {
            "messages": UNANSWERED,
            "chosen": REPLY,
            "rejected": REPLY,
        },
        ABOUT_PAIR,
        _chat,
        '{"messages": [{"role": "user", "content": "How are you?"}], '
        '"chosen": {"role": "assistant", "content": "Fine, thanks."}, '
        '"rejected": {"role": "assistant", "content": "Go away."}}',
    )
)
register(
    Format(
        "axolotl_question",
        "axolotl preference (intel, icr)",
        {"question": TEXT, "chosen": TEXT, "rejected": TEXT},
        ABOUT_PAIR,
        _question,
        '{"system": "Be polite.", "question": "How are you?", "chosen": "Fine, thanks.", "rejected": "Go away."}',
        {"question": ("input",)},
    )
)
register(
    Format(
        "axolotl_argilla",
        "axolotl preference (argilla)",
        {"instruction": TEXT, "chosen_response": TEXT, "rejected_response": TEXT},
        ABOUT_PAIR,
        _argilla,
        '{"instruction": "How are you?", "chosen_response": "Fine, thanks.", "rejected_response": "Go away."}',
    )
)
