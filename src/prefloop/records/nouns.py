"""The nouns that stages exchange on disk: frozen, validated, one JSON line each."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, JsonValue

from prefloop.records.identity import digest

FinishReason = Literal["stop", "length", "given"]
Role = Literal["chosen", "rejected", "response", "gold", "kl", "ranked", "sampled", "degree"]
Span = tuple[int, int]
"""Half-open range of token positions, counted from the first token of the answer."""


class Record(BaseModel):
    """Base of every record: immutable, and a field that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Message(Record):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: tuple[JsonValue, ...] = ()
    tool_call_id: str | None = None
    """Of a tool's turn: the call that it answers."""
    name: str | None = None


class NextTurn(Record):
    """What the user says once a prompt is answered."""

    content: str
    answer: str | None = None
    """Gold answer to it."""


class Prompt(Record):
    """Everything before an answer."""

    prompt_id: str
    """Hash of the content, so that the same prompt has the same id in every file."""
    root_id: str
    """The prompt that this one was derived from, or its own id."""
    messages: tuple[Message, ...]
    tools: tuple[JsonValue, ...] = ()
    prefix_ids: tuple[int, ...] = ()
    """Beginning of the answer that is given, as tokens (Step-DPO, tree search, SAPO). Samplers go on behind it."""
    answer: str | None = None
    """Gold answer, for verifiers."""
    numbers: dict[str, float] = {}
    source: str = ""
    """Where it came from, as "file.jsonl:412"; never a path."""
    part: str = ""
    """Which of several sources that were mixed; empty where there is one."""
    later: tuple[NextTurn, ...] | None = None
    """The user's turns that follow, in questions of several turns."""
    labels: dict[str, str] | None = None
    """What a suite calls it: `question_id`, `category`, `dataset`."""

    @classmethod
    def of(
        cls,
        messages: tuple[Message, ...],
        *,
        source: str = "",
        root_id: str | None = None,
        prefix_ids: tuple[int, ...] = (),
        answer: str | None = None,
        tools: tuple[JsonValue, ...] = (),
        numbers: dict[str, float] | None = None,
    ) -> Self:
        """A prompt with its id computed from what the model will see."""
        content = {"messages": [m.model_dump(exclude_none=True) for m in messages], "tools": list(tools)}
        prompt_id = digest({**content, "prefix_ids": list(prefix_ids)})[:16]
        return cls(
            prompt_id=prompt_id,
            root_id=root_id or prompt_id,
            messages=messages,
            tools=tools,
            prefix_ids=prefix_ids,
            answer=answer,
            numbers=numbers or {},
            source=source,
        )

    def derived(
        self, *, messages: tuple[Message, ...] | None = None, prefix_ids: tuple[int, ...] | None = None
    ) -> Self:
        """A prompt with other messages, or with another given beginning of the answer, under the same root.

        With `prefix_ids` a sampler continues the answer behind these tokens: step by step (Step-DPO), or from a node of
        a search tree. Its responses have the prefix in `token_ids` and in `given`, and `sum_logp` is of the rest alone.

        Args:
            messages: None keeps this prompt's.
            prefix_ids: the whole beginning, not what is added to this prompt's own; of a text
                `codec.response_ids(text, finished=False)`. None keeps this prompt's.
        """
        messages = self.messages if messages is None else messages
        prefix_ids = self.prefix_ids if prefix_ids is None else prefix_ids
        prompt_id = Prompt.of(messages, prefix_ids=prefix_ids, tools=self.tools).prompt_id
        return self.model_copy(update={"prompt_id": prompt_id, "messages": messages, "prefix_ids": prefix_ids})


class Response(Record):
    """One answer to a prompt, sampled or given."""

    response_id: str
    prompt_id: str
    root_id: str
    step: str
    """The step that made it; "given" for an answer that a data set brought."""
    text: str
    thinking: str = ""
    """Its thinking part, which judges do not see and which is no part of its length."""
    num_thinking: int = 0
    """Tokens of the thinking part; they begin the answer, markers included."""
    token_ids: tuple[int, ...] | None = None
    """The answer's tokens, prefix_ids of the prompt included, and EOS if it ended by itself. None: only text."""
    ids_from: Literal["sampler", "text"] = "sampler"
    finish_reason: FinishReason
    given: tuple[Span, ...] = ()
    """Tokens that were not sampled."""
    sum_logp: float | None = None
    """Nats, sampled tokens, under the distribution that was sampled from (temperature and top-p applied)."""
    parent_id: str | None = None
    policy: str = ""
    """Identity of the policy that sampled it."""
    settings: dict[str, JsonValue] = {}
    index: int = 0
    seed: int = 0

    @property
    def num_tokens(self) -> int:
        """Length in tokens, EOS included, thinking left out; for a text without tokens the number of words."""
        return len(self.token_ids) - self.num_thinking if self.token_ids is not None else len(self.text.split())


