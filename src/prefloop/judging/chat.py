"""Language models that are asked questions, in this process or behind a server."""

import asyncio
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import exp, inf, isfinite, log
from typing import Any, Generic, Protocol, TypeVar

import torch
from peft import PeftModel
from transformers import AutoConfig, PreTrainedModel

from prefloop.config import JudgeServer
from prefloop.judging.sequence_scores import trees_within
from prefloop.policy import PolicyFiles, TokenRow, TreeScores, Workbench, score_rows
from prefloop.records import Message, Prompt
from prefloop.sampling import Draw, LocalPolicies, Patience, Pool, SamplingSettings, authorization
from prefloop.sampling.endpoints import BadAnswerError, RefusedError

CHOICE_TOKENS = 4
"""Room for a single letter, where a server gives no log-probabilities of it."""
TOP = 20
"""Likely first tokens whose log-probabilities a server is asked for."""
SEEDS = 2**31
"""Servers take seeds below it."""
CONTROL = re.compile(r"<\|[^|<>\s]{1,40}\|>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<(?:bos|eos|pad)>")
"""Control tokens of common models, for one behind a server, whose tokenizer is not known."""
OF_THE_QUESTION = {400, 413, 422}
"""Statuses of a refusal that may be about one question, such as its length, where others have been answered."""
ROUNDING = 1e-3


@dataclass(frozen=True)
class Question:
    """What a model is asked."""

    messages: tuple[Message, ...]
    seed: int
    choices: tuple[str, ...] = ()
    """Answers of which the log-probabilities are wanted."""


@dataclass(frozen=True)
class Said:
    """What it answered."""

    text: str | None
    """None: it could not be asked, for the reason in `why`."""
    tokens_in: int = 0
    tokens_out: int = 0
    logps: Mapping[str, float] | None = None
    """Log-probability of each choice, in nats; None where the model gives none that can be believed."""
    why: str = ""


class Chat(Protocol):
    """A model that is asked, many questions at a time."""

    @property
    def control(self) -> re.Pattern[str]:
        """Finds its control tokens in a text."""
        ...

    def answers(
        self, questions: Sequence[Question], temperature: float, max_new_tokens: int
    ) -> Iterator[tuple[int, Said]]:
        """The number of each question with what is answered to it, in any order."""
        ...


