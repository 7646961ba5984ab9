"""Judges that ask policies of the run how likely an answer is to them: implicit rewards and log-likelihoods."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from prefloop.config import ImplicitRewardJudge, LogLikelihoodJudge
from prefloop.judging.protocol import Ask, Verdict
from prefloop.policy import EncodingSettings, PolicyFiles, Workbench, encoded, score_rows
from prefloop.records import Example, Member

WHOLE = EncodingSettings(max_length=2**31)
"""Nothing of an answer is left out."""


@dataclass(frozen=True)
class PoliciesAsked:
    """Policies in memory, one after the other."""

    bench: Workbench
    policies: Mapping[str, PolicyFiles]
    """By the name that the recipe has for them."""
    tokens_per_batch: int

    def log_likelihoods(self, name: str, asks: Sequence[Ask]) -> list[float | None]:
        """Log pi of each answer, in nats; None for one that the policy's template refuses."""
        examples = [_asked_for(ask) for ask in asks]
        rows = [one.rows[0] if one.rows else None for one in encoded(examples, self.bench.codec, WHOLE)]
        known = {number: row for number, row in enumerate(rows) if row is not None}
        order = sorted(known, key=lambda number: (len(known[number]), number))
        found: list[float | None] = [None] * len(rows)
        with self.bench.for_scoring(self.policies[name]) as model:
            scored = score_rows(model, [known[number] for number in order], self.tokens_per_batch)
            for number, logp in zip(order, scored, strict=True):
                found[number] = logp
        return found


def _asked_for(ask: Ask) -> Example:
    """An answer as training would read it."""
    (response,) = ask.subjects
    only = Member(
        role="response",
        response_id=response.response_id,
        text=response.text,
        thinking=response.thinking,
        token_ids=response.token_ids,
        finished=response.finish_reason != "length",
    )
    return Example(example_id=response.response_id, prompt=ask.prompt, members=(only,), why="likelihood")


@dataclass(frozen=True)
class Likelihood:
    """The log-likelihood of answers under a policy, less that under another one where there is one."""

    config: ImplicitRewardJudge | LogLikelihoodJudge
    asked: PoliciesAsked | None = None
    """None only tells its name."""
    kind: Literal["score"] = "score"

    @property
    def name(self) -> str:
        """Its type and the policies by their names in the recipe."""
        return ":".join((self.config.type, *self.config.policies))

    def judge(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Verdict]]:
        """Of every answer one number, in nats."""
        assert self.asked is not None
        policy, *reference = (self.asked.log_likelihoods(name, asks) for name in self.config.policies)
        for number, logp in enumerate(policy):
            others = [of[number] for of in reference]
            known = [other for other in others if other is not None]
            valid = logp is not None and len(known) == len(others)
            yield number, Verdict((logp - sum(known) if valid and logp is not None else None,))
