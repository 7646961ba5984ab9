"""What each type of step can be told. One class a type; the step's name is chosen by the recipe."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, JsonValue, Tag, ValidationError, model_validator

from prefloop.config.base import Config, Options, is_mapping
from prefloop.config.designs import ComparingDesign, DesignConfig, EachDesign
from prefloop.config.gate import GateConfig, MonitorsConfig
from prefloop.config.judges import EndJudge, JudgeConfig
from prefloop.config.references import Reference, Sampled, policies_of
from prefloop.config.servers import ServersConfig
from prefloop.config.suite_file import Turns, require_choice


class StepConfig(Config):
    """Settings of a step."""

    not_told: ClassVar[Mapping[str, Any]] = {"reads": True}
    """Fields that decide nothing of its result; what it reads is known by identity instead."""

    def told(self) -> dict[str, Any]:
        """What decides its result, every value written out."""
        return self.model_dump(mode="json", exclude=dict(self.not_told))

    def said(self) -> dict[str, Any]:
        """The same without what is at its default: a setting that is new in a later version changes nothing here."""
        return self.model_dump(mode="json", exclude=dict(self.not_told), exclude_defaults=True)


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
    references: str | None = None
    """A file of answers that become the prompts' gold answers, by `question_id`, `uid` or the prompt's text."""


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
    count: Annotated[int, Field(ge=1)] | None = None
    """Prompts a round, with all that was given for them: disjoint parts of one shuffle, a new shuffle when it is used
    up. None takes all of them every round."""
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


Precision = Literal["float32", "bfloat16"]
"""In which a model's layers compute."""


class LocalSamplerConfig(Config):
    """Samples in this process."""

    type: Literal["local"] = "local"
    precision: Precision | Literal["auto"] = "float32"
    """Of the model's layers while they sample, as in a train step. What is then sampled from, and recorded, is the
    policy in bfloat16. `auto` tries both for half a second as a run begins, and keeps the result in the run's folder:
    `bfloat16` where products are a quarter faster in it."""


class ReplaySamplerConfig(Config):
    """Takes answers that were sampled before, so that later steps can be repeated without sampling."""

    type: Literal["replay"]
    file: str
    """Response records, such as a sample step's folder of another run, or one of its files; answers to these prompts
    as AlpacaEval, FastChat or Arena-Hard write them; or `builtin:everyday_corrections`."""


class ServerSamplerConfig(ServersConfig):
    """Samples over HTTP, from servers with OpenAI's completions that hold the recipe's model."""

    type: Literal["server"]
    model: str
    """Name under which the servers know the recipe's model."""
    concurrency: Annotated[int, Field(ge=1)] = 32
    """Requests under way at each server."""
    restart: Annotated[str, Field(min_length=1)] | None = None
    """A command that ends the servers, starts them in the background with the weights in the directory that it is given
    as its last argument (of a LoRA adapter the model's, then the adapter's), and ends. None: servers take new weights
    while they run, or you restart them."""


