"""`prefloop.sample` and `prefloop.judge`: answers of a model, and what a judge says of answers."""

from collections.abc import Callable, Iterator, Mapping
from os import PathLike
from typing import Any

from prefloop.api.models import Model, Tokenizer, directory_of, folder_for, write_rows
from prefloop.api.rows import Row, Rows, givens, prompt_of, rows_of
from prefloop.api.running import do_set_up
from prefloop.data.given import Given
from prefloop.errors import DataError
from prefloop.judging.python_function import text_of
from prefloop.records import Judgment, Prompt, Response, read_folder

JudgeSpec = str | Mapping[str, Any] | Callable[[str, str], float | None]
"""A judge's type (`"vader"`), a judge as in a recipe (`{"type": "reward_model", "model": ...}`), or a function of
prompt and answer that returns a number, the higher the better, or None for no verdict."""


def sample(
    model: Model,
    prompts: Rows,
    *,
    tokenizer: Tokenizer = None,
    num_samples: int = 1,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    run: str | PathLike[str] | None = None,
    **settings: Any,
) -> list[Row]:
    """Draws answers: one row each, all of a prompt together, prompts in the order in which they were given.

    Args:
        model: whose answers.
        prompts: texts, lists of messages, or rows with `prompt`; other keys of a row are kept. A prompt that stands
            twice is answered once.
        tokenizer: of a model in memory.
        num_samples: answers a prompt.
        seed: of all draws. Batches change none of them.
        device: `auto`, `cuda`, `mps` or `cpu`.
        threads: of the CPU.
        run: a folder that keeps what is done, so that the same call goes on where it was stopped; None keeps nothing.
        settings: of a sample step: `temperature`, `top_p`, `max_new_tokens`, `stop` and the others.

    Returns:
        Rows with `completion`, `token_ids`, `finish_reason` (`stop` or `length`), `logp` (nats, under what was sampled
        from) and `index`.

    Raises:
        PrefloopError: anything is wrong, said in one line.
    """
    given = rows_of(prompts, "prompts")
    asked: dict[str, Row] = {}
    for number, row in enumerate(given):
        asked.setdefault(prompt_of(row, f"prompts, row {number}").prompt_id, row)
    with folder_for(run) as folder:
        file = folder / "prompts.jsonl"
        lines = [
            Given(prompt=prompt_of(row, "prompts")).model_dump(mode="json", exclude_none=True) for row in asked.values()
        ]
        write_rows(file, lines)
        steps = {
            "prompts": {"type": "prompts", "data": str(file)},
            "samples": {
                "type": "sample",
                "policy": "initial",
                "reads": ["prompts"],
                **settings,
                "num_samples": num_samples,
            },
        }
        named = directory_of(model, tokenizer, folder)
        made = do_set_up(steps, folder, model=named, seed=seed, machine=machine(device, threads))
        answers: dict[str, list[Response]] = {}
        for one in read_folder(made["samples"], Response):
            answers.setdefault(one.prompt_id, []).append(one)
    missing = [row["prompt"] for name, row in asked.items() if name not in answers]
    if missing:
        raise DataError(f"prompts: {len(missing)} were refused, the first is {missing[0]!r}. `prefloop lint` says why.")
    return [{**row, **_said(one)} for name, row in asked.items() for one in sorted(answers[name], key=_index)]


def _index(response: Response) -> int:
    return response.index


def _said(response: Response) -> Row:
    return {
        "completion": response.text,
        "token_ids": list(response.token_ids or ()),
        "finish_reason": response.finish_reason,
        "logp": response.sum_logp,
        "index": response.index,
    }


def judge(
    rows: Rows,
    judge: JudgeSpec,
    *,
    model: Model = "builtin:tiny",
    tokenizer: Tokenizer = None,
    name: str = "score",
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    run: str | PathLike[str] | None = None,
) -> list[Row]:
    """Says of each answer what a judge thinks of it.

    Args:
        rows: with `prompt` and `completion`, as `sample` returns them; `answer` is the gold answer, for verifiers.
        judge: a type, a judge as in a recipe, or a function.
        model: whose tokenizer counts what a judge counts in tokens (`shorter`) of answers that were not sampled.
        tokenizer: of a model in memory.
        name: key of the score in the rows that come back.
        seed: of a judge that draws.
        device: where a judge that is a model is held.
        threads: of the CPU.
        run: a folder that keeps what is done, so that the same call goes on where it was stopped and asks nothing
            twice; None keeps nothing. Functions are called again.

    Returns:
        The rows, each with its score under `name`; None where the judge gave no valid verdict.

    Raises:
        PrefloopError: anything is wrong, said in one line.
    """
    given = rows_of(rows, "rows")
    answers = list(givens(given, "rows"))
    if callable(judge):
        return [
            {**row, name: _number(judge(text_of(prompt), response.text), number)}
            for number, (row, (prompt, response)) in enumerate(zip(given, answers, strict=True))
        ]
    asked = {"type": judge} if isinstance(judge, str) else dict(judge)
    with folder_for(run) as folder:
        file = folder / "answers.jsonl"
        lines = [one.model_dump(mode="json", exclude_none=True) for one in together(answers)]
        write_rows(file, lines)
        steps = {
            "data": {"type": "data", "source": str(file), "format": "prefloop"},
            "judgments": {"type": "judge", "judge": asked, "reads": ["data"]},
        }
        named = directory_of(model, tokenizer, folder)
        made = do_set_up(steps, folder, model=named, seed=seed, machine=machine(device, threads))
        scores = {one.subjects[0]: one.values[0] for one in read_folder(made["judgments"], Judgment)}
    missing = [number for number, (_, response) in enumerate(answers) if response.response_id not in scores]
    if missing:
        raise DataError(f"rows: {len(missing)} were refused, the first is row {missing[0]}. `prefloop lint` says why.")
    return [{**row, name: scores[response.response_id]} for row, (_, response) in zip(given, answers, strict=True)]


def together(answers: list[tuple[Prompt, Response]]) -> Iterator[Given]:
    """All answers of a prompt as one given row, each answer once."""
    prompts: dict[str, Prompt] = {}
    found: dict[str, dict[str, Response]] = {}
    for prompt, response in answers:
        prompts.setdefault(prompt.prompt_id, prompt)
        found.setdefault(prompt.prompt_id, {}).setdefault(response.response_id, response)
    for name, prompt in prompts.items():
        yield Given(prompt=prompt, responses=tuple(found[name].values()))


def _number(value: Any, row: int) -> float | None:
    if value is not None and not isinstance(value, int | float):
        try:
            return float(value)
        except (TypeError, ValueError):
            raise DataError(f"judge: returned {value!r} of row {row}, expected a number, or None.") from None
    return None if value is None else float(value)


def machine(device: str, threads: int | None) -> Row:
    """What of a recipe's machine a call says."""
    return {"device": device, **({} if threads is None else {"threads": threads})}
