"""The owner of every loaded model: who needs one asks here, and gives it back."""

from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from pydantic import JsonValue
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from prefloop.config import LoraConfig, Precision
from prefloop.errors import ModelError
from prefloop.policy.capped_attention import attention_of
from prefloop.policy.checkpointing import recomputed_layers
from prefloop.policy.export import keep_template_settings
from prefloop.policy.freed_memory import keep_freed_memory, return_freed_memory
from prefloop.policy.growing import grows_answers
from prefloop.policy.lean_layers import lean_layers
from prefloop.policy.linear_layers import differentiable_products
from prefloop.policy.live import REFERENCE, TRAINED, LiveReference
from prefloop.policy.model_files import CONVERSATION_FILES
from prefloop.policy.model_heads import HEADS_FILE, Heads, heads_of, named_parameters, write_heads
from prefloop.policy.precision import layers_in
from prefloop.policy.quantized import Quantize, quantization, require_quantizer
from prefloop.policy.source import ModelSource
from prefloop.policy.template import ChatCodec
from prefloop.policy.tree_scores import takes_trees


@dataclass(frozen=True)
class PolicyFiles:
    """A policy on disk: a model directory, and a LoRA adapter on it or not."""

    identity: str
    directory: Path
    adapter: Path | None = None
    heads: Path | None = None
    """File of the heads that were trained with it."""


