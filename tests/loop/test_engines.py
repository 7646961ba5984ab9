"""Real engines behind the sample step of a run, as processes: `transformers serve`, and llama.cpp's server."""

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import chisquare

from prefloop.errors import RecipeError
from prefloop.loop import RunResult
from prefloop.policy import ChatCodec, TokenRow, Workbench, resolve_model, score_rows
from prefloop.policy.gguf import smollm2_file
from prefloop.records import Prompt, read_folder
from prefloop.sampling.proof import NATS_A_TOKEN

SmallRun = Callable[..., RunResult]


RESTART = """#!/bin/sh
# restart.sh PORT PYTHON MODEL_DIRECTORY
set -e
cd "$(dirname "$0")"
ln -sfn "$3" current
if [ -e server.pid ]; then
    kill "$(cat server.pid)"
    while kill -0 "$(cat server.pid)" 2>/dev/null; do sleep 0.1; done
fi
"$2" -m transformers.cli.transformers serve "$PWD/current" --host 127.0.0.1 --port "$1" --device cpu &
echo $! >server.pid
"""
"""Under one name, `current`, it serves whatever it was started with last."""


def require_serve() -> None:
    for module in ("fastapi", "uvicorn", "openai"):
        pytest.importorskip(module, reason=f"{module} is missing: `transformers serve` needs prefloop[serve]")


@contextmanager
def running(command: Sequence[str], listens: str, log: Path) -> Generator[str, None, None]:
    """A server on a free port, which says where it listens; gives the URL."""
    with log.open("w", encoding="utf-8") as written:
        process = subprocess.Popen(
            command,
            stdout=written,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        )
    try:
        until = time.monotonic() + 300
        while (found := re.search(listens, log.read_text(encoding="utf-8"))) is None:
            assert process.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < until, log.read_text(encoding="utf-8")
            time.sleep(0.05)
        yield f"{found[1]}/v1"
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def served() -> Path:
    return resolve_model("builtin:tiny").directory


@pytest.fixture(scope="module")
def url(served: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[str, None, None]:
    require_serve()
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(served)]
    options = ["--host", "127.0.0.1", "--port", "0", "--device", "cpu"]
    log = tmp_path_factory.mktemp("engine") / "serve.log"
    with running([*command, *options], r"running on (http://\S+)", log) as found:
        yield found


def at(url: str, model: Path, **others: Any) -> str:
    return f"samples.sampler={json.dumps({'type': 'server', 'url': url, 'model': str(model), **others})}"


def responses(run: Path) -> list[dict[str, Any]]:
    file = run / "round-00/samples/part-00000.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.mark.engine
def test_fields_that_it_ignores_are_found_and_the_run_says_what_it_does_instead(
    small_run: SmallRun, url: str, served: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = small_run(at(url, served), until="samples").run

    said = [line for line in capsys.readouterr().err.splitlines() if url in line]
    assert [line.removeprefix(f"round-00/samples: {url} ") for line in said] == [
        "takes no prompt as token ids: prompts are sent as text",
        "gives one choice whatever n says: one request an answer",
        "gives no log-probabilities that are some: sum_logp is left out, and which weights it serves is checked by "
        "greedy answers alone",
        "gives no token ids that decode to its text: answers are tokenised again (ids_from: text)",
    ]
    found = responses(ran)
    codec = ChatCodec.load(served, {})
    assert len(found) == 18
    assert [one["ids_from"] for one in found] == ["text"] * 18
    assert not any("sum_logp" in one for one in found)
    assert [codec.text_of(one["token_ids"]) for one in found] == [one["text"] for one in found]
    assert [one["token_ids"][-1] in codec.eos_ids for one in found] == [one["finish_reason"] == "stop" for one in found]
    database = sqlite3.connect(ran / "journal.sqlite")
    (counts,) = database.execute("SELECT counts FROM artifacts WHERE step = 'samples'").fetchone()
    database.close()
    assert json.loads(counts)["ids_from_text"] == 18


@pytest.mark.engine
def test_its_greedy_answers_are_those_of_the_local_sampler(small_run: SmallRun, url: str, served: Path) -> None:
    greedy = ("samples.temperature=0", "samples.num_samples=1")
    here = responses(small_run(*greedy, name="here", until="samples").run)
    there = responses(small_run(*greedy, at(url, served), name="there", until="samples").run)

    def records(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{key: one[key] for key in one if key not in {"sum_logp", "ids_from"}} for one in found]

    assert len(here) == 6
    assert records(there) == records(here)


@pytest.mark.engine
def test_it_samples_from_the_policy_itself(small_run: SmallRun, url: str, served: Path) -> None:
    """First tokens of answers against the policy's probabilities, although it takes the likeliest tokens by default."""
    wanted = ("prompts.count=1", "samples={num_samples: 200, max_new_tokens: 1}")
    ran = small_run(*wanted, at(url, served), until="samples").run
    codec = ChatCodec.load(served, {})
    (prompt,) = read_folder(ran / "round-00/prompts", Prompt)
    bench = Workbench(resolve_model("builtin:tiny"), codec, torch.device("cpu"))
    with torch.inference_mode():
        logits = bench.base(served)(input_ids=torch.tensor([codec.prompt_ids(prompt)])).logits[0, -1]
    expected = 200 * logits.double().softmax(0)
    often = [token for token in expected.argsort(descending=True).tolist() if expected[token] >= 5]

    counts = Counter(one["token_ids"][0] for one in responses(ran))
    seen = [counts[token] for token in often]
    rest = [200 - sum(seen), 200 - expected[often].sum().item()]
    assert len(often) > 10
    assert chisquare([*seen, rest[0]], [*expected[often].tolist(), rest[1]]).pvalue > 1e-3


@pytest.mark.engine
@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("top_k=5", "top_k is 5, which the server ignores"),
        ("stop=[.]", "stop is ['.'], and the server says neither what ended an answer nor its tokens"),
    ],
)
def test_a_setting_that_it_ignores_or_hides_is_an_error(
    small_run: SmallRun, url: str, served: Path, setting: str, said: str
) -> None:
    with pytest.raises(RecipeError) as error:
        small_run(f"samples.{setting}", at(url, served), until="samples")
    assert f"{url}: {said}" in str(error.value)


