"""Step type `tokens`: a round's examples as tokens. A recipe gets one before every train step, with its settings."""

from collections.abc import Mapping

from prefloop.config import StepConfig, TokensStep, TrainStep
from prefloop.config.tokens import SUFFIX
from prefloop.errors import DataError
from prefloop.loop.artifact import Inputs
from prefloop.loop.scope import Scope
from prefloop.loop.steps.work import VALIDATION, StepType, Work, nearest
from prefloop.policy import EncodingSettings
from prefloop.records import Example
from prefloop.training import write_tokens


def make_tokens(work: Work) -> Mapping[str, float]:
    """Tokenises the examples, those of validation apart, and counts what was left out or cut.

    Raises:
        DataError: no example is left, or there are some for validation and none of them is.
    """
    counts = _tokenised(work, ".", "")
    if next(work.records("examples", Example, part=VALIDATION), None) is not None:
        (work.out / VALIDATION).mkdir()
        counts |= {f"validation {name}": count for name, count in _tokenised(work, VALIDATION, "validation ").items()}
    return counts


def _tokenised(work: Work, part: str, what: str) -> dict[str, float]:
    """Writes one part of the examples as tokens."""
    settings = work.settings
    assert isinstance(settings, TokensStep)
    total = sum(1 for _ in work.records("examples", Example, part=part))
    counts = write_tokens(
        work.out / part,
        work.records("examples", Example, part=part),
        work.resources.bench.codec,
        encoding_settings(settings),
        lambda done: work.report(f"{what}examples", done, total),
    )
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in counts.items() if reason != "examples")
    if not counts["examples"]:
        raise DataError(
            f"{work.artifact.place}/{work.artifact.step}: no {what}example can be used ({reasons}). "
            f"Raise {work.artifact.step.removesuffix(SUFFIX)}.max_length."
        )
    if reasons:
        work.report.note(
            f"{work.artifact.path}: {counts['examples']:,} of {total:,} {what}examples are used ({reasons})"
        )
    return dict(counts)


def encoding_settings(settings: TokensStep | TrainStep) -> EncodingSettings:
    """What of an example becomes tokens, as the step says."""
    return EncodingSettings(settings.max_length, settings.truncation, settings.loss_on, settings.loss_on_thinking)


def _inputs(_name: str, settings: StepConfig, scope: Scope) -> Inputs:
    assert isinstance(settings, TokensStep)
    return {"examples": nearest(settings, scope, Example), "model": (scope.model,)}


TOKENS = StepType(make_tokens, _inputs, format=2)
