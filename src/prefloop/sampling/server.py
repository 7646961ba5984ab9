"""Sampling over HTTP, from any server of OpenAI's completions: published to, proved, asked, and kept."""

import asyncio
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial, reduce
from itertools import groupby
from typing import Any

from prefloop.errors import ModelError, ResumableError
from prefloop.policy import ChatCodec, PolicyFiles, TokenRow, Workbench, score_rows
from prefloop.records import Message, Prompt, digest
from prefloop.sampling.capabilities import Ask, Capabilities, probed, prompt_field, require_settings
from prefloop.sampling.completion import Completion, completions
from prefloop.sampling.endpoints import BadAnswerError, Endpoint, Pool
from prefloop.sampling.kept_answers import KeptAnswers
from prefloop.sampling.local import LocalPolicies
from prefloop.sampling.protocol import Answer, Draw, SamplingSettings
from prefloop.sampling.publication import PUBLICATIONS, Published

PROBES = ("Tell me about your day.", "What is good about the sea?")
"""Questions that a policy answers greedily, to prove which weights answer."""
PROBE_TOKENS = 16
NATS_A_TOKEN = 0.05
"""How far a server's log-probabilities of these answers may be from ours, on average: bfloat16 moves them by 0.03."""
SAME_TOKENS = 4
"""Where a server gives none: so many tokens of its greedy answers must be ours."""
_PROOF_TOKENS_PER_BATCH = 4096
_SEEDS = 2**31
"""Servers take seeds below it; llama.cpp's have 32 bits."""


@dataclass(frozen=True)
class ServerPolicies:
    """A sampler in other processes: a pool of servers that hold the recipe's model."""

    pool: Callable[[], Pool]
    model: str
    """Name under which the servers know the recipe's model."""
    bench: Workbench
    kept: KeptAnswers
    note: Callable[[str], None]
    """Takes one line that is said aloud."""

    @contextmanager
    def serving(self, policy: PolicyFiles) -> Generator["ServedPolicy", None, None]:
        """The policy, published where it has to be, and proved at every server that is there.

        Raises:
            ResumableError: no server is there, or one serves other weights.
            RecipeError: a server refuses, or does not have the recipe's tokenizer.
        """
        with asyncio.Runner() as runner:
            pool = self.pool()
            try:
                runner.run(pool.keep_those_there(self.note))
                published, can = self._proved(runner, pool, policy)
                served = ServedPolicy(runner, pool, published.name, policy.identity, can, self.bench.codec, self.kept)
                try:
                    yield served
                finally:
                    runner.run(served.cancelled())
                    runner.run(published.undo())
            finally:
                runner.run(pool.close())

    def _proved(self, runner: asyncio.Runner, pool: Pool, policy: PolicyFiles) -> tuple[Published, Capabilities]:
        """Publishes in one way after another until every server is seen to serve the policy."""
        found: list[str] = []
        for publish in PUBLICATIONS[self._kind(policy)]:
            published = runner.run(publish(pool, self.model, policy))
            if isinstance(published, str):
                found.append(published)
                continue
            can: list[Capabilities] = []
            wrong: list[str] = []
            for endpoint in pool.endpoints:
                ask = partial(_ask, pool, published.name, endpoint)
                can.append(runner.run(probed(ask, self._probes[0], self.bench.codec, endpoint.url)))
                wrong += self._doubts(runner, ask, can[-1], policy, endpoint)
            if not wrong:
                common = reduce(Capabilities.common, can)
                for words in common.lacks():
                    self.note(f"{', '.join(endpoint.url for endpoint in pool.endpoints)} {words}")
                return published, common
            found += wrong
            runner.run(published.undo())
        weights = policy.adapter or policy.directory
        raise ResumableError(
            f"{'; '.join(found)}. Serve the weights in {weights} as {self.model} and give the same command again."
        )

    def _kind(self, policy: PolicyFiles) -> str:
        if policy.adapter is not None:
            return "adapter"
        return "model" if policy.directory == self.bench.source.directory else "weights"

    def _doubts(
        self, runner: asyncio.Runner, ask: Ask, can: Capabilities, policy: PolicyFiles, endpoint: Endpoint
    ) -> list[str]:
        """Why a server seems to serve something else; nothing where its greedy answers are the policy's."""
        codec = self.bench.codec
        answers = [
            runner.run(ask(_greedy(prompt, codec, can), lambda answer: completions(answer, 1)[0]))
            for prompt in self._probes
        ]
        tokens = [_tokens(answer, codec) for answer in answers]
        if not can.logps:
            own = self._own_greedy(policy)
            same = all(ours[:SAME_TOKENS] == theirs[:SAME_TOKENS] for ours, theirs in zip(own, tokens, strict=True))
            return [] if same else [f"{endpoint.url}: its greedy answers are not those of {policy.identity[:16]}"]
        theirs = sum(sum(answer.logps or ()) for answer in answers)
        tokens = [ids[: len(answer.logps or ())] for ids, answer in zip(tokens, answers, strict=True)]
        count = sum(len(ids) for ids in tokens)
        off = abs(theirs - self._sum_logp(policy, tokens)) / count
        if off > NATS_A_TOKEN:
            return [
                f"{endpoint.url}: its log-probabilities of greedy answers are {off:.2g} nats a token from those of the "
                f"policy (at most {NATS_A_TOKEN}), so it serves other weights, such as those of the round before"
            ]
        base = PolicyFiles(self.bench.source.identity, self.bench.source.directory)
        if self._kind(policy) != "model" and abs(theirs - self._sum_logp(base, tokens)) / count < off:
            return [f"{endpoint.url}: it serves the recipe's model without what was trained"]
        return []

    def _sum_logp(self, policy: PolicyFiles, answers: Sequence[tuple[int, ...]]) -> float:
        rows = [
            TokenRow(prompt, ids, (True,) * len(ids)) for prompt, ids in zip(self._probes, answers, strict=True) if ids
        ]
        with self.bench.for_scoring(policy) as model:
            return sum(score_rows(model, rows, _PROOF_TOKENS_PER_BATCH))

    def _own_greedy(self, policy: PolicyFiles) -> list[tuple[int, ...]]:
        draws = [Draw(f"probe {number}", 0, 0, prompt) for number, prompt in enumerate(self._probes)]
        with LocalPolicies(self.bench).serving(policy) as serving:
            answers = list(serving.sample(draws, SamplingSettings(0.0, 1.0, PROBE_TOKENS)))
        return [answer.token_ids for answer in sorted(answers, key=lambda answer: answer.draw.prompt_id)]

    @property
    def _probes(self) -> list[tuple[int, ...]]:
        prompts = [
            Prompt(prompt_id=text, root_id=text, messages=(Message(role="user", content=text),)) for text in PROBES
        ]
        return [self.bench.codec.prompt_ids(prompt) for prompt in prompts]


