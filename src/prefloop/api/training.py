"""`prefloop.train`: an objective on rows, or on answers that are sampled and judged on the way."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from prefloop.api.answers import JudgeSpec
from prefloop.api.models import Model, Tokenizer, directory_of, folder_for, loaded, tokenizer_of, write_rows
from prefloop.api.rows import Row, Rows, paired, rows_of
from prefloop.api.running import progress, training_log
from prefloop.api.settings import Raw, Settings, from_trl, sort
from prefloop.api.trl_names import objective_for
from prefloop.config import load_recipe
from prefloop.errors import RecipeError
from prefloop.loop import run_recipe
from prefloop.loop.policy_of_run import policy_of_run
from prefloop.objectives import Objective
from prefloop.pairing import find_rule
from prefloop.policy.exported_policy import export_policy


@dataclass(frozen=True)
class Trained:
    """What training made."""

    model: PreTrainedModel
    """Trained, in memory, an adapter merged; the model that was given is as it was."""
    tokenizer: PreTrainedTokenizerBase
    log: list[dict[str, float]]
    """A line an optimiser step, under TRL's names."""
    validation: dict[str, Any] | None
    """What `eval_data` gave before and after training."""
    run: Path | None
    """The run folder, where one was asked for."""


def train(
    model: Model,
    tokenizer: Tokenizer = None,
    data: Rows | None = None,
    objective: str = "dpo",
    *,
    reference: Model | None = None,
    eval_data: Rows | None = None,
    judge: JudgeSpec | None = None,
    rule: str | None = None,
    run: str | PathLike[str] | None = None,
    seed: int = 0,
    device: str = "auto",
    quiet: bool = True,
    **settings: Any,
) -> Trained:
    """Trains a model on rows; or, with a judge, on its own answers to prompts, sampled anew for every step.

    Args:
        model: what is trained; a model in memory is not changed.
        tokenizer: of a model in memory.
        data: rows in any format that prefloop knows - pairs, ranked or rated answers, answers with labels,
            conversations -, as `pair` returns them, or with a judge prompts.
        objective: its name (`prefloop objectives`).
        reference: the frozen reference of objectives that have one; None takes the model as it is given.
        eval_data: rows that are only measured.
        judge: who scores sampled answers: a type, a judge as in a recipe, or a function of prompt and answer that
            stands in a file.
        rule: what makes examples of rows or of scored answers; None takes what the objective reads.
        run: a folder that is kept: the same call goes on there, and every command of prefloop reads it. None keeps
            none.
        seed: of the order, of adapters and of sampling.
        device: `auto`, `cuda`, `mps` or `cpu`.
        quiet: say nothing of progress.
        settings: of the train step (`learning_rate`, `batch_size`, `epochs`, `lora`, ...), of the objective (`beta`,
            ...), of the machine, with a judge of sampling and of the rule; TRL's names (`TRL_NAMES`) mean what they
            mean there.

    Raises:
        PrefloopError: anything is wrong, said in one line.
    """
    sorted_settings, others = from_trl(settings)
    call = _merged_call(
        {
            "tokenizer": tokenizer,
            "data": data,
            "reference": reference,
            "eval_data": eval_data,
            "judge": judge,
            "run": run,
        },
        sorted_settings.call,
    )
    if call["data"] is None:
        raise RecipeError("train: there is no data. Give rows as `data`, or prompts and a judge.")
    online = call["judge"] is not None
    found = objective_for(objective, call.get("loss_type"))
    named_rule = find_rule(rule or _rule_for(found, online=online), "rule")
    sort(sorted_settings, others, found, named_rule, online=online)
    with folder_for(None) as aside, folder_for(call["run"]) as kept:
        source = aside if call["run"] is None else kept / "given"
        source.mkdir(parents=True, exist_ok=True)
        named = directory_of(model, call["tokenizer"], source)
        top: Raw = {"name": "train", "model": named, "seed": seed, "rounds": 1, "round": []}
        if call["reference"] is not None:
            own = None if isinstance(call["reference"], str) else tokenizer_of(model, call["tokenizer"])
            top["initial"] = directory_of(call["reference"], own, source, "reference")
        top["machine"] = {"device": device, **sorted_settings.machine}
        steps = _steps(call, sorted_settings, found, named_rule.name, source, online=online)
        top["blocks"] = steps.pop("blocks", 1)
        raw = {**top, "block": [*steps], **steps}
        file = source / "recipe.yaml"
        file.write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
        place = (aside if call["run"] is None else kept) / "run"
        run_recipe(load_recipe(str(file)), place, progress(quiet=quiet))
        trained = _loaded(place, found, model, aside / "merged")
        return Trained(
            trained,
            tokenizer_of(model, call["tokenizer"]),
            list(training_log(place)),
            _validation(place),
            None if call["run"] is None else place,
        )


