"""How servers get a round's policy: one way after another, as engines have them."""

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from prefloop.policy import PolicyFiles
from prefloop.sampling.endpoints import Endpoint, Pool, RefusedError

_NOT_THERE = frozenset({404, 405, 501})
_ALREADY = "already"
"""What vLLM says of an adapter that it has."""


async def _nothing_to_undo() -> None:
    return


@dataclass(frozen=True)
class Published:
    """A policy that servers were told of."""

    name: str
    """What they call it."""
    undo: Callable[[], Coroutine[Any, Any, None]] = field(default=_nothing_to_undo)


Publish = Callable[[Pool, str, PolicyFiles], Coroutine[Any, Any, "Published | str"]]
"""From the servers, their name for the recipe's model, and a policy: what was published, or why it could not be."""


async def as_it_is(pool: Pool, model: str, policy: PolicyFiles) -> Published | str:
    """Nothing is sent: the servers may have been started with the policy's weights."""
    del pool, policy
    return Published(model)


async def load_adapter(pool: Pool, model: str, policy: PolicyFiles) -> Published | str:
    """The way of vLLM, `load_lora_adapter`: from files that servers can read; it is unloaded when the step is done."""
    del model
    assert policy.adapter is not None
    name = f"prefloop-{policy.identity[:16]}"
    for endpoint in pool.endpoints:
        body = {"lora_name": name, "lora_path": str(policy.adapter.absolute())}
        refusal = await _told(pool, endpoint, "load_lora_adapter", body)
        if refusal is not None and _ALREADY not in str(refusal):
            loads_none = refusal.status in _NOT_THERE
            return (
                f"{endpoint.url}: loads no adapters (load_lora_adapter answered {refusal.status}; vLLM needs "
                "--enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=true)"
                if loads_none
                else str(refusal)
            )

    async def undo() -> None:
        for endpoint in pool.endpoints:
            await _told(pool, endpoint, "unload_lora_adapter", {"lora_name": name})

    return Published(name, undo)


async def update_weights(pool: Pool, model: str, policy: PolicyFiles) -> Published | str:
    """The way of SGLang, `update_weights_from_disk`: from files that the servers can read."""
    for endpoint in pool.endpoints:
        body = {"model_path": str(policy.directory.absolute())}
        refusal = await _told(pool, endpoint, "/update_weights_from_disk", body)
        if refusal is not None:
            return f"{endpoint.url}: takes no new weights (update_weights_from_disk answered {refusal.status})"
    return Published(model)


async def _told(pool: Pool, endpoint: Endpoint, path: str, body: Mapping[str, Any]) -> RefusedError | None:
    try:
        await pool.post(path, body, lambda answer: answer, endpoint, read=bytes)
    except RefusedError as error:
        return error
    return None


PUBLICATIONS: Mapping[str, tuple[Publish, ...]] = {
    "model": (as_it_is, update_weights),
    "adapter": (load_adapter, as_it_is),
    "weights": (update_weights, as_it_is),
}
"""By what a policy is: the recipe's model, an adapter on it, or weights of its own. The first that is proved holds."""
