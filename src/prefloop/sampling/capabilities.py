"""What a server can do, found out by what it does: a field that a 200 ignores counts as not supported."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from prefloop.errors import RecipeError
from prefloop.policy import ChatCodec
from prefloop.sampling.completion import Completion, completions, prompt_tokens
from prefloop.sampling.endpoints import BadAnswerError, RefusedError
from prefloop.sampling.protocol import SamplingSettings

Ask = Callable[[Mapping[str, Any], Callable[[Any], Any]], Coroutine[Any, Any, Any]]
"""Sends the body of a completion to one server; gives what the function makes of the answer."""

LISTED = 5
"""Tokens listed at every position, to see whether probabilities are probabilities; OpenAI allows no more."""
_ROUNDING = 1e-3
"""Sums of probabilities of bfloat16 logits may be above 1 by so much."""
_TOKENS = 12
"""Of an answer that is looked at."""
_HOT = 2.0
"""A temperature at which a setting that is ignored shows."""
_SEEDS = (11, 12, 13)
_HUGE_PENALTY = 50.0
_UNKNOWN = frozenset({400, 422})
"""Statuses that refuse a field."""

WITHOUT = {
    "prompt_ids": "takes no prompt as token ids: prompts are sent as text",
    "n": "gives one choice whatever n says: one request an answer",
    "logps": "gives no log-probabilities that are some: sum_logp is left out, and which weights it serves is checked "
    "by greedy answers alone",
    "token_ids": "gives no token ids that decode to its text: answers are tokenised again (ids_from: text)",
    "seed": "gives other answers to the same seed: they cannot be sampled again, only kept",
}
"""What becomes of a run where a server lacks something that is not in the recipe."""


@dataclass(frozen=True)
class Capabilities:
    """What can be relied on."""

    prompt_ids: bool
    n: bool
    logps: bool
    token_ids: bool
    seed: bool
    ids_field: Mapping[str, bool]
    """The field that makes the server give token ids."""

    def lacks(self) -> list[str]:
        """What is missing, as it is said aloud."""
        return [words for name, words in WITHOUT.items() if not getattr(self, name)]

    def common(self, other: "Capabilities") -> "Capabilities":
        """What two servers of a pool both can do."""
        both = {name: getattr(self, name) and getattr(other, name) for name in WITHOUT}
        both["token_ids"] = both["token_ids"] and self.ids_field == other.ids_field
        return replace(self, **both)


def prompt_field(ids: Sequence[int], codec: ChatCodec, *, as_ids: bool) -> list[int] | str:
    """A prompt as it is sent."""
    return list(ids) if as_ids else str(codec.tokenizer.decode(list(ids), skip_special_tokens=False))


async def probed(ask: Ask, prompt: Sequence[int], codec: ChatCodec, where: str) -> Capabilities:
    """Finds out what a server can do.

    Args:
        ask: of the server.
        prompt: tokens of a prompt to try things on.
        codec: of the model that it is said to serve.
        where: its address.

    Raises:
        RefusedError: it refuses a plain completion.
        RecipeError: it reads other tokens than those of the prompt.
    """
    as_ids = await _reads(ask, prompt_field(prompt, codec, as_ids=True)) == len(prompt)
    if not as_ids:
        text = prompt_field(prompt, codec, as_ids=False)
        read = await ask({"prompt": text, "max_tokens": 1, "temperature": 0}, _counted)
        if read not in {None, len(prompt)}:
            raise RecipeError(
                f"{where}: read {read} tokens where the prompt has {len(prompt)}, so it adds some or has another "
                "tokenizer. Serve the recipe's model, without a BOS of the server's own."
            )
    plain = {"prompt": prompt_field(prompt, codec, as_ids=as_ids), "max_tokens": _TOKENS}
    greedy = {**plain, "temperature": 0}
    ids_field: Mapping[str, bool] = {}
    token_ids = False
    for ids_field in ({"return_token_ids": True}, {"return_tokens_as_token_ids": True}):
        found = await _tried(ask, {**greedy, "logprobs": LISTED, **ids_field})
        token_ids = found is not None and _decodes(found[0], codec)
        if token_ids:
            break
    found = await _tried(ask, {**greedy, "logprobs": LISTED, **(ids_field if token_ids else {})})
    seeded = [await _tried(ask, {**plain, "temperature": 1, "seed": _SEEDS[0]}) for _ in range(2)]
    return Capabilities(
        prompt_ids=as_ids,
        n=await _tried(ask, {**plain, "temperature": 1, "n": 2}, count=2) is not None,
        logps=found is not None and _are_probabilities(found[0]),
        token_ids=token_ids,
        seed=seeded[0] is not None and seeded[1] is not None and seeded[0][0].text == seeded[1][0].text,
        ids_field=ids_field if token_ids else {},
    )


async def require_settings(ask: Ask, plain: Mapping[str, Any], settings: SamplingSettings, where: str) -> None:
    """Sees that the settings of a step have their effect.

    Args:
        ask: of the server.
        plain: a prompt, as it is sent.
        settings: of the step.
        where: the server's address.

    Raises:
        RecipeError: one has none.
    """
    told = {name: getattr(settings, name) for name in _SETTING_PROBES}
    told = {name: value for name, value in told.items() if value != getattr(_PLAIN, name)}
    if not told:
        return
    body = {**plain, "max_tokens": _TOKENS, "temperature": 0}
    greedy: Completion = await ask(body, lambda answer: completions(answer, 1)[0])
    for name, value in told.items():
        if not await _SETTING_PROBES[name](ask, body, greedy):
            shown = list(value) if isinstance(value, tuple) else value
            raise RecipeError(
                f"{where}: {name} is {shown}, which the server ignores. Leave it out, or use another server."
            )


async def _narrows(field: Mapping[str, Any], ask: Ask, body: Mapping[str, Any], greedy: Completion) -> bool:
    """What leaves only the most likely token makes hot answers greedy ones."""
    hot = {**body, **field, "temperature": _HOT}
    tried = [await _tried(ask, {**hot, "seed": seed}) for seed in _SEEDS]
    return all(one is not None and one[0].text == greedy.text for one in tried)


async def _penalises(ask: Ask, body: Mapping[str, Any], greedy: Completion) -> bool:
    tried = await _tried(ask, {**body, "repetition_penalty": _HUGE_PENALTY})
    return tried is not None and tried[0].text != greedy.text


async def _stops_at_text(ask: Ask, body: Mapping[str, Any], greedy: Completion) -> bool:
    tried = await _tried(ask, {**body, "stop": [greedy.text.strip()[:1]]})
    return tried is not None and not tried[0].is_cut and len(tried[0].text) < len(greedy.text)


async def _stops_at_id(ask: Ask, body: Mapping[str, Any], greedy: Completion) -> bool:
    if greedy.token_ids is None:
        return False
    tried = await _tried(ask, {**body, "stop_token_ids": [greedy.token_ids[0]]})
    return tried is not None and not tried[0].is_cut and len(tried[0].text) < len(greedy.text)


_PLAIN = SamplingSettings(temperature=1.0, top_p=1.0, max_new_tokens=1)
_SETTING_PROBES: Mapping[str, Callable[[Ask, Mapping[str, Any], Completion], Coroutine[Any, Any, bool]]] = {
    "top_p": partial(_narrows, {"top_p": 1e-6}),
    "top_k": partial(_narrows, {"top_k": 1}),
    "min_p": partial(_narrows, {"min_p": 1.0}),
    "repetition_penalty": _penalises,
    "stop": _stops_at_text,
    "stop_ids": _stops_at_id,
}
"""By setting: whether a server's greedy answer changes as it must."""