@pytest.mark.engine
@pytest.mark.slow
def test_it_is_restarted_with_every_rounds_weights(small_run: SmallRun, served: Path, tmp_path: Path) -> None:
    require_serve()
    script = tmp_path / "restart.sh"
    script.write_text(RESTART, encoding="utf-8")
    script.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    command = f"{script} {port} {sys.executable}"
    try:
        subprocess.run([*command.split(), str(served)], check=True, capture_output=False)
        sampler = at(f"http://127.0.0.1:{port}/v1", tmp_path / "current", restart=command, deadline_s=300)
        ran = small_run(sampler, "policy.learning_rate=1e-2", "rounds=2", until="round-01/samples").run
        assert (tmp_path / "current").resolve() == (ran / "round-00/policy/model").resolve()
        assert "Uvicorn running on" in (ran / "restart.log").read_text(encoding="utf-8")
    finally:
        if (tmp_path / "server.pid").exists():
            os.kill(int((tmp_path / "server.pid").read_text(encoding="utf-8")), signal.SIGKILL)


SMOLLM2 = "builtin:smollm2-135m-instruct"
LLAMA_CPP = """
import sys, threading
import xllamacpp

told = xllamacpp.CommonParams()
told.model.path, told.n_ctx, told.n_parallel, told.port, told.cpuparams.n_threads = sys.argv[1], 2048, 4, 0, 1
server = xllamacpp.Server(told)
print("listens at", server.listening_address, flush=True)
threading.Event().wait()
"""


@pytest.fixture(scope="module")
def llama_cpp(tmp_path_factory: pytest.TempPathFactory) -> Generator[str, None, None]:
    pytest.importorskip("xllamacpp", reason="xllamacpp, which has llama.cpp's server, is not installed")
    log = tmp_path_factory.mktemp("engine") / "llama.log"
    command = [sys.executable, "-c", LLAMA_CPP, str(smollm2_file())]
    with running(command, r"listens at (http://\S+)", log) as found:
        yield found


@pytest.mark.peer
def test_llama_cpp_gives_tokens_log_probabilities_and_several_choices_and_samples_from_the_policy(
    small_run: SmallRun, llama_cpp: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It multiplies by 4-bit weights, where the recipe's model has what they say in float32."""
    told = (f"model={SMOLLM2}", "prompts.count=2", "samples={num_samples: 2, max_new_tokens: 8}")
    ran = small_run(*told, at(llama_cpp, Path("smollm2")), until="samples").run
    assert llama_cpp not in capsys.readouterr().err
    found = responses(ran)
    assert [one["ids_from"] for one in found if len(one["token_ids"]) == 8] == ["sampler"] * 4
    source = resolve_model(SMOLLM2)
    bench = Workbench(source, ChatCodec.load(source.directory, {}), torch.device("cpu"))
    prompts = {one.prompt_id: bench.codec.prompt_ids(one) for one in read_folder(ran / "round-00/prompts", Prompt)}
    rows = [TokenRow(prompts[one["prompt_id"]], tuple(one["token_ids"]), (True,) * 8) for one in found]
    ours = list(score_rows(bench.base(source.directory), rows, 4096))
    assert sum(one["sum_logp"] for one in found) == pytest.approx(sum(ours), abs=4 * 8 * NATS_A_TOKEN)


@pytest.mark.peer
@pytest.mark.parametrize(("setting", "value"), [("repetition_penalty", 1.2), ("stop_ids", [30])])
def test_llama_cpp_ignores_settings_and_a_run_with_them_stops(
    small_run: SmallRun, llama_cpp: str, setting: str, value: object
) -> None:
    told = (f"model={SMOLLM2}", "prompts.count=1", f"samples.{setting}={value}", "samples.max_new_tokens=4")
    with pytest.raises(RecipeError, match=rf"{setting} is .*, which the server ignores"):
        small_run(*told, at(llama_cpp, Path("smollm2")), until="samples")