SamplerConfig = Annotated[LocalSamplerConfig | ServerSamplerConfig | ReplaySamplerConfig, Field(discriminator="type")]
AskedSamplerConfig = Annotated[LocalSamplerConfig | ServerSamplerConfig, Field(discriminator="type")]


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
    policy: Sampled = "current"
    """Whose answers: initial, round_start, current, best, or the name of a train step; or a mixture of several, of
    which every next token is drawn: {geometric: {policies: [current, initial], weights: [0.75, 0.25]}}."""
    contrast: str | None = None
    """A step with other prompts, derived from the same ones as those that this step reads: every next token is drawn
    from the policy behind both, log pi = gap * log pi(. | own prompt) + (1 - gap) * log pi(. | other prompt),
    normalised (arXiv:2409.17534). None takes the prompt alone."""
    gap: Annotated[float, Field(ge=0)] = 1.0
    """With `contrast`: 1 is the prompt that the step reads, 0 the other one; beyond 1 it is pushed away from that."""
    instructions: tuple[str, ...] = ()
    """Templates: answer i of a prompt is sampled behind instruction i, all over again behind the last one; an empty
    text is the plain prompt. Answers stay answers to the plain prompt, and say which instruction they followed."""
    placement: Literal["system", "user"] = "user"
    """Where an instruction stands: as a system turn, before an existing one, or before the first question."""
    sampler: SamplerConfig = LocalSamplerConfig()
    """Who samples, by `type`. Files and addresses are no part of the step's identity; what a file holds is."""
    num_samples: Annotated[int, Field(ge=1)] = 5
    """Responses a prompt (K)."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    """Softmax temperature. 1.0 samples from the policy itself, 0 takes the most likely token."""
    temperatures: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict[str, float])
    """Other temperatures for prompts of these categories (`category` in their rows)."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Smallest set of most likely tokens whose probability reaches this."""
    top_k: Annotated[int, Field(ge=1)] | None = None
    """So many of the most likely tokens, before `top_p`; None keeps all."""
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Least probability, as a share of the most likely token's; 0 keeps all."""
    repetition_penalty: Annotated[float, Field(gt=0)] = 1.0
    """Positive logits of tokens that prompt or answer hold are divided by this, negative ones multiplied; 1 changes
    nothing. What is sampled from is then no longer the policy, and depends on the prompt's words."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Texts that end an answer; the tokens that complete one are its last, and no EOS follows them."""
    stop_ids: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Tokens that end an answer, beside the model's EOS."""
    num_beams: Annotated[int, Field(ge=1)] = 1
    """Beams of a search for the likeliest answers, for evaluation: at temperature 0, `num_samples` of them at most."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 1024
    """Longest response, in tokens; longer ones are cut; their finish_reason is `length`."""
    wave: Annotated[int, Field(ge=1)] = 64
    """Prompts that are sampled and journaled together: what a crash can cost."""

    @model_validator(mode="after")
    def _can_be_sampled_so(self) -> "SampleStep":
        mixed = "policy is a mixture" if not isinstance(self.policy, str) else "contrast is a mixture"
        is_mixed = not isinstance(self.policy, str) or self.contrast is not None
        if is_mixed and self.sampler.type != "local":
            raise ValueError(f"{mixed}, which sampler {self.sampler.type} cannot give: use sampler local")
        if self.contrast is not None and not isinstance(self.policy, str):
            raise ValueError("contrast is of one policy, but policy is a mixture: name one policy, or remove contrast")
        if self.instructions and self.sampler.type == "replay":
            raise ValueError("instructions are for a sampler, but sampler replay reads answers: remove one of the two")
        if self.contrast is not None and self.instructions:
            raise ValueError("instructions and contrast both change the prompt: keep one of them")
        if self.contrast is None and self.gap != 1:
            raise ValueError("gap is between two prompts, but there is one: name the step with the other as contrast")
        if self.num_beams > 1:
            _require_beams(self)
        if not self.instructions and self.placement != "user":
            raise ValueError("placement says where instructions stand, but there are none: remove it, or add some")
        return self

    @property
    def policies(self) -> tuple[str, ...]:
        """Names of the policies that it needs, once each."""
        return policies_of(self.policy)

    @property
    def samples_in(self) -> Precision | Literal["auto"]:
        """Of layers that sample in this process."""
        return self.sampler.precision if isinstance(self.sampler, LocalSamplerConfig) else "float32"

    def said(self) -> dict[str, Any]:
        """Of the sampler what changes answers: a file counts by its content, a server by the policy that it serves."""
        said = super().said()
        if "sampler" in said:
            rounded = {"precision": self.samples_in} if self.samples_in != "float32" else {}
            said["sampler"] = {"type": self.sampler.type, **rounded}
        return said


def _require_beams(settings: SampleStep) -> None:
    """A search for the likeliest answers draws nothing (ValueError)."""
    if settings.sampler.type != "local":
        raise ValueError(f"num_beams is for sampler local, but sampler is {settings.sampler.type}: set it to 1")
    wanted: Mapping[str, Any] = {
        "temperature": 0.0,
        "temperatures": {},
        "top_p": 1.0,
        "top_k": None,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
    }
    for name, value in wanted.items():
        if (found := getattr(settings, name)) != value:
            raise ValueError(f"num_beams looks for the likeliest answers, but {name} is {found}: set it to {value}")
    if settings.num_samples > settings.num_beams:
        raise ValueError(f"num_samples is {settings.num_samples}, but {settings.num_beams} beams end in that many")


class SearchStep(ReadingStep):
    """A tree of steps behind every prompt, searched by the policy, and judged at its ends (MCTS-DPO)."""

    main: ClassVar[str | None] = "policy"
    type: Literal["search"]
    policy: str = "current"
    """Whose steps: initial, round_start, current, best, or the name of a train step."""
    judge: EndJudge
    """Says of a whole solution whether it is right, by `type`; one that does not end is wrong."""
    simulations: Annotated[int, Field(ge=1)] = 64
    """Of the search, from every node of the chosen path."""
    depth: Annotated[int, Field(ge=1)] = 3
    """Steps that a simulation looks ahead."""
    num_actions: Annotated[int, Field(ge=2)] = 2
    """Steps that are sampled behind a beginning; equal ones are one."""
    rollouts: Annotated[int, Field(ge=0)] = 1
    """Solutions that are sampled behind each new step: the mean of their ends, 1 or -1, is its value. 0: a step is
    worth what the one before it is, until a simulation meets an end."""
    worth: Literal["rollouts", "confidence"] = "rollouts"
    """What a new step is worth: how rollouts behind it end; or, as in the paper, how sure the policy itself is that the
    solution is right so far: P(A) of prompt `last_step_at_once`, divided by max(its depth - 3, 1); an end adds 1 where
    it
    is right, -1 where it is wrong."""
    w_exp: Annotated[float, Field(ge=0)] = 1.0
    """Weight of exploration in PUCT."""
    length_penalty: Annotated[float, Field(ge=0)] = 1.25
    """A step is explored by exp(its log-probability / its length to this power)."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Softmax temperature."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Smallest set of most likely tokens whose probability reaches this."""
    step_ends: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)] = ("\n",)
    """Texts that end a step; they belong to it."""
    max_step_tokens: Annotated[int, Field(ge=1)] = 128
    """Longest step, in tokens; longer ones are cut there, and the next begins."""
    max_steps: Annotated[int, Field(ge=1)] = 16
    """Steps of a solution; one that has not ended by then is cut."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 512
    """Longest rollout behind a step, in tokens."""
    wave: Annotated[int, Field(ge=1)] = 64
    """Prompts that are searched side by side and written together: what a crash can cost."""

    @model_validator(mode="after")
    def _is_worth_one_thing(self) -> "SearchStep":
        if self.worth == "confidence" and self.rollouts != type(self).model_fields["rollouts"].default:
            raise ValueError("rollouts have no effect where worth is confidence. Remove one of the two")
        return self


