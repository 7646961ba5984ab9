"""A pairwise model as judge: a sequence classifier that reads two answers as one text (PairRM, arXiv:2306.02561)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prefloop.config import PairwiseModelJudge
from prefloop.judging.protocol import Ask, Verdict, settled_by_emptiness
from prefloop.judging.reward_model import RewardModel, identity_of_reward_model
from prefloop.pairing.combination import sigmoid
from prefloop.pairing.side_by_side import FORM, side_by_side_text
from prefloop.records import digest


@dataclass(frozen=True)
class PairwiseModel:
    """Compares two answers, which the model reads in both orders, as MaxLogits of arXiv:2306.02561 wants them."""

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
        """P(the first answer is better) = sigmoid((s(first, second) - s(second, first)) / 2), s the model's logit.

        What it gives to a place cancels, so that both orders of two answers say the same; `raw` has both logits. An
        empty answer loses without asking; what is too long in either order is invalid.

        Raises:
            ModelError: a logit is not a number.
        """
        orders: dict[int, tuple[Ask, Ask]] = {}
        for number, ask in enumerate(asks):
            settled = settled_by_emptiness(ask)
            if settled is None:
                orders[number] = (self._shown(ask), self._shown(Ask(ask.prompt, ask.subjects[::-1])))
            else:
                yield number, settled
        once = {_read(shown): shown for both in orders.values() for shown in both}
        texts = list(once)
        said = {texts[place]: verdict for place, verdict in self.classifier.judge(list(once.values()))}
        unread = set(once)
        for number, both in orders.items():
            keys = tuple(_read(shown) for shown in both)
            (forward,), (backward,) = (said[key].values for key in keys)
            tokens = sum(said[key].tokens_in for key in unread.intersection(keys))
            unread.difference_update(keys)
            if forward is None or backward is None:
                yield number, Verdict((None,), next(said[key].raw for key in keys if said[key].values == (None,)))
            else:
                raw = f"logit {forward:.4g} in this order, {backward:.4g} in the other"
                yield number, Verdict((sigmoid((forward - backward) / 2),), raw, tokens)

    def _shown(self, ask: Ask) -> Ask:
        """Both answers as one."""
        first, second = ask.subjects
        text = side_by_side_text(first.text, second.text, self.config.form or FORM)
        return Ask(ask.prompt, (ask.subjects[0].model_copy(update={"text": text}),))


def _read(shown: Ask) -> tuple[str, str]:
    """What of an ask the model reads."""
    return shown.prompt.prompt_id, shown.subjects[0].text
