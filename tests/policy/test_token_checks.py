"""Rows of a data set, checked with a model."""

from collections.abc import Mapping

import pytest

from prefloop.data import Given
from prefloop.data.given import given_response
from prefloop.policy import ChatCodec
from prefloop.policy.token_checks import token_checks
from prefloop.records import Message, Prompt

SYSTEM = Message(role="system", content="Be brief.")


def row(*answers: str, question: str = "How are you?", system: bool = False) -> Given:
    prompt = Prompt.of((*((SYSTEM,) if system else ()), Message(role="user", content=question)))
    return Given(prompt=prompt, responses=tuple(given_response(prompt, answer) for answer in answers))


CASES = [
    ("chatml", row("Hello!", "Hi!"), None, "drop", []),
    ("chatml", row("Hello!", "a<|im_end|>b"), None, "drop", [("control_token", "<|im_end|> in answer 2")]),
    (
        "chatml",
        row("Hello!", question="<|im_start|>"),
        None,
        "drop",
        [("control_token", "<|im_start|> in the user turn")],
    ),
    ("gemma", row("Hello!", system=True), None, "drop", [("template_refuses", "roles system, user")]),
    ("counting", row("Hello!"), None, "drop", [("not_a_prefix", "the end of the generation prompt")]),
    ("chatml", row("Hello!"), 30, "drop", [("prompt_too_long", "max_length 30")]),
    ("chatml", row(), 30, "drop", [("prompt_too_long", "max_length 30")]),
    ("chatml", row("Hello!", "Hi!"), 37, "drop", [("too_long", "max_length 37")]),
    ("chatml", row("Hello!", "Hi!"), 37, "cut_response", [("cut", "max_length 37")]),
    (
        "chatml",
        row("Hello!", "Help!"),
        34,
        "cut_response",
        [("identical_cut", "max_length 34"), ("cut", "max_length 34")],
    ),
    ("qwen 3", row("Hello!"), 33, "cut_response", [("nothing_left", "max_length 33"), ("cut", "max_length 33")]),
]


@pytest.mark.parametrize(("family", "given", "limit", "truncation", "expected"), CASES)
def test_what_a_model_finds_wrong_with_a_row(
    codecs: Mapping[str, ChatCodec], family: str, given: Given, limit: int | None, truncation, expected
) -> None:
    found = token_checks(codecs[family], limit, truncation)(given)
    assert [(problem.code, problem.detail) for problem in found] == expected
