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
    judge = yaml_of(text, f"--judge {text}")
    if isinstance(judge, str):
        return {"type": judge}
    if not is_mapping(judge):
        raise RecipeError(f"--judge is {text!r}, expected a judge's type, or a mapping such as '{{type: vader}}'.")
    return dict(judge)


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