BUDGET = ("max_calls", "max_cost")
"""Fields that limit what a run's judges are asked."""
PRICES = dict.fromkeys(("price", "price_in", "price_out", "expected_tokens", "expected_steps"), True)
PLACE = dict.fromkeys(("url", "key", "concurrency", "timeout_s", "deadline_s"), True)
NOT_TOLD = {"reads": True, "judge": {**PRICES, "server": PLACE}, **dict.fromkeys(BUDGET, True)}


class JudgeStep(ReadingStep):
    """Who scores the responses."""

    main: ClassVar[str | None] = "judge"
    not_told: ClassVar[Mapping[str, Any]] = NOT_TOLD
    type: Literal["judge"]
    judge: JudgeConfig
    """The judge by `type`, with its own fields."""
    design: DesignConfig = EachDesign()
    """Which answers it is asked about together, by `type`."""
    max_calls: Annotated[int, Field(ge=0)] | None = None
    """Answers of judges outside the program that the run may have got, all steps and rounds together, when this step
    asks: before the call that would exceed it the run stops with 75. None: no limit."""
    max_cost: Annotated[float, Field(ge=0)] | None = None
    """US dollars that they may have cost in all, likewise."""

    @model_validator(mode="after")
    def _can_be_asked_so(self) -> "JudgeStep":
        judge, design = self.judge, self.design
        if design.repeats > 1 and not judge.varies:
            raise ValueError(f"judge {judge.type} says the same every time: remove design.repeats")
        if "one" not in judge.takes and design.shows not in judge.takes:
            fit = "all_pairs, against or tournament" if "two" in judge.takes else "joint"
            raise ValueError(f"judge {judge.type} cannot judge under design {design.type} as it is set: use {fit}")
        if isinstance(design, ComparingDesign) and not judge.scores:
            raise ValueError(f"what judge {judge.type} says cannot be compared: use design each")
        return self

    @model_validator(mode="after")
    def _limits_something(self) -> "JudgeStep":
        if not self.judge.kept and (self.max_calls is not None or self.max_cost is not None):
            raise ValueError(f"judge {self.judge.type} costs nothing: remove max_calls and max_cost")
        if self.max_cost is not None and not self.judge.price_of_a_call:
            raise ValueError("max_cost counts nothing, since the judge has no price: set judge.price, or max_calls")
        return self


