"""A server's key goes to that server and nowhere else: no redirect, no proxy, no message, no file."""

import asyncio
import json
import socket
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from prefloop.config import ServerSamplerConfig, load_recipe
from prefloop.errors import PrefloopError, RecipeError
from prefloop.sampling import Patience, Pool, authorization

KEY = "sk-0123456789abcdef"
SHORT = Patience(timeout_s=2.0, deadline_s=0.05, first_wait_s=0.002, longest_wait_s=0.02, failures=3)


@contextmanager
def answering(
    status: int, body: str, headers: Mapping[str, str] | None = None, seen: list[Mapping[str, str]] | None = None
) -> Generator[str, None, None]:
    """A server that answers everything alike; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            if seen is not None:
                seen.append({"host": self.headers["Host"], "authorization": self.headers["Authorization"] or ""})
            self.send_response(status)
            self.send_header("Content-Length", str(len(body.encode())))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.encode())

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def asked(url: str, answers_as: str | None = None) -> Any:
    async def ask() -> Any:
        pool = Pool([f"{url}/v1"], 1, SHORT, {"Authorization": f"Bearer {KEY}"})
        pool.endpoints[0].answers_as = answers_as
        try:
            return await pool.post("completions", {"model": "m"}, lambda answer: answer)
        finally:
            await pool.close()

    return asyncio.run(ask())


def test_a_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match="here names the environment variable TINY_KEY, which is not set"):
        authorization("TINY_KEY", "here")
    monkeypatch.setenv("TINY_KEY", f" {KEY}\n")
    assert authorization(None, "here") == {}
    assert authorization("TINY_KEY", "here") == {"Authorization": f"Bearer {KEY}"}
    assert KEY not in repr(Pool(["http://x/v1"], 1, SHORT, authorization("TINY_KEY", "here")))
    for wrong in ("sk-sec\nret", "sk sec", "sk-s\u00e9c"):
        monkeypatch.setenv("TINY_KEY", wrong)
        with pytest.raises(RecipeError, match="TINY_KEY holds characters that no key has") as error:
            authorization("TINY_KEY", "here")
        assert wrong not in str(error.value)


def test_a_key_that_stands_in_a_recipe_is_refused_and_not_repeated() -> None:
    for secret in (KEY, "hf_abcdef"):
        with pytest.raises(RecipeError) as error:
            load_recipe("loop.tiny", [f"samples.sampler={{type: server, url: 'http://x/v1', model: m, key: {secret}}}"])
        assert "samples.sampler.key: expected the name of an environment variable, in capitals" in str(error.value)
        assert secret not in str(error.value)


@pytest.mark.parametrize(
    "url", ["http://user:pass@host/v1", "http://host/v1?key=pass", "http://", "ftp://host", "http://a b"]
)
def test_an_address_with_a_secret_or_without_a_host_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(RecipeError) as error:
        load_recipe("loop.tiny", [f"samples.sampler={{type: server, url: '{url}', model: m}}"])
    assert "samples.sampler.url: expected http or https, a host, a port and a path" in str(error.value)
    assert "pass@" not in str(error.value)
    assert "key=" not in str(error.value)
    for good in ("http://localhost:8000/v1", "https://api.x.ai/v1", "http://[::1]:80/v1", "http://10.0.0.1"):
        assert ServerSamplerConfig(type="server", url=good, model="m").urls == (good,)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(status: int) -> None:
    elsewhere: list[Mapping[str, str]] = []
    here: list[Mapping[str, str]] = []
    said = r"/v1/completions: redirects, which is not followed\. Check sampler\.url"
    with (
        answering(200, "{}", seen=elsewhere) as other,
        answering(status, "", {"Location": other}, here) as url,
        pytest.raises(RecipeError, match=said),
    ):
        asked(url)
    assert [one["authorization"] for one in here] == [f"Bearer {KEY}"]
    assert elsewhere == []


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_of_the_environment_is_sent_no_key_over_http(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    proxied: list[Mapping[str, str]] = []
    here: list[Mapping[str, str]] = []
    with answering(200, "{}", seen=proxied) as proxy, answering(200, "{}", seen=here) as url:
        monkeypatch.setenv(name, proxy)
        asked(url)
    assert len(here) == 1
    assert proxied == []


def test_a_proxy_of_the_environment_hands_https_on_without_reading_it(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as proxy:

        def refuse() -> None:
            with suppress(OSError):
                while True:
                    client, _ = proxy.accept()
                    heard.append(client.recv(2**16))
                    client.close()

        threading.Thread(target=refuse, daemon=True).start()
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        with pytest.raises(PrefloopError):
            asked("https://example.invalid")
        proxy.shutdown(socket.SHUT_RDWR)
    assert heard
    assert all(one.startswith(b"CONNECT example.invalid:443") and KEY.encode() not in one for one in heard)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, f"Incorrect API key provided: Bearer {KEY}"),
        (403, "x" * 190 + KEY),
        (429, f"{KEY} is over its limit"),
        (500, f"<html>Authorization: Bearer {KEY}"),
        (200, f"<html>{KEY}"),
        (200, "x" * 190 + KEY),
        (200, json.dumps({"model": KEY})),
        (200, json.dumps({"model": "x" * 190 + KEY})),
    ],
)
def test_a_key_that_a_server_repeats_is_in_no_message(status: int, body: str) -> None:
    seen: list[Mapping[str, str]] = []
    with answering(status, body, seen=seen) as url, pytest.raises(PrefloopError) as error:
        asked(url, answers_as="proved")
    assert len(seen) == 1 or status not in {401, 403}
    assert KEY[:6] not in str(error.value)
    assert "[the key]" in str(error.value) or "x" * 100 in str(error.value)


def test_a_key_among_the_models_that_a_server_lists_is_not_shown() -> None:
    async def listed(url: str) -> str:
        pool = Pool([f"{url}/v1"], 1, SHORT, {"Authorization": f"Bearer {KEY}"})
        await pool.wait_for_all()
        await pool.close()
        return pool.endpoints[0].lists

    body = json.dumps({"data": [{"id": "tiny"}, {"id": KEY}, *({"id": "x" * 50} for _ in range(100))]})
    with answering(200, body) as url:
        found = asyncio.run(listed(url))
    assert found.startswith("tiny, [the key], xxx")
    assert len(found) == 200