class Judgment(Record):
    """What one judge said once; nothing is averaged here."""

    judge: str
    """Name and version, "dataset:..." or "human:..."."""
    kind: Literal["score", "preference", "ranking", "label", "steps"]
    aspect: str = "overall"
    subjects: tuple[str, ...]
    """Response ids in the order in which they were shown."""
    values: tuple[float | None, ...]
    """One score, rank (1 is the best) or label (1 good, 0 bad) a subject; or P(first wins); or one value a span.
    None: the judge gave no valid answer."""
    numbers: dict[str, float] = {}
    """What stands beside a verdict in a data set: `margin`, `weight`."""
    spans: tuple[Span, ...] = ()
    repeat: int = 0
    raw: str | None = None
    calls: int = 1
    """Questions that it took: a letter, a digit of each answer, what was asked again."""
    tokens_in: int = 0
    tokens_out: int = 0


class Member(Record):
    """One answer in an example, with the part it plays."""

    role: Role
    response_id: str
    text: str
    thinking: str = ""
    token_ids: tuple[int, ...] | None = None
    finished: bool = True
    """It ended by itself, so that EOS belongs to it."""
    counted: tuple[Span, ...] | None = None
    """Tokens in the loss; None: all of the answer."""
    marked: tuple[Span, ...] = ()
    numbers: dict[str, float] = {}


class Example(Record):
    """What training reads: a prompt and its members, self-contained, saying why it exists."""

    example_id: str
    prompt: Prompt
    members: tuple[Member, ...]
    weight: float = 1.0
    numbers: dict[str, float] = {}
    why: str

    def member(self, role: Role) -> Member:
        """The only member with this role."""
        (found,) = (member for member in self.members if member.role == role)
        return found


class MixedPolicies(Record):
    """A mixture of policies that was a reference."""

    kind: Literal["geometric", "harmonic"]
    policies: tuple[str, ...]
    """Identities."""
    weights: tuple[float, ...]
    eta: float | None = None
    """How far the others could be from the first; of a harmonic mixture."""


ReferenceOfPolicy = str | tuple[str, ...] | MixedPolicies
"""The identity of a policy, those of several, or a mixture of several."""


AVERAGED = ".ema"
"""After the identity of a policy: the moving average of its weights, which its step keeps beside it."""


class PolicyCard(Record):
    """What a train step made, and from what."""

    identity: str
    kind: Literal["full", "lora", "reward_model"]
    base: str
    """Name of the base model as the recipe gives it; its content is `base_identity`."""
    base_identity: str
    start: str
    references: dict[str, ReferenceOfPolicy]
    """By model name of the quantity grammar."""
    examples: str
    round: int
    block: int
    files: dict[str, str] | None
    """sha256 of each exported file; None: not written, it can be derived again."""
    best_step: int | None = None
    """The optimiser step after which the weights were these, where validation chose it; None: the last one."""


class Estimate(Record):
    """A measured number with its uncertainty."""

    value: float
    standard_error: float | None = None
    interval: tuple[float, float] | None = None
    """95 %, clustered by prompt."""
    n: int = 0


class Alert(Record):
    """A monitor's alarm."""

    monitor: str
    metric: str
    value: float
    threshold: float
    remedy: str
    action: Literal["stop", "roll_back", "warn"]
    message: str


class RoundSummary(Record):
    """How a round ended, and the figures that decided it."""

    round: int
    decision: Literal["accepted", "warned", "rolled_back", "stopped"]
    reasons: tuple[str, ...]
    policies: dict[str, str]
    """initial, round_start and current (this round's result), by identity."""
    counts: dict[str, dict[str, float]]
    """What every step of the round counted, by step."""
    training: dict[str, float]
    evaluation: dict[str, Estimate]
    judges: tuple[str, ...]
    alerts: tuple[Alert, ...]
