"""Several answers to a prompt, ranked: NeMo-RL's completions, Nectar's answers, and lists of answers and ranks."""

from collections.abc import Sequence

from prefloop.data.formats.assembly import (
    Answer,
    judged_answers,
    prompt_of,
)
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
from prefloop.data.formats.registry import MAPPINGS, MESSAGES, NUMBERS, TEXT, TEXTS, Format, register
from prefloop.data.given import Given
from prefloop.data.messages import answer_of, is_transcript, text_of, transcript_prompt_of


def _nemo_rl(values: Values, place: str) -> Given:
    prompt = prompt_of(asked(values, "context"), values, place, "context")
    completions = mappings_of(required(values, "completions"), "completions")
    answers = [
        Answer(answer_of(required(one, "completion"), f"completions[{number}].completion"))
        for number, one in enumerate(completions)
    ]
    ranks = [number_of(required(one, "rank"), f"completions[{number}].rank") for number, one in enumerate(completions)]
    return judged_answers(prompt, answers, {("ranking", "overall"): _from_one(ranks)}, values, place)


def _nectar(values: Values, place: str) -> Given:
    asks = required(values, "prompt")
    in_turns = isinstance(asks, str) and is_transcript(asks)
    prompt = prompt_of(transcript_prompt_of(asks, "prompt") if in_turns else asked(values, "prompt"), values, place)
    given = mappings_of(required(values, "answers"), "answers")
    answers = [
        Answer(text_of(required(one, "answer"), f"answers[{number}].answer"), str(one.get("model") or ""))
        for number, one in enumerate(given)
    ]
    ranks = [number_of(required(one, "rank"), f"answers[{number}].rank") for number, one in enumerate(given)]
    return judged_answers(prompt, answers, {("ranking", "overall"): _from_one(ranks)}, values, place)


def _ranked(values: Values, place: str) -> Given:
    prompt = prompt_of(asked(values, "prompt"), values, place)
    answers = [Answer(text) for text in texts_of(required(values, "responses"), "responses")]
    ranks = same_length(required(values, "ranks"), "ranks", answers)
    found = [number_of(rank, f"ranks[{number}]") for number, rank in enumerate(ranks)]
    return judged_answers(prompt, answers, {("ranking", "overall"): _from_one(found)}, values, place)


def _from_one(ranks: Sequence[float]) -> list[float]:
    """Ranks that count from 1, equal ones kept equal, whatever number the data set gives to the best."""
    places = {rank: float(place) for place, rank in enumerate(sorted(set(ranks)), start=1)}
    return [places[rank] for rank in ranks]


register(
    Format(
        "nemo_rl",
        "NeMo-RL ranked completions",
        {"context": MESSAGES, "completions": MAPPINGS},
        ABOUT_PROMPT,
        _nemo_rl,
        '{"context": [{"role": "user", "content": "How are you?"}], "completions": ['
        '{"rank": 0, "completion": [{"role": "assistant", "content": "Fine, thanks."}]}, '
        '{"rank": 1, "completion": [{"role": "assistant", "content": "Go away."}]}]}',
    )
)
register(
    Format(
        "nectar",
        "Nectar, ranked answers",
        {"prompt": TEXT | MESSAGES, "answers": MAPPINGS},
        ABOUT_PROMPT,
        _nectar,
        r'{"prompt": "\n\nHuman: How are you?\n\nAssistant:", "answers": ['
        r'{"answer": "Fine, thanks.", "rank": 1, "model": "large"}, '
        r'{"answer": "Go away.", "rank": 2, "model": "small"}]}',
    )
)
register(
    Format(
        "ranked_responses",
        "ranked responses",
        {"prompt": TEXT | MESSAGES, "responses": TEXTS, "ranks": NUMBERS},
        ABOUT_PROMPT,
        _ranked,
        '{"prompt": "How are you?", "responses": ["Fine, thanks.", "All right.", "Go away."], "ranks": [1, 2, 3]}',
        {"prompt": ("instruction",), "responses": ("texts", "generations"), "ranks": ("ranking",)},
    )
)
