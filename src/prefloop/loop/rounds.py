"""The outer loop: the file to read first. It knows steps, rounds and blocks, and no method."""

from collections.abc import Iterator
from typing import Protocol

from prefloop.config import Recipe
from prefloop.errors import CheckFailedError
from prefloop.loop.artifact import Artifact
from prefloop.loop.gate import Decision
from prefloop.loop.scope import Scope


class DoesSteps(Protocol):
    """What does a step and knows how a round was decided: the run's stage, or a rehearsal that makes nothing."""

    def do(self, name: str, recipe: Recipe, scope: Scope) -> Artifact:
        """The artifact of a step, made if need be."""
        ...

    def decision(self, summary: Artifact) -> Decision:
        """The decision of a round, from its summary."""
        ...


def rounds(recipe: Recipe, scope: Scope, stage: DoesSteps) -> Iterator[Artifact]:
    """Does every step of a recipe in order and yields its artifact; a caller that stops early stops the run.

    Set-up steps once. Then in each round: its start is marked, every block does the block's steps, the round's steps
    follow (evaluation, and last the summary), and the decision in the summary closes the round.

    Raises:
        CheckFailedError: the gate or a monitor stops the run.
    """

    def do(name: str) -> Artifact:
        artifact = stage.do(name, recipe, scope)
        scope.add(artifact)
        return artifact

    for name in recipe.setup:
        yield do(name)
    for number in range(recipe.rounds):
        scope.open_round(number)
        for block in range(recipe.blocks):
            scope.open_block(block)
            for name in recipe.block:
                yield do(name)
        scope.close_blocks()
        for name in recipe.round:
            yield do(name)
        decision = stage.decision(scope.find("summary")[0])
        if decision.stops:
            raise CheckFailedError(f"round {number} stops the run: {decision.reason}")
        scope.close_round(decision.win_rate, accepted=decision.accepted)
