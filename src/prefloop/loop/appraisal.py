"""What every step of a recipe needs of this machine, by the longest prompts and answers that it could meet."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from prefloop.config import EvaluateStep, LoraConfig, Recipe, SampleStep, SearchStep, TrainStep
from prefloop.loop.amounts import Ledger
from prefloop.loop.artifact import Artifact
from prefloop.loop.largest import largest_of, longest_prompts
from prefloop.loop.machine import available_memory, resident_memory, total_memory
from prefloop.loop.needs import Beside, Need, checkpoints, policies, records, sampling_need, scoring_need, training_need
from prefloop.loop.steps.evaluate import KL_TOKENS_PER_BATCH
from prefloop.loop.steps.train import layout_of
from prefloop.objectives import find_objective
from prefloop.policy import BatchShape, ChatCodec, ModelFacts, Part, model_facts
from prefloop.policy.memory import MOMENTS
from prefloop.policy.model_files import CONVERSATION_FILES
from prefloop.sampling import DEFAULT_ROWS, DEFAULT_ROWS_ON_GPU, LEAST_ROWS, PROBE_TOKENS, PROBES

PROOF_TOKENS = 64
"""Of a short question in a template and its answer, about."""
SHARE_FOR_SAMPLING = 0.8
"""Of all memory that there is, where the number of answers that grow together is left to us."""


@dataclass(frozen=True)
class Models:
    """What has to be known of the models."""

    initial: Artifact
    model: Artifact
    directory: Path | None
    """Of the model that is aligned; None where nothing is known of it."""
    codec: ChatCodec | None


class Appraiser:
    """Says what a step needs, where the model is known."""

    def __init__(self, recipe: Recipe, models: Models) -> None:
        self.recipe = recipe
        self.models = models
        self.trained: list[TrainStep] = []
        self._facts: dict[LoraConfig | None, ModelFacts] = {}
        self._longest: dict[str, int] = {}
        on_cuda = uses_cuda(recipe)
        held = 0 if on_cuda else resident_memory()
        self.program = Part("program", held, "this process before it has loaded a model, measured")
        free = torch.cuda.mem_get_info()[0] if on_cuda else available_memory()
        self.available = None if free is None else free + held
        self.total = torch.cuda.mem_get_info()[1] if on_cuda else total_memory()
        self._most_rows = DEFAULT_ROWS_ON_GPU if on_cuda else DEFAULT_ROWS

    def need(self, artifact: Artifact) -> Need | None:
        """What a step needs at its peak; None where it loads no model, or nothing is known of the model."""
        if self.models.directory is None or self.models.codec is None:
            return None
        match self.recipe.step(artifact.step, artifact.place.round or 0):
            case SampleStep() as settings:
                return self._answering(artifact, settings)
            case SearchStep() as settings:
                return self._searching(artifact, settings)
            case TrainStep() as settings:
                self.trained.append(settings)
                return self._training(artifact, settings, self.models.codec)
            case EvaluateStep():
                return self._evaluation(artifact)
            case _:
                return None

    def disk(self, ledger: Ledger) -> tuple[Part, ...]:
        """What the run folder will hold: expected numbers where something was measured, else bounds."""
        counts: Counter[str] = Counter()
        for identity, at_most in ledger.at_most.items():
            counts.update({**at_most, **ledger.expected[identity]})
        parts = [records(counts)]
        directory = self.models.directory
        if directory is not None and self.trained:
            described = sum(file.stat().st_size for pattern in CONVERSATION_FILES for file in directory.glob(pattern))
            adapters = [step.lora for step in self.trained]
            for number, lora in enumerate(adapters):
                if lora not in adapters[:number]:
                    facts = self.facts(lora)
                    steps = [step for step in self.trained if step.lora == lora]
                    count = len(steps) + sum(step.ema_decay is not None for step in steps)
                    parts.append(policies(facts, description_bytes=described, count=count))
                    moments = max(MOMENTS[step.optimizer] + (step.ema_decay is not None) for step in steps)
                    best = any(step.metric_for_best_model is not None for step in steps)
                    at_once = self.recipe.machine.keep_last + 1 + best
                    parts.append(checkpoints(facts, moments=moments, at_once=at_once))
        return tuple(parts)

    def facts(self, lora: LoraConfig | None) -> ModelFacts:
        """Facts of the model with an adapter of this shape."""
        assert self.models.directory is not None
        if lora not in self._facts:
            facts = model_facts(self.models.directory, lora)
            self._facts[lora] = replace(facts, on_cuda=uses_cuda(self.recipe))
        return self._facts[lora]

    def _answering(self, artifact: Artifact, settings: SampleStep) -> Need | None:
        """Servers answer with memory of their own; here the policy scores a few of their answers, to prove it."""
        match settings.sampler.type:
            case "local":
                return self._sampling(artifact, settings)
            case "replay":
                return None
            case "server":
                adapted = self._lora(artifact.inputs["policy"])
                shape = BatchShape.of_rows(len(PROBES), PROOF_TOKENS, PROBE_TOKENS)
                return scoring_need(self.facts(adapted), self.program, shape, merged=False, adapted=adapted is not None)

    def _searching(self, artifact: Artifact, settings: SearchStep) -> Need:
        """Of all that a search samples, rollouts behind a beginning that is as long as one."""
        lora = self._lora(artifact.inputs["policy"])
        together = min(settings.wave, len(longest_prompts(artifact.inputs["prompts"], self.recipe)))
        samples = settings.num_actions * max(settings.rollouts, 1)
        begun = min(settings.max_steps * settings.max_step_tokens, settings.max_new_tokens)
        needed = partial(
            sampling_need,
            self.facts(lora),
            self.program,
            copies=1 + (lora is not None),
            components=1,
            prompts=together,
            samples=samples,
            prompt_tokens=self._longest_prompt(artifact.inputs["prompts"]) + begun,
            new_tokens=settings.max_new_tokens,
        )
        return self._with_rows(together * samples, lambda rows: needed(rows=rows))

    def _sampling(self, artifact: Artifact, settings: SampleStep) -> Need:
        policies = {one.identity: one for one in artifact.inputs["policy"]}
        lora = self._lora(policies.values())
        merged = sum(self._lora([one]) is not None for one in policies.values())
        prompts = longest_prompts(artifact.inputs["prompts"], self.recipe)
        together = min(settings.wave, len(prompts))
        needed = partial(
            sampling_need,
            self.facts(lora),
            self.program,
            copies=1 + merged + max(0, len(policies) - merged - 1),
            components=2 if settings.contrast is not None else len(settings.policies),
            precision=settings.samples_in,
            prompts=together,
            samples=settings.num_samples,
            prompt_tokens=self._longest_prompt(artifact.inputs["prompts"]) + self._longest_text(settings.instructions),
            new_tokens=settings.max_new_tokens,
        )
        return self._with_rows(together * settings.num_samples, lambda rows: needed(rows=rows))

    def _with_rows(self, answers: int, needed: Callable[[int], Need]) -> Need:
        """What the answers need that grow together: as many as the machine says, or as fit into its memory.

        All memory counts, whatever is free or held now: a step that is gone on with has the rows that it began with.
        """
        wanted = self.recipe.machine.rows
        rows = self._most_rows if wanted == "auto" else wanted
        if wanted == "auto" and self.total is not None:
            fits = SHARE_FOR_SAMPLING * self.total + self.program.bytes
            while rows > LEAST_ROWS and needed(min(rows, answers)).bytes > fits:
                rows -= LEAST_ROWS
        return replace(needed(min(rows, answers)), rows=rows)

    def _longest_text(self, instructions: Iterable[str]) -> int:
        """Tokens of the longest instruction."""
        codec = self.models.codec
        assert codec is not None
        return max((len(codec.response_ids(text, finished=False)) for text in instructions), default=0)

    def _training(self, artifact: Artifact, settings: TrainStep, codec: ChatCodec) -> Need | None:
        facts = self.facts(settings.lora)
        layout = layout_of(self.recipe.machine, takes_trees=facts.trees)
        batch = largest_of(artifact, self.recipe, codec, facts)
        if not batch:
            return None
        shape = layout.shape(batch, facts)
        references = [read for name in settings.references for read in artifact.inputs[name]]
        scoring = scoring_need(
            facts, self.program, shape, merged=bool(self._lora(references)), adapted=bool(self._lora(references))
        )
        needed = partial(
            training_need,
            facts,
            self.program,
            shape,
            settings.optimizer,
            live=self._beside(artifact, settings),
            average=settings.ema_decay is not None,
            precision=settings.precision,
        )
        training = needed()
        if self._recomputes(training, facts):
            training = needed(recompute=True)
        largest = max(training, scoring, key=lambda need: need.bytes)
        return replace(largest, recompute=training.recompute)

    def _recomputes(self, need: Need, facts: ModelFacts) -> bool:
        """Whether training computes its layers again: as the machine says, or where they would not fit otherwise."""
        wanted = self.recipe.machine.gradient_checkpointing
        if wanted != "auto":
            return wanted
        return facts.recomputable and self.available is not None and need.bytes > self.available

    def _beside(self, artifact: Artifact, settings: TrainStep) -> Beside:
        """The reference that stays loaded while a step trains."""
        objective = find_objective(settings.objective.name, artifact.step)
        if objective.live is None:
            return "none"
        (reference,) = artifact.inputs[objective.live]
        if settings.lora is None:
            return "other weights"
        if self._lora([reference]) is not None:
            return "adapter on the same base"
        return "same base" if reference.identity == self.models.model.identity else "other weights"

    def _evaluation(self, artifact: Artifact) -> Need:
        samples, *_ = artifact.inputs["samples"]
        settings = self.recipe.step(samples.step, samples.place.round or 0)
        assert isinstance(settings, SampleStep)
        longest = self._longest_prompt(artifact.inputs["prompts"]) + settings.max_new_tokens
        lora = self._lora(samples.inputs["policy"])
        rows = max(1, KL_TOKENS_PER_BATCH // longest)
        shape = BatchShape.of_rows(rows, longest, settings.max_new_tokens)
        beside: Beside = "none" if not artifact.inputs["policy"] else "same base" if lora else "other weights"
        has_adapter = lora is not None
        return scoring_need(
            self.facts(lora), self.program, shape, merged=has_adapter, adapted=has_adapter, beside=beside
        )

    def _longest_prompt(self, artifacts: tuple[Artifact, ...]) -> int:
        """Tokens of the longest prompt that some steps give."""
        key = "".join(artifact.identity for artifact in artifacts)
        if key not in self._longest:
            assert self.models.codec is not None
            prompts = longest_prompts(artifacts, self.recipe)
            self._longest[key] = max(len(self.models.codec.prompt_ids(prompt)) for prompt in prompts)
        return self._longest[key]

    def _lora(self, policies: Iterable[Artifact]) -> LoraConfig | None:
        """The adapter of the first of some policies that has one."""
        trained = [one for one in policies if one.step_type == "train"]
        steps = [self.recipe.step(one.step, one.place.round or 0) for one in trained]
        return next((step.lora for step in steps if isinstance(step, TrainStep) and step.lora is not None), None)


def uses_cuda(recipe: Recipe) -> bool:
    """Whether models are held in a GPU's memory."""
    return recipe.machine.device != "cpu" and torch.cuda.is_available()
