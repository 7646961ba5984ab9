"""From what a recipe calls a model to a directory on disk and the identity of its content."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.constants import is_offline_mode
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,  # pyright: ignore[reportPrivateImportUsage]  # httpx's or httpx2's, whichever the installed Hub uses
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from prefloop.errors import ModelError, did_you_mean
from prefloop.policy.gguf import cached_gguf, described_gguf, gguf_name, smollm2_file
from prefloop.policy.model_cache import BuiltModel, built_before, built_once
from prefloop.policy.model_files import (
    DESCRIPTION_FILES,
    EXPECTED_MODEL,
    MODEL_FILES,
    has_weights,
    model_identity,
    require_chat_template,
    require_config,
    require_weights,
)
from prefloop.policy.tiny import TINY_VERSION, write_tiny

_BUILTIN = "builtin:"
_HUB_NAME = re.compile(r"(?P<repository>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[^@]+))?")


@dataclass(frozen=True)
class ModelSource:
    """A model that is there, whole, on this machine."""

    name: str
    """As the recipe gives it, a Hub revision resolved to its commit."""
    directory: Path
    identity: str
    """Hash of config, weights, tokenizer, chat template and generation config; not of the path."""
    revision: str | None
    """The commit of a model from the Hub."""


@dataclass(frozen=True)
class ModelDescription:
    """What can be known of a model without its weights."""

    directory: Path | None
    """Config, tokenizer and chat template; None where they could not be had."""
    identity: str | None
    """Of the whole model; None where its weights are not here yet."""
    missing: str | None = None
    """What is not here, to be said aloud."""


def resolve_model(spec: str) -> ModelSource:
    """Finds a model, builds it or downloads it.

    Args:
        spec: a directory with config.json, `builtin:NAME` or `org/name@revision`; without revision `main`.

    Raises:
        ModelError: there is no such model, or it is not whole.
    """
    if spec.startswith(_BUILTIN):
        built = _builtin(spec).build()
        return ModelSource(name=spec, directory=built.directory, identity=built.identity, revision=None)
    name, directory, revision = spec, Path(spec).expanduser(), None
    if not directory.exists() and (hub := _HUB_NAME.fullmatch(spec)):
        directory = _snapshot(spec, hub, MODEL_FILES)
        revision = directory.name
        name = f"{hub['repository']}@{revision}"
    require_config(directory, spec)
    require_weights(directory, spec)
    return ModelSource(name=name, directory=directory, identity=model_identity(directory), revision=revision)


def check_model(spec: str) -> None:
    """Finds out, before a run starts, whether a model can be resolved and talked to; reads no weights.

    Of a model on the Hub only the small files are fetched.

    Raises:
        ModelError: there is no such model, or it has no chat template.
    """
    if spec.startswith(_BUILTIN):
        _builtin(spec).check()
        return
    directory = Path(spec).expanduser()
    local = directory.exists()
    if not local and (hub := _HUB_NAME.fullmatch(spec)):
        directory = _snapshot(spec, hub, DESCRIPTION_FILES)
    require_config(directory, spec)
    if local:
        require_weights(directory, spec)
    require_chat_template(directory, spec)


def describe_model(spec: str) -> ModelDescription:
    """What is known of a model now: nothing is built that takes long, and of a model on the Hub no weight is fetched.

    Raises:
        ModelError: there is no such model here. (One on the Hub that cannot be reached is merely unknown.)
    """
    if spec.startswith(_BUILTIN):
        return _builtin(spec).describe()
    directory = Path(spec).expanduser()
    local = directory.exists()
    if not local and (hub := _HUB_NAME.fullmatch(spec)):
        try:
            directory = _snapshot(spec, hub, DESCRIPTION_FILES)
        except ModelError as error:
            return ModelDescription(None, None, str(error))
    require_config(directory, spec)
    require_chat_template(directory, spec)
    if local:
        require_weights(directory, spec)
    if local or has_weights(directory):
        return ModelDescription(directory, model_identity(directory))
    return ModelDescription(directory, None, f"the weights of {spec} are not here yet; `prefloop run` fetches them")


@dataclass(frozen=True)
class _Builtin:
    """A model that needs no download."""

    check: Callable[[], object]
    build: Callable[[], BuiltModel]
    describe: Callable[[], ModelDescription]


def _build_tiny() -> BuiltModel:
    return built_once(f"tiny-v{TINY_VERSION}", write_tiny)


def _describe_tiny() -> ModelDescription:
    built = _build_tiny()  # a second's work, and no larger than a description
    return ModelDescription(built.directory, built.identity)


def _describe_smollm2() -> ModelDescription:
    file = smollm2_file()
    if (built := built_before(gguf_name(file))) is not None:
        return ModelDescription(built.directory, built.identity)
    why = "builtin:smollm2-135m-instruct is not unpacked yet; `prefloop run` does it once"
    return ModelDescription(described_gguf(file).directory, None, why)


_BUILTINS = {
    "tiny": _Builtin(check=lambda: None, build=_build_tiny, describe=_describe_tiny),
    "smollm2-135m-instruct": _Builtin(
        check=smollm2_file, build=lambda: cached_gguf(smollm2_file()), describe=_describe_smollm2
    ),
}


def _builtin(spec: str) -> _Builtin:
    name = spec.removeprefix(_BUILTIN)
    if name not in _BUILTINS:
        raise ModelError(f"{spec}: there is no builtin model '{name}'. {did_you_mean(name, _BUILTINS)}")
    return _BUILTINS[name]


def _snapshot(spec: str, hub: re.Match[str], files: Sequence[str]) -> Path:
    """The local copy of a repository's files at the commit that the revision means now."""
    try:
        found = snapshot_download(
            hub["repository"],
            revision=hub["revision"] or "main",
            allow_patterns=list(files),
            local_files_only=is_offline_mode(),  # huggingface_hub 1 asks the Hub about a commit even then
        )
    except (HTTPError, OSError, ValueError) as error:
        raise ModelError(f"{spec}: {_why(error, hub)}") from error
    return Path(found)


def _why(error: Exception, hub: re.Match[str]) -> str:
    repository, revision = hub["repository"], hub["revision"] or "main"
    match error:
        case GatedRepoError():
            return f"access to {repository} must be granted. Accept its terms on huggingface.co and set HF_TOKEN."
        case RepositoryNotFoundError():
            return (
                f"neither a directory here nor a model on the Hub that this token may read. Expected {EXPECTED_MODEL}."
            )
        case RevisionNotFoundError():
            return f"{repository} has no revision '{revision}'. Name a branch, a tag or a commit of it."
        case LocalEntryNotFoundError():
            return (
                f"neither a directory here nor whole in the local cache at '{revision}', and the Hub was not reached. "
                f"Check the network and HF_HUB_OFFLINE. Expected {EXPECTED_MODEL}."
            )
        case HfHubHTTPError():
            return f"the Hub answered {error.response.status_code}. Try again later."
        case _:
            return f"could not be fetched: {str(error).splitlines()[0]}."
