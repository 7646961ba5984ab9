"""What each type of step can be told. One class a type; the step's name is chosen by the recipe."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, JsonValue, Tag, ValidationError, model_validator

from prefloop.config.base import Config, Options, is_mapping
from prefloop.config.gate import GateConfig, MonitorsConfig
from prefloop.config.references import Reference


class VaderJudge(Config):
    """Sentence sentiment by VADER, with flaws that can be planted."""

    type: Literal["vader"]
    unit: Literal["sentence", "text"] = "sentence"
    """`sentence` is the mean over sentences, nearly free of length; `text` scores the answer as one piece."""
    length_bias: float = 0.0
    """Planted flaw: score added a token."""
    negate: bool = False
    """Planted flaw: the sentiment counts the wrong way round."""

    def truth(self) -> "VaderJudge | None":
        """The same judge without its planted flaws; None where it has none."""
        return VaderJudge(type="vader", unit=self.unit) if self.length_bias or self.negate else None


class ShorterJudge(Config):
    """Prefers the shorter answer: a control for length bias."""

    type: Literal["shorter"]

    def truth(self) -> None:
        """It has no planted flaw."""
        return


JudgeConfig = Annotated[VaderJudge | ShorterJudge, Field(discriminator="type")]


class StepConfig(Config):
    """Settings of a step."""

    def told(self) -> dict[str, Any]:
        """What decides its result, every value written out. What it reads is known by identity instead."""
        return self.model_dump(mode="json", exclude={"reads"})

    def said(self) -> dict[str, Any]:
        """The same without what is at its default: a setting that is new in a later version changes nothing here."""
        return self.model_dump(mode="json", exclude={"reads"}, exclude_defaults=True)


class ReadingStep(StepConfig):
    """A step that reads what others made."""

    reads: tuple[str, ...] = ()
    """Names of what it reads, where the steps before it in its block are not meant."""


class PromptsStep(StepConfig):
    """Prompts of a round: disjoint parts of one shuffle, a new shuffle when it is used up."""

    main: ClassVar[str | None] = "data"
    type: Literal["prompts"]
    data: str
    """A shipped set (`everyday`, `everyday:heldout`), a file or a directory of rows, or `org/name@revision` (Hub)."""
    format: str | None = None
    """Name of the format of its rows; None recognises it."""
    count: Annotated[int, Field(ge=1)] | None = None
    """Prompts a round; None takes all of them every round."""


class SourceConfig(Config):
    """One of several sources that are mixed."""

    source: str
    """A shipped set, a file or directory of rows, or `org/name@revision` on the Hub."""
    format: str | None = None
    """Name of the format of its rows; None recognises it."""
    weight: Annotated[float, Field(gt=0)] | None = None
    """Its share of the mixture as a multiple of other weights: as many rows are taken as there can be in that
    proportion, none twice. None takes all rows, whatever others have."""
    cap: Annotated[int, Field(ge=1)] | None = None
    """Rows at most, drawn by the recipe's seed."""


class ValidationShare(Config):
    """A share of the prompts."""

    share: Annotated[float, Field(gt=0, lt=1)]
    """Of the prompts, each with all of its rows; a prompt's side depends on nothing but itself and the seed."""


class ValidationSource(Config):
    """Another source."""

    source: str
    """A shipped set, a file or directory of rows, or `org/name@revision` on the Hub. Its prompts are not trained on."""
    format: str | None = None
    """Name of the format of its rows; None recognises it."""


def _one_or_several(value: object) -> str:
    return "several" if isinstance(value, list | tuple) else "one"


def _share_or_source(value: object) -> str:
    names = value if is_mapping(value) else getattr(value, "model_fields_set", ())
    return "a source" if "source" in names else "a share"


