"""Judges that ask policies of the run how likely an answer is to them: implicit rewards and log-likelihoods."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from prefloop.config import ImplicitRewardJudge, LogLikelihoodJudge
from prefloop.judging.protocol import Ask, Verdict
from prefloop.policy import EncodingSettings, PolicyFiles, RowScores, TokenRow, Workbench, encoded, score_rows
from prefloop.records import Example, Member

_OVER_TOKENS: Mapping[str, Callable[[RowScores], Tensor]] = {
    "sum": RowScores.logps,
    "avg": lambda scores: scores.logps() / scores.is_counted.sum(1).clamp(min=1),
    "norm": lambda scores: -scores.token_logps().norm(dim=1),
}
WHOLE = EncodingSettings(max_length=2**31)
"""Nothing of an answer is left out."""


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
    bench: Workbench | None = None
    """The owner of the run's models; None only tells its name."""
    policies: Mapping[str, PolicyFiles] = field(default_factory=dict[str, PolicyFiles])
    """By the part that each plays."""
    tokens_per_batch: int = 2048
    kind: Literal["score"] = "score"

    @property
    def name(self) -> str:
        """Its type and the policies by their names in the recipe."""
        over_tokens = () if self._over_tokens == "sum" else (self._over_tokens,)
        return ":".join((self.config.type, *self.config.policies.values(), *over_tokens))

    @property
    def _over_tokens(self) -> str:
        return self.config.tokens if isinstance(self.config, ImplicitRewardJudge) else "sum"

    def judge(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Verdict]]:
        """Of every answer one number, in nats; none where the template refuses the answer."""
        assert self.bench is not None
        examples = [_asked_for(ask) for ask in asks]
        rows = [one.rows[0] if one.rows else None for one in encoded(examples, self.bench.codec, WHOLE)]
        said = {part: self._log_likelihoods(part, rows, self.bench) for part in self.config.policies}
        for number, row in enumerate(rows):
            if row is None:
                yield number, Verdict((None,))
            else:
                yield number, Verdict((said["policy"][number] - said.get("reference", {}).get(number, 0.0),))

    def _log_likelihoods(self, part: str, rows: Sequence[TokenRow | None], bench: Workbench) -> dict[int, float]:
        """Log pi of each answer that there is, in nats, or what is taken over its tokens instead of the sum."""
        known = {number: row for number, row in enumerate(rows) if row is not None}
        order = sorted(known, key=lambda number: (len(known[number]), number))
        with bench.for_scoring(self.policies[part]) as model:
            sorted_rows = [known[one] for one in order]
            found = score_rows(model, sorted_rows, self.tokens_per_batch, _OVER_TOKENS[self._over_tokens])
            return dict(zip(order, found, strict=True))
