"""What a server can do, found out by what it does: a field that a 200 ignores counts as not supported."""

import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from prefloop.errors import RecipeError
from prefloop.policy import ChatCodec
from prefloop.sampling.completion import Completion, completions, token_count
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
_HOTTEST = 100.0
"""A temperature at which all tokens are about equally likely."""
_LIKELY = 0.8
"""At that temperature a quarter of the sampled tokens should be of the likeliest quarter of all: where more than this
share is, others are never sampled."""
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
    "all_tokens": f"takes no temperature of {_HOTTEST:g}, so that it was not seen whether it samples from all tokens",
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
    all_tokens: bool
    """It was seen to sample from all tokens, and not from the likeliest alone."""
    ids_field: Mapping[str, bool]
    """The field that makes the server give token ids."""
    neutral: Mapping[str, Any]
    """Fields that undo an engine's or a model's own settings, which hold where a request leaves a field out."""

    def lacks(self) -> list[str]:
        """What is missing, as it is said aloud."""
        return [words for name, words in WITHOUT.items() if not getattr(self, name)]

    def common(self, other: "Capabilities") -> "Capabilities":
        """What two servers of a pool both can do; both have the same neutral fields."""
        both = {name: getattr(self, name) and getattr(other, name) for name in WITHOUT}
        both["token_ids"] = both["token_ids"] and self.ids_field == other.ids_field
        return replace(self, **both)


def prompt_field(ids: Sequence[int], codec: ChatCodec, *, as_ids: bool) -> list[int] | str:
    """A prompt as it is sent."""
    return list(ids) if as_ids else str(codec.tokenizer.decode(list(ids), skip_special_tokens=False))


def neutral_fields(codec: ChatCodec) -> tuple[Mapping[str, Any], ...]:
    """Fields that make engines sample from all tokens, one engine's after the other's; the last are none.

    llama.cpp has top_k 40 and min_p 0.05 where a request says nothing (and top_p 0.95, but every request says top_p),
    vLLM and SGLang what the model's generation_config.json says. transformers takes that file's settings as a field,
    which then has to name EOS, and takes the likeliest token at every temperature without `do_sample`.
    """
    config = {"do_sample": True, "top_k": 0, "eos_token_id": sorted(codec.eos_ids), "pad_token_id": min(codec.eos_ids)}
    return {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}, {"generation_config": json.dumps(config)}, {}


async def probed(
    ask: Ask, prompt: Sequence[int], codec: ChatCodec, where: str, likely: Callable[[Sequence[int]], float]
) -> Capabilities:
    """Finds out what a server can do.

    Args:
        ask: of the server.
        prompt: tokens of a prompt to try things on.
        codec: of the model that it is said to serve.
        where: its address.
        likely: of the tokens of an answer to that prompt, the share that is of the likeliest quarter of all tokens.

    Raises:
        RefusedError: it refuses a plain completion.
        RecipeError: it reads other tokens than those of the prompt, or never samples unlikely ones.
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
    plain = {"prompt": prompt_field(prompt, codec, as_ids=as_ids), "max_tokens": _TOKENS, "top_p": 1.0}
    ids_field = await _ids_field(ask, {**plain, "temperature": 0, "logprobs": LISTED}, codec)
    with_ids = {} if ids_field is None else {"logprobs": LISTED, **ids_field}
    neutral = await _neutral(ask, {**plain, **with_ids}, codec, where, likely)
    plain |= neutral or {}
    found = await _tried(ask, {**plain, "temperature": 0, "logprobs": LISTED, **(ids_field or {})})
    seeded = [await _tried(ask, {**plain, "temperature": 1, "seed": _SEEDS[0]}) for _ in range(2)]
    return Capabilities(
        prompt_ids=as_ids,
        n=await _tried(ask, {**plain, "temperature": 1, "n": 2}, count=2) is not None,
        logps=found is not None and _are_probabilities(found[0]),
        token_ids=ids_field is not None,
        seed=seeded[0] is not None and seeded[1] is not None and seeded[0][0].text == seeded[1][0].text,
        all_tokens=neutral is not None,
        ids_field=ids_field or {},
        neutral=neutral or {},
    )


async def _ids_field(ask: Ask, greedy: Mapping[str, Any], codec: ChatCodec) -> Mapping[str, bool] | None:
    """What makes a server give ids that decode to its text; None where nothing does."""
    for field in ({"return_token_ids": True}, {"return_tokens_as_token_ids": True}, {}):
        found = await _tried(ask, {**greedy, **field})
        if found is not None and _decodes(found[0], codec):
            return field
    return None


async def _neutral(
    ask: Ask, plain: Mapping[str, Any], codec: ChatCodec, where: str, likely: Callable[[Sequence[int]], float]
) -> Mapping[str, Any] | None:
    """The fields with which a server samples from all tokens; None where it takes no such temperature."""
    is_seen = False
    for fields in neutral_fields(codec):
        hot = {**plain, **fields, "temperature": _HOTTEST}
        tried = [await _tried(ask, {**hot, "seed": seed}) for seed in _SEEDS]
        answers = [one[0] for one in tried if one is not None]
        is_seen = is_seen or bool(answers)
        said = [
            codec.response_ids(one.text, finished=False) if one.token_ids is None else one.token_ids for one in answers
        ]
        counts = [len(ids) for ids in said]
        if sum(counts) and sum(likely(ids) * len(ids) for ids in said) / sum(counts) <= _LIKELY:
            return fields
    if is_seen:
        raise RecipeError(
            f"{where}: samples the likeliest tokens alone, also at a temperature of {_HOTTEST:g}, so that its answers "
            "are not the policy's. Serve the model without top_k, top_p, min_p or greedy decoding of the server's own."
        )
    return None


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
    if "stop" in told and greedy.token_ids is None and not greedy.says_stop:
        raise RecipeError(
            f"{where}: stop is {list(settings.stop)}, and the server says neither what ended an answer nor its tokens, "
            "so that nobody knows which answers have an EOS. Leave it out, or use another server."
        )
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
    return token_count(answer, "prompt_tokens")


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
    if not found.logps:
        return False
    if found.token_ids is not None and len(found.token_ids) != len(found.logps):
        return False
    return len(found.top_probabilities) == len(found.logps) and max(found.top_probabilities) <= 1 + _ROUNDING
