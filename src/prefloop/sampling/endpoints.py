"""A pool of servers that are asked over HTTP: retries, waiting, circuits, failover, and a deadline for every call."""

import asyncio
import json
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urljoin

import httpx2

from prefloop.errors import RecipeError, ResumableError

T = TypeVar("T")

_LARGEST_BODY = 32 * 2**20
"""Bytes of an answer before it is taken for broken."""
_BUSY = frozenset({408, 425, 429, 503})
"""Statuses that say nothing against a server but that it has no time now."""
_SHOWN = 200
"""Characters of a server's own words in a message."""


@dataclass(frozen=True)
class Patience:
    """How long a call waits, in seconds, and how it tries again."""

    timeout_s: float = 300.0
    """For one answer, from the first byte sent to the last byte read."""
    deadline_s: float = 600.0
    """For one call with all that is tried again."""
    first_wait_s: float = 0.5
    """The wait before the first retry is drawn between 0 and this, and doubles (full jitter)."""
    longest_wait_s: float = 30.0
    failures: int = 5
    """So many failures in a row open a server's circuit: it gets one call at a time, after a wait."""


class BadAnswerError(Exception):
    """An answer that says nothing usable; the call is made again."""


class RefusedError(RecipeError):
    """A server will not do what it was asked, however often (4xx)."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Endpoint:
    """One server, and how it fared."""

    url: str
    """Where its API begins, such as http://localhost:8000/v1."""
    in_flight: int = 0
    failures: int = 0
    """In a row."""
    not_before: float = 0.0
    """`time.monotonic()` until which nothing is sent to it."""
    last_error: str = "has not answered"

    def at(self, path: str) -> str:
        """The address of a path below the URL, or at the server's root where it begins with a slash."""
        return urljoin(f"{self.url}/", path)


