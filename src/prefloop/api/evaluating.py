"""`prefloop.evaluate`: a model's answers against another's on the same prompts."""

from typing import Any

from prefloop.api.answers import JudgeSpec, judge, sample
from prefloop.api.models import Model, Tokenizer
from prefloop.api.rows import Row, Rows, givens, rows_of
from prefloop.evaluation.scoreboard import Answers, scoreboard
from prefloop.records import Response, digest


def evaluate(
    model: Model,
    prompts: Rows,
    *,
    judge: JudgeSpec,
    against: Model,
    tokenizer: Tokenizer = None,
    num_samples: int = 1,
    seed: int = 0,
    resamples: int = 1000,
    device: str = "auto",
    threads: int | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Win rates of a model's answers against another model's, plain and length-controlled, with lengths and scores.

    Every answer of one meets every answer of the other to the same prompt; intervals are 95 %, over prompts.

    Args:
        model: who is measured.
        prompts: held-out ones, as for `sample`.
        judge: as for `judge`.
        against: the opponent, such as the model before training.
        tokenizer: of models in memory; both have the same.
        num_samples: answers a prompt, of both.
        seed: of all draws; both draw with seeds of their own.
        resamples: of the bootstrap.
        device: `auto`, `cuda`, `mps` or `cpu`.
        threads: of the CPU.
        settings: of a sample step: `temperature`, `max_new_tokens` and the others.

    Returns:
        `win_rate` and the other figures of the comparison, in percent; `length`, `finish_rate`, `distinct_2` and
        `score` of both sides; `answers`, the judged rows of both.

    Raises:
        PrefloopError: anything is wrong, said in one line.
    """
    listed = rows_of(prompts, "prompts")
    drawn: dict[str, Any] = {"num_samples": num_samples, "device": device, "threads": threads, **settings}
    sides: dict[str, list[Row]] = {}
    for number, (name, one) in enumerate({"model": model, "against": against}.items()):
        own = None if isinstance(one, str) else tokenizer
        answers = sample(one, listed, tokenizer=own, seed=2 * seed + number, **drawn)
        sides[name] = _judged(answers, judge, device, threads)
    ours, theirs = (_answers(rows, name) for name, rows in sides.items())
    board = scoreboard(ours, {"initial": theirs}, None, seed=seed, resamples=resamples)
    duel = board["against"]["initial"]["judge"]
    rest = {name: board[name] for name in ("length", "finish_rate", "distinct_2")}
    return {**duel, **rest, "score": board["score"]["judge"], "answers": sides}


def _judged(rows: list[Row], spec: JudgeSpec, device: str, threads: int | None) -> list[Row]:
    return judge(rows, spec, device=device, threads=threads)


def _answers(rows: list[Row], side: str) -> Answers:
    responses: list[Response] = []
    scores: dict[str, float] = {}
    for row, (_, response) in zip(rows, givens(rows, side), strict=True):
        named = response.model_copy(update={"response_id": digest([side, response.response_id])[:16]})
        responses.append(named)
        if row["score"] is not None:
            scores[named.response_id] = row["score"]
    return Answers(tuple(responses), {"judge": scores})