class DataStep(StepConfig):
    """A data set as prompts, given responses and given judgments."""

    main: ClassVar[str | None] = "source"
    aliases: ClassVar[Mapping[str, str]] = {"sources": "source"}
    type: Literal["data"]
    source: Annotated[
        Annotated[str, Tag("one")] | Annotated[tuple[SourceConfig, ...], Field(min_length=1), Tag("several")],
        Discriminator(_one_or_several),
    ]
    """A shipped set, a file or directory of rows, or `org/name@revision` on the Hub; or several, as a list."""
    format: str | None = None
    """Name of the format of its rows; None recognises it. In a list each source has its own."""
    validation: (
        Annotated[
            Annotated[ValidationShare, Tag("a share")] | Annotated[ValidationSource, Tag("a source")],
            Discriminator(_share_or_source),
        ]
        | None
    ) = None
    """Prompts that are not trained on: a `share` of them, or another `source`. Training measures the loss on them
    before and after. None trains on everything."""

    @property
    def sources(self) -> tuple[SourceConfig, ...]:
        """What is read, one source or more."""
        return (SourceConfig(source=self.source, format=self.format),) if isinstance(self.source, str) else self.source

    @model_validator(mode="after")
    def _format_beside_each_source(self) -> "DataStep":
        if isinstance(self.source, tuple) and self.format is not None:
            raise ValueError("in a list of sources `format` stands beside each of them")
        return self


class LocalSamplerConfig(Config):
    """Samples in this process."""

    type: Literal["local"] = "local"


class SampleStep(ReadingStep):
    """How responses are drawn from a policy."""

    main: ClassVar[str | None] = "policy"
    aliases: ClassVar[Mapping[str, str]] = {
        "num_generations": "num_samples",
        "max_completion_length": "max_new_tokens",
        "max_tokens": "max_new_tokens",
        "n": "num_samples",
    }
    type: Literal["sample"]
    policy: str = "current"
    """Whose answers: initial, round_start, current, or the name of a train step."""
    sampler: LocalSamplerConfig = LocalSamplerConfig()
    num_samples: Annotated[int, Field(ge=1)] = 5
    """Responses a prompt (K)."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    """Softmax temperature. 1.0 samples from the policy itself, 0 takes the most likely token."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Smallest set of most likely tokens whose probability reaches this."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 1024
    """Longest response, in tokens; longer ones are cut; their finish_reason is `length`."""
    wave: Annotated[int, Field(ge=1)] = 64
    """Prompts that are sampled and journaled together: what a crash can cost."""


class JudgeStep(ReadingStep):
    """Who scores the responses."""

    main: ClassVar[str | None] = "judge"
    type: Literal["judge"]
    judge: JudgeConfig
    """The judge by `type`, with its own fields."""


class PairStep(ReadingStep):
    """Which responses become examples. The rule's own options stand beside `rule`."""

    main: ClassVar[str | None] = "rule"
    type: Literal["pair"]
    rule: str
    """Name of a rule."""
    finished_only: bool = True
    """Leave out answers that were cut by the length limit: their length is not their own."""
    options: Options = Field(default_factory=dict[str, JsonValue])

    @model_validator(mode="before")
    @classmethod
    def _gather_options(cls, value: Any) -> Any:
        if not is_mapping(value) or "options" in value:
            return value
        own = {key: setting for key, setting in value.items() if key in cls.model_fields}
        return {**own, "options": {key: setting for key, setting in value.items() if key not in own}}


class ObjectiveConfig(Config):
    """An objective by name; its hyper-parameters stand beside the name."""

    main: ClassVar[str | None] = "name"
    name: str
    options: Options = Field(default_factory=dict[str, JsonValue])

    @model_validator(mode="before")
    @classmethod
    def _gather_options(cls, value: Any) -> Any:
        if not is_mapping(value) or "options" in value:
            return value
        return {"name": value.get("name"), "options": {key: v for key, v in value.items() if key != "name"}}


Precision = Literal["float32", "bfloat16"]
"""In which a model's layers compute."""


class LoraConfig(Config):
    """One low-rank adapter on every linear layer (arXiv:2106.09685)."""

    main: ClassVar[str | None] = "r"
    r: Annotated[int, Field(ge=1)] = 16
    """Rank."""
    alpha: Annotated[int, Field(ge=1)] = 32
    """Scale: the update is multiplied by alpha / r."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of what an adapter reads that is set to zero in optimiser steps; scores, checks and validation never drop.
    Drawn anew for each micro-batch, so that another budget of tokens or another layout draws other zeros."""
    use_dora: bool = False
    """DoRA (arXiv:2402.09353): the size of each weight column is trained apart from its direction."""
    use_rslora: bool = False
    """The update is multiplied by alpha / sqrt(r) instead (arXiv:2312.03732)."""
    targets: str | tuple[str, ...] = "all-linear"
    """Names of the layers that get an adapter."""
    adapter: Literal["continue"] = "continue"
    """The adapter is trained on over the rounds; every round keeps a frozen snapshot."""


