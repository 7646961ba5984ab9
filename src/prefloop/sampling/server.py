"""Sampling over HTTP, from any server of OpenAI's completions: published to, proved, asked, and kept."""

import asyncio
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial, reduce
from itertools import groupby, takewhile
from typing import Any, Literal

import torch

from prefloop.errors import ModelError, RecipeError, ResumableError
from prefloop.policy import ChatCodec, PolicyFiles, Workbench
from prefloop.records import Message, Prompt, digest
from prefloop.sampling.capabilities import Ask, Capabilities, probed, prompt_field, require_settings
from prefloop.sampling.completion import Completion, completions, token_count
from prefloop.sampling.endpoints import BadAnswerError, Endpoint, Pool
from prefloop.sampling.kept_answers import KeptAnswers
from prefloop.sampling.proof import NATS_A_TOKEN, NEARLY_EQUAL, Reading, is_nearer, reading
from prefloop.sampling.protocol import Answer, Draw, SamplingSettings
from prefloop.sampling.publication import Published, Restart, as_it_is, ways

PROBES = ("Tell me about your day.", "What is good about the sea?")
"""Questions that a policy answers greedily, to prove which weights answer."""
PROBE_TOKENS = 16
SAME_TOKENS = 4
"""So many tokens of its greedy answers a server that was away must begin with again."""
_SEEDS = 2**31
"""Servers take seeds below it; llama.cpp's have 32 bits."""
_BYTES = 2**16
_BYTES_A_CHARACTER = 4
"""Of UTF-8: a server may keep back the tokens of a character that was not finished."""
_BYTES_A_TOKEN = 2**12
"""What an answer may be as JSON: a token with its log-probability, its bytes and the likeliest others."""


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
    restart: Restart | None = None
    """Brings the servers up with other weights."""
    before: PolicyFiles | None = None
    """What the policy was trained from, which servers that took no new weights still serve."""

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
                published, proofs = self._proved(runner, pool, policy)
                for words in proofs[0].can.lacks():
                    self.note(f"{', '.join(endpoint.url for endpoint in pool.endpoints)} {words}")
                pool.proves_again = partial(_differs, pool, published.name, {one.endpoint: one for one in proofs})
                can, codec = proofs[0].can, self.bench.codec
                served = ServedPolicy(runner, pool, published.name, policy.identity, can, codec, self.kept)
                try:
                    yield served
                finally:
                    runner.run(served.cancelled())
                    runner.run(published.undo())
            finally:
                runner.run(pool.close())

    def _proved(self, runner: asyncio.Runner, pool: Pool, policy: PolicyFiles) -> tuple[Published, list["Proof"]]:
        """Publishes in one way after another until every server is seen to serve the policy."""
        found: list[str] = []
        possible = ways(self._kind(policy), self.restart)
        for publish in possible:
            published = runner.run(publish(pool, self.model, policy))
            if isinstance(published, str):
                found.append(published)
                continue
            proofs = [self._proof(runner, pool, published.name, policy, endpoint) for endpoint in pool.endpoints]
            wrong = [f"{proof.endpoint.url}: {proof.doubt}" for proof in proofs if proof.doubt is not None]
            untold = [
                f"{proof.endpoint.url}: two greedy answers do not tell the policy from {words}"
                for proof in proofs
                for words in proof.untold
            ]
            if not wrong and (not untold or publish is not as_it_is or publish is possible[-1]):
                for words in untold:
                    self.note(words)
                return published, _alike(proofs)
            found += wrong or untold
            runner.run(published.undo())
        weights = policy.adapter or policy.directory
        raise ResumableError(
            f"{'; '.join(found)}. Serve the weights in {weights} as {self.model} and give the same command again."
        )

    def _kind(self, policy: PolicyFiles) -> Literal["model", "adapter", "weights"]:
        if policy.adapter is not None:
            return "adapter"
        return "model" if policy.directory == self.bench.source.directory else "weights"

    def _proof(self, runner: asyncio.Runner, pool: Pool, name: str, policy: PolicyFiles, endpoint: Endpoint) -> "Proof":
        """What a server can do and how it answers the probes greedily, with why it seems to serve something else."""
        codec, probes = self.bench.codec, self._probes
        ask = partial(_ask, pool, name, endpoint)
        likely = partial(self._likely, policy, probes[0])
        endpoint.answers_as = None
        can = runner.run(probed(ask, probes[0], codec, endpoint.url, likely))
        asked = tuple(_greedy(prompt, codec, can) for prompt in probes)
        answers = runner.run(_answered(ask, asked))
        named = {answer.model for answer in answers}
        if len(named) > 1:
            models = pool.shown(", ".join(sorted(str(one) for one in named)))
            return Proof(endpoint, can, asked, answers, f"answers as one model and another ({models})")
        (endpoint.answers_as,) = named
        doubt, untold = self._doubt(policy, answers, can)
        return Proof(endpoint, can, asked, answers, doubt, untold)

    def _doubt(
        self, policy: PolicyFiles, answers: Sequence[Completion], can: Capabilities
    ) -> tuple[str | None, tuple[str, ...]]:
        """Why a server seems to serve something else, and the policies that its greedy answers may as well be of.

        Both are held against it: tokens that our policy would not have taken, and log-probabilities that are not its.
        """
        tokens = [_tokens(answer, self.bench.codec, can) for answer in answers]
        if not any(tokens):
            return f"answers nothing to {' and '.join(PROBES)}, so that nobody can tell what it serves", ()
        ours = self._reading(policy, tokens)
        if ours.behind.max() > NEARLY_EQUAL:
            behind = f"one token is {ours.behind.max():.2g} nats behind the likeliest (at most {NEARLY_EQUAL})"
            return f"its greedy answers are not those of the policy: {behind}, {_OTHERS}", ()
        said = [(answer.logps or ())[: len(ids)] for answer, ids in zip(answers, tokens, strict=True)]
        theirs = torch.tensor([logp for logps in said for logp in logps], dtype=torch.float64) if can.logps else None
        off = 0.0 if theirs is None else (theirs - ours.logps).abs().mean().item()
        if off > NATS_A_TOKEN:
            far = f"{off:.2g} nats a token from those of the policy (at most {NATS_A_TOKEN})"
            return f"its log-probabilities of greedy answers are {far}, {_OTHERS}", ()
        base = PolicyFiles(self.bench.source.identity, self.bench.source.directory)
        others = {"the policy of the round before": self.before, "the recipe's model without what was trained": base}
        untold: list[str] = []
        for words, other in others.items():
            if other is None or other.identity == policy.identity:
                continue
            its = self._reading(other, tokens)
            if theirs is None:
                verdict = None if its.behind.max() <= NEARLY_EQUAL else False
            else:
                verdict = is_nearer(theirs, ours.logps, its.logps)
            if verdict:
                return f"still serves {words}", ()
            if verdict is None:
                untold.append(words)
        return None, tuple(untold)

    def _reading(self, policy: PolicyFiles, answers: Sequence[Sequence[int]]) -> Reading:
        with self.bench.for_scoring(policy) as model:
            return reading(model, self._probes, answers)

    def _likely(self, policy: PolicyFiles, prompt: Sequence[int], answer: Sequence[int]) -> float:
        """The share of an answer's tokens that is of the likeliest quarter of all tokens."""
        with self.bench.for_scoring(policy) as model:
            return (reading(model, [prompt], [answer]).likelier < 0.25).double().mean().item() if answer else 0.0

    @property
    def _probes(self) -> list[tuple[int, ...]]:
        prompts = [
            Prompt(prompt_id=text, root_id=text, messages=(Message(role="user", content=text),)) for text in PROBES
        ]
        return [self.bench.codec.prompt_ids(prompt) for prompt in prompts]


