"""A reward model as judge: a sequence-classification model with one label, which reads the whole conversation."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from prefloop.config import RewardModelJudge
from prefloop.errors import ModelError
from prefloop.judging.protocol import Ask, Verdict
from prefloop.judging.sequence_scores import SequenceScorer
from prefloop.policy import ChatCodec, ModelDescription, describe_model, resolve_model
from prefloop.policy.capped_attention import attention_of
from prefloop.policy.model_files import MODEL_FILES
from prefloop.records import Message, Prompt

QUESTION, ANSWERS = "Hi", ("Hello", "Go away")
"""Two short conversations, to see whether a template shows the answer."""


@dataclass(frozen=True)
class RewardModelFiles:
    """What is known of a reward model before its weights are read."""

    directory: Path
    codec: ChatCodec
    longest: int | None
    """Tokens of a conversation that it has positions for."""


@dataclass(frozen=True)
class RewardModel:
    """Scores by a model; loaded when it is first asked, and then once for all asks."""

    config: RewardModelJudge
    device: torch.device
    tokens_per_batch: int
    dtype: torch.dtype = torch.float32
    called: str | None = None
    """What it is called in judgments; None: as its directory."""
    kind: Literal["score"] = "score"

    @property
    def name(self) -> str:
        """The model by its name and content, and what is subtracted."""
        centered = [f"center={self.config.center:g}"] * bool(self.config.center)
        identity = identity_of_reward_model(self.config.model)
        return ":".join(["reward_model", self.called or Path(self.config.model).name, identity[:12], *centered])

    @cached_property
    def files(self) -> RewardModelFiles:
        """Its directory and template."""
        return reward_model_files(self.config.model)

    @cached_property
    def scorer(self) -> SequenceScorer:
        """The model itself."""
        return SequenceScorer(load_reward_model(self.files.directory, self.dtype, self.device), self.tokens_per_batch)

    def judge(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Verdict]]:
        """The score of each answer in its conversation; of one that is too long, no valid one.

        Raises:
            ModelError: a score is not a number.
        """
        conversations = self._conversations(asks)
        longest = self.files.longest
        fitting = [number for number, ids in enumerate(conversations) if longest is None or len(ids) <= longest]
        for number in sorted(set(range(len(asks))) - set(fitting)):
            raw = f"{len(conversations[number])} tokens, the model has positions for {longest}"
            yield number, Verdict(values=(None,), raw=raw)
        for place, score in self.scorer.scores([conversations[number] for number in fitting]):
            number = fitting[place]
            if not -torch.inf < score < torch.inf:
                (response,) = asks[number].subjects
                raise ModelError(
                    f"judge {self.config.model}: its score of answer {response.response_id} is {score}. A model that "
                    "overflows or was saved damaged cannot judge; check its weights."
                )
            values = (score - self.config.center,)
            yield number, Verdict(values=values, tokens_in=len(conversations[number]))

    def _conversations(self, asks: Sequence[Ask]) -> list[tuple[int, ...]]:
        """Prompts with their answers, by the template of the reward model, as token ids."""
        return self.files.codec.conversation_ids([(ask.prompt, one.text) for ask in asks for one in ask.subjects])


def reward_model_files(spec: str) -> RewardModelFiles:
    """Finds a reward model and checks everything but its weights.

    Raises:
        ModelError: there is none, it is another kind of model, needs code of its own, or its template hides answers.
    """
    return _files(spec, _stamp(spec))


def identity_of_reward_model(spec: str) -> str:
    """Hash of what decides its scores; says so where the weights are not here yet.

    Raises:
        ModelError: there is no such model.
    """
    return _described(spec, _stamp(spec)).identity or f"not here: {spec}"


def fetch_reward_model(spec: str) -> None:
    """Downloads a reward model that a recipe names on the Hub (ModelError where that fails)."""
    if not Path(spec).expanduser().is_dir():
        resolve_model(spec)
        _described.cache_clear()


def load_reward_model(directory: Path, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """The model, frozen.

    Raises:
        ModelError: its weights lack a part, such as the head that makes the score.
    """
    model: PreTrainedModel
    model, found = AutoModelForSequenceClassification.from_pretrained(
        directory,
        dtype=dtype,
        local_files_only=True,
        trust_remote_code=False,
        attn_implementation=attention_of(directory),
        output_loading_info=True,
    )
    if missing := sorted(found["missing_keys"]):
        raise ModelError(
            f"{directory}: its weights lack {', '.join(missing[:3])}, which would be random numbers. "
            "Name a trained reward model, saved with save_pretrained."
        )
    model.config.use_cache = False
    return model.eval().requires_grad_(False).to(device)  # pyright: ignore[reportArgumentType]


@cache
def _files(spec: str, stamp: tuple[object, ...]) -> RewardModelFiles:
    described = _described(spec, stamp)
    if (directory := described.directory) is None:
        raise ModelError(f"judge model {described.missing}")
    config: dict[str, Any] = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    _require_classifier(spec, config)
    settings = AutoConfig.from_pretrained(directory, trust_remote_code=False)
    if settings.num_labels != 1:
        raise ModelError(
            f"{spec}: has {settings.num_labels} labels, expected 1, the score. A classifier of several labels is no "
            "reward model; name another model, or ask it from a function of your own (judge type python)."
        )
    codec = ChatCodec.load(directory, {})
    _require_usable_template(spec, codec)
    text = settings.get_text_config().to_dict()
    return RewardModelFiles(directory, codec, text.get("max_position_embeddings") or text.get("n_positions"))


def _require_classifier(spec: str, config: dict[str, Any]) -> None:
    """The directory is of a sequence classifier that transformers knows without code of the model's own."""
    kind, named = config.get("model_type"), config.get("architectures") or ["an unnamed class"]
    known: dict[str, Any] = dict(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES)
    classes = known.get(str(kind), ())
    if set(named) & {classes, *(classes if isinstance(classes, tuple) else ())}:
        return
    if config.get("auto_map"):
        raise ModelError(
            f"{spec}: {named[0]} is code that comes with the model (auto_map in config.json, trust_remote_code), which "
            "prefloop never runs. Serve it with a program that may, such as `vllm serve --trust-remote-code`, and ask "
            "the server (judge type reward_server)."
        )
    raise ModelError(
        f"{spec}: is a {named[0]}, expected a sequence-classification model with one label, such as "
        f"{classes if isinstance(classes, str) else 'LlamaForSequenceClassification'}. Name a trained reward model."
    )


def _require_usable_template(spec: str, codec: ChatCodec) -> None:
    """The template shows the answer, and the conversation begins with no more than one BOS."""
    prompt = Prompt.of((Message(role="user", content=QUESTION),))
    texts = [codec.rendered(prompt, Message(role="assistant", content=answer)) for answer in ANSWERS]
    if any(answer not in text for answer, text in zip(ANSWERS, texts, strict=True)):
        raise ModelError(
            f"{spec}: its chat template does not show what the assistant answers, so it could not judge answers. "
            "Put the template that it was trained with into chat_template.jinja."
        )
    begun = codec.ids_of_rendered(texts[:1])[0][:2]
    bos: Any = codec.tokenizer.bos_token_id
    if bos is not None and begun == (bos, bos):
        raise ModelError(f"{spec}: its chat template writes BOS twice. Remove one from chat_template.jinja.")


@cache
def _described(spec: str, _stamp: tuple[object, ...]) -> ModelDescription:
    return describe_model(spec)


def _stamp(spec: str) -> tuple[object, ...]:
    """What changes when one of a directory's files is written again; nothing of a model from elsewhere."""
    files = sorted(file for pattern in MODEL_FILES for file in Path(spec).expanduser().glob(pattern))
    return tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)