class TokenSettings(ReadingStep):
    """Which tokens of the examples there are, and which of them count."""

    max_length: Annotated[int, Field(ge=2)] = 2048
    """Tokens of prompt and answer."""
    truncation: Literal["drop", "cut_response", "cut_prompt_left"] = "drop"
    """What becomes of longer examples: they are left out; or their answers lose their last tokens, and with them EOS;
    or the prompt loses its oldest turns, then the oldest tokens of its last question. All is counted."""
    loss_on: Literal["last_turn", "all_turns"] = "last_turn"
    """`all_turns` also counts what the assistant said earlier in the conversation. Both sides of a pair share it, so a
    loss of differences (DPO) stays the same; likelihoods (SFT terms, ORPO) and averages over tokens (SimPO) do not."""
    loss_on_thinking: bool = True
    """Whether an answer's thinking part counts. It is a part of what a policy did, so that leaving it out trains on
    something else than the policy's probability of the answer."""


class TokensStep(TokenSettings):
    """Examples as tokens: every train step gets one before it, with its own settings."""

    type: Literal["tokens"]


OF_ADAMW = {"weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon"}
"""Fields that mean something to no other optimiser."""


class TrainStep(TokenSettings):
    """One train step: an objective on a round's examples."""

    main: ClassVar[str | None] = "objective"
    aliases: ClassVar[Mapping[str, str]] = {
        "num_train_epochs": "epochs",
        "lr": "learning_rate",
        "optim": "optimizer",
        "warmup_ratio": "warmup",
        "train_batch_size": "batch_size",
        "lr_scheduler_type": "schedule",
        "max_seq_length": "max_length",
        "truncation_mode": "truncation",
    }
    alias_values: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "optim": {"adamw_torch": "adamw", "adamw_torch_fused": "adamw", "rmsprop": "rmsprop"},
        "truncation_mode": {"keep_start": "cut_response", "keep_end": "cut_prompt_left"},
    }
    type: Literal["train"]
    objective: ObjectiveConfig
    """The loss, by `name`."""
    soft_labels: bool = False
    """A pair counts for its chosen answer as far as that one wins (`prob_chosen_wins`), else for the other."""
    start: str = "current"
    """The policy that is trained on."""
    references: dict[str, Reference] = Field(default_factory=dict[str, Reference])
    """Model name of the quantity grammar -> policy: {ref: round_start}; a list where an objective reads several
    (aux_ref), or a mixture: {ref: {geometric: {policies: [initial, current], weights: [0.5, 0.5]}}}, or `harmonic`."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-7
    """Peak rate. 5e-7 is for full fine-tuning; LoRA wants 1e-5 to 5e-4."""
    optimizer: Literal["adamw", "rmsprop"] = "adamw"
    """RMSprop has half of AdamW's memory, no momentum and no weight decay; DPO and SPPO were published with it."""
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """AdamW's decay of its running mean of gradients, a step."""
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """AdamW's decay of its running mean of squared gradients, a step."""
    adam_epsilon: Annotated[float, Field(gt=0)] = 1e-8
    """What AdamW adds to the root of the mean of squared gradients before it divides by it."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """What follows the warm-up: hold, or fall to zero."""
    warmup: Annotated[float, Field(ge=0, lt=1)] | None = 0.1
    """Share of the round's optimiser steps in which the rate rises linearly; None where `warmup_steps` counts them."""
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    """Optimiser steps of a round, over all of its blocks, in which the rate rises linearly; None takes the share."""
    epochs: Annotated[int, Field(ge=1)] = 1
    """Passes over the round's examples."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Examples an optimiser step, over all devices."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients with a larger global norm are scaled down to it."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW's, decoupled: a step takes away `learning_rate * weight_decay` of a weight. Norms and biases, which have
    one dimension, do not decay; embeddings, matrices and adapters do."""
    lora: LoraConfig | None = None
    """None trains all weights."""
    precision: Precision = "float32"
    """Of the model's layers, for policy and references alike. `bfloat16` is several times faster on GPUs made for it;
    weights, their gradients, the head and all log-probabilities stay float32. It changes results on every device, so
    that it belongs to the step and not to the machine."""
    eval_steps: Annotated[int, Field(ge=1)] | None = None
    """Optimiser steps from one measurement of the validation examples to the next; the last step is measured too. None
    measures before and after training only."""
    metric_for_best_model: Literal["eval_loss", "eval_rewards/accuracies", "eval_rewards/margins"] | None = None
    """Of the steps that are measured, the policy is the one after which this was smallest (loss) or largest (the
    others), the first of equal ones. None takes the last step."""
    early_stopping_patience: Annotated[int, Field(ge=1)] | None = None
    """Training ends after so many measurements in a row that were not the best. None takes all steps."""

    @model_validator(mode="before")
    @classmethod
    def _one_warmup(cls, value: Any) -> Any:
        if not is_mapping(value) or value.get("warmup_steps") is None:
            return value
        if value.get("warmup") is not None:
            raise ValueError("warmup and warmup_steps both say how long the rate rises. Keep one of them.")
        return {**value, "warmup": None}

    @model_validator(mode="after")
    def _consistent(self) -> "TrainStep":
        if self.warmup is None and self.warmup_steps is None:
            raise ValueError("warmup is null, which says nothing. Give a share (0 for none), or warmup_steps.")
        if self.metric_for_best_model is not None and self.eval_steps is None:
            raise ValueError("metric_for_best_model needs eval_steps, which says how often it is measured. Add it.")
        if self.early_stopping_patience is not None and self.metric_for_best_model is None:
            raise ValueError("early_stopping_patience needs metric_for_best_model, which says what is best. Add it.")
        of_adamw = self.model_dump(include=OF_ADAMW, exclude_defaults=True)
        if of_adamw and self.optimizer != "adamw":
            raise ValueError(
                f"{', '.join(of_adamw)}: of AdamW alone, but optimizer is {self.optimizer}. "
                "Remove it, or set optimizer: adamw."
            )
        return self


