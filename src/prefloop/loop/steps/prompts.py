"""Step types `prompts` and `data`: what comes from outside."""

from collections.abc import Mapping

from prefloop.config import DataStep, PromptsStep, Recipe, StepConfig
from prefloop.data import GivenPair, find_source, prompts_of_turn, read_preferences, read_prompts
from prefloop.loop.artifact import Artifact, Inputs
from prefloop.loop.scope import Scope
from prefloop.loop.steps.work import StepType, Work, turn_at
from prefloop.records import (
    PROMPTS_PER_SHARD,
    Judgment,
    Prompt,
    Response,
    in_pieces,
    seed_for,
    shard_name,
    write_records,
)


def make_prompts(work: Work) -> Mapping[str, float]:
    """Takes this turn's part of a prompt set."""
    settings = work.settings
    assert isinstance(settings, PromptsStep)
    chosen = prompts_at(work.artifact, settings, work.recipe)
    for number, shard in enumerate(in_pieces(chosen, PROMPTS_PER_SHARD)):
        write_records(work.out / shard_name(number), shard)
    return {"prompts": len(chosen)}


def prompts_at(artifact: Artifact, settings: PromptsStep, recipe: Recipe) -> list[Prompt]:
    """The prompts of a step's turn."""
    prompts = read_prompts(find_source(settings.data))
    seed = seed_for(recipe.seed, artifact.step)
    return prompts_of_turn(prompts, settings.count, turn_at(artifact.place, recipe), seed)


def make_data(work: Work) -> Mapping[str, float]:
    """Takes a preference set apart into prompts, given responses and given judgments."""
    settings = work.settings
    assert isinstance(settings, DataStep)
    pairs = 0
    for number, shard in enumerate(in_pieces(read_preferences(find_source(settings.source)), PROMPTS_PER_SHARD)):
        _write_shard(work, shard_name(number), shard)
        pairs += len(shard)
    return {"pairs": pairs}


def _write_shard(work: Work, name: str, pairs: tuple[GivenPair, ...]) -> None:
    responses = {response.response_id: response for pair in pairs for response in pair.responses}
    write_records(work.out / "prompts" / name, {pair.prompt.prompt_id: pair.prompt for pair in pairs}.values())
    write_records(work.out / "responses" / name, responses.values())
    write_records(work.out / "judgments" / name, (judgment for pair in pairs for judgment in pair.judgments))


def _nothing(_name: str, _settings: StepConfig, _scope: Scope) -> Inputs:
    return {}


def _external(settings: StepConfig) -> Mapping[str, str]:
    assert isinstance(settings, PromptsStep | DataStep)
    return {"data": find_source(settings.data if isinstance(settings, PromptsStep) else settings.source).identity}


PROMPTS = StepType(make_prompts, _nothing, holds=lambda _settings: {Prompt: "."}, external=_external)
DATA = StepType(
    make_data,
    _nothing,
    holds=lambda _settings: {Prompt: "prompts", Response: "responses", Judgment: "judgments"},
    external=_external,
)
