"""A reward model behind servers as judge: vLLM's `/pooling` and `/classify`."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

from pydantic import JsonValue

from prefloop.config import RewardServerJudge
from prefloop.errors import ModelError
from prefloop.judging.chat import CONTROL, Asking
from prefloop.judging.judge_prompt import broken
from prefloop.judging.protocol import Ask, Verdict
from prefloop.sampling import Patience, Pool, authorization
from prefloop.sampling.endpoints import BadAnswerError

RAW = dict.fromkeys(("use_activation", "activation", "softmax"), False)
"""What vLLM's versions call what would be made of the score; each ignores the others' names."""


@dataclass(frozen=True)
class RewardServer:
    """Asks about each answer in its conversation, which the server writes by the model's own template."""

    config: RewardServerJudge
    kind: Literal["score"] = "score"

    @property
    def name(self) -> str:
        """The model as the servers know it, where it is asked, and what is subtracted."""
        centered = [f"center={self.config.center:g}"] * bool(self.config.center)
        return ":".join(["reward_server", self.config.server.model, self.config.endpoint, *centered])

    def seen(self, ask: Ask) -> JsonValue:
        """The conversation with the answer, no control token of common models spelt out in it."""
        return self._messages(ask)

    def judge(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Verdict]]:
        """The score of each answer as it arrives; of one that the servers refuse, such as a too long one, none.

        Raises:
            RecipeError: the servers refuse, and have not answered anything yet.
            ResumableError: no usable answer came in time. What came before was given.
            ModelError: the model gives no single score, or the same one to whatever it is asked.
        """
        server = self.config.server
        patience = Patience(timeout_s=server.timeout_s, deadline_s=server.deadline_s)
        headers = authorization(server.key, "judge.server.key")
        said: dict[str, float] = {}
        with asyncio.Runner() as runner:
            pool = Pool(server.urls, server.concurrency, patience, headers, named="judge.server")
            bodies = [self._body(ask) for ask in asks]
            asking = Asking(pool, f"/{self.config.endpoint}", bodies, lambda answer, _: self._read(answer), _refused)
            try:
                for number, verdict in asking.answers(runner):
                    if verdict.values[0] is not None:
                        said[asks[number].subjects[0].text] = verdict.values[0]
                    yield number, verdict
            finally:
                runner.run(asking.cancelled())
                runner.run(pool.close())
        if len(said) > 1 and len(set(said.values())) == 1:
            raise ModelError(
                f"judge {self.name}: gives {next(iter(said.values()))} to all of {len(said)} different answers, as a "
                "softmax over one label does. Serve the model so that `use_activation: false` has its effect."
            )

    def _messages(self, ask: Ask) -> list[JsonValue]:
        (answer,) = ask.subjects
        turns = [*((message.role, message.content) for message in ask.prompt.messages), ("assistant", answer.text)]
        return [{"role": role, "content": broken(content, CONTROL)} for role, content in turns]

    def _body(self, ask: Ask) -> dict[str, Any]:
        return {
            "model": self.config.server.model,
            "messages": self._messages(ask),
            "add_generation_prompt": False,
            **RAW,
        }

    def _read(self, answer: Any) -> Verdict:
        """A score out of what a server answered."""
        try:
            (one,) = answer["data"]
            value = one["probs" if self.config.endpoint == "classify" else "data"]
            tokens = int((answer.get("usage") or {}).get("prompt_tokens", 0))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            found = answer.get("error", answer) if isinstance(answer, dict) else answer
            raise BadAnswerError(f"answered with no score: {json.dumps(found, default=str)[:200]}") from error
        values: list[Any] = value if isinstance(value, list) else [value]
        if len(values) != 1 or isinstance(values[0], list):
            raise ModelError(
                f"judge {self.name}: gives {len(values)} values of an answer, expected 1, the score. Name a reward "
                "model with one label, and serve it for classification."
            )
        score = values[0]
        if isinstance(score, bool) or not isinstance(score, int | float) or not isfinite(score):
            raise BadAnswerError(f"answered with {score!r} for a score")
        return Verdict((score - self.config.center,), tokens_in=tokens)


def _refused(why: str) -> Verdict:
    return Verdict((None,), why)
