"""How servers get a round's policy: one way after another, as engines have them."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from prefloop.errors import RecipeError, ResumableError
from prefloop.policy import PolicyFiles
from prefloop.sampling.endpoints import Endpoint, Pool, RefusedError

_NOT_THERE = frozenset({404, 405, 501})
_UNDO_S = 10.0
"""Seconds that a server has for taking something back, which nothing depends on."""
_SHOWN = 200
"""Characters of a command's own words in a message."""
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
            with suppress(ResumableError, TimeoutError):
                async with asyncio.timeout(_UNDO_S):
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


@dataclass(frozen=True)
class Restart:
    """A command of the user's that ends the servers and starts them with other weights."""

    command: tuple[str, ...]
    """The model directory comes behind it, then the directory of an adapter on it, where the policy has one."""
    log: Path
    """File that what it says is added to, and what the servers say that it starts."""

    async def __call__(self, pool: Pool, model: str, policy: PolicyFiles) -> Published | str:
        """Restarts the servers, and waits until all of them answer.

        Raises:
            RecipeError: there is no such command.
            ResumableError: it fails or does not end, or a server does not come back before the deadline.
        """
        paths = [policy.directory, *([] if policy.adapter is None else [policy.adapter])]
        with self.log.open("ab") as log:
            begins = log.tell()
            try:
                process = await asyncio.create_subprocess_exec(
                    *self.command,
                    *(str(path.absolute()) for path in paths),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=asyncio.subprocess.STDOUT,
                    start_new_session=True,  # servers that it leaves behind outlive this process
                )
            except OSError as error:
                raise RecipeError(f"sampler.restart cannot be run: {error}. Name a program and its options.") from error
        ended = await _ended(process, pool.patience.deadline_s)
        if ended != 0:
            how = f"ended with {ended}" if ended is not None else f"did not end within {pool.patience.deadline_s:g} s"
            said = " ".join(self.log.read_bytes()[begins:].decode(errors="replace").split())[-_SHOWN:]
            raise ResumableError(
                f"sampler.restart {how}: {said or 'it said nothing'}. It must leave the servers running and end; all "
                f"that it said is in {self.log}. Give the same command again when it is mended."
            )
        await pool.wait_for_all()
        return Published(model)


async def _ended(process: asyncio.subprocess.Process, limit_s: float) -> int | None:
    """The exit status of a process; None where it had to be ended."""
    try:
        async with asyncio.timeout(limit_s):
            return await process.wait()
    except TimeoutError:
        return None
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def _told(pool: Pool, endpoint: Endpoint, path: str, body: Mapping[str, Any]) -> RefusedError | None:
    try:
        await pool.post(path, body, lambda answer: answer, endpoint, read=bytes)
    except RefusedError as error:
        return error
    return None


def ways(kind: Literal["model", "adapter", "weights"], restart: Restart | None) -> tuple[Publish, ...]:
    """How a policy can get to servers; the first way that is proved holds.

    Args:
        kind: the recipe's model, an adapter on it, or weights of its own.
        restart: restarts the servers; what they serve already is left to them.
    """
    return (as_it_is, restart) if restart is not None else _WITHOUT_RESTART[kind]


_WITHOUT_RESTART: Mapping[str, tuple[Publish, ...]] = {
    "model": (as_it_is, update_weights),
    "adapter": (load_adapter, as_it_is),
    "weights": (update_weights, as_it_is),
}
