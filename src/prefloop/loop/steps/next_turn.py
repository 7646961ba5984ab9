"""Step type `next_turn`: what the user asks next, after the answers to what was asked before."""

from collections.abc import Mapping

from prefloop.config import NextTurnStep, StepConfig
from prefloop.data import next_turn
from prefloop.errors import DataError
from prefloop.loop.artifact import Inputs
from prefloop.loop.scope import Scope
from prefloop.loop.steps.work import StepType, Work, nearest
from prefloop.records import Prompt, Response, shard_name, write_records


def make_next_turn(work: Work) -> Mapping[str, float]:
    """Asks the next question of every conversation that has one.

    Raises:
        DataError: none has.
    """
    count = 0
    for shard in range(work.num_shards("responses")):
        prompts = {prompt.prompt_id: prompt for prompt in work.records("prompts", Prompt, shard)}
        following: dict[str, Prompt] = {}  # equal answers to one prompt are one conversation
        for response in work.records("responses", Response, shard):
            asked = next_turn(prompts[response.prompt_id], response)
            if asked is not None:
                following[asked.prompt_id] = asked
        count += write_records(work.out / shard_name(shard), following.values())
    if not count:
        raise DataError(
            f"{work.artifact.path}: no question has a second turn. Give `turns` in the prompt set, or set turns: 1."
        )
    return {"prompts": count}


def _inputs(_name: str, settings: StepConfig, scope: Scope) -> Inputs:
    assert isinstance(settings, NextTurnStep)
    return {"prompts": nearest(settings, scope, Prompt), "responses": nearest(settings, scope, Response)}


NEXT_TURN = StepType(make_next_turn, _inputs, holds=lambda _settings: {Prompt: "."})
