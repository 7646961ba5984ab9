"""A pool of servers that are asked over HTTP: retries, waiting, circuits, failover, and a deadline for every call."""

import asyncio
import json
import os
import random
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urljoin

import httpx2

from prefloop.errors import RecipeError, ResumableError

T = TypeVar("T")

_LARGEST_BODY = 32 * 2**20
"""Bytes of an answer before it is taken for broken, where nobody knows better."""
_LOADING = 503
"""What a server says of itself while it loads its model."""
_BUSY = frozenset({408, 425, 429, 503})
"""Statuses that say nothing against a server but that it has no time now."""
_DOUBLINGS = 30
"""Of a wait, at most: longer than any that is meant, and no overflow."""
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
    """A server will not do what it was asked, however often (3xx and 4xx)."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(eq=False)
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
    lists: str = ""
    """Models that it says it has."""
    answers_as: str | None = None
    """The model that its answers named when its weights were proved; an answer that names another is not usable."""
    is_doubted: bool = False
    """Since its weights were proved it could not be connected to, said that it loads, or failed again and again: it may
    come back with others."""
    is_lost: bool = False
    """It was doubted, and is not what it was: it is asked no more."""

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
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    """Sent with every request: the servers' key."""
    proves_again: Callable[[Endpoint], Coroutine[Any, Any, str | None]] | None = None
    """Says why a server that was away is not what it was before; without it nobody asks."""
    named: str = "sampler"
    """The setting that names the servers."""
    endpoints: list[Endpoint] = field(init=False)

    def __post_init__(self) -> None:
        self.endpoints = [Endpoint(url.rstrip("/")) for url in self.urls]
        self._client: httpx2.AsyncClient | None = None
        self._freed = asyncio.Event()
        self._random = random.Random()  # when to try again is no part of any result
        self._returns: set[asyncio.Task[None]] = set()

    @property
    def room(self) -> int:
        """Calls that can be under way at the same time."""
        return self.concurrency * len(self.endpoints)

    async def close(self) -> None:
        """Closes all connections."""
        for task in self._returns:
            task.cancel()
        await asyncio.gather(*self._returns, return_exceptions=True)
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
        most_bytes: int = _LARGEST_BODY,
    ) -> T:
        """What a server answers to a request, tried again until it is usable.

        Args:
            path: below the servers' URLs.
            body: sent as JSON.
            accept: what is made of what was read; BadAnswerError where it is not usable.
            only: the server that is meant; None takes the one with the fewest failures and calls.
            read: how an answer is read; ValueError where it cannot be.
            most_bytes: of an answer; a longer one is not read to its end.

        Raises:
            RefusedError: every server that may answer refused for good.
            ResumableError: no usable answer came before the deadline.
        """
        until = time.monotonic() + self.patience.deadline_s
        attempt = 0
        refused: list[Endpoint] = []
        while True:
            among = [only] if only is not None else [one for one in self.endpoints if one not in refused]
            endpoint = await self._free(among, until, doubted=only is not None)
            endpoint.in_flight += 1
            try:
                async with asyncio.timeout(self.patience.timeout_s):
                    found = await self._once(endpoint, path, body, read, most_bytes)
                _require_model(endpoint, found)
                answer = accept(found)
                endpoint.failures = 0
                return answer
            except _BusyError as busy:
                endpoint.last_error = str(busy)
                endpoint.not_before = max(endpoint.not_before, time.monotonic() + busy.wait_s)
                if busy.is_loading:
                    self._doubt(endpoint)
            except RefusedError as error:
                refused.append(endpoint)
                if only is not None or all(one in refused for one in self.endpoints):
                    raise
                self._failed(endpoint, error)
            except (httpx2.RequestError, TimeoutError, BadAnswerError) as error:
                self._failed(endpoint, error)
                is_cut_off = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
                if is_cut_off or endpoint.failures >= self.patience.failures:
                    self._doubt(endpoint)
            finally:
                endpoint.in_flight -= 1
                self._freed.set()
            await asyncio.sleep(min(self._jitter(attempt), max(0.0, until - time.monotonic())))
            attempt += 1

    def shown(self, text: str) -> str:
        """The beginning of what a server said, on one line, without the key, which some repeat when they refuse it."""
        key = self.headers.get("Authorization", "").removeprefix("Bearer ")
        line = " ".join(text.split())
        return (line.replace(key, "[the key]") if key else line)[:_SHOWN]

    def _why(self, error: Exception) -> str:
        """What went wrong; a wait that was too long says nothing of itself."""
        return self.shown(str(error)) or f"no answer within {self.patience.timeout_s:g} s"

    def _jitter(self, attempt: int) -> float:
        longest = min(self.patience.longest_wait_s, self.patience.first_wait_s * 2 ** min(attempt, _DOUBLINGS))
        return self._random.uniform(0, longest)

    def _failed(self, endpoint: Endpoint, error: Exception) -> None:
        endpoint.failures += 1
        endpoint.last_error = self._why(error)
        beyond = endpoint.failures - self.patience.failures
        if beyond >= 0:
            endpoint.not_before = time.monotonic() + self._jitter(beyond)

    def _doubt(self, endpoint: Endpoint) -> None:
        """Leaves out a server that may be starting anew until it is there again and what it was."""
        if self.proves_again is not None and not endpoint.is_doubted:
            endpoint.is_doubted = True
            self._returns.add(asyncio.create_task(self._returned(endpoint, self.proves_again)))

    async def _returned(
        self, endpoint: Endpoint, proves_again: Callable[[Endpoint], Coroutine[Any, Any, str | None]]
    ) -> None:
        attempt = 0
        while not await self._is_there(endpoint):
            await asyncio.sleep(self._jitter(attempt))
            attempt += 1
        try:
            why = await proves_again(endpoint)
        except (RefusedError, ResumableError) as error:
            why = self._why(error)
        if why is None:
            endpoint.is_doubted = False
        else:
            endpoint.last_error = why
            endpoint.is_lost = True
        self._freed.set()

    async def _free(self, endpoints: Sequence[Endpoint], until: float, *, doubted: bool) -> Endpoint:
        """The best server that takes a call now, a doubted one only where it is meant; waits for one."""
        while (now := time.monotonic()) < until and not all(one.is_lost for one in endpoints):
            free = [
                one
                for one in endpoints
                if one.not_before <= now and one.in_flight < self._room_of(one) and (doubted or not one.is_doubted)
            ]
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
        there = await self._wait(any)
        for endpoint in (one for one, is_there in zip(self.endpoints, there, strict=True) if not is_there):
            note(f"{endpoint.url} is left out of this step: {endpoint.last_error}")
        self.endpoints = [one for one, is_there in zip(self.endpoints, there, strict=True) if is_there]

    async def wait_for_all(self) -> None:
        """Waits until every server answers (ResumableError where one does not before the deadline)."""
        await self._wait(all)

    async def _wait(self, enough: Callable[[Sequence[bool]], bool]) -> Sequence[bool]:
        """Which servers are there, once enough are."""
        until = time.monotonic() + self.patience.deadline_s
        attempt = 0
        while True:
            there = await asyncio.gather(*(self._is_there(endpoint) for endpoint in self.endpoints))
            if enough(there):
                return there
            if time.monotonic() >= until:
                raise self._away([one for one, is_there in zip(self.endpoints, there, strict=True) if not is_there])
            await asyncio.sleep(min(self._jitter(attempt), max(0.0, until - time.monotonic())))
            attempt += 1

    async def _is_there(self, endpoint: Endpoint) -> bool:
        """Whether anything but a server that still loads its model answers; notes the models that it lists."""
        try:
            async with asyncio.timeout(self.patience.timeout_s):
                status, _, content = await self._read(endpoint, "GET", "models", None, _LARGEST_BODY)
        except (httpx2.RequestError, TimeoutError, BadAnswerError) as error:
            endpoint.last_error = self._why(error)
            return False
        if status == _LOADING:
            endpoint.last_error = f"answered {status}: {self._said(content)}"
            return False
        endpoint.lists = self.shown(", ".join(_listed(content)))
        return True

    def _away(self, endpoints: Sequence[Endpoint]) -> ResumableError:
        found = "; ".join(f"{one.url}: {one.last_error}" for one in endpoints)
        waited = (
            "" if all(one.is_lost for one in endpoints) else f" No usable answer within {self.patience.deadline_s:g} s."
        )
        return ResumableError(
            f"{found}.{waited} Look after the server and give the same command again: what was answered is kept."
        )

    @property
    def _http(self) -> httpx2.AsyncClient:
        if self._client is None:
            limits = httpx2.Limits(max_connections=self.room)
            # a proxy of the environment sees no key: it hands https on unread, and is not asked for http
            direct: Mapping[str, None] = {"http://": None}
            self._client = httpx2.AsyncClient(headers=dict(self.headers), timeout=None, limits=limits, mounts=direct)
        return self._client

    async def _read(
        self, endpoint: Endpoint, method: str, path: str, body: Mapping[str, Any] | None, most_bytes: int
    ) -> tuple[int, str | None, bytes]:
        """Status, Retry-After and content of what a server answers once."""
        content = bytearray()
        sent = None if body is None else dict(body)
        async with self._http.stream(method, endpoint.at(path), json=sent) as response:
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > most_bytes:
                    raise BadAnswerError(f"an answer of more than {most_bytes} bytes")
        return response.status_code, response.headers.get("retry-after"), bytes(content)

    async def _once(
        self, endpoint: Endpoint, path: str, body: Mapping[str, Any], read: Callable[[bytes], Any], most_bytes: int
    ) -> Any:
        status, retry_after, content = await self._read(endpoint, "POST", path, body, most_bytes)
        if 200 <= status < 300:
            try:
                return read(content)
            except (ValueError, RecursionError) as error:
                found = self._said(content) or "an empty body"
                raise BadAnswerError(f"answered {status} with no JSON: {found}") from error
        said = f"{status}: {self._said(content)}"
        if status in _BUSY:
            raise _BusyError(f"answered {said}", _retry_after(retry_after), is_loading=status == _LOADING)
        if status >= 500:
            raise BadAnswerError(f"answered {said}")
        what = "redirects, which is not followed" if status < 400 else f"refused with {said}"
        lists = f" It lists {endpoint.lists}." if status == 404 and endpoint.lists else ""
        raise RefusedError(f"{endpoint.at(path)}: {what}.{lists} Check {self.named}.url, model and key.", status)

    def _said(self, content: bytes) -> str:
        return self.shown(content.decode(errors="replace"))


