"""Checks of a data set's rows with a model: what its template and its tokenizer make of them."""

from collections.abc import Iterator

from prefloop.data import Check, Given
from prefloop.data.problems import Problem
from prefloop.pairing import member
from prefloop.policy.encoding import EncodingSettings, Truncation, encoded
from prefloop.policy.template import ChatCodec
from prefloop.records import Example

WITHOUT_LIMIT = 2**40


def token_checks(codec: ChatCodec, max_length: int | None = None, truncation: Truncation = "drop") -> Check:
    """What training with this model would find wrong with a row.

    Args:
        codec: of the model.
        max_length: tokens of prompt and answer; None sets no limit.
        truncation: what becomes of longer rows.
    """
    settings = EncodingSettings(max_length or WITHOUT_LIMIT, truncation)

    def check(given: Given) -> Iterator[Problem]:
        yield from _control_tokens(given, codec)
        (made,) = encoded([all_answers(given)], codec, settings)
        for code in (*((made.left_out,) if made.left_out else ()), *made.warned):
            yield Problem(code, _detail(code, given, max_length))

    return check


def _control_tokens(given: Given, codec: ChatCodec) -> Iterator[Problem]:
    texts = [(f"the {message.role} turn", message.content) for message in given.prompt.messages]
    texts += [(f"answer {number}", response.text) for number, response in enumerate(given.responses, start=1)]
    for where, text in texts:
        if found := codec.control_tokens.search(text):
            yield Problem("control_token", f"{found.group()} in {where}")
            return


def all_answers(given: Given) -> Example:
    """The row's answers in one example, whatever is said of them."""
    members = tuple(member("response", response) for response in given.responses)
    return Example(example_id=given.prompt.prompt_id, prompt=given.prompt, members=members, why="all answers")


def _detail(code: str, given: Given, max_length: int | None) -> str:
    if code == "template_refuses":
        return "roles " + ", ".join(message.role for message in given.prompt.messages)
    if code == "not_a_prefix":
        return "the end of the generation prompt"
    return f"max_length {max_length}"
