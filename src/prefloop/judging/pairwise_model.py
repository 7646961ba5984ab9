"""A pairwise model as judge: a sequence classifier that reads two answers as one text (PairRM, arXiv:2306.02561)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prefloop.config import PairwiseModelJudge
from prefloop.judging.judge_prompt import broken
from prefloop.judging.protocol import Ask, Verdict, settled_by_emptiness
from prefloop.judging.reward_model import RewardModel, identity_of_reward_model
from prefloop.pairing.combination import sigmoid
from prefloop.pairing.side_by_side import FORM, side_by_side_text
from prefloop.records import Response, digest


@dataclass(frozen=True)
class PairwiseModel:
    """Compares two answers in the order in which they are shown; what orders are worth is the pair step's business."""

    config: PairwiseModelJudge
    classifier: RewardModel
    """Reads a conversation whose answer is both answers; its score is the logit that the first is better."""
    kind: Literal["preference"] = "preference"

    @property
    def name(self) -> str:
        """The model by its name and content, and how it is shown answers where that is not as shipped."""
        form = [digest(self.config.form)[:8]] * (self.config.form is not None)
        identity = identity_of_reward_model(self.config.model)[:12]
        return ":".join(["pairwise_model", self.classifier.called or Path(self.config.model).name, identity, *form])

    def judge(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Verdict]]:
        """P(the first answer is better); an empty answer loses without asking; what is too long is invalid.

        Raises:
            ModelError: a logit is not a number.
        """
        asked: list[int] = []
        for number, ask in enumerate(asks):
            settled = settled_by_emptiness(ask)
            if settled is None:
                asked.append(number)
            else:
                yield number, settled
        shown = [Ask(asks[number].prompt, (self._shown(asks[number]),)) for number in asked]
        for place, said in self.classifier.judge(shown):
            (logit,) = said.values
            value = None if logit is None else sigmoid(logit)
            yield asked[place], Verdict((value,), said.raw, said.tokens_in)

    def _shown(self, ask: Ask) -> Response:
        control = self.classifier.files.codec.control_tokens
        first, second = (broken(one.text, control) for one in ask.subjects)
        return ask.subjects[0].model_copy(update={"text": side_by_side_text(first, second, self.config.form or FORM)})
