"""Step type `sample`: K answers a prompt from a policy, wave by wave."""

import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import fields, replace
from functools import partial

from pydantic import JsonValue

from prefloop.config import (
    LocalSamplerConfig,
    Precision,
    Recipe,
    ReplaySamplerConfig,
    SampleStep,
    ServerSamplerConfig,
    StepConfig,
    mixture_of,
)
from prefloop.errors import DataError
from prefloop.loop.artifact import Inputs
from prefloop.loop.scope import Scope
from prefloop.loop.steps.work import StepType, Work, nearest
from prefloop.pairing import with_goal
from prefloop.policy import ChatCodec, PolicyFiles
from prefloop.records import Prompt, Response, digest, in_pieces, read_records, shard_name, write_records
from prefloop.sampling import (
    Answer,
    Draw,
    KeptAnswers,
    LocalPolicies,
    Patience,
    Pool,
    Replay,
    Restart,
    Sampler,
    SamplingSettings,
    ServerPolicies,
    Serving,
    authorization,
    draws_for,
    replay_identity,
)

KEPT = "answers.sqlite"
"""File of a run folder with every answer that came from servers; no re-run and no `gc` removes it."""
RESTARTS = "restart.log"
"""File of a run folder with what servers and the command that restarts them say."""
ALWAYS_SAID = ("temperature", "top_p", "max_new_tokens")
"""Settings that every response names; others where they are not at their defaults."""

Answering = Callable[[Sequence[Prompt], int], Iterator[Response]]
"""The answers to some prompts, in the order of the prompts and then of their index; so many answers came before."""


def make_samples(work: Work) -> Mapping[str, float]:
    """Samples every prompt; a wave that was complete before a crash is not sampled again."""
    settings = work.settings
    assert isinstance(settings, SampleStep)
    done = cut = tokens = from_text = 0
    with ExitStack() as stack:
        answering: Answering | None = None
        for shard in range(work.num_shards("prompts")):
            responses: list[Response] = []
            for wave, prompts in enumerate(in_pieces(work.records("prompts", Prompt, shard), settings.wave)):
                kept = work.scratch / f"{shard_name(shard)}.wave-{wave:05d}"
                if not kept.exists():
                    answering = answering or _answering(work, settings, stack)
                    aside = kept.with_suffix(".writing")
                    write_records(aside, answering(prompts, done))
                    with aside.open("rb") as written:
                        os.fsync(written.fileno())
                    aside.rename(kept)
                responses += read_records(kept, Response)
                done += len(prompts) * settings.num_samples
            write_records(work.out / shard_name(shard), responses)
            cut += sum(response.finish_reason == "length" for response in responses)
            tokens += sum(len(response.token_ids or ()) for response in responses)
            from_text += sum(response.ids_from == "text" for response in responses)
    counts = {"responses": done, "cut": cut, "tokens": tokens}
    return {**counts, "ids_from_text": from_text} if from_text else counts


def _answering(work: Work, settings: SampleStep, stack: ExitStack) -> Answering:
    """Who answers, ready to be asked until the stack is closed."""
    match settings.sampler:
        case ReplaySamplerConfig(file=file):
            replay = Replay.load(file)
            codec = work.resources.bench.codec
            return lambda prompts, _done: (
                _as_tokens(response, codec) for response in replay.of(prompts, settings.num_samples, work.artifact.step)
            )
        case LocalSamplerConfig(precision=precision):
            assert precision != "auto"
            return _Asking(stack.enter_context(_served_here(work, settings, precision)), work, settings)
        case ServerSamplerConfig() as servers:
            patience = Patience(timeout_s=servers.timeout_s, deadline_s=servers.deadline_s)
            headers = authorization(servers.key, f"{work.artifact.step}.sampler.key")
            kept = stack.enter_context(closing(KeptAnswers(work.run / KEPT)))
            pool = partial(Pool, servers.urls, servers.concurrency, patience, headers)
            restart = (
                None if servers.restart is None else Restart(tuple(shlex.split(servers.restart)), work.run / RESTARTS)
            )
            sampler: Sampler = ServerPolicies(
                pool, servers.model, work.resources.bench, kept, work.report.note, restart, _trained_from(work)
            )
    return _Asking(stack.enter_context(sampler.serving(work.policy("policy"))), work, settings)