@dataclass
class Trainable:
    """A model that is being trained, and how frozen policies are read off the same weights."""

    model: PreTrainedModel | PeftModel
    lora: LoraConfig | None

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """What the optimiser changes, by name, in the order of the model."""
        of_model = {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        return {**of_model, **named_parameters(self.heads)}

    tokenizer_of: Path
    """The model directory whose tokenizer, template and generation settings belong to it."""
    chat_template_kwargs: Mapping[str, JsonValue]
    """What the template was told whenever it was rendered for the model."""
    live: LiveReference | None = None
    """The reference that stays loaded, where one was asked for."""
    heads: Heads = field(default_factory=dict[str, torch.nn.Linear])
    """By functional the heads that are trained with it."""

    @contextmanager
    def dropout(self, seed: int) -> Generator[None]:
        """The adapter drops what it reads while this lasts, forward and backward; at all other times it does not.

        Args:
            seed: of the zeros. Nothing else draws from it, and no other random numbers are changed.
        """
        if self.lora is None or not self.lora.dropout:
            yield
            return
        device = self.model.device
        layers = [module for module in self.model.modules() if isinstance(module, LoraLayer)]
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            for layer in layers:
                layer.training = True  # DoRA asks the layer itself; the layer below it stays as it is
                layer.lora_dropout[TRAINED].train()
            try:
                yield
            finally:
                for layer in layers:
                    layer.training = False
                    layer.lora_dropout.eval()

    def save(self, directory: Path) -> None:
        """Writes an ordinary Hugging Face directory: the model or the adapter, and what is needed to talk to it."""
        if isinstance(self.model, PeftModel):
            config = self.model.peft_config[TRAINED]
            assert isinstance(config, PeftLoraConfig)
            if isinstance(config.target_modules, set):  # a set is written in another order by every process
                config.target_modules = sorted(config.target_modules)
            self.model.save_pretrained(str(directory), save_embedding_layers=False, selected_adapters=[TRAINED])
            (directory / "README.md").unlink(missing_ok=True)
        else:
            self.model.save_pretrained(directory)
        for pattern in CONVERSATION_FILES:
            for file in self.tokenizer_of.glob(pattern):
                copied = directory / file.relative_to(self.tokenizer_of)
                copied.parent.mkdir(exist_ok=True)
                copied.write_bytes(file.read_bytes())
        keep_template_settings(directory, self.chat_template_kwargs)
        if self.heads:
            write_heads(self.heads, directory.parent / HEADS_FILE)


class Workbench:
    """Loads each model once, in float32 on every device; layers compute in another precision where that is asked for.

    LoRA policies share one copy of their base. The one extra copy is the merged model that samples, since an unmerged
    adapter slows decoding.
    """

    def __init__(self, source: ModelSource, codec: ChatCodec, device: torch.device) -> None:
        self.source = source
        self.codec = codec
        self.device = device
        self._loaded: tuple[tuple[Path, Precision | None], PreTrainedModel] | None = None
        self._sampling: tuple[str, PreTrainedModel] | None = None
        keep_freed_memory()

    def base(self, directory: Path, nf4: Precision | None = None) -> PreTrainedModel:
        """The model of a directory, frozen; the last one stays loaded.

        Args:
            directory: of the model.
            nf4: its layers are held in 4 bits, and compute in this precision.
        """
        if self._loaded is None or self._loaded[0] != (directory, nf4):
            self._loaded = None
            self._loaded = ((directory, nf4), self._load(directory, nf4))
        return self._loaded[1]

    @cached_property
    def takes_trees(self) -> bool:
        """Whether training may give this model trees; found out on a small one."""
        return takes_trees(self.base(self.source.directory))

    @cached_property
    def grows_answers(self) -> bool:
        """Whether sampling may let this model's answers grow behind one copy of their prompts; tried on small ones."""
        return grows_answers(self.base(self.source.directory))

    def for_sampling(self, policy: PolicyFiles) -> PreTrainedModel:
        """A model without adapters, merged in memory where the policy has one; valid until another is asked for."""
        if policy.adapter is None:
            return self.base(policy.directory)
        if self._sampling is None or self._sampling[0] != policy.identity:
            self._sampling = None
            with_adapter = PeftModel.from_pretrained(deepcopy(self.base(policy.directory)), str(policy.adapter))
            self._sampling = (policy.identity, with_adapter.merge_and_unload().eval())
        return self._sampling[1]

    @contextmanager
    def for_scoring(
        self, policy: PolicyFiles, precision: Precision = "float32", quantize: Quantize = None
    ) -> Generator[PreTrainedModel | PeftModel, None, None]:
        """The policy's model as training has it: a LoRA adapter stays unmerged, a base may be in 4 bits."""
        base = self.base(policy.directory, precision if quantize else None)
        if policy.adapter is None:
            with _computing_in(precision, base):
                yield base
        else:
            with_adapter = PeftModel.from_pretrained(base, str(policy.adapter)).eval()
            try:
                with _computing_in(precision, base):
                    yield with_adapter
            finally:
                with_adapter.unload()
        return_freed_memory()

    @contextmanager
    def for_comparing(
        self, policy: PolicyFiles, reference: PolicyFiles
    ) -> Generator[tuple[PreTrainedModel | PeftModel, LiveReference]]:
        """A policy's model and a reference's at the same time, both frozen; adapters share their base."""
        with self.for_scoring(policy) as model:
            if (reference.directory, reference.adapter) == (policy.directory, policy.adapter):
                yield model, LiveReference(model)
            elif isinstance(model, PeftModel) and reference.directory == policy.directory:
                yield model, self._on_the_same_base(model, reference)
            else:
                beside = self._load(reference.directory)
                if reference.adapter is not None:
                    beside = PeftModel.from_pretrained(beside, str(reference.adapter)).eval()
                yield model, LiveReference(beside)
        return_freed_memory()

    @contextmanager
    def for_training(
        self,
        start: PolicyFiles,
        lora: LoraConfig | None,
        seed: int,
        precision: Precision = "float32",
        *,
        recompute: bool = False,
        live: PolicyFiles | None = None,
        heads: Mapping[str, int] | None = None,
    ) -> Generator[Trainable, None, None]:
        """A model to be trained from `start`; with LoRA the base stays shared and frozen.

        All weights are trained in the place of the model that was loaded last, which is loaded again when asked for.

        Args:
            start: whose weights training starts from.
            lora: None trains all weights.
            seed: of the first adapter's weights.
            precision: in which its layers compute.
            recompute: layers are computed again going backward, and keep nothing.
            live: a reference that stays loaded. With LoRA it is the base with its own adapter or none, so that the
                weights are there once; without, and where it has another base, a model beside the one that is trained.
            heads: how many numbers each head gives, by functional. They go on from those of `start`, or are new.

        Raises:
            ModelError: the start policy and the recipe disagree on adapters.
        """
        if lora is None:
            if start.adapter is not None:
                raise ModelError(
                    "policy: full fine-tuning cannot start from a LoRA adapter. Set policy.lora, or start from a "
                    "merged model."
                )
            model = self.base(start.directory)
            self._loaded = self._sampling = None
            with (
                self._beside(live, precision) as reference,
                _computing_in(precision, model.requires_grad_(True)),
                recomputed_layers(model) if recompute else nullcontext(),
            ):
                own = self.heads(start, heads or {}, seed)
                yield Trainable(model, None, self.source.directory, self.codec.chat_template_kwargs, reference, own)
            return
        if start.directory != self.source.directory:
            raise ModelError(
                "policy: with LoRA the adapter belongs to the recipe's model, but policy.start is another one. "
                "Name that one as `model:`, or train all weights."
            )
        self._sampling = None
        base = self.base(start.directory, precision if lora.quantize else None)
        if start.adapter is not None:
            found = PeftLoraConfig.from_pretrained(str(start.adapter))
            assert isinstance(found, PeftLoraConfig)
            _require_same_shape(found, lora)
            found.lora_dropout = lora.dropout
            model = PeftModel.from_pretrained(base, str(start.adapter), is_trainable=True, config=found)
        else:
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                model = get_peft_model(base, adapter_config(lora))
            model.peft_config[TRAINED].base_model_name_or_path = self.source.name
        try:
            reference = None if live is None else self._on_the_same_base(model, live)
            with _computing_in(precision, base), recomputed_layers(base) if recompute else nullcontext():
                own = self.heads(start, heads or {}, seed)
                yield Trainable(model.eval(), lora, start.directory, self.codec.chat_template_kwargs, reference, own)
        finally:
            model.unload()
            base.requires_grad_(False)

    def heads(self, policy: PolicyFiles, outputs: Mapping[str, int], seed: int) -> Heads:
        """The heads of a policy, or new ones.

        Args:
            policy: whose they are.
            outputs: how many numbers each gives, by functional.
            seed: of new ones.
        """
        if not outputs:
            return {}
        width: int = AutoConfig.from_pretrained(policy.directory).get_text_config().hidden_size
        return heads_of(policy.heads, outputs, width, seed, self.device)

    @contextmanager
    def _beside(self, live: PolicyFiles | None, precision: Precision) -> Generator[LiveReference | None, None, None]:
        if live is None:
            yield None
        else:
            with self.for_scoring(live, precision) as model:
                yield LiveReference(model)

    def _on_the_same_base(self, model: PeftModel, live: PolicyFiles) -> LiveReference:
        if live.directory != self.source.directory:
            return LiveReference(self._load(live.directory))
        if live.adapter is None:
            return LiveReference(model, "off")
        model.load_adapter(str(live.adapter), REFERENCE, is_trainable=False)
        return LiveReference(model, "reference")

    def _load(self, directory: Path, nf4: Precision | None = None) -> PreTrainedModel:
        if nf4 is not None:
            require_quantizer(self.device.type)
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=torch.float32,
            local_files_only=True,
            attn_implementation=attention_of(directory),
            device_map={"": self.device},
            quantization_config=None if nf4 is None else quantization(nf4),
        )
        return model.eval().requires_grad_(False)