class NextTurnStep(ReadingStep):
    """The next question of every conversation, after the answer that was given to the one before."""

    type: Literal["next_turn"]


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


class MixStep(ReadingStep):
    """Examples of one step with a part of those of others, such as earlier rounds'."""

    main: ClassVar[str | None] = "shares"
    type: Literal["mix"]
    shares: tuple[Annotated[float, Field(ge=0, le=1)], ...]
    """Of the mixture, at most, one for each further step of `reads`: [0.3, 0.15] with [pairs, previous.pairs,
    previous-2.pairs]. All examples of the first step are in it, as many of the others as their shares allow."""
    exact: bool = False
    """Of the first step, too, only so many examples are taken as the other one's share of them needs (DICE)."""
    other_prompts: bool = False
    """What is mixed in answers prompts that the first step has no example of."""

    @model_validator(mode="after")
    def _one_share_each(self) -> "MixStep":
        if len(self.reads) != 1 + len(self.shares):
            raise ValueError(
                f"reads names {len(self.reads)} steps and shares has {len(self.shares)} values. Name the step that is "
                "taken first, then one step a share."
            )
        if sum(self.shares) >= 1 and not self.exact:
            raise ValueError(f"shares add up to {sum(self.shares):g}, which leaves nothing for {self.reads[0]}")
        if self.exact and len(self.shares) != 1:
            raise ValueError(f"exact is about one share, but there are {len(self.shares)}. Remove it, or the others.")
        return self


