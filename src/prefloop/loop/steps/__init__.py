"""The types of step: what each reads and writes, and its driver."""

from collections.abc import Mapping

from prefloop.loop.steps.buffer import BUFFER
from prefloop.loop.steps.close import CLOSE
from prefloop.loop.steps.evaluate import EVALUATE
from prefloop.loop.steps.judge import JUDGE
from prefloop.loop.steps.mix import MIX
from prefloop.loop.steps.next_turn import NEXT_TURN
from prefloop.loop.steps.pair import PAIR
from prefloop.loop.steps.prompts import DATA, PROMPTS
from prefloop.loop.steps.sample import SAMPLE
from prefloop.loop.steps.search import SEARCH
from prefloop.loop.steps.tokens import TOKENS
from prefloop.loop.steps.train import TRAIN
from prefloop.loop.steps.work import Resources, StepType, Work, device_of, devices_here

STEP_TYPES: Mapping[str, StepType] = {
    "prompts": PROMPTS,
    "data": DATA,
    "sample": SAMPLE,
    "search": SEARCH,
    "judge": JUDGE,
    "next_turn": NEXT_TURN,
    "pair": PAIR,
    "mix": MIX,
    "buffer": BUFFER,
    "tokens": TOKENS,
    "train": TRAIN,
    "evaluate": EVALUATE,
    "close": CLOSE,
}

__all__ = ["STEP_TYPES", "Resources", "StepType", "Work", "device_of", "devices_here"]
