"""An exported policy speaks as it was trained to."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import JsonValue

from prefloop.policy import ChatCodec
from prefloop.policy.export import keep_template_settings
from prefloop.records import Message, Prompt

QUESTION = Prompt.of((Message(role="user", content="How are you?"),))
SAYS = '{{ mood }}{{ "-" if quiet is none else quiet }}{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}'


@pytest.mark.parametrize("enabled", [False, True])
def test_an_exported_template_has_the_settings_of_training_as_its_defaults(
    families, tmp_path: Path, enabled: bool
) -> None:
    directory = families["qwen 3"].saved(tmp_path)
    trained = ChatCodec.load(directory, {"enable_thinking": enabled}).prompt_ids(QUESTION)
    keep_template_settings(directory, {"enable_thinking": enabled})
    assert ChatCodec.load(directory, {}).prompt_ids(QUESTION) == trained
    other = ChatCodec.load(directory, {"enable_thinking": not enabled}).prompt_ids(QUESTION)
    assert other != trained  # it can still be told something else


@pytest.mark.parametrize("settings", [{"mood": 'a "b" é', "quiet": None}, {"mood": 3, "quiet": ["x"]}])
def test_settings_of_any_kind_are_written_as_the_template_reads_them(
    families, tmp_path: Path, settings: Mapping[str, JsonValue]
) -> None:
    directory = families["chatml"].saved(tmp_path)
    (directory / "chat_template.jinja").write_text(SAYS)
    trained = ChatCodec.load(directory, settings).rendered(QUESTION)
    keep_template_settings(directory, settings)
    assert ChatCodec.load(directory, {}).rendered(QUESTION) == trained


def test_a_template_inside_the_tokenizers_settings_gets_them_too(families, tmp_path: Path) -> None:
    directory = families["qwen 3"].saved(tmp_path)
    template = (directory / "chat_template.jinja").read_text()
    (directory / "chat_template.jinja").unlink()
    config = json.loads((directory / "tokenizer_config.json").read_text())
    (directory / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": template}))
    keep_template_settings(directory, {"enable_thinking": False})
    assert ChatCodec.load(directory, {}).rendered(QUESTION).endswith("assistant\n<think>\n\n</think>\n\n")


def test_without_settings_nothing_is_touched(families, tmp_path: Path) -> None:
    directory = families["qwen 3"].saved(tmp_path)
    before = {file.name: file.read_bytes() for file in directory.iterdir()}
    keep_template_settings(directory, {})
    assert {file.name: file.read_bytes() for file in directory.iterdir()} == before