def _served_here(work: Work, settings: SampleStep, precision: Precision) -> AbstractContextManager[Serving]:
    """The policy, or the mixture, in this process."""
    local = LocalPolicies(work.resources.bench, work.resources.rows_of(work.artifact.path), precision)
    policies = work.policies("policy")
    if settings.contrast is not None:
        return local.mixing(policies * 2, (settings.gap, 1 - settings.gap))
    mixture = mixture_of(settings.policy)
    return local.serving(policies[0]) if mixture is None else local.mixing(policies, mixture.weights)


def _trained_from(work: Work) -> PolicyFiles | None:
    """The trained policy that the step's policy was trained from, where its files are still there."""
    for start in work.artifact.inputs["policy"][0].inputs.get("start", ()):
        if start.step_type == "train" and (work.run / start.path / "model").is_dir():
            return work.policy_at(start, work.run / start.path)
    return None


class _Asking:
    """A sample step that asks a policy, wave by wave."""

    def __init__(self, serving: Serving, work: Work, settings: SampleStep) -> None:
        self.serving = serving
        self.work = work
        self.settings = settings
        self.codec = work.resources.bench.codec
        self.total = sum(1 for _ in work.records("prompts", Prompt)) * settings.num_samples
        """Answers of all prompts of the step."""
        self.others: dict[str, list[Prompt]] = {}
        """The prompts that its own are contrasted with, by root."""
        if settings.contrast is not None:
            for prompt in work.records("contrast", Prompt):
                self.others.setdefault(prompt.root_id, []).append(prompt)

    def __call__(self, prompts: Sequence[Prompt], done: int) -> Iterator[Response]:
        """Answers to some prompts, `done` being those that came before."""
        answers: dict[tuple[str, int], Answer] = {}
        of_prompts = {prompt.prompt_id: of_category(self.settings, prompt) for prompt in prompts}
        for temperature in dict.fromkeys(of_prompt.temperature for of_prompt in of_prompts.values()):
            together = [prompt for prompt in prompts if of_prompts[prompt.prompt_id].temperature == temperature]
            draws = [draw for prompt in together for draw in self._draws(prompt)]
            for answer in self.serving.sample(draws, drawing(of_prompts[together[0].prompt_id])):
                answers[answer.draw.prompt_id, answer.draw.index] = answer
                self.work.report("answers", done + len(answers), self.total)
        for prompt in prompts:
            told = of_prompts[prompt.prompt_id]
            for index in range(told.num_samples):
                yield response_of(answers[prompt.prompt_id, index], prompt, self.work, told, self.codec)

    def _draws(self, prompt: Prompt) -> Iterator[Draw]:
        """The draws of a prompt, each behind what it is asked behind."""
        settings, place = self.settings, self.work.artifact.place
        others = () if settings.contrast is None else (self._contrasted(prompt, settings.contrast),)
        asked = [self.codec.prompt_ids(_instructed(prompt, text, settings)) for text in settings.instructions or ("",)]
        for draw in draws_for(
            prompt.prompt_id,
            asked[0],
            num_samples=settings.num_samples,
            recipe_seed=self.work.recipe.seed,
            step=self.work.artifact.step,
            round_number=-1 if place.round is None else place.round,
            block=place.block or 0,
        ):
            yield replace(draw, prompt_ids=asked[draw.index % len(asked)], others=others)

    def _contrasted(self, prompt: Prompt, step: str) -> tuple[int, ...]:
        """The tokens of the other prompt of the same root, with the same beginning of the answer."""
        found = self.others.get(prompt.root_id, [])
        if len(found) != 1:
            raise DataError(
                f"{self.work.artifact.step}.contrast: {step} has {len(found)} prompts of the same root as "
                f"{prompt.source or prompt.prompt_id}, expected one. Name a step that derives one of each, such as one "
                "with rule instructed."
            )
        return self.codec.prompt_ids(found[0].derived(prefix_ids=prompt.prefix_ids))


