"""Prompts alone, with or without gold answer and tools."""

from prefloop.data.formats.assembly import LABELS, judged_answers, labelled_prompt, prompt_of
from prefloop.data.formats.fields import ABOUT_PROMPT, Values, asked, required
from prefloop.data.formats.registry import MESSAGES, NUMBER, TEXT, UNANSWERED, Format, register
from prefloop.data.given import Given


def _prompt(values: Values, place: str) -> Given:
    prompt = prompt_of(asked(values, "prompt"), values, place)
    return judged_answers(labelled_prompt(prompt, values), [], {}, values, place)


def _messages(values: Values, place: str) -> Given:
    prompt = prompt_of(asked(values, "messages"), values, place, "messages")
    return judged_answers(labelled_prompt(prompt, values), [], {}, values, place)


def _question(values: Values, place: str) -> Given:
    required(values, "answer")
    return judged_answers(prompt_of(asked(values, "question"), values, place, "question"), [], {}, values, place)


register(
    Format(
        "prompts",
        "prompts",
        {"prompt": TEXT | MESSAGES},
        ABOUT_PROMPT,
        _prompt,
        '{"prompt": "What is 2 + 3?", "ground_truth": "5"}',
        labels=LABELS,
    )
)
register(
    Format(
        "prompts_messages",
        "prompts as messages",
        {"messages": UNANSWERED},
        ABOUT_PROMPT,
        _messages,
        '{"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How are you?"}]}',
        labels=LABELS,
    )
)
register(
    Format(
        "question_answer",
        "questions with gold answers",
        {"question": TEXT, "answer": TEXT | NUMBER},
        ABOUT_PROMPT,
        _question,
        '{"question": "What is 2 + 3?", "answer": "2 and 3 make 5. #### 5"}',
        {"answer": ("ground_truth",)},
    )
)
