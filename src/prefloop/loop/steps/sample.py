"""Step type `sample`: K answers a prompt from a policy, wave by wave."""

import os
from collections.abc import Iterator, Mapping, Sequence

from prefloop.config import SampleStep, StepConfig
from prefloop.loop.artifact import Inputs
from prefloop.loop.scope import Scope
from prefloop.loop.steps.work import StepType, Work, nearest
from prefloop.policy import ChatCodec
from prefloop.records import Prompt, Response, digest, in_pieces, read_records, shard_name, write_records
from prefloop.sampling import Answer, LocalSampler, SamplingSettings, draws_for


def make_samples(work: Work) -> Mapping[str, float]:
    """Samples every prompt; a wave that was complete before a crash is not sampled again."""
    settings = work.settings
    assert isinstance(settings, SampleStep)
    total = sum(1 for _ in work.records("prompts", Prompt)) * settings.num_samples
    done = cut = tokens = 0
    for shard in range(work.num_shards("prompts")):
        responses: list[Response] = []
        for wave, prompts in enumerate(in_pieces(work.records("prompts", Prompt, shard), settings.wave)):
            kept = work.scratch / f"{shard_name(shard)}.wave-{wave:05d}"
            if not kept.exists():
                aside = kept.with_suffix(".writing")
                write_records(aside, sampled(work, settings, prompts, done, total))
                with aside.open("rb") as written:
                    os.fsync(written.fileno())
                aside.rename(kept)
            responses += read_records(kept, Response)
            done += len(prompts) * settings.num_samples
        write_records(work.out / shard_name(shard), responses)
        cut += sum(response.finish_reason == "length" for response in responses)
        tokens += sum(len(response.token_ids or ()) for response in responses)
    return {"responses": done, "cut": cut, "tokens": tokens}


def sampled(work: Work, settings: SampleStep, prompts: Sequence[Prompt], done: int, total: int) -> Iterator[Response]:
    """The answers to some prompts, in the order of the prompts and then of their index."""
    bench = work.resources.bench
    policy = work.policy("policy")
    drawing = SamplingSettings(settings.temperature, settings.top_p, settings.max_new_tokens)
    place = work.artifact.place
    draws = [
        draw
        for prompt in prompts
        for draw in draws_for(
            prompt.prompt_id,
            bench.codec.prompt_ids(prompt),
            num_samples=settings.num_samples,
            recipe_seed=work.recipe.seed,
            step=work.artifact.step,
            round_number=-1 if place.round is None else place.round,
            block=place.block or 0,
        )
    ]
    rows = work.resources.machine.rows
    sampler = LocalSampler(
        bench.for_sampling(policy), bench.codec.eos_ids, **({} if rows == "auto" else {"rows": rows})
    )
    answers: dict[tuple[str, int], Answer] = {}
    for answer in sampler.sample(draws, drawing):
        answers[answer.draw.prompt_id, answer.draw.index] = answer
        work.report("answers", done + len(answers), total)
    for prompt in prompts:
        for index in range(settings.num_samples):
            yield response_of(answers[prompt.prompt_id, index], prompt, work, settings, bench.codec)


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
        finish_reason="length" if said.is_cut else answer.finish_reason,
        given=((0, len(prompt.prefix_ids)),) if prompt.prefix_ids else (),
        sum_logp=answer.sum_logp,
        policy=policy,
        settings={
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "max_new_tokens": settings.max_new_tokens,
        },
        index=answer.draw.index,
        seed=answer.draw.seed,
    )


def _inputs(_name: str, settings: StepConfig, scope: Scope) -> Inputs:
    assert isinstance(settings, SampleStep)
    return {"prompts": nearest(settings, scope, Prompt), "policy": (scope.policy(settings.policy),)}


SAMPLE = StepType(make_samples, _inputs, holds=lambda _settings: {Response: "."})