def _merged_call(own: Raw, trl: Mapping[str, Any]) -> Raw:
    for name, value in trl.items():
        if own.get(name) is not None:
            raise RecipeError(f"train: {name} is said twice, the second time under TRL's name. Keep one of them.")
        own[name] = value
    return own


def _rule_for(objective: Objective, *, online: bool) -> str:
    """What makes the examples that an objective reads.

    Raises:
        RecipeError: nothing does so by itself.
    """
    roles = set(objective.roles)
    if roles == {"chosen"} and not online:
        return "demonstrations"
    if roles <= {"chosen", "rejected"}:
        return "iid" if online else "given"
    if "response" in roles:
        return ("rollouts" if "old" in objective.models else "threshold_labels") if online else "unpaired"
    if roles == {"ranked"}:
        return "ranking"
    raise RecipeError(
        f"train: {objective.name} reads {', '.join(sorted(roles))}, which no rule makes by itself. Name a `rule`, or "
        "run a recipe with prefloop.run."
    )


def _steps(
    call: Raw, settings: Settings, objective: Objective, rule: str, source: Path, *, online: bool
) -> dict[str, Any]:
    """The steps of a block; for online training also how many blocks there are."""
    rows = rows_of(call["data"], "data")
    name = "reward_model" if objective.told == "rewards" else "policy"
    known = {"ref": "initial", "old": "current"}
    if unknown := [model for model in objective.models if model not in known]:
        raise RecipeError(
            f"train: {objective.name} reads {', '.join(unknown)}, which a call cannot name. Run a recipe with "
            "prefloop.run."
        )
    training: Raw = {
        "type": "train",
        "objective": {"name": objective.name, **settings.objective},
        "references": {model: known[model] for model in objective.models},
        **settings.policy,
    }
    if not online:
        data: Raw = {"type": "data", "source": _written(source / "data.jsonl", rows)}
        if call["eval_data"] is not None:
            held = _written(source / "eval_data.jsonl", rows_of(call["eval_data"], "eval_data"))
            data["validation"] = {"source": held}
        return {"data": data, "pairs": {"type": "pair", "rule": rule, "finished_only": False}, name: training}
    if call["eval_data"] is not None:
        raise RecipeError("train: eval_data is for training on rows; what answers are worth says prefloop.evaluate.")
    batch, epochs = training.setdefault("batch_size", 64), training.pop("epochs", 1)
    distinct = len({json.dumps(row["prompt"]) for row in rows})
    return {
        "blocks": math.ceil(distinct / batch) * epochs,
        "prompts": {
            "type": "prompts",
            "data": write_rows(source / "prompts.jsonl", rows),
            "count": min(batch, distinct),
        },
        "samples": {"type": "sample", "num_samples": 1 if "old" in objective.models else 2, **settings.samples},
        "judgments": {"type": "judge", "judge": _judge(call["judge"])},
        "pairs": {"type": "pair", "rule": rule, **settings.pairs},
        name: training,
    }


def _written(file: Path, rows: list[Row]) -> str:
    """Rows in their own format, or pairs with their tokens in ours."""
    given = paired(rows)
    lines = rows if given is None else [one.model_dump(mode="json", exclude_none=True) for one in given]
    return write_rows(file, lines)


def _judge(spec: JudgeSpec) -> Raw:
    if isinstance(spec, str):
        return {"type": spec}
    if isinstance(spec, Mapping):
        return dict(spec)
    return {"type": "python", "function": _place_of(spec)}


def _place_of(function: Callable[..., Any]) -> str:
    module, name = getattr(function, "__module__", "__main__"), getattr(function, "__qualname__", "")
    if module == "__main__" or not name.isidentifier():
        raise RecipeError(
            f"train: judge is the function {name or function!r}, which stands in no file of its own, so that a run "
            "could not find it again. Put it in a module, e.g. rewards.py, and import it."
        )
    return f"{module}:{name}"


def _loaded(run: Path, objective: Objective, like: Model, merged: Path) -> PreTrainedModel:
    if objective.told == "rewards":
        return AutoModelForSequenceClassification.from_pretrained(
            run / "round-00" / "reward_model" / "model", dtype="auto"
        ).eval()
    found = policy_of_run(run)
    export_policy(found.directory, merged, merged=True, base=found.model)
    return loaded(merged, like)


def _validation(run: Path) -> dict[str, Any] | None:
    file = next(run.glob("round-00/*/validation.json"), None)
    return None if file is None else json.loads(file.read_text(encoding="utf-8"))