_OTHERS = "so it serves other weights, such as those of the round before"


@dataclass(frozen=True)
class Proof:
    """What a server showed of itself."""

    endpoint: Endpoint
    can: Capabilities
    asked: tuple[Mapping[str, Any], ...]
    """The requests for greedy answers."""
    answers: tuple[Completion, ...]
    doubt: str | None
    """Why it seems to serve other weights."""
    untold: tuple[str, ...] = ()
    """Policies that its greedy answers do not tell from the one that it should serve."""


def _alike(proofs: Sequence[Proof]) -> list[Proof]:
    """Proofs of a pool whose servers are asked in the same way, with what all of them can do."""
    neutral = {digest(dict(proof.can.neutral)): proof.endpoint.url for proof in proofs}
    if len(neutral) > 1:
        raise RecipeError(
            f"{' and '.join(neutral.values())}: need different fields to sample from all tokens. A pool is of servers "
            "of one engine; name one of them."
        )
    can = reduce(Capabilities.common, (proof.can for proof in proofs))
    return [replace(proof, can=can) for proof in proofs]


async def _differs(pool: Pool, name: str, proofs: Mapping[Endpoint, Proof], endpoint: Endpoint) -> str | None:
    """Why a server that was away is not what it was when it was proved; None where its greedy answers are the same."""
    before = proofs[endpoint]
    now = await _answered(partial(_ask, pool, name, endpoint), before.asked)
    same = all(_alike_in_time(one, other) for one, other in zip(before.answers, now, strict=True))
    return None if same else "was away, and came back with other weights"