class BufferStep(ReadingStep):
    """Examples of this and of earlier blocks, from which those to train on are drawn (experience replay)."""

    main: ClassVar[str | None] = "size"
    type: Literal["buffer"]
    size: Annotated[int, Field(ge=1)] = 2000
    """Examples that are held, over all blocks and rounds; where more come, the oldest go."""
    draws: Annotated[int, Field(ge=1)]
    """Examples that are drawn a block, none twice; an example that was drawn n times before has weight 1 / (1 + n)."""


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
    quantize: Literal["nf4"] | None = None
    """`nf4` holds the frozen base in 4 bits while the adapter is trained and its references are scored (QLoRA,
    arXiv:2305.14314). It needs a CUDA GPU and `pip install prefloop[qlora]`. Sampling and export merge into the whole
    base."""
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
    ema_decay: Annotated[float, Field(ge=0, le=1)] | None = None
    """Beside the policy a moving average of its weights is kept, under the policy's name with `.ema`: after every
    optimiser step it is this much of itself and the rest of the weights. It goes on over blocks and rounds."""
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
    ensemble: Annotated[int, Field(ge=1)] = 1
    """So many reward models are trained on the same tokens, each with other seeds for its head and its order
    (arXiv:2310.02743). A judge that names the step is then as many judges. Policies are trained one by one."""
    measured_margins: Annotated[int, Field(ge=0)] = 64
    """So many pairs are scored once more by the policy as training ends, and by the one it started from where that is
    no reference: those whose chosen answer was least ahead when last trained on. `prefloop inspect RUN --worst 20`
    shows them. 0 scores none."""

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
    """A shipped suite (`everyday`, `mt_bench`, `arena_hard`, `alpaca_eval`), a suite file (.yaml) or a prompt set.
    Without it the step is left out."""
    prompts: str | None = None
    """The suite's questions, where it leaves them to you: a file or directory of rows, or `org/name@revision`."""
    format: str | None = None
    """Name of the format of its rows; None recognises it."""
    references: str | None = None
    """A file of answers that judges take for good ones."""
    turns: Turns = 1
    """2: the second question of every row is asked after the policy's own answer to the first."""
    not_told: ClassVar[Mapping[str, Any]] = {**NOT_TOLD, "sampler": True}
    sampler: AskedSamplerConfig = LocalSamplerConfig()
    """Who samples the answers, as in a sample step; fixed opponents on file need nobody."""
    judge: JudgeConfig
    """Default: the judge of the loop."""
    compares: bool = False
    """The judge is shown two answers at a time, ours and an opponent's, in both orders, instead of each alone. Judges
    that can do nothing else are asked so without being told. Of second turns both conversations are shown."""
    max_calls: Annotated[int, Field(ge=0)] | None = None
    """As in a judge step. Default: that of the loop's, where its judge is the loop's as well."""
    max_cost: Annotated[float, Field(ge=0)] | None = None
    """Likewise."""
    baseline: str = "initial"
    """The fixed opponent: initial, or the name of a policy that exists before the first round."""
    pool: dict[str, str] = Field(default_factory=dict[str, str])
    """More fixed opponents: name -> a file of its answers, as this program, AlpacaEval, Arena-Hard or FastChat write
    them."""
    num_samples: Annotated[int, Field(ge=1)] = 1
    """Answers a prompt."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    """Of all answers, at top-p 1. At 1 one set of answers serves win rates and KL; at others there is no KL."""
    temperatures: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict[str, float])
    """Other temperatures for questions of these categories."""
    num_beams: Annotated[int, Field(ge=1)] = 1
    """Beams of a search for the likeliest answers, at temperature 0, as in a sample step."""
    best_of: Annotated[int, Field(ge=1)] = 1
    """Answers of every policy that are sampled for each one that is evaluated: the one that the judge scores highest.
    There is no KL, since chosen answers are no samples of the policy."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 1024
    """Default: that of the loop's sample step."""
    count: Annotated[int, Field(ge=1)] | None = None
    """Prompts of the suite; None takes all."""
    resamples: Annotated[int, Field(ge=100)] = 1000
    """Bootstrap resamples of the prompts for the intervals."""

    @model_validator(mode="after")
    def _can_choose(self) -> "EvaluateStep":
        require_choice(self.best_of, self.turns, self.num_beams, compares=self.compares)
        return self

    @model_validator(mode="after")
    def _can_compare(self) -> "EvaluateStep":
        if self.compares and not self.judge.scores:
            raise ValueError(f"what judge {self.judge.type} says cannot be compared: set compares to false")
        return self


class CloseStep(StepConfig):
    """The end of a round; every round has it as `summary`, with the recipe's `gate` and `monitors`."""

    type: Literal["close"]
    gate: GateConfig
    monitors: MonitorsConfig


STEP_CLASSES: Mapping[str, type[StepConfig]] = {
    "prompts": PromptsStep,
    "data": DataStep,
    "sample": SampleStep,
    "search": SearchStep,
    "judge": JudgeStep,
    "next_turn": NextTurnStep,
    "pair": PairStep,
    "mix": MixStep,
    "buffer": BufferStep,
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
