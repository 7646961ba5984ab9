"""Servers that are asked over HTTP: where they are, who may ask, and how long they are waited for."""

from typing import Annotated

from pydantic import Field

from prefloop.config.base import Config

Address = Annotated[
    str,
    Field(pattern=r"^https?://[^\s/?#@:]+(:\d{1,5})?(/[^\s?#]*)?$|^https?://\[[\da-fA-F:.]+\](:\d{1,5})?(/[^\s?#]*)?$"),
]
"""Scheme, host, port and path: no password and no query, which would be a secret in every message."""


class ServersConfig(Config):
    """One server, or a pool of servers with the same model."""

    url: Address | Annotated[tuple[Address, ...], Field(min_length=1)]
    """Where the API begins, such as http://localhost:8000/v1; a list is a pool of servers with the same model."""
    key: Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")] | None = None
    """Name of the environment variable that holds their key, in capitals; the key itself stands in no recipe."""
    timeout_s: Annotated[float, Field(gt=0)] = 300.0
    """Longest wait for one answer, in seconds."""
    deadline_s: Annotated[float, Field(gt=0)] = 600.0
    """How long one answer is tried for, in seconds, before the run stops and can go on later."""

    @property
    def urls(self) -> tuple[str, ...]:
        """One server or more."""
        return (self.url,) if isinstance(self.url, str) else self.url