async def _reads(ask: Ask, field: object) -> int | None:
    try:
        return await ask({"prompt": field, "max_tokens": 1, "temperature": 0}, _counted)
    except RefusedError as error:
        if error.status not in _UNKNOWN:
            raise
        return None


def _counted(answer: Any) -> int | None:
    completions(answer, 1)
    return prompt_tokens(answer)


async def _tried(ask: Ask, body: Mapping[str, Any], count: int = 1) -> tuple[Completion, ...] | None:
    """What a request gives; None where the server refuses it or gives something else."""

    def accept(answer: Any) -> tuple[Completion, ...] | None:
        choices = answer.get("choices") if isinstance(answer, dict) else None
        completions(answer, len(choices) if isinstance(choices, list) and choices else count)
        try:
            return completions(answer, count)
        except BadAnswerError:
            return None  # complete, but of another number: the field was ignored

    try:
        return await ask(body, accept)
    except RefusedError as error:
        if error.status not in _UNKNOWN:
            raise
        return None


def _decodes(found: Completion, codec: ChatCodec) -> bool:
    return found.token_ids is not None and codec.text_of(found.token_ids).strip() == found.text.strip()


def _are_probabilities(found: Completion) -> bool:
    if found.logps is None:
        return False
    if found.token_ids is not None and len(found.token_ids) != len(found.logps):
        return False
    return len(found.top_probabilities) == len(found.logps) and max(found.top_probabilities) <= 1 + _ROUNDING
