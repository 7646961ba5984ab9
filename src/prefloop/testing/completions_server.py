"""A small server of OpenAI's completions over a real model in this process, with planted faults: what clients meet."""

import json
import random
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch

from prefloop.policy import PolicyFiles, Workbench
from prefloop.records import Message, Prompt, seed_for
from prefloop.sampling import Draw, LocalPolicies, SamplingSettings

_SLOW_S = 2.0
"""How long the fault `slow` holds a request, before it cuts the connection."""
LACKING = frozenset(
    {"prompt_ids", "n", "logprobs", "return_token_ids", "seed", "top_k", "min_p", "repetition_penalty", "stop"}
    | {"top_p", "stop_token_ids", "load_lora_adapter"}
)
"""What a server can be made to ignore, as real ones do: it answers 200 all the same."""

_ONE_AT_A_TIME = threading.Lock()
"""Servers may share a model, and another attention is put under it while answers grow."""


@dataclass(frozen=True)
class Faults:
    """Which requests go wrong, and how: drawn by a seed and the number of the request."""

    share: float = 0.0
    kinds: tuple[str, ...] = ()
    """Of `too_many_requests`, `error`, `cut`, `slow`, `garbage`, `empty`, `error_object`, `missing_choice`, `redirect`,
    `unauthorized`."""
    seed: int = 0

    def at(self, number: int) -> str | None:
        """The fault of a request."""
        drawn = random.Random(seed_for("fault", self.seed, number))
        return drawn.choice(self.kinds) if self.kinds and drawn.random() < self.share else None