class EvaluateStep(StepConfig):
    """A suite of held-out prompts: this round's policy against others, judged."""

    main: ClassVar[str | None] = "suite"
    type: Literal["evaluate"]
    suite: str
    """A shipped suite (`everyday`) or a prompt file. Without it the step is left out."""
    judge: JudgeConfig
    """Default: the judge of the loop."""
    baseline: str = "initial"
    """The fixed opponent: initial, or the name of a policy that exists before the first round."""
    num_samples: Annotated[int, Field(ge=1)] = 1
    """Answers a prompt, at temperature 1 and top-p 1, so that one set serves win rates and KL."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 1024
    """Default: that of the loop's sample step."""
    count: Annotated[int, Field(ge=1)] | None = None
    """Prompts of the suite; None takes all."""
    resamples: Annotated[int, Field(ge=100)] = 1000
    """Bootstrap resamples of the prompts for the intervals."""


class CloseStep(StepConfig):
    """The end of a round; every round has it as `summary`, with the recipe's `gate` and `monitors`."""

    type: Literal["close"]
    gate: GateConfig
    monitors: MonitorsConfig


STEP_CLASSES: Mapping[str, type[StepConfig]] = {
    "prompts": PromptsStep,
    "data": DataStep,
    "sample": SampleStep,
    "judge": JudgeStep,
    "pair": PairStep,
    "tokens": TokensStep,
    "train": TrainStep,
    "evaluate": EvaluateStep,
    "close": CloseStep,
}


def as_known_now(settings: Mapping[str, Any]) -> StepConfig | None:
    """Settings that an older version wrote down, with today's defaults for what it did not know yet.

    None where this version cannot read them any more.
    """
    try:
        return STEP_CLASSES[settings["type"]].model_validate(settings)
    except (KeyError, ValidationError):
        return None
