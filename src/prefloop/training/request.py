"""What a train step is asked for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefloop.config import GeometricMixture, TrainStep
from prefloop.objectives import Objective
from prefloop.policy import PolicyFiles
from prefloop.policy.quantized import Quantize
from prefloop.training.layout import ROWS, Budget, Layout
from prefloop.training.rows import TokenExample


@dataclass(frozen=True)
class BlockOfRound:
    """Where in its round a train step stands: the optimiser and its schedule go on over the blocks of a round."""

    number: int
    count: int
    optimizer_state: Path | None
    """Left by the block before; None in the first."""

    @property
    def is_last(self) -> bool:
        """Whether no block follows that would go on with its optimiser."""
        return self.number + 1 == self.count


@dataclass(frozen=True)
class FrozenPolicies:
    """Several policies under one model name of the grammar."""

    policies: tuple[PolicyFiles, ...]
    mixture: GeometricMixture | None = None
    """None: the objective reads each of them."""


@dataclass(frozen=True)
class TrainRequest:
    """Everything that decides what a train step computes, and where it may keep its progress."""

    settings: TrainStep
    objective: Objective
    hyper: Mapping[str, Any]
    examples: Sequence[TokenExample]
    start: PolicyFiles
    references: Mapping[str, PolicyFiles | FrozenPolicies]
    """By model name of the grammar."""
    seed: int
    block: BlockOfRound
    scratch: Path
    score_cache: Path
    """A file that train steps share: what references said of examples."""
    budget: Budget
    checkpoint_steps: int
    keep_last: int = 1
    """Checkpoints that are kept."""
    layout: Layout = ROWS
    recompute: bool = False
    """Layers are computed again going backward (gradient checkpointing)."""
    average: PolicyFiles | None = None
    """The moving average that training goes on with; None: one begins at the start policy, if any is wanted."""
    validation: Sequence[TokenExample] = ()
    """Examples that are only measured, before and after."""

    @property
    def quantize(self) -> Quantize:
        """How the base is held of whatever is trained or scored here."""
        return None if self.settings.lora is None else self.settings.lora.quantize

    @property
    def live(self) -> PolicyFiles | None:
        """The reference that has to stay loaded while the policy is trained, if there is one."""
        if self.objective.live is None:
            return None
        reference = self.references[self.objective.live]
        assert isinstance(reference, PolicyFiles), "a mixture has no weights of its own"
        return reference


Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""
Notice = Callable[[str], None]
"""Called with what a user should know."""
