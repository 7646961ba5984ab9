"""TRL's argument names: what each means here, in one table, and what is done with a name that means nothing here."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from prefloop.errors import RecipeError
from prefloop.objectives import Objective, find_objective, objectives

Raw = dict[str, Any]


@dataclass(frozen=True)
class TrlName:
    """A name of TRL's configurations, or of the arguments of its trainers."""

    place: str
    """Which setting of ours it becomes, `part.name`; parts are those of `Settings`, `call` the call's own arguments."""
    effect: str
    value: Callable[[Any], Any] = lambda value: value
    """From its value to ours; ValueError says why there is none."""


def _is(expected: Any) -> Callable[[Any], Any]:
    def same(value: Any) -> Any:
        if value != expected:
            raise ValueError(f"is always {expected!r} here")
        return value

    return same


def _whole(value: Any) -> int:
    if float(value) != int(value):
        raise ValueError("is a whole number here")
    return int(value)


def _one_of(known: Mapping[str, Any]) -> Callable[[Any], Any]:
    def found(value: Any) -> Any:
        word = str(getattr(value, "value", value))
        if word not in known:
            raise ValueError(f"has no equal here; known are {', '.join(known)}")
        return known[word]

    return found


def _lora(value: Any) -> Raw | None:
    """Fields of peft's LoraConfig that have an equal here."""
    if value is None:
        return None
    targets = value.target_modules
    if isinstance(targets, set | list):
        targets = sorted(targets)
    return {
        "r": value.r,
        "alpha": value.lora_alpha,
        "dropout": value.lora_dropout,
        "use_dora": value.use_dora,
        "use_rslora": value.use_rslora,
        **({} if targets is None else {"targets": targets}),
    }


_SCHEDULES = {"constant": "constant", "constant_with_warmup": "constant", "linear": "linear", "cosine": "cosine"}
_OPTIMIZERS = {"adamw_torch": "adamw", "adamw_torch_fused": "adamw", "rmsprop": "rmsprop"}
_TRUNCATION = {"keep_start": "cut_response", "keep_end": "cut_prompt_left"}

TRL_NAMES: Mapping[str, TrlName] = {
    "train_dataset": TrlName("call.data", "rows to train on"),
    "eval_dataset": TrlName("call.eval_data", "rows that are measured before, after and every `eval_steps`"),
    "processing_class": TrlName("call.tokenizer", "tokenizer of a model in memory"),
    "ref_model": TrlName("call.reference", "the frozen reference; without it the model as it is when training starts"),
    "peft_config": TrlName("policy.lora", "an adapter is trained instead of all weights", _lora),
    "reward_funcs": TrlName("call.judge", "who scores sampled answers"),
    "output_dir": TrlName("call.run", "the run folder; calling again goes on there"),
    "loss_type": TrlName("call.loss_type", "the objective, by the name that TRL has for it"),
    "per_device_train_batch_size": TrlName("batch.examples", "times gradient_accumulation_steps: examples a step"),
    "gradient_accumulation_steps": TrlName("batch.times", "times per_device_train_batch_size: examples a step"),
    "num_train_epochs": TrlName("policy.epochs", "passes over the rows; of online training over the prompts", _whole),
    "lr": TrlName("policy.learning_rate", "peak learning rate"),
    "lr_scheduler_type": TrlName("policy.schedule", "what follows the warm-up", _one_of(_SCHEDULES)),
    "warmup_ratio": TrlName("policy.warmup", "share of the steps in which the rate rises"),
    "optim": TrlName("policy.optimizer", "the optimiser", _one_of(_OPTIMIZERS)),
    "truncation_mode": TrlName(
        "policy.truncation", "what becomes of what is longer than max_length", _one_of(_TRUNCATION)
    ),
    "bf16": TrlName("policy.precision", "layers compute in bfloat16", lambda on: "bfloat16" if on else "float32"),
    "gradient_checkpointing": TrlName(
        "machine.gradient_checkpointing", "layers are computed again going backward", bool
    ),
    "use_cpu": TrlName("machine.device", "where it is computed", lambda on: "cpu" if on else "auto"),
    "save_steps": TrlName("machine.checkpoint_steps", "steps between checkpoints", _whole),
    "save_total_limit": TrlName("machine.keep_last", "checkpoints that are kept while training runs"),
    "num_generations": TrlName("samples.num_samples", "answers a prompt"),
    "max_completion_length": TrlName("samples.max_new_tokens", "longest answer"),
    "missing_eos_penalty": TrlName("pairs.missing_eos_penalty", "taken from the score of an answer without EOS"),
    "disable_dropout": TrlName("none.", "true: nothing but an adapter's own dropout drops", _is(True)),
    "precompute_ref_log_probs": TrlName("none.", "true: references score once, before training", _is(True)),
    "sync_ref_model": TrlName(
        "none.", "false: a reference stays; recipes with `references: {ref: round_start}` move it", _is(False)
    ),
    "fp16": TrlName("none.", "false: float32, or bf16", _is(False)),
    "use_vllm": TrlName("none.", "false: a recipe's `sampler: {type: server}` asks servers", _is(False)),
}
"""Names that mean what another one means here. Names that are ours as well (`learning_rate`, `max_length`,
`max_grad_norm`, `seed`, `adam_beta1`, `weight_decay`, `eval_steps`, `temperature`, `top_p`, ...) need no line, and an
objective's own are in the registry (`prefloop objectives NAME`)."""


def objective_for(objective: str, loss_type: Any) -> Objective:
    """The objective, or the one that TRL's trainer of it calls by a loss type.

    Raises:
        RecipeError: there is none.
    """
    if loss_type is None:
        return find_objective(objective, "objective")
    known = loss_types("KTOTrainer" if objective == "kto" else "DPOTrainer")
    word = loss_type[0] if isinstance(loss_type, list | tuple) and len(loss_type) == 1 else loss_type
    if objective not in ("dpo", "kto") or str(word) not in known:
        raise RecipeError(
            f"loss_type is {loss_type!r}, with objective={objective!r}. Known: {', '.join(sorted(known))}; "
            "`prefloop objectives` lists more, by name."
        )
    return find_objective(known[str(word)], "loss_type")


def loss_types(trainer: str) -> dict[str, str]:
    """TRL's loss types of a trainer, each with our objective."""
    pattern = r"loss_type=(\w+)" if trainer == "DPOTrainer" else rf"{trainer}(?: with loss_type=(\w+))?"
    found: dict[str, str] = {}
    for objective in objectives().values():
        for one in objective.elsewhere:
            if one.tool == "TRL" and (match := re.fullmatch(pattern, one.name)):
                found[match[1] or objective.name] = objective.name
    return found


def option_names(objective: Objective) -> dict[str, str]:
    """TRL's names of an objective's options, each with ours; what the registry writes as a formula is left out."""
    names: dict[str, str] = {}
    for one in objective.elsewhere:
        if one.tool == "TRL":
            names |= {theirs: ours for ours, theirs in one.parameters.items() if theirs.isidentifier()}
    return {theirs: ours for theirs, ours in names.items() if ours in objective.options.model_fields}
