"""What a command line says in YAML: values of settings, and judges."""

import re
from typing import Any, cast

import yaml

from prefloop.config.base import is_mapping
from prefloop.errors import RecipeError

SCIENTIFIC = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


def setting(text: str, *, example: str) -> dict[str, Any]:
    """`KEY.KEY=VALUE` as mappings in mappings.

    Args:
        text: What follows `--set`.
        example: Of such a text, for the message.

    Raises:
        RecipeError: it is something else, or the value is not YAML.
    """
    path, equals, said = text.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise RecipeError(f"--set {text}: expected KEY.KEY=VALUE, for example --set {example}.")
    value = yaml_of(said, f"--set ...={said}")
    for key in reversed(keys):
        value = {key: value}
    return cast("dict[str, Any]", value)


def judge_of(text: str) -> dict[str, Any]:
    """A judge by its type alone, or with its settings: `vader`, `{type: vader, unit: text}`.

    Raises:
        RecipeError: it is neither.
    """
    return _typed("judge", text, "{type: vader}")


def sampler_of(text: str) -> dict[str, Any]:
    """Who samples, as a sample step has it: `local`, `{type: server, url: http://localhost:8000/v1, model: mine}`.

    Raises:
        RecipeError: it is neither.
    """
    return _typed("sampler", text, "{type: server, url: http://localhost:8000/v1, model: mine}")


def _typed(option: str, text: str, example: str) -> dict[str, Any]:
    said = yaml_of(text, f"--{option} {text}")
    if isinstance(said, str):
        return {"type": said}
    if not is_mapping(said):
        raise RecipeError(f"--{option} is {text!r}, expected a {option}'s type, or a mapping such as '{example}'.")
    return dict(said)


def yaml_of(text: str, where: str) -> Any:
    """A value written in YAML, whose words that are numbers are numbers.

    Raises:
        RecipeError: it is not YAML.
    """
    try:
        return numbers(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise RecipeError(f"{where}: not YAML: {' '.join(str(error).split())}") from error


def numbers(value: Any) -> Any:
    """Words that are numbers in scientific notation (`5e-7`), which YAML 1.1 leaves as words, become numbers."""
    if is_mapping(value):
        return {key: numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [numbers(item) for item in cast("list[Any]", value)]
    if isinstance(value, str) and SCIENTIFIC.fullmatch(value):
        return float(value)
    return value
