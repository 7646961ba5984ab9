"""Several answers to a prompt with a rating each, and two answers with the better one's number."""

from prefloop.data.formats.assembly import Answer, judged_answers, judged_pair, prompt_of
from prefloop.data.formats.fields import (
    ABOUT_PROMPT,
    Values,
    asked,
    mappings_of,
    number_of,
    required,
    same_length,
    texts_of,
)
from prefloop.data.formats.registry import MAPPINGS, MESSAGES, NUMBER, NUMBERS, TEXT, TEXTS, Format, register
from prefloop.data.given import Given
from prefloop.data.messages import shown, text_of
from prefloop.data.problems import RowRefused

TEXT_KEYS = ("text", "response", "content", "completion")
SCORE_KEYS = ("score", "rating", "reward")


def _rated(values: Values, place: str) -> Given:
    prompt = prompt_of(asked(values, "prompt"), values, place)
    texts = texts_of(required(values, "responses"), "responses")
    models = values.get("models")
    names = ["" for _ in texts] if models is None else [str(one) for one in same_length(models, "models", texts)]
    answers = [Answer(text, name) for text, name in zip(texts, names, strict=True)]
    scores = [
        None if score is None else number_of(score, f"scores[{number}]")
        for number, score in enumerate(same_length(required(values, "scores"), "scores", texts))
    ]
    return judged_answers(prompt, answers, {("score", "overall"): scores}, values, place)


def _with_scores(values: Values, place: str) -> Given:
    prompt = prompt_of(asked(values, "prompt"), values, place)
    answers: list[Answer] = []
    scores: list[float | None] = []
    for number, one in enumerate(mappings_of(required(values, "responses"), "responses")):
        field = f"responses[{number}]"
        text, score = (
            next((key for key in keys if one.get(key) is not None), None) for keys in (TEXT_KEYS, SCORE_KEYS)
        )
        if text is None or score is None:
            lacking, keys = ("text", TEXT_KEYS) if text is None else ("score", SCORE_KEYS)
            raise RowRefused("missing_field", f"{field} has no {lacking} ({', '.join(keys)})")
        answers.append(Answer(text_of(one[text], f"{field}.{text}"), str(one.get("model") or "")))
        scores.append(number_of(one[score], f"{field}.{score}"))
    return judged_answers(prompt, answers, {("score", "overall"): scores}, values, place)


def _two_outputs(values: Values, place: str) -> Given:
    prompt = prompt_of(asked(values, "instruction"), values, place, "instruction")
    answers = [Answer(text_of(required(values, key), key)) for key in ("output_1", "output_2")]
    better = number_of(required(values, "preference"), "preference")
    if better != 0 and not 1 <= better <= 2:
        raise RowRefused(
            "out_of_range", f"preference is {shown(better)}, expected a number from 1 to 2, or 0 for a tie"
        )
    return judged_pair(prompt, answers, 0.5 if better == 0 else 2 - better, None, values, place)


register(
    Format(
        "rated_responses",
        "responses with ratings",
        {"prompt": TEXT | MESSAGES, "responses": TEXTS, "scores": NUMBERS},
        ABOUT_PROMPT | {"models"},
        _rated,
        '{"prompt": "How are you?", "responses": ["Fine, thanks.", "All right.", "Go away."], "scores": [8.5, 7, 1]}',
        {
            "prompt": ("instruction",),
            "responses": ("texts", "generations"),
            "scores": ("ratings", "rewards"),
            "models": ("generation_models",),
        },
    )
)
register(
    Format(
        "scored_responses",
        "responses with scores inside",
        {"prompt": TEXT | MESSAGES, "responses": MAPPINGS},
        ABOUT_PROMPT,
        _with_scores,
        '{"prompt": "How are you?", "responses": ['
        '{"text": "Fine, thanks.", "score": 8.5, "model": "large"}, {"text": "Go away.", "score": 1.0}]}',
        {"prompt": ("instruction",), "responses": ("generations",)},
    )
)
register(
    Format(
        "two_outputs",
        "two outputs and which is better (AlpacaEval, LLMBar)",
        {"instruction": TEXT, "output_1": TEXT, "output_2": TEXT, "preference": NUMBER},
        ABOUT_PROMPT | {"weight"},
        _two_outputs,
        '{"instruction": "How are you?", "output_1": "Go away.", "output_2": "Fine, thanks.", "preference": 1.9}',
        {"instruction": ("prompt",), "preference": ("label",)},
    )
)
