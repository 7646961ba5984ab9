"""A language model as judge of the steps of a solution (Step-DPO, arXiv:2406.18629)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from prefloop.config import LlmStepsJudge
from prefloop.judging.arithmetic import LINE, TextOf, steps_of
from prefloop.judging.protocol import Ask, Judge, Verdict
from prefloop.pairing.steps import LABEL
from prefloop.records import Response, Span


@dataclass(frozen=True)
class LlmSteps:
    """Asks of every step of a solution whether it is right, showing the solution up to there and no further."""

    config: LlmStepsJudge
    last_step: Judge
    """Says of an unfinished solution how likely its last step is right."""
    text_of: TextOf | None
    """What tokens of the policy say: verdicts are about spans of them. None only tells its name."""
    kind: Literal["steps"] = "steps"

    @property
    def name(self) -> str:
        """The language model, its prompt, and what it takes for steps."""
        return self.last_step.name.replace("llm:", "llm_steps:", 1) + ":lines" * (self.config.steps == "lines")

    def judge(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Verdict]]:
        """Of each solution P(right) a step, with the step's tokens; of one without steps or tokens, none."""
        parts = [(number, one, span) for number, ask in enumerate(asks) for one, span in self._beginnings(ask)]
        said = dict(self.last_step.judge([one for _, one, _ in parts]))
        of_ask: dict[int, list[tuple[Verdict, Span]]] = {number: [] for number in range(len(asks))}
        for place, (number, _, span) in enumerate(parts):
            of_ask[number].append((said[place], span))
        for number, steps in of_ask.items():
            yield (
                number,
                Verdict(
                    tuple(value for verdict, _ in steps for value in verdict.values),
                    tokens_in=sum(verdict.tokens_in for verdict, _ in steps),
                    tokens_out=sum(verdict.tokens_out for verdict, _ in steps),
                    calls=sum(verdict.calls for verdict, _ in steps),
                    spans=tuple(span for _, span in steps),
                ),
            )

    def _beginnings(self, ask: Ask) -> list[tuple[Ask, Span]]:
        """The solution up to the end of each of its steps, and that step's tokens."""
        assert self.text_of is not None
        (response,) = ask.subjects
        steps = steps_of(response, self.text_of, LABEL if self.config.steps == "labels" else LINE)
        return [(Ask(ask.prompt, (self._up_to(response, span[1]),), ask.repeat), span) for _, span in steps]

    def _up_to(self, response: Response, end: int) -> Response:
        assert self.text_of is not None
        return response.model_copy(update={"text": self.text_of((response.token_ids or ())[:end]).rstrip()})
