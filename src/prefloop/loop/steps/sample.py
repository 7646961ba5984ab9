"""Step type `sample`: K answers a prompt from a policy, wave by wave."""

import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import fields
from functools import partial

from pydantic import JsonValue

from prefloop.config import (
    LocalSamplerConfig,
    Recipe,
    ReplaySamplerConfig,
    SampleStep,
    ServerSamplerConfig,
    StepConfig,
)
from prefloop.loop.artifact import Inputs
from prefloop.loop.scope import Scope
from prefloop.loop.steps.work import StepType, Work, nearest
from prefloop.policy import ChatCodec, PolicyFiles
from prefloop.records import Prompt, Response, digest, in_pieces, read_records, shard_name, write_records
from prefloop.sampling import (
    DEFAULT_ROWS,
    Answer,
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
        case sampler:
            total = sum(1 for _ in work.records("prompts", Prompt)) * settings.num_samples
            serving = sampler_of(work, sampler, stack).serving(work.policy("policy"))
            return partial(sampled, stack.enter_context(serving), work, settings, total)


def sampler_of(work: Work, config: LocalSamplerConfig | ServerSamplerConfig, stack: ExitStack) -> Sampler:
    """Who samples from policies; what it holds open is closed with the stack."""
    match config:
        case LocalSamplerConfig():
            rows = work.resources.machine.rows
            return LocalPolicies(work.resources.bench, DEFAULT_ROWS if rows == "auto" else rows)
        case ServerSamplerConfig() as servers:
            patience = Patience(timeout_s=servers.timeout_s, deadline_s=servers.deadline_s)
            headers = authorization(servers.key, f"{work.artifact.step}.sampler.key")
            kept = stack.enter_context(closing(KeptAnswers(work.run / KEPT)))
            pool = partial(Pool, servers.urls, servers.concurrency, patience, headers)
            restart = (
                None if servers.restart is None else Restart(tuple(shlex.split(servers.restart)), work.run / RESTARTS)
            )
            return ServerPolicies(
                pool, servers.model, work.resources.bench, kept, work.report.note, restart, _trained_from(work)
            )


def _trained_from(work: Work) -> PolicyFiles | None:
    """The trained policy that the step's policy was trained from, where its files are still there."""
    for start in work.artifact.inputs["policy"][0].inputs.get("start", ()):
        if start.step_type == "train" and (work.run / start.path / "model").is_dir():
            return work.policy_at(start, work.run / start.path)
    return None


def sampled(
    serving: Serving, work: Work, settings: SampleStep, total: int, prompts: Sequence[Prompt], done: int
) -> Iterator[Response]:
    """Answers from a policy to some prompts, `total` being those of all prompts of the step."""
    codec = work.resources.bench.codec
    place = work.artifact.place
    answers: dict[tuple[str, int], Answer] = {}
    of_prompts = {prompt.prompt_id: of_category(settings, prompt) for prompt in prompts}
    for temperature in dict.fromkeys(of_prompt.temperature for of_prompt in of_prompts.values()):
        together = [prompt for prompt in prompts if of_prompts[prompt.prompt_id].temperature == temperature]
        draws = [
            draw
            for prompt in together
            for draw in draws_for(
                prompt.prompt_id,
                codec.prompt_ids(prompt),
                num_samples=settings.num_samples,
                recipe_seed=work.recipe.seed,
                step=work.artifact.step,
                round_number=-1 if place.round is None else place.round,
                block=place.block or 0,
            )
        ]
        for answer in serving.sample(draws, drawing(of_prompts[together[0].prompt_id])):
            answers[answer.draw.prompt_id, answer.draw.index] = answer
            work.report("answers", done + len(answers), total)
    for prompt in prompts:
        for index in range(settings.num_samples):
            yield response_of(answers[prompt.prompt_id, index], prompt, work, of_prompts[prompt.prompt_id], codec)


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
    )


def recorded(settings: SampleStep) -> dict[str, JsonValue]:
    """How a step draws tokens, as its responses say it."""
    names = {field.name for field in fields(SamplingSettings)}
    told = settings.model_dump(mode="json", include=names)
    return {name: told[name] for name in told if name in ALWAYS_SAID or name in settings.said()}


def response_of(answer: Answer, prompt: Prompt, work: Work, settings: SampleStep, codec: ChatCodec) -> Response:
    """The record of a sampled answer; its tokens begin with those that the prompt gave.

    An answer that ended inside its thinking part is a cut one.
    """
    token_ids = (*prompt.prefix_ids, *answer.token_ids)
    said = codec.said(token_ids)
    policy = work.artifact.inputs["policy"][0].identity
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
        settings=recorded(settings),
        index=answer.draw.index,
        seed=answer.draw.seed,
    )


def _inputs(_name: str, settings: StepConfig, scope: Scope) -> Inputs:
    assert isinstance(settings, SampleStep)
    return {"prompts": nearest(settings, scope, Prompt), "policy": (scope.policy(settings.policy),)}


def _external(_name: str, settings: StepConfig, _recipe: Recipe) -> Mapping[str, str]:
    assert isinstance(settings, SampleStep)
    return {"samples": replay_identity(settings.sampler.file)} if settings.sampler.type == "replay" else {}


SAMPLE = StepType(make_samples, _inputs, holds=lambda _settings: {Response: "."}, external=_external)
