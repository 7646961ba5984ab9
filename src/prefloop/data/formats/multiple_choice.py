"""Questions with several choices, of which one is right: as ARC and as HellaSwag have them."""

from collections.abc import Sequence

from prefloop.data.formats.assembly import Answer, judged_answers, prompt_of
from prefloop.data.formats.fields import ABOUT_PROMPT, Values, asked, number_of, required, same_length, texts_of
from prefloop.data.formats.registry import MAPPING, NUMBER, TEXT, TEXTS, Format, register
from prefloop.data.given import Given
from prefloop.data.problems import RowRefused


def _arc(values: Values, place: str) -> Given:
    choices = required(values, "choices")
    assert isinstance(choices, dict)  # a mapping, by which the format is known
    texts = texts_of(choices.get("text"), "choices.text")
    names = [str(name) for name in same_length(choices.get("label"), "choices.label", texts)]
    key = str(required(values, "answerKey"))
    if names.count(key) != 1:
        raise RowRefused("out_of_range", f"answerKey is '{key}', expected one of {', '.join(names)}")
    return _labelled(values, place, "question", texts, names.index(key))


def _hellaswag(values: Values, place: str) -> Given:
    texts = texts_of(required(values, "endings"), "endings")
    said = required(values, "label")
    right = number_of(int(said) if isinstance(said, str) and said.isdecimal() else said, "label")
    if right not in range(len(texts)):
        raise RowRefused("out_of_range", f"label is {said}, expected a number from 0 to {len(texts) - 1}")
    return _labelled(values, place, "ctx", texts, int(right))


def _labelled(values: Values, place: str, question: str, texts: Sequence[str], right: int) -> Given:
    """Every choice as an answer, with label 1 where it is the right one, else 0."""
    prompt = prompt_of(asked(values, question), values, place, question)
    labels = [float(number == right) for number in range(len(texts))]
    return judged_answers(prompt, [Answer(text) for text in texts], {("label", "overall"): labels}, values, place)


register(
    Format(
        "arc",
        "ARC, choices and the right one's label",
        {"question": TEXT, "choices": MAPPING, "answerKey": TEXT},
        ABOUT_PROMPT,
        _arc,
        '{"question": "What melts ice?", "choices": {"text": ["heat", "cold", "shade"], "label": ["A", "B", "C"]}, '
        '"answerKey": "A"}',
    )
)
register(
    Format(
        "hellaswag",
        "HellaSwag, endings and the right one's number",
        {"ctx": TEXT, "endings": TEXTS, "label": TEXT | NUMBER},
        ABOUT_PROMPT,
        _hellaswag,
        '{"ctx": "She opens the oven and", "endings": ["takes the bread out.", "flies away."], "label": "0"}',
    )
)
