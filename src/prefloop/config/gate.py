"""What ends a round: when its policy is refused, and which alarms there are."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from prefloop.config.base import Config


class GateConfig(Config):
    """When a round's policy is refused, and what happens then."""

    main: ClassVar[str | None] = "require"
    require: Literal["not_worse", "better"] = "not_worse"
    """`not_worse` refuses a round only when it is shown worse; `better` also one that is not shown better."""
    by: Literal["length_controlled", "judge"] = "length_controlled"
    """The win rate that counts: as it would be with equally long answers, or as the judge gives it. By the plain one a
    judge that pays for length has every round refused that lost length and nothing else."""
    action: Literal["stop", "roll_back", "warn"] = "roll_back"
    """stop the run, go on from the last accepted round, or accept and say so."""


class CollapseMonitor(Config):
    """Falling chosen log-probabilities together with degraded answers; either alone is normal."""

    chosen_drop: Annotated[float, Field(gt=0)] = 0.3
    """Fall of log pi(chosen) - log ref(chosen) by the end of training, nats a token."""
    finish_drop: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Fall of the share of answers that end by themselves, against the initial model."""
    distinct_drop: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Relative fall of distinct-2, against the initial model."""
    action: Literal["stop", "roll_back", "warn"] = "roll_back"


class LengthMonitor(Config):
    """Mean answer length against the initial model."""

    low: Annotated[float, Field(gt=0, lt=1)] = 0.5
    high: Annotated[float, Field(gt=1)] = 2.0
    action: Literal["stop", "roll_back", "warn"] = "warn"


class MonitorsConfig(Config):
    """Alarms over a round's training metrics and evaluation. Thresholds come from healthy runs."""

    collapse: CollapseMonitor = CollapseMonitor()
    length: LengthMonitor = LengthMonitor()