def _instructed(prompt: Prompt, instruction: str, settings: SampleStep) -> Prompt:
    """What the model is asked: the prompt behind an instruction."""
    if not instruction:
        return prompt
    messages = with_goal(prompt.messages, instruction, settings.placement)
    if messages is None:
        raise DataError(
            f"{prompt.source or prompt.prompt_id}: has no question to put an instruction before. Use placement: system."
        )
    return prompt.derived(messages=messages)


def of_category(settings: SampleStep, prompt: Prompt) -> SampleStep:
    """The settings for one prompt: the temperature may be that of its category."""
    temperature = settings.temperatures.get((prompt.labels or {}).get("category", ""))
    return settings if temperature is None else settings.model_copy(update={"temperature": temperature})


def _as_tokens(response: Response, codec: ChatCodec) -> Response:
    """An answer that was a text, with the tokens that it has for the policy, so that lengths can be compared."""
    if response.token_ids is not None:
        return response
    return response.model_copy(update={"token_ids": codec.response_ids(response.text, finished=True)})


def drawing(settings: SampleStep) -> SamplingSettings:
    """How a step draws tokens."""
    return SamplingSettings(
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_new_tokens=settings.max_new_tokens,
        top_k=settings.top_k,
        min_p=settings.min_p,
        repetition_penalty=settings.repetition_penalty,
        stop=settings.stop,
        stop_ids=settings.stop_ids,
        num_beams=settings.num_beams,
    )


def recorded(settings: SampleStep) -> dict[str, JsonValue]:
    """How a step draws tokens, as its responses say it."""
    names = {field.name for field in fields(SamplingSettings)} | {"contrast", "gap"}
    told = settings.model_dump(mode="json", include=names)
    rounded = {"precision": "bfloat16"} if settings.samples_in == "bfloat16" else {}
    return {name: told[name] for name in told if name in ALWAYS_SAID or name in settings.said()} | rounded


def instruction_of(settings: SampleStep, index: int) -> dict[str, JsonValue]:
    """The instruction behind which an answer was sampled, as its record says it."""
    text = settings.instructions[index % len(settings.instructions)] if settings.instructions else ""
    return {"instruction": text} if text else {}


def sampled_from(policies: Sequence[str], settings: SampleStep) -> str:
    """The identity of what answered: a policy's, or a mixture's."""
    mixture = mixture_of(settings.policy)
    return policies[0] if mixture is None else digest(["geometric", list(policies), list(mixture.weights)])


def response_of(answer: Answer, prompt: Prompt, work: Work, settings: SampleStep, codec: ChatCodec) -> Response:
    """The record of a sampled answer; its tokens begin with those that the prompt gave.

    An answer that ended inside its thinking part is a cut one.
    """
    token_ids = (*prompt.prefix_ids, *answer.token_ids)
    said = codec.said(token_ids)
    policy = sampled_from([one.identity for one in work.artifact.inputs["policy"]], settings)
    return Response(
        response_id=digest([prompt.prompt_id, policy, answer.draw.seed])[:16],
        prompt_id=prompt.prompt_id,
        root_id=prompt.root_id,
        step=work.artifact.step,
        text=said.text,
        thinking=said.thinking,
        num_thinking=said.num_thinking,
        token_ids=token_ids,
        ids_from=answer.ids_from,
        finish_reason="length" if said.is_cut else answer.finish_reason,
        given=((0, len(prompt.prefix_ids)),) if prompt.prefix_ids else (),
        sum_logp=answer.sum_logp,
        policy=policy,
        settings={**recorded(settings), **instruction_of(settings, answer.draw.index)},
        index=answer.draw.index,
        seed=answer.draw.seed,
    )


def _inputs(_name: str, settings: StepConfig, scope: Scope) -> Inputs:
    assert isinstance(settings, SampleStep)
    read = {"prompts": nearest(settings, scope, Prompt), "policy": tuple(map(scope.policy, settings.policies))}
    if settings.contrast is None:
        return read
    return {**read, "contrast": tuple(one for one in scope.find(settings.contrast) if Prompt in one.holds)}


def _external(_name: str, settings: StepConfig, _recipe: Recipe) -> Mapping[str, str]:
    assert isinstance(settings, SampleStep)
    return {"samples": replay_identity(settings.sampler.file)} if settings.sampler.type == "replay" else {}


SAMPLE = StepType(make_samples, _inputs, holds=lambda _settings: {Response: "."}, external=_external)