@dataclass(frozen=True)
class LocalChat:
    """A model in this process. Probabilities of choices are its own, all their tokens multiplied."""

    bench: Workbench
    policy: PolicyFiles
    tokens_per_batch: int

    @property
    def control(self) -> re.Pattern[str]:
        """The tokenizer's own."""
        return self.bench.codec.control_tokens

    def answers(
        self, questions: Sequence[Question], temperature: float, max_new_tokens: int
    ) -> Iterator[tuple[int, Said]]:
        """Answers by the local sampler; of questions with choices, no text but their probabilities."""
        codec = self.bench.codec
        ids = [codec.prompt_ids(Prompt.of(question.messages)) for question in questions]
        longest = _positions(self.policy)
        room = [len(one) + (0 if question.choices else 1) for one, question in zip(ids, questions, strict=True)]
        for number, size in enumerate(room):
            if longest is not None and size > longest:
                yield number, Said(None, why=f"{size} tokens, the model has positions for {longest}")
        fitting = [number for number, size in enumerate(room) if longest is None or size <= longest]
        yield from self._chosen([number for number in fitting if questions[number].choices], questions, ids)
        open_ones = [number for number in fitting if not questions[number].choices]
        if open_ones:
            draws = [Draw(f"{number}", number, questions[number].seed, ids[number]) for number in open_ones]
            with LocalPolicies(self.bench).serving(self.policy) as serving:
                for answer in serving.sample(draws, SamplingSettings(temperature, 1.0, max_new_tokens)):
                    number = answer.draw.index
                    said = codec.said(answer.token_ids).text
                    yield number, Said(said, len(ids[number]), len(answer.token_ids))

    def _chosen(
        self, numbers: Sequence[int], questions: Sequence[Question], ids: Sequence[tuple[int, ...]]
    ) -> Iterator[tuple[int, Said]]:
        codec = self.bench.codec
        asked = [(number, choice) for number in numbers for choice in questions[number].choices]
        tokens = {choice: codec.response_ids(choice, finished=False) for _, choice in asked}
        rows = [TokenRow(ids[number], tokens[choice], (True,) * len(tokens[choice])) for number, choice in asked]
        if not rows:
            return
        with self.bench.for_scoring(self.policy) as model:
            logps = self._in_trees(model, rows) if self.bench.takes_trees else [*self._in_rows(model, rows)]
        of_question: dict[int, dict[str, float]] = {}
        for (number, choice), logp in zip(asked, logps, strict=True):
            of_question.setdefault(number, {})[choice] = logp
        for number, found in of_question.items():
            best = max(found, key=found.__getitem__)
            yield number, Said(best, len(ids[number]), len(tokens[best]), found)

    def _in_rows(self, model: PreTrainedModel | PeftModel, rows: Sequence[TokenRow]) -> Iterator[float]:
        return score_rows(model, rows, self.tokens_per_batch)

    def _in_trees(self, model: PreTrainedModel | PeftModel, rows: Sequence[TokenRow]) -> list[float]:
        """Log-probability of each row's answer; what questions begin with alike passes once, and with all choices."""
        found = [0.0] * len(rows)
        for batch in trees_within([(*row.prompt_ids, *row.answer_ids) for row in rows], self.tokens_per_batch):
            with torch.inference_mode():
                logps = TreeScores.of(model, [rows[number] for number in batch]).logps()
            for number, logp in zip(batch, logps.tolist(), strict=True):
                found[number] = logp
        return found


@dataclass(frozen=True)
class ServerChat:
    """A model behind servers with OpenAI's chat completions."""

    server: JudgeServer

    @property
    def control(self) -> re.Pattern[str]:
        """Those of common models."""
        return CONTROL

    def answers(
        self, questions: Sequence[Question], temperature: float, max_new_tokens: int
    ) -> Iterator[tuple[int, Said]]:
        """Answers as they arrive, no more under way than the servers may have.

        Raises:
            RecipeError: the servers refuse, and have not answered anything yet.
            ResumableError: no usable answer came in time. What came before was given.
        """
        patience = Patience(timeout_s=self.server.timeout_s, deadline_s=self.server.deadline_s)
        headers = authorization(self.server.key, "judge.server.key")
        with asyncio.Runner() as runner:
            pool = Pool(self.server.urls, self.server.concurrency, patience, headers, named="judge.server")
            asking = Asking(
                pool,
                "chat/completions",
                [self._body(one, temperature, max_new_tokens) for one in questions],
                lambda answer, number: said_in(answer, questions[number]),
                lambda why: Said(None, why=why),
            )
            try:
                yield from asking.answers(runner)
            finally:
                runner.run(asking.cancelled())
                runner.run(pool.close())

    def _body(self, question: Question, temperature: float, max_new_tokens: int) -> dict[str, Any]:
        body = {
            "model": self.server.model,
            "messages": [{"role": turn.role, "content": turn.content} for turn in question.messages],
            "max_tokens": CHOICE_TOKENS if question.choices else max_new_tokens,
            "temperature": temperature,
            "seed": question.seed % SEEDS,
        }
        return {**body, "logprobs": True, "top_logprobs": TOP} if question.choices else body


T = TypeVar("T")


