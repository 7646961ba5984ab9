"""The loss and the metrics of training on examples that are not trained on, before and after."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from prefloop.objectives import State
from prefloop.training.checkpoint import Metrics, computed_once
from prefloop.training.engine import Engine
from prefloop.training.loss import LossOfPlan
from prefloop.training.rows import TokenExample

VALIDATED = "validation.json"
KEPT = "validation-before.json"


@dataclass(frozen=True)
class Validation:
    """Examples that are only measured, in steps as large as those of training; there may be none."""

    engine: Engine | None
    """With the model that is trained; it takes no step."""
    plan: Sequence[Sequence[int]]

    @classmethod
    def of(
        cls,
        training: Engine,
        loss: LossOfPlan | None,
        examples: Sequence[TokenExample],
        plan: Sequence[Sequence[int]],
    ) -> "Validation":
        """Examples under the model that an engine trains, with their own loss."""
        if loss is None:
            return cls(None, ())
        return cls(replace(training, loss=loss, examples=examples), plan)

    def measured(self, state: State | None) -> Metrics:
        """Means over all examples.

        Args:
            state: the objective's running statistics at this point of training.
        """
        if self.engine is None:
            return {}
        self.engine.state = state
        totals, sizes = defaultdict[str, float](float), defaultdict[str, float](float)
        for number, step in enumerate(self.plan):
            found = self.engine.measured(step, number)
            for name, value in found.items():
                part = name.partition("@")[2]
                size = found[f"examples@{part}"] if part else len(step)
                totals[name] += value * size
                sizes[name] += size
        return {name: size if name.startswith("examples@") else totals[name] / size for name, size in sizes.items()}

    def before(self, state: State | None, scratch: Path) -> Metrics:
        """Means before the first step; measured once, since training that goes on after a crash stands elsewhere."""
        return computed_once(scratch / KEPT, lambda: self.measured(state))

    def write(self, folder: Path, before: Metrics, after: Metrics, step: int) -> None:
        """Writes `validation.json`, where there is something to say.

        Args:
            folder: that it is written to.
            before: what was measured before the first step.
            after: the same of the policy that is written out.
            step: after which it was trained so.
        """
        if self.engine is not None:
            found = {"examples": len(self.engine.examples), "step": step, "before": before, "after": after}
            (folder / VALIDATED).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