@contextmanager
def _computing_in(precision: Precision, model: PreTrainedModel) -> Generator[None]:
    """Layers, and those of adapters in them, compute as in training: scores of the same weights are the same."""
    with layers_in(model, precision), ExitStack() as own:
        if precision == "float32":
            own.enter_context(differentiable_products(model))
            own.enter_context(lean_layers(model))
        yield


def adapter_config(lora: LoraConfig) -> PeftLoraConfig:
    """The recipe's adapter as peft describes it."""
    return PeftLoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        target_modules=lora.targets if isinstance(lora.targets, str) else list(lora.targets),
        lora_dropout=lora.dropout,
        use_dora=lora.use_dora,
        use_rslora=lora.use_rslora,
        bias="none",
        task_type="CAUSAL_LM",
    )


def _require_same_shape(found: PeftLoraConfig, lora: LoraConfig) -> None:
    """An adapter that is trained on is the one that the recipe describes (ModelError where it is not)."""
    keeps = "An adapter keeps its shape over the rounds."
    if (found.r, found.lora_alpha) != (lora.r, lora.alpha):
        raise ModelError(
            f"policy.lora has r {lora.r} and alpha {lora.alpha}, but the adapter that is trained on has r {found.r} "
            f"and alpha {found.lora_alpha}. {keeps}"
        )
    if (found.use_dora, found.use_rslora) != (lora.use_dora, lora.use_rslora):
        raise ModelError(
            f"policy.lora has use_dora {lora.use_dora} and use_rslora {lora.use_rslora}, but the adapter that is "
            f"trained on has use_dora {found.use_dora} and use_rslora {found.use_rslora}. {keeps}"
        )
    if not isinstance(lora.targets, str) and sorted(lora.targets) != sorted(found.target_modules or ()):
        raise ModelError(f"policy.lora.targets differs from the layers of the adapter that is trained on. {keeps}")