class Asking(Generic[T]):
    """Requests under way to servers that judge."""

    def __init__(
        self,
        pool: Pool,
        path: str,
        bodies: Sequence[Mapping[str, Any]],
        accept: Callable[[Any, int], T],
        refused: Callable[[str], T],
    ) -> None:
        """Takes what is sent, what is made of the answer to a body by number, and of a refusal of one body alone."""
        self.pool = pool
        self.path = path
        self.bodies = bodies
        self.accept = accept
        self.refused = refused
        self.left = iter(range(len(bodies)))
        self.pending: dict[asyncio.Task[T], int] = {}
        self.has_answered = False

    def answers(self, runner: asyncio.Runner) -> Iterator[tuple[int, T]]:
        """What arrives; the first error after what arrived with it."""
        while True:
            done, error = runner.run(self._arrived())
            yield from done
            if error is not None:
                raise error
            if not done:
                return

    async def _arrived(self) -> tuple[list[tuple[int, T]], Exception | None]:
        while len(self.pending) < self.pool.room and (number := next(self.left, None)) is not None:
            self.pending[asyncio.create_task(self._asked(number))] = number
        if not self.pending:
            return [], None
        done, _ = await asyncio.wait(self.pending, return_when=asyncio.FIRST_COMPLETED)
        numbers = {task: self.pending.pop(task) for task in done}
        errors = [error for task in done if isinstance(error := task.exception(), Exception)]
        answers = [(numbers[task], task.result()) for task in done if task.exception() is None]
        self.has_answered = self.has_answered or bool(answers)
        refused = {
            task: error
            for task in done
            if isinstance(error := task.exception(), RefusedError) and error.status in OF_THE_QUESTION
        }
        if self.has_answered and len(refused) == len(errors):
            answers += [(numbers[task], self.refused(str(error))) for task, error in refused.items()]
            errors = []
        return answers, errors[0] if errors else None

    async def _asked(self, number: int) -> T:
        return await self.pool.post(self.path, self.bodies[number], lambda answer: self.accept(answer, number))

    async def cancelled(self) -> None:
        """Gives up what is under way."""
        for task in self.pending:
            task.cancel()
        await asyncio.gather(*self.pending, return_exceptions=True)


def said_in(answer: Any, question: Question) -> Said:
    """A chat completion as what was said.

    Raises:
        BadAnswerError: it is none.
    """
    try:
        (choice,) = answer["choices"]
        text = choice["message"]["content"]
        usage = answer.get("usage") or {}
        if not isinstance(text, str | None):
            raise ValueError(choice)
        logps = None
        if question.choices:
            entries = (choice.get("logprobs") or {}).get("content") or []
            logps = logps_of(entries[0].get("top_logprobs") or [], question.choices) if entries else None
        return Said(text or "", int(usage.get("prompt_tokens", 0)), int(usage.get("completion_tokens", 0)), logps)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        said = answer.get("error", answer) if isinstance(answer, dict) else answer
        raise BadAnswerError(f"answered with no chat completion: {json.dumps(said, default=str)[:200]}") from error


def logps_of(top: Sequence[Mapping[str, Any]], choices: Sequence[str]) -> dict[str, float] | None:
    """Log-probabilities of single-token answers among the likely first tokens, spaces around them left out.

    None where neither is there, or where the numbers are no log-probabilities: positive ones, or a sum above 1.
    """
    logps = [float(entry["logprob"]) for entry in top]
    if not all(isfinite(logp) and logp <= ROUNDING for logp in logps) or sum(map(exp, logps)) > 1 + ROUNDING:
        return None
    found = dict.fromkeys(choices, 0.0)
    for entry, logp in zip(top, logps, strict=True):
        if (token := str(entry["token"]).strip()) in found:
            found[token] += exp(logp)
    return {name: log(prob) if prob else -inf for name, prob in found.items()} if any(found.values()) else None


def _positions(policy: PolicyFiles) -> int | None:
    """Tokens of a conversation that a model has positions for."""
    text = AutoConfig.from_pretrained(policy.directory, trust_remote_code=False).get_text_config().to_dict()
    return text.get("max_position_embeddings") or text.get("n_positions")
