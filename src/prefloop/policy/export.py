"""An exported policy's chat template, which speaks as the policy was trained to without being told anything."""

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue

TEMPLATE = "chat_template.jinja"
CONFIG = "tokenizer_config.json"


def keep_template_settings(directory: Path, chat_template_kwargs: Mapping[str, JsonValue]) -> None:
    """Makes the settings that a template was rendered with its defaults, wherever it is written in a directory.

    Who loads the policy elsewhere then gets the prompts of its training, and may still set something else.
    """
    if not chat_template_kwargs:
        return
    defaults = "".join(_default(name, value) for name, value in chat_template_kwargs.items())
    for file in (directory / TEMPLATE, *directory.glob("additional_chat_templates/*.jinja")):
        if file.is_file():
            file.write_text(defaults + file.read_text(encoding="utf-8"), encoding="utf-8")
    file = directory / CONFIG
    config = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if isinstance(config.get("chat_template"), str):
        config["chat_template"] = defaults + config["chat_template"]
        file.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _default(name: str, value: JsonValue) -> str:
    literal = "none" if value is None else json.dumps(value, ensure_ascii=False)
    return f"{{% if {name} is not defined %}}{{% set {name} = {literal} %}}{{% endif %}}"