@dataclass
class Pool:
    """Servers that do the same. All of it belongs to one event loop."""

    urls: Sequence[str]
    concurrency: int
    """Requests under way at each server."""
    patience: Patience = field(default_factory=Patience)
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    named: str = "sampler"
    """The setting that names the servers."""
    endpoints: list[Endpoint] = field(init=False)

    def __post_init__(self) -> None:
        self.endpoints = [Endpoint(url.rstrip("/")) for url in self.urls]
        self._client: httpx2.AsyncClient | None = None
        self._freed = asyncio.Event()
        self._random = random.Random()  # when to try again is no part of any result

    @property
    def room(self) -> int:
        """Calls that can be under way at the same time."""
        return self.concurrency * len(self.endpoints)

    async def close(self) -> None:
        """Closes all connections."""
        if self._client is not None:
            await self._client.aclose()

    async def post(
        self,
        path: str,
        body: Mapping[str, Any],
        accept: Callable[[Any], T],
        only: Endpoint | None = None,
        *,
        read: Callable[[bytes], Any] = json.loads,
    ) -> T:
        """What a server answers to a request, tried again until it is usable.

        Args:
            path: below the servers' URLs.
            body: sent as JSON.
            accept: what is made of what was read; BadAnswerError where it is not usable.
            only: the server that is meant; None takes the one with the fewest failures and calls.
            read: how an answer is read; ValueError where it cannot be.

        Raises:
            RefusedError: a server refused for good.
            ResumableError: no usable answer came before the deadline.
        """
        until = time.monotonic() + self.patience.deadline_s
        attempt = 0
        while True:
            endpoint = await self._free([only] if only is not None else self.endpoints, until)
            endpoint.in_flight += 1
            try:
                async with asyncio.timeout(self.patience.timeout_s):
                    answer = accept(await self._once(endpoint, path, body, read))
                endpoint.failures = 0
                return answer
            except _BusyError as busy:
                endpoint.last_error = str(busy)
                endpoint.not_before = max(endpoint.not_before, time.monotonic() + (busy.wait_s or 0))
                wait = 0.0 if busy.wait_s is not None else self._jitter(attempt)
            except (httpx2.TransportError, TimeoutError, BadAnswerError) as error:
                self._failed(endpoint, _why(error) or f"no answer within {self.patience.timeout_s:g} s")
                wait = self._jitter(attempt)
            finally:
                endpoint.in_flight -= 1
                self._freed.set()
            attempt += 1
            await asyncio.sleep(min(wait, max(0.0, until - time.monotonic())))

    def _redacted(self, text: str) -> str:
        """Without the key, which some servers repeat when they refuse it."""
        key = self.headers.get("Authorization", "").removeprefix("Bearer ")
        return text.replace(key, "[the key]") if key else text

    def _jitter(self, attempt: int) -> float:
        return self._random.uniform(0, min(self.patience.longest_wait_s, self.patience.first_wait_s * 2**attempt))

    def _failed(self, endpoint: Endpoint, why: str) -> None:
        endpoint.failures += 1
        endpoint.last_error = why
        beyond = endpoint.failures - self.patience.failures
        if beyond >= 0:
            endpoint.not_before = time.monotonic() + self._jitter(beyond)

    async def _free(self, endpoints: Sequence[Endpoint], until: float) -> Endpoint:
        """The best server that takes a call now; waits for one."""
        while (now := time.monotonic()) < until:
            free = [one for one in endpoints if one.not_before <= now and one.in_flight < self._room_of(one)]
            if free:
                return min(free, key=lambda one: (one.failures, one.in_flight))
            waits = [one.not_before - now for one in endpoints if one.not_before > now]
            self._freed.clear()
            try:
                async with asyncio.timeout(min([*waits, until - now])):
                    await self._freed.wait()
            except TimeoutError:
                pass
        raise self._away(endpoints)

    def _room_of(self, endpoint: Endpoint) -> int:
        return self.concurrency if endpoint.failures < self.patience.failures else 1

    async def keep_those_there(self, note: Callable[[str], None]) -> None:
        """Leaves out servers that do not answer at all, if any other does; waits where none does.

        Raises:
            ResumableError: none came before the deadline.
        """
        until = time.monotonic() + self.patience.deadline_s
        attempt = 0
        while True:
            there = await asyncio.gather(*(self._is_there(endpoint) for endpoint in self.endpoints))
            if any(there):
                for endpoint in (one for one, is_there in zip(self.endpoints, there, strict=True) if not is_there):
                    note(f"{endpoint.url} is left out of this step: {endpoint.last_error}")
                self.endpoints = [one for one, is_there in zip(self.endpoints, there, strict=True) if is_there]
                return
            if time.monotonic() >= until:
                raise self._away(self.endpoints)
            await asyncio.sleep(min(self._jitter(attempt), max(0.0, until - time.monotonic())))
            attempt += 1

    async def _is_there(self, endpoint: Endpoint) -> bool:
        try:
            async with asyncio.timeout(self.patience.timeout_s):
                await self._http.get(endpoint.at("models"))
        except (httpx2.TransportError, TimeoutError) as error:
            endpoint.last_error = _why(error) or f"no answer within {self.patience.timeout_s:g} s"
            return False
        return True

    def _away(self, endpoints: Sequence[Endpoint]) -> ResumableError:
        found = "; ".join(f"{one.url}: {one.last_error}" for one in endpoints)
        return ResumableError(
            f"{found}. No usable answer within {self.patience.deadline_s:g} s. Look after the server and give the same "
            "command again: what was answered is kept."
        )

    @property
    def _http(self) -> httpx2.AsyncClient:
        if self._client is None:
            limits = httpx2.Limits(max_connections=self.room)
            self._client = httpx2.AsyncClient(headers=dict(self.headers), timeout=None, limits=limits)
        return self._client

    async def _once(self, endpoint: Endpoint, path: str, body: Mapping[str, Any], read: Callable[[bytes], Any]) -> Any:
        content = bytearray()
        async with self._http.stream("POST", endpoint.at(path), json=dict(body)) as response:
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > _LARGEST_BODY:
                    raise BadAnswerError(f"an answer of more than {_LARGEST_BODY} bytes")
        status = response.status_code
        said = self._redacted(" ".join(bytes(content).decode(errors="replace").split()))[:_SHOWN]
        if status in _BUSY:
            raise _BusyError(f"answered {status}: {said}", _retry_after(response.headers.get("retry-after")))
        if status >= 500:
            raise BadAnswerError(f"answered {status}: {said}")
        if status >= 300:
            what = "redirects, which is not followed" if status < 400 else f"refused with {status}: {said}"
            raise RefusedError(f"{endpoint.at(path)}: {what}. Check {self.named}.url, model and key.", status)
        try:
            return read(bytes(content))
        except ValueError as error:
            raise BadAnswerError(f"answered {status} with no JSON: {said or 'an empty body'}") from error


def _why(error: Exception) -> str:
    """What went wrong, in a few words; connection errors of several addresses say it several times."""
    return " ".join(str(error).split())[:_SHOWN]


class _BusyError(Exception):
    def __init__(self, message: str, wait_s: float | None) -> None:
        super().__init__(message)
        self.wait_s = wait_s


def _retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for; None where there is none."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def authorization(key: str | None, named: str = "sampler.key") -> dict[str, str]:
    """The header that a server's key goes into.

    Args:
        key: name of the environment variable that holds it; None needs none.
        named: the setting that says so.

    Raises:
        RecipeError: the variable is not set.
    """
    if key is None:
        return {}
    value = os.environ.get(key)
    if not value:
        raise RecipeError(f"{named} names the environment variable {key}, which is not set. Set it to the key.")
    return {"Authorization": f"Bearer {value}"}
