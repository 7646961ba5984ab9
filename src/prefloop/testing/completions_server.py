"""A small server of OpenAI's completions over a real model in this process, with planted faults: what clients meet."""

import json
import random
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Generator, Hashable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch

from prefloop.policy import PolicyFiles, Workbench
from prefloop.records import Message, Prompt, seed_for
from prefloop.sampling import Draw, LocalPolicies, SamplingSettings

_SLOW_S = 60.0
"""How long the faults `slow` and `drip` hold a request, if its client does not leave before."""
_A_WHILE_S = 0.05
"""From one look at a client, or byte that drips, to the next."""
_HUGE = 10 * 2**20
"""Bytes of the answer of the fault `huge`."""
LACKING = frozenset(
    {"prompt_ids", "n", "logprobs", "return_token_ids", "seed", "top_k", "min_p", "repetition_penalty", "stop"}
    | {"top_p", "temperature", "stop_token_ids", "load_lora_adapter", "update_weights_from_disk", "use_activation"}
)
"""What a server can be made to ignore, as real ones do: it answers 200 all the same."""

SCORES = {"pooling": "data", "classify": "probs"}
"""Addresses of vLLM's for reward models, and the field that their scores are in."""

_KNOWN: dict[Hashable, list[dict[str, Any]]] = {}
"""Choices that were worked out before, by everything that decides them: tests ask the same things again and again."""
_ONE_AT_A_TIME = threading.Lock()
"""Servers may share a model, and another attention is put under it while answers grow."""


@dataclass(frozen=True)
class Faults:
    """Which requests go wrong, and how: drawn by a seed and the number of the request."""

    share: float = 0.0
    kinds: tuple[str, ...] = ()
    """Names of `FAULTS`; they come in turn."""
    seed: int = 0

    def at(self, number: int) -> str | None:
        """The fault of a request."""
        if not self._falls_on(number):
            return None
        return self.kinds[sum(map(self._falls_on, range(number))) % len(self.kinds)]

    def _falls_on(self, number: int) -> bool:
        return random.Random(seed_for("fault", self.seed, number)).random() < self.share