def _alike_in_time(before: Completion, now: Completion) -> bool:
    """Whether two greedy answers are of the same weights; rounding may make them part, but not at once."""
    has_ids = before.token_ids is not None and now.token_ids is not None
    tokens = zip(before.token_ids or (), now.token_ids or (), strict=False)
    pairs = tokens if has_ids else zip(before.text, now.text, strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    logps = list(zip(before.logps or (), now.logps or (), strict=False))[: same if has_ids else None]
    off = sum(abs(one - other) for one, other in logps) / max(1, len(logps))
    return (before.text == now.text or same >= SAME_TOKENS) and off <= NATS_A_TOKEN


async def _answered(ask: Ask, asked: Sequence[Mapping[str, Any]]) -> tuple[Completion, ...]:
    return tuple([await ask(body, lambda answer: completions(answer, 1)[0]) for body in asked])


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
            fields = {**self.can.neutral, **self.can.ids_field}
            if self.can.token_ids:
                fields["logprobs"] = 1
            self.runner.run(require_settings(ask, {**plain, **fields}, settings, endpoint.url))
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
            self._require_room(draws, answer, found, settings)
            return [self._answer(draw, choice, settings) for draw, choice in zip(draws, found, strict=True)]

        return await self.pool.post("completions", {"model": self.name, **body}, accept, most_bytes=_most_bytes(body))

    def _require_room(
        self, draws: Sequence[Draw], answer: Any, found: Sequence[Completion], settings: SamplingSettings
    ) -> None:
        """A server whose context is too small cuts prompts and answers without a word (RecipeError)."""
        where, length = f"{draws[0].prompt_id}, answered by {self.name}", len(draws[0].prompt_ids)
        read = token_count(answer, "prompt_tokens")
        if read not in {None, length, length * len(draws)}:
            raise RecipeError(
                f"prompt {where}: the server read {read} tokens where there are {length}. It cuts prompts or adds to "
                "them: give it a longer context, and no BOS of its own."
            )
        for one in found:
            said = token_count(answer, "completion_tokens") if len(found) == 1 else None
            count = len(one.token_ids) if self.can.token_ids and one.token_ids is not None else said
            if one.is_cut and count is not None and count < settings.max_new_tokens - _BYTES_A_CHARACTER:
                raise RecipeError(
                    f"prompt {where}: an answer was cut after {count} tokens where {settings.max_new_tokens} were "
                    "allowed. Give the server a longer context, or lower max_new_tokens."
                )

    def _body(self, draws: tuple[Draw, ...], settings: SamplingSettings) -> dict[str, Any]:
        prompt = prompt_field(draws[0].prompt_ids, self.codec, as_ids=self.can.prompt_ids)
        if isinstance(prompt, str) and self.codec.ids_of_rendered([prompt]) != [draws[0].prompt_ids]:
            raise ModelError(
                f"prompt {draws[0].prompt_id}: its tokens are not those of its text, and the server takes only text. "
                "Use a server that takes token ids."
            )
        body = {
            **self.can.neutral,
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
        if ids is not None and (bool(found.text.strip()) > bool(ids) or not all(0 <= one < self._ids for one in ids)):
            raise BadAnswerError("answered tokens that the policy does not have, or none with a text")
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

    @cached_property
    def _ids(self) -> int:
        """Token ids are below it."""
        return len(self.codec.tokenizer)

    def _key(self, draw: Draw, settings: SamplingSettings) -> str:
        """What decides an answer; neither the server's address nor its name for the policy. Nobody asks for beams."""
        told = {name: value for name, value in asdict(settings).items() if name != "num_beams"}
        return digest(["answer", self.identity, draw.prompt_ids, draw.seed, told])


async def _ask(pool: Pool, name: str, endpoint: Endpoint, body: Mapping[str, Any], accept: Callable[[Any], Any]) -> Any:
    return await pool.post("completions", {"model": name, **body}, accept, endpoint, most_bytes=_most_bytes(body))


def _most_bytes(body: Mapping[str, Any]) -> int:
    return _BYTES + _BYTES_A_TOKEN * body.get("n", 1) * body["max_tokens"]


def _greedy(prompt: Sequence[int], codec: ChatCodec, can: Capabilities) -> dict[str, Any]:
    return {
        "prompt": prompt_field(prompt, codec, as_ids=can.prompt_ids),
        "max_tokens": PROBE_TOKENS,
        "temperature": 0,
        **({"logprobs": 1} if can.logps or can.token_ids else {}),
        **can.neutral,
        **can.ids_field,
    }


def _tokens(found: Completion, codec: ChatCodec, can: Capabilities) -> tuple[int, ...]:
    """An answer's tokens that are held against the policy: those with log-probabilities, where the server gives any.

    Of a text that was cut the last one is left out, which may have been part of another.
    """
    ids = found.token_ids if can.token_ids else None
    if ids is None:
        ids = codec.response_ids(found.text, finished=not found.is_cut)
        ids = ids[:-1] if found.is_cut else ids
    return ids[: len(found.logps or ())] if can.logps else ids


def _kept_form(answer: Answer) -> dict[str, Any]:
    return {
        "token_ids": answer.token_ids,
        "finish_reason": answer.finish_reason,
        "sum_logp": answer.sum_logp,
        "ids_from": answer.ids_from,
    }