@dataclass
class CompletionsServer:
    """Completions of a policy, by the local sampler: real tokens and real log-probabilities."""

    bench: Workbench
    policy: PolicyFiles
    """What it serves under every name that it was not told an adapter of."""
    lacks: frozenset[str] = frozenset()
    faults: Faults = field(default_factory=Faults)
    false_logps: float = 1.0
    """Factor on every log-probability."""
    says: Callable[[tuple[Message, ...]], str] | None = None
    """What is answered to a chat instead of the policy's own words."""
    longest_prompt: int = 10**6
    """Tokens; a longer chat is refused with 400."""
    latency_s: float = 0.0
    retry_after_s: int = 0
    """What a busy answer asks for."""
    answers: list[str] = field(default_factory=list[str])
    """What was answered in full and without fault: the request bodies, in order."""
    most_at_once: int = 0
    """Requests that were under way at the same time, at most."""
    adapters: dict[str, str] = field(default_factory=dict[str, str])
    is_down: bool = False
    """Every connection is cut."""
    requests: int = 0
    headers: list[str] = field(default_factory=list[str])
    """The Authorization header of every completion's request."""

    def __post_init__(self) -> None:
        self._counting = threading.Lock()
        self._at_once = 0

    @contextmanager
    def running(self) -> Generator[str, None, None]:
        """Serves on a free port of this machine; gives the URL."""
        owner = self

        class Handler(_Handler):
            server_of = owner

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    @contextmanager
    def counted(self) -> Generator[int, None, None]:
        """A request is under way; gives its number."""
        with self._counting:
            number = self.requests
            self.requests += 1
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            yield number
        finally:
            with self._counting:
                self._at_once -= 1

    def completion(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a request's body, lacking fields ignored (LookupError for a prompt that is refused)."""
        body = {name: value for name, value in asked.items() if name not in self.lacks}
        codec, prompt = self.bench.codec, body["prompt"]
        if not isinstance(prompt, str) and "prompt_ids" in self.lacks:
            raise LookupError("prompt must be a string")
        ids = codec.ids_of_rendered([prompt])[0] if isinstance(prompt, str) else tuple(prompt)
        settings = SamplingSettings(
            temperature=float(body.get("temperature", 1)),
            top_p=float(body.get("top_p", 1)),
            max_new_tokens=body["max_tokens"],
            top_k=body.get("top_k"),
            min_p=body.get("min_p", 0.0),
            repetition_penalty=float(body.get("repetition_penalty", 1)),
            stop=tuple(body.get("stop", ())),
            stop_ids=tuple(body.get("stop_token_ids", ())),
        )
        seed = body.get("seed", self.requests)
        draws = [Draw("asked", index, seed_for(seed, index), ids) for index in range(body.get("n", 1))]
        with _ONE_AT_A_TIME, LocalPolicies(self.bench).serving(self._named(body["model"])) as serving:
            choices = [
                self._choice(ids, answer.token_ids, answer.finish_reason, answer.draw.index, body)
                for answer in serving.sample(draws, settings)
            ]
        return {"object": "text_completion", "choices": choices, "usage": {"prompt_tokens": len(ids)}}

    def chat(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a chat request's body: what the policy says behind its template, or what was planted."""
        codec = self.bench.codec
        messages = tuple(Message(role=turn["role"], content=turn["content"]) for turn in asked["messages"])
        ids = codec.prompt_ids(Prompt.of(messages))
        if len(ids) > self.longest_prompt:
            raise LookupError(f"this model's maximum context length is {self.longest_prompt} tokens")
        wants = asked.get("logprobs") and "logprobs" not in self.lacks
        plain = {name: value for name, value in asked.items() if name not in {"messages", "logprobs", "top_logprobs"}}
        answer = self.completion({**plain, "prompt": list(ids), **({"logprobs": 1} if wants else {})})
        (choice,) = answer["choices"]
        text = self.says(messages) if self.says is not None else choice["text"]
        chat: dict[str, Any] = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": choice["finish_reason"],
        }
        if wants:
            chat["logprobs"] = {"content": [{"token": "", "top_logprobs": self._likely(ids, asked)}]}
        count = len(codec.response_ids(text, finished=False))
        return {"choices": [chat], "usage": {"prompt_tokens": len(ids), "completion_tokens": count}}

    def _likely(self, ids: tuple[int, ...], asked: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The likely first tokens of an answer."""
        model = self.bench.for_sampling(self._named(asked["model"]))
        with _ONE_AT_A_TIME, torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
        tops = (logits.double().log_softmax(-1) * self.false_logps).topk(asked["top_logprobs"])
        return [
            {"token": self.bench.codec.text_of([token]), "logprob": logp}
            for token, logp in zip(tops.indices.tolist(), tops.values.tolist(), strict=True)
        ]

    def _named(self, model: str) -> PolicyFiles:
        if model not in self.adapters:
            return self.policy
        return PolicyFiles(f"adapter {self.adapters[model]}", self.bench.source.directory, Path(self.adapters[model]))

    def _choice(
        self, prompt: tuple[int, ...], ids: tuple[int, ...], reason: str, index: int, body: Mapping[str, Any]
    ) -> dict[str, Any]:
        codec = self.bench.codec
        choice: dict[str, Any] = {"index": index, "text": codec.text_of(ids), "finish_reason": reason}
        if body.get("return_token_ids"):
            choice["token_ids"] = list(ids)
        if "logprobs" in body:
            model = self.bench.for_sampling(self._named(body["model"]))
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
            logps = logits.double().log_softmax(-1) * self.false_logps
            tops = logps.topk(max(1, body["logprobs"]), dim=-1)
            choice["logprobs"] = {
                "tokens": [codec.token_text(token) for token in ids],
                "token_logprobs": logps.gather(-1, torch.tensor(ids)[:, None])[:, 0].tolist(),
                "top_logprobs": [
                    {f"{token}": value for token, value in zip(row_ids, row, strict=True)}
                    for row_ids, row in zip(tops.indices.tolist(), tops.values.tolist(), strict=True)
                ],
            }
        return choice


class _Handler(BaseHTTPRequestHandler):
    server_of: CompletionsServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """The list of models, which says only that the server is there."""
        if not self.server_of.is_down:
            self._send(200, b'{"data": []}')
        self.close_connection = self.server_of.is_down

    def do_POST(self) -> None:
        """Completions and adapters."""
        server = self.server_of
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = self.path.removeprefix("/v1/")
        with server.counted() as number:
            if server.is_down:
                self.close_connection = True
            elif path in {"completions", "chat/completions"}:
                server.headers.append(self.headers.get("Authorization", ""))
                time.sleep(server.latency_s)
                self._complete(body, server.faults.at(number), is_chat=path == "chat/completions")
            elif path in {"load_lora_adapter", "unload_lora_adapter"} and "load_lora_adapter" not in server.lacks:
                told = json.loads(body)
                if path == "load_lora_adapter":
                    server.adapters[told["lora_name"]] = told["lora_path"]
                else:
                    del server.adapters[told["lora_name"]]
                self._send(200, b"Success: the adapter was taken.")
            else:
                self._send(404, b'{"error": "not found"}')

    def _complete(self, body: bytes, fault: str | None, *, is_chat: bool) -> None:
        if fault is not None:
            FAULTS[fault](self, body)
            return
        try:
            asked = json.loads(body)
            answer = self.server_of.chat(asked) if is_chat else self.server_of.completion(asked)
        except LookupError as error:
            self._send(400, json.dumps({"error": {"message": str(error)}}).encode())
            return
        answer["choices"].reverse()  # clients go by the index
        self._send(200, json.dumps(answer).encode())
        self.server_of.answers.append(body.decode())

    def _send(self, status: int, content: bytes, headers: Mapping[str, str] | None = None, cut: int = 0) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[: len(content) - cut])
        self.close_connection = self.close_connection or cut > 0

    def too_many_requests(self, body: bytes) -> None:
        """Busy; says when to come again."""
        del body
        self._send(429, b"later", {"Retry-After": str(self.server_of.retry_after_s)})

    def error(self, body: bytes) -> None:
        """Broken inside."""
        del body
        self._send(500, b"<html>Internal Server Error</html>")

    def cut(self, body: bytes) -> None:
        """The connection ends within the answer."""
        self._send(200, json.dumps(self.server_of.completion(json.loads(body))).encode(), cut=20)

    def slow(self, body: bytes) -> None:
        """Nothing comes for a while, longer than a client of a test waits."""
        del body
        time.sleep(_SLOW_S)
        self.close_connection = True

    def garbage(self, body: bytes) -> None:
        """No JSON."""
        del body
        self._send(200, b'{"choices": [{"text": "All')

    def empty(self, body: bytes) -> None:
        """Nothing."""
        del body
        self._send(200, b"")

    def error_object(self, body: bytes) -> None:
        """An error under the name of success."""
        del body
        self._send(200, b'{"error": {"message": "the engine died"}}')

    def missing_choice(self, body: bytes) -> None:
        """One choice less than was asked for."""
        answer = self.server_of.completion(json.loads(body))
        self._send(200, json.dumps({**answer, "choices": answer["choices"][1:]}).encode())

    def redirect(self, body: bytes) -> None:
        """Sends clients elsewhere."""
        del body
        self._send(307, b"", {"Location": "http://127.0.0.1:9/v1/completions"})

    def unauthorized(self, body: bytes) -> None:
        """Refuses the key and repeats it."""
        del body
        self._send(401, f"Incorrect API key provided: {self.headers.get('Authorization')}".encode())

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


FAULTS: Mapping[str, Callable[[_Handler, bytes], None]] = {
    "too_many_requests": _Handler.too_many_requests,
    "error": _Handler.error,
    "cut": _Handler.cut,
    "slow": _Handler.slow,
    "garbage": _Handler.garbage,
    "empty": _Handler.empty,
    "error_object": _Handler.error_object,
    "missing_choice": _Handler.missing_choice,
    "redirect": _Handler.redirect,
    "unauthorized": _Handler.unauthorized,
}
"""How a request can go wrong."""