@dataclass
class CompletionsServer:
    """Completions of a policy, by the local sampler: real tokens and real log-probabilities."""

    bench: Workbench
    policy: PolicyFiles
    """What it serves under every name that it was not told an adapter of."""
    lacks: frozenset[str] = frozenset({"update_weights_from_disk"})
    """Of `LACKING`."""
    defaults: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What it takes where a request leaves a field out, as llama.cpp has a top_k of 40 and vLLM what the model says."""
    refuses: frozenset[str] = frozenset()
    """Fields that it answers with 422."""
    names: tuple[str, ...] = ()
    """Models that it lists and knows; others get 404. Empty: it lists none and takes every name."""
    context: int | None = None
    """Tokens of prompt and answer that it has room for; it cuts both without a word."""
    keeps_eos: bool = False
    """EOS is neither among the tokens nor among the log-probabilities of an answer."""
    keeps_weights: bool = False
    """Says that it took new weights or an adapter, and goes on with those that it has."""
    loading_s: float = 0.0
    """After `restart` it answers 503 so long."""
    faults: Faults = field(default_factory=Faults)
    false_logps: float = 1.0
    """Factor on every log-probability."""
    says: Callable[[tuple[Message, ...]], str] | None = None
    """What is answered to a chat instead of the policy's own words."""
    score: Callable[[tuple[Message, ...]], Any] | None = None
    """What `/pooling` and `/classify` give of a conversation; None: it has no such addresses."""
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
    is_holding: bool = False
    """Completions wait until it is False again."""
    held: int = 0
    """Completions that wait."""
    requests: int = 0
    headers: list[str] = field(default_factory=list[str])
    """The Authorization header of every completion's request."""

    def __post_init__(self) -> None:
        self.counting = threading.Lock()
        self._at_once = 0
        self._loading_until = 0.0

    @property
    def is_loading(self) -> bool:
        """It is there, and cannot answer yet."""
        return time.monotonic() < self._loading_until

    @contextmanager
    def running(self, port: int = 0) -> Generator[str, None, None]:
        """Serves on a port of this machine, 0 being a free one; gives the URL."""
        owner = self

        class Handler(_Handler):
            server_of = owner

        server = _Server(("127.0.0.1", port), Handler)
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
        with self.counting:
            number = self.requests
            self.requests += 1
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            yield number
        finally:
            with self.counting:
                self._at_once -= 1

    def delay(self) -> None:
        """Before every completion."""
        time.sleep(self.latency_s)

    def completion(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a request's body, lacking fields ignored (LookupError for a prompt that is refused)."""
        body = {**self.defaults, **{name: value for name, value in asked.items() if name not in self.lacks}}
        codec, prompt = self.bench.codec, body["prompt"]
        if not isinstance(prompt, str) and "prompt_ids" in self.lacks:
            raise LookupError("prompt must be a string")
        ids = codec.ids_of_rendered([prompt])[0] if isinstance(prompt, str) else tuple(prompt)
        room = body["max_tokens"]
        if self.context is not None:
            ids = ids[-self.context + 1 :]
            room = min(room, self.context - len(ids))
        top_k = body.get("top_k", -1)
        settings = SamplingSettings(
            temperature=float(body.get("temperature", 1)),
            top_p=float(body.get("top_p", 1)),
            max_new_tokens=room,
            top_k=None if top_k < 1 else top_k,
            min_p=float(body.get("min_p", 0)),
            repetition_penalty=float(body.get("repetition_penalty", 1)),
            stop=tuple(body.get("stop", ())),
            stop_ids=tuple(body.get("stop_token_ids", ())),
        )
        policy, seed, count = self._named(body["model"]), body.get("seed", self.requests), body.get("n", 1)
        told = (body.get("return_token_ids"), body.get("logprobs"), self.keeps_eos, self.false_logps)
        known = (policy, ids, settings, seed, count, told)
        if known not in _KNOWN:
            draws = [Draw("asked", index, seed_for(seed, index), ids) for index in range(count)]
            with _ONE_AT_A_TIME, LocalPolicies(self.bench).serving(policy) as serving:
                _KNOWN[known] = [
                    self._choice(ids, answer.token_ids, answer.finish_reason, answer.draw.index, body)
                    for answer in serving.sample(draws, settings)
                ]
        choices = list(_KNOWN[known])
        usage = {"prompt_tokens": len(ids)}
        return {"object": "text_completion", "model": body["model"], "choices": choices, "usage": usage}

    def takes(self, path: str, told: Mapping[str, Any]) -> bool:
        """What a path below the root does to its weights; False where it has no such path."""
        match path:
            case "load_lora_adapter" if path not in self.lacks:
                self.adapters[told["lora_name"]] = told["lora_path"]
            case "unload_lora_adapter" if "load_lora_adapter" not in self.lacks:
                del self.adapters[told["lora_name"]]
            case "update_weights_from_disk" if path not in self.lacks:
                self._serves(Path(told["model_path"]), None)
            case "restart":
                self._loading_until = time.monotonic() + self.loading_s
                self._serves(Path(told["model_path"]), Path(told["lora_path"]) if "lora_path" in told else None)
            case _:
                return False
        return True

    def _serves(self, directory: Path, adapter: Path | None) -> None:
        if not self.keeps_weights:
            self.policy = PolicyFiles(f"served from {directory} and {adapter}", directory, adapter)

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

    def scored(self, asked: Mapping[str, Any], field_name: str) -> dict[str, Any]:
        """The answer of a reward model: a conversation's score, unless an activation makes 1 of it."""
        messages = tuple(Message(role=turn["role"], content=turn["content"]) for turn in asked["messages"])
        ids = self.bench.codec.prompt_ids(Prompt.of(messages))
        if len(ids) > self.longest_prompt:
            raise LookupError(f"this model's maximum context length is {self.longest_prompt} tokens")
        assert self.score is not None
        value = (
            self.score(messages) if asked.get("use_activation") is False and "use_activation" not in self.lacks else 1.0
        )
        data = {"index": 0, field_name: value if isinstance(value, list) else [value]}
        return {"object": "list", "model": asked["model"], "data": [data], "usage": {"prompt_tokens": len(ids)}}

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
        if model not in self.adapters or self.keeps_weights:
            return self.policy
        return PolicyFiles(f"adapter {self.adapters[model]}", self.bench.source.directory, Path(self.adapters[model]))

    def _choice(
        self, prompt: tuple[int, ...], ids: tuple[int, ...], reason: str, index: int, body: Mapping[str, Any]
    ) -> dict[str, Any]:
        codec = self.bench.codec
        if self.keeps_eos and ids[-1:] and ids[-1] in codec.eos_ids:
            ids = ids[:-1]
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


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave are no news."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server_of: CompletionsServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """The list of models, which says only that the server is there."""
        server = self.server_of
        if not server.is_down:
            listed = {"data": [{"id": name} for name in server.names]}
            self._send(503 if server.is_loading else 200, json.dumps(listed).encode())
        self.close_connection = server.is_down

    def do_POST(self) -> None:
        """Completions and adapters."""
        server = self.server_of
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = self.path.removeprefix("/v1").removeprefix("/")
        with server.counted() as number:
            if path in {"completions", "chat/completions"} and not (server.is_down or server.is_loading):
                server.headers.append(self.headers.get("Authorization", ""))
                server.delay()
                self._hold()
            if server.is_down or self._is_left():
                self.close_connection = True
            elif server.is_loading:
                self._send(503, b"loading")
            elif path in {"completions", "chat/completions"} or (path in SCORES and server.score is not None):
                self._complete(body, server.faults.at(number), path)
            elif server.takes(path, json.loads(body)):
                self._send(200, b"Success: taken.")
            else:
                self._send(404, b'{"error": "not found"}')

    def _complete(self, body: bytes, fault: str | None, path: str) -> None:
        if fault is not None:
            FAULTS[fault](self, body)
            return
        asked = json.loads(body)
        if self.server_of.names and asked["model"] not in self.server_of.names:
            self._send(404, b'{"error": {"message": "no such model"}}')
            return
        if unknown := sorted(self.server_of.refuses & asked.keys()):
            self._send(422, json.dumps({"detail": f"Unexpected fields in the request: {unknown}"}).encode())
            return
        try:
            if path in SCORES:
                answer = self.server_of.scored(asked, SCORES[path])
            else:
                answer = self.server_of.completion(asked) if path == "completions" else self.server_of.chat(asked)
        except LookupError as error:
            self._send(400, json.dumps({"error": {"message": str(error)}}).encode())
            return
        answer.get("choices", []).reverse()  # clients go by the index
        if self._is_left():
            self.close_connection = True
            return
        self.server_of.answers.append(body.decode())
        self._send(200, json.dumps(answer).encode())

    def _hold(self) -> None:
        server = self.server_of
        with server.counting:
            server.held += 1
        while server.is_holding and not self._is_left():
            time.sleep(_A_WHILE_S)
        with server.counting:
            server.held -= 1

    def _is_left(self) -> bool:
        """The client has closed the connection."""
        if not select.select([self.connection], [], [], 0)[0]:
            return False
        try:
            return not self.connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

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

    def busy(self, body: bytes) -> None:
        """Busy; does not say when to come again."""
        del body
        self._send(429, b"later")

    def reset(self, body: bytes) -> None:
        """The connection is reset within the answer."""
        content = json.dumps(self.server_of.completion(json.loads(body))).encode()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._send(200, content, cut=len(content) // 2)
        self.connection.close()

    def drip(self, body: bytes) -> None:
        """The answer comes byte by byte, until the client leaves."""
        content = json.dumps(self.server_of.completion(json.loads(body))).encode()
        self._send(200, content, cut=len(content))
        begun = time.monotonic()
        with suppress(OSError):
            for byte in content:
                self.wfile.write(bytes([byte]))
                time.sleep(_A_WHILE_S)
                if self._is_left() or time.monotonic() > begun + _SLOW_S:
                    return

    def html(self, body: bytes) -> None:
        """A page of a proxy under the name of success."""
        del body
        self._send(200, b"<!DOCTYPE html><html><body>Please sign in</body></html>", {"Content-Type": "text/html"})

    def huge(self, body: bytes) -> None:
        """An answer of 10 MiB."""
        del body
        choice = {"index": 0, "text": "a" * _HUGE, "finish_reason": "stop"}
        with suppress(OSError):
            self._send(200, json.dumps({"choices": [choice]}).encode())

    def wrong_model(self, body: bytes) -> None:
        """Another model answers, as behind a router that sends clients elsewhere."""
        answer = self.server_of.completion(json.loads(body))
        self._send(200, json.dumps({**answer, "model": "another"}).encode())

    def error(self, body: bytes) -> None:
        """Broken inside."""
        del body
        self._send(500, b"<html>Internal Server Error</html>")

    def cut(self, body: bytes) -> None:
        """The connection ends within the answer."""
        self._send(200, json.dumps(self.server_of.completion(json.loads(body))).encode(), cut=20)

    def slow(self, body: bytes) -> None:
        """Nothing comes, until the client leaves."""
        del body
        begun = time.monotonic()
        while not self._is_left() and time.monotonic() < begun + _SLOW_S:
            time.sleep(_A_WHILE_S)
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
    "busy": _Handler.busy,
    "error": _Handler.error,
    "cut": _Handler.cut,
    "reset": _Handler.reset,
    "slow": _Handler.slow,
    "drip": _Handler.drip,
    "garbage": _Handler.garbage,
    "html": _Handler.html,
    "empty": _Handler.empty,
    "huge": _Handler.huge,
    "error_object": _Handler.error_object,
    "missing_choice": _Handler.missing_choice,
    "wrong_model": _Handler.wrong_model,
    "redirect": _Handler.redirect,
    "unauthorized": _Handler.unauthorized,
}
"""How a request can go wrong."""
REFUSALS = frozenset({"redirect", "unauthorized"})
"""Faults that stay as they are; after the others it is worth trying again."""
