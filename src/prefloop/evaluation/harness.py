"""Hand-off to EleutherAI's lm-evaluation-harness (MIT, extra `harness`): run in process, stored, compared."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from math import hypot, isfinite
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from prefloop.errors import DataError, ModelError
from prefloop.policy.exported_policy import whole_policy

GROUPS: Mapping[str, tuple[str, ...]] = {"open_llm_v1": ("openllm",), "open_llm_v2": ("leaderboard",)}
"""The Open LLM Leaderboard's groups. Their data comes from the Hugging Face Hub: they need a network or its cache."""

COMPARABLE = ("versions", "n-shot", "chat_template", "limit", "seed", "lm_eval_version")
"""What has to be equal where results are compared."""

Z = 1.959963984540054
INTERVAL = "95 %, normal, by the harness's standard error over items"
LOST = 2.0
"""Standard errors from which on a task counts as lost."""


@dataclass(frozen=True)
class HarnessSettings:
    """What the harness is told."""

    tasks: tuple[str, ...]
    folder: Path | None = None
    """With task files of one's own (YAML)."""
    num_fewshot: int | None = None
    """None: as the task says."""
    chat_template: bool = False
    limit: int | None = None
    """Items of each task; None: all."""
    seed: int = 0
    batch_size: int = 8


def run_harness(model: str, settings: HarnessSettings) -> dict[str, Any]:
    """Evaluates a model on tasks of the harness.

    Args:
        model: as recipes name models, or the directory of an adapter, which is merged in memory.
        settings: which tasks, and how they are asked.

    Returns:
        `results` by task and metric, and what they depend on: a result without it is comparable with nothing.

    Raises:
        ModelError: the harness is not installed, or the model cannot be had.
        DataError: a task is not known.
    """
    try:
        import lm_eval  # noqa: PLC0415  # pyright: ignore[reportMissingImports]
        from lm_eval.models.huggingface import HFLM  # noqa: PLC0415  # pyright: ignore[reportMissingImports]
        from lm_eval.tasks import TaskManager  # noqa: PLC0415  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ModelError(
            "lm-eval: lm-evaluation-harness is not installed. Install it: pip install 'prefloop[harness]'."
        ) from None
    tasks = [task for name in settings.tasks for task in GROUPS.get(name, (name,))]
    manager = TaskManager(include_path=None if settings.folder is None else str(settings.folder))
    unknown = [task for task in tasks if task not in manager.all_tasks]
    if unknown:
        raise DataError(
            f"lm-eval: no task is called {unknown[0]!r}. Name one of the harness's, {', '.join(GROUPS)}, or a folder "
            "with task files: --folder."
        )
    policy = whole_policy(model)
    tokenizer = AutoTokenizer.from_pretrained(policy.directory)
    found = lm_eval.simple_evaluate(
        model=HFLM(pretrained=policy.model, tokenizer=tokenizer, batch_size=settings.batch_size),
        tasks=tasks,
        task_manager=manager,
        num_fewshot=settings.num_fewshot,
        apply_chat_template=settings.chat_template,
        limit=settings.limit,
        random_seed=settings.seed,
        numpy_random_seed=settings.seed,
        torch_random_seed=settings.seed,
        fewshot_random_seed=settings.seed,
    )
    told = asdict(settings)
    return {
        "model": model,
        "results": {
            task: dict(_metrics(values, found["n-samples"].get(task, {}).get("effective")))
            for task, values in found["results"].items()
        },
        "interval_method": INTERVAL,
        "samples": found["n-samples"],
        "higher_is_better": found["higher_is_better"],
        "versions": found["versions"],
        "n-shot": found["n-shot"],
        "lm_eval_version": lm_eval.__version__,
        **{key: told[key] for key in ("tasks", "chat_template", "limit", "seed", "num_fewshot")},
        "warnings": list(_warnings(settings, has_template=tokenizer.chat_template is not None)),
    }


def _metrics(values: Mapping[str, Any], n: int | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """`acc,none`, its standard error and interval, for every metric of a task; n is unknown of groups of tasks."""
    for name, value in values.items():
        metric, _, filtered = name.partition(",")
        if filtered and not metric.endswith("_stderr") and isinstance(value, int | float):
            error = values.get(f"{metric}_stderr,{filtered}")
            known = isinstance(error, int | float) and isfinite(error)
            error = float(error) if known and error is not None else None
            ends = None if error is None else [float(value) - Z * error, float(value) + Z * error]
            yield name, {"value": float(value), "standard_error": error, "interval": ends, "n": n}


def _warnings(settings: HarnessSettings, *, has_template: bool) -> Iterator[str]:
    if has_template and not settings.chat_template:
        yield "the model has a chat template, and it is not used: --chat-template"
    if settings.chat_template and not has_template:
        yield "the model has no chat template of its own"
    if settings.limit is not None:
        yield f"only {settings.limit} items of each task: not to be put beside results of all of them"


def before_after(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What each task lost or gained, with the standard error of the difference, both sides taken as independent.

    On the same items this is more than the error of the paired difference: what is flagged is not flagged by chance.

    Args:
        before: A result of `run_harness`.
        after: Another one, of the same tasks in the same way. It says of which metrics less is better, as of
            perplexities.

    Raises:
        DataError: the results cannot be compared.
    """
    for key in COMPARABLE:
        if before.get(key) != after.get(key):
            raise DataError(f"lm-eval: before and after differ in {key}: {before.get(key)} and {after.get(key)}.")
    rows: list[dict[str, Any]] = []
    for task, metrics in after["results"].items():
        for metric, one in metrics.items():
            earlier = before["results"].get(task, {}).get(metric)
            if earlier is None:
                continue
            difference = one["value"] - earlier["value"]
            errors = [one["standard_error"], earlier["standard_error"]]
            error = None if None in errors else hypot(*errors)
            better = after.get("higher_is_better", {}).get(task, {}).get(metric.partition(",")[0], True)
            worse = -difference if better in {True, None} else difference
            lost = error is not None and worse > LOST * error and worse > 0
            rows.append({"task": task, "metric": metric, "before": earlier["value"], "after": one["value"]})
            ends = None if error is None else [difference - Z * error, difference + Z * error]
            rows[-1] |= {"difference": difference, "standard_error": error, "interval": ends, "lost": lost}
    return rows