@dataclass(frozen=True)
class ServedPolicy:
    """A policy that servers answer for."""

    runner: asyncio.Runner
    pool: Pool
    name: str
    """What the servers call it."""
    identity: str
    can: Capabilities
    codec: ChatCodec
    kept: KeptAnswers
    _checked: set[SamplingSettings] = field(default_factory=set[SamplingSettings])
    _pending: set[asyncio.Task[list[Answer]]] = field(default_factory=set[asyncio.Task[list[Answer]]])

    def sample(self, draws: Sequence[Draw], settings: SamplingSettings) -> Iterator[Answer]:
        """One answer a draw: those that are kept, then the others as they arrive and after they were kept.

        No more requests are under way than servers may have; while answers wait to be taken, no new one is sent.

        Raises:
            ResumableError: no server gave a usable answer in time.
            RecipeError: a server refuses, or ignores a setting.
        """
        left: list[Draw] = []
        for draw in draws:
            found: dict[str, Any] | None = self.kept.find(self._key(draw, settings))
            if found is None:
                left.append(draw)
            else:
                ids = tuple(found["token_ids"])
                yield Answer(draw, ids, found["finish_reason"], found["sum_logp"], found["ids_from"])
        if left and settings not in self._checked:
            self._check(left[0], settings)
        calls = iter(self._calls(left))
        self.runner.run(self.cancelled())
        while True:
            answers, error = self.runner.run(self._arrived(calls, settings))
            self.kept.keep((self._key(answer.draw, settings), _kept_form(answer)) for answer in answers)
            yield from answers
            if error is not None:
                raise error
            if not answers:
                return

    async def cancelled(self) -> None:
        """Gives up what is under way."""
        for task in self._pending:
            task.cancel()
        await asyncio.gather(*self._pending, return_exceptions=True)
        self._pending.clear()

    def _check(self, draw: Draw, settings: SamplingSettings) -> None:
        plain = {"prompt": prompt_field(draw.prompt_ids, self.codec, as_ids=self.can.prompt_ids)}
        for endpoint in self.pool.endpoints:
            ask = partial(_ask, self.pool, self.name, endpoint)
            self.runner.run(require_settings(ask, {**plain, **self.can.ids_field}, settings, endpoint.url))
        self._checked.add(settings)

    def _calls(self, draws: Sequence[Draw]) -> Iterator[tuple[Draw, ...]]:
        """Draws that one request asks for: those of a prompt where the server gives several, else each alone."""
        for _, of_prompt in groupby(draws, key=lambda draw: draw.prompt_ids):
            if self.can.n:
                yield tuple(of_prompt)
            else:
                yield from ((draw,) for draw in of_prompt)

    async def _arrived(
        self, calls: Iterator[tuple[Draw, ...]], settings: SamplingSettings
    ) -> tuple[list[Answer], Exception | None]:
        """Sends as much as there is room for and waits for the first answers; the first error comes beside them."""
        while len(self._pending) < self.pool.room and (draws := next(calls, None)) is not None:
            self._pending.add(asyncio.create_task(self._asked(draws, settings)))
        if not self._pending:
            return [], None
        done, _ = await asyncio.wait(self._pending, return_when=asyncio.FIRST_COMPLETED)
        self._pending.difference_update(done)
        errors = [error for task in done if isinstance(error := task.exception(), Exception)]
        answers = [answer for task in done if task.exception() is None for answer in task.result()]
        return answers, errors[0] if errors else None

    async def _asked(self, draws: tuple[Draw, ...], settings: SamplingSettings) -> list[Answer]:
        body = self._body(draws, settings)

        def accept(answer: Any) -> list[Answer]:
            found = completions(answer, len(draws))
            return [self._answer(draw, choice, settings) for draw, choice in zip(draws, found, strict=True)]

        return await self.pool.post("completions", {"model": self.name, **body}, accept)

    def _body(self, draws: tuple[Draw, ...], settings: SamplingSettings) -> dict[str, Any]:
        prompt = prompt_field(draws[0].prompt_ids, self.codec, as_ids=self.can.prompt_ids)
        if isinstance(prompt, str) and self.codec.ids_of_rendered([prompt]) != [draws[0].prompt_ids]:
            raise ModelError(
                f"prompt {draws[0].prompt_id}: its tokens are not those of its text, and the server takes only text. "
                "Use a server that takes token ids."
            )
        body = {
            "prompt": prompt,
            "max_tokens": settings.max_new_tokens,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "seed": draws[0].seed % _SEEDS,
        }
        optional = {
            "n": (len(draws) > 1, len(draws)),
            "logprobs": (self.can.logps or self.can.token_ids, 1),
            "top_k": (settings.top_k is not None, settings.top_k),
            "min_p": (settings.min_p > 0, settings.min_p),
            "repetition_penalty": (settings.repetition_penalty != 1, settings.repetition_penalty),
            "stop": (bool(settings.stop), list(settings.stop)),
            "stop_token_ids": (bool(settings.stop_ids), list(settings.stop_ids)),
        }
        return {**body, **{name: value for name, (sent, value) in optional.items() if sent}, **self.can.ids_field}

    def _answer(self, draw: Draw, found: Completion, settings: SamplingSettings) -> Answer:
        if self.can.token_ids and found.token_ids is None:
            raise BadAnswerError("answered without the token ids that it gave before")
        if self.can.logps and found.logps is None:
            raise BadAnswerError("answered without the log-probabilities that it gave before")
        ids = found.token_ids if self.can.token_ids else None
        if ids is not None and len(ids) > settings.max_new_tokens:
            raise BadAnswerError(f"answered {len(ids)} tokens where at most {settings.max_new_tokens} were wanted")
        if ids is not None and self.can.logps and len(ids) != len(found.logps or ()):
            raise BadAnswerError(f"answered {len(ids)} tokens with {len(found.logps or ())} log-probabilities")
        by_stop_text = found.stop_text is not None or (bool(settings.stop) and not found.says_stop)
        ended = not found.is_cut and not by_stop_text
        sum_logp = sum(found.logps) if self.can.logps and settings.is_plain and found.logps is not None else None
        if ids is None:
            ids, source = self.codec.response_ids(found.text, finished=ended), "text"
        else:
            source = "sampler"
            if ended and ids[-1:] not in [(token,) for token in (*self.codec.eos_ids, *settings.stop_ids)]:
                ids, sum_logp = (*ids, self.codec.eos_id), None  # it ended, but the server kept EOS for itself
        return Answer(draw, ids, "length" if found.is_cut else "stop", sum_logp, source)

    def _key(self, draw: Draw, settings: SamplingSettings) -> str:
        """What decides an answer; neither the server's address nor its name for the policy."""
        return digest(["answer", self.identity, draw.prompt_ids, draw.seed, asdict(settings)])


async def _ask(pool: Pool, name: str, endpoint: Endpoint, body: Mapping[str, Any], accept: Callable[[Any], Any]) -> Any:
    return await pool.post("completions", {"model": name, **body}, accept, endpoint)


def _greedy(prompt: Sequence[int], codec: ChatCodec, can: Capabilities) -> dict[str, Any]:
    return {
        "prompt": prompt_field(prompt, codec, as_ids=can.prompt_ids),
        "max_tokens": PROBE_TOKENS,
        "temperature": 0,
        **({"logprobs": 1} if can.logps else {}),
        **can.ids_field,
    }


def _tokens(found: Completion, codec: ChatCodec) -> tuple[int, ...]:
    ids = found.token_ids
    return codec.response_ids(found.text, finished=not found.is_cut) if ids is None else ids


def _kept_form(answer: Answer) -> dict[str, Any]:
    return {
        "token_ids": answer.token_ids,
        "finish_reason": answer.finish_reason,
        "sum_logp": answer.sum_logp,
        "ids_from": answer.ids_from,
    }