def _require_model(endpoint: Endpoint, answer: Any) -> None:
    """An answer names the model whose weights were proved, if it names any."""
    named = answer.get("model") if isinstance(answer, dict) else None
    if endpoint.answers_as is not None and named is not None and named != endpoint.answers_as:
        raise BadAnswerError(f"answered as {named}, but was proved as {endpoint.answers_as}")


def _listed(content: bytes) -> tuple[str, ...]:
    """The models of `GET /models`; none where it says something else."""
    try:
        return tuple(str(one["id"]) for one in json.loads(content)["data"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ()


class _BusyError(Exception):
    def __init__(self, message: str, wait_s: float, *, is_loading: bool) -> None:
        super().__init__(message)
        self.wait_s = wait_s
        self.is_loading = is_loading


def _retry_after(value: str | None) -> float:
    """Seconds that a Retry-After header asks for, in seconds or as a date (RFC 9110 section 10.2.3); 0 without one."""
    if value is None:
        return 0.0
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0


def authorization(key: str | None, place: str) -> dict[str, str]:
    """The header that a server's key goes into.

    Args:
        key: name of the environment variable that holds it; None needs none.
        place: of the recipe's field that names the variable.

    Raises:
        RecipeError: the variable is not set, or holds what no header can.
    """
    if key is None:
        return {}
    value = os.environ.get(key, "").strip()
    if not value:
        raise RecipeError(f"{place} names the environment variable {key}, which is not set. Set it to the key.")
    if not (value.isascii() and value.isprintable() and " " not in value):
        raise RecipeError(f"{place}: the environment variable {key} holds characters that no key has. Set it again.")
    return {"Authorization": f"Bearer {value}"}
