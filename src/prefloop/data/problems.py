"""Everything that can be wrong with a row of a data set: stable codes, what becomes of the row, and what to do."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Fate = Literal["refused", "warned"]


@dataclass(frozen=True)
class Code:
    """What a reason code means; its name never changes."""

    fate: Fate
    """A refused row is left out and goes to quarantine; a warned one is used."""
    meaning: str
    fix: str


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with one row."""

    code: str
    detail: str
    """What was found and where in the row, in a few words."""

    @property
    def fate(self) -> Fate:
        """What becomes of the row because of it."""
        return CODES[self.code].fate


def shortened(text: str) -> str:
    """A text that fits a message."""
    return text if len(text) <= 60 else f"{text[:57]}..."


class RowRefused(Exception):  # noqa: N818
    """A row cannot be read as its format says; carries the problem."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.problem = Problem(code, detail)


CODES: Mapping[str, Code] = {
    # The line.
    "invalid_utf8": Code("refused", "the bytes are not UTF-8", "Write the file again as UTF-8."),
    "byte_order_mark": Code("warned", "the file begins with a byte order mark", "Write the file without it."),
    "nul": Code("refused", "the row holds a NUL character", "Remove it; it is usually a damaged file."),
    "lone_surrogate": Code("refused", "half of a surrogate pair", "Escape or encode the character as a whole."),
    "line_too_long": Code("refused", "the line is longer than 64 MiB", "Split it, or remove what is not text."),
    "empty_line": Code("refused", "the line is empty", "Remove the line."),
    "invalid_json": Code("refused", "the line is not JSON, or it is cut off", "Write one JSON object a line."),
    "not_an_object": Code("refused", "the row is JSON, but no object", "Write one JSON object a line."),
    "invalid_csv": Code("refused", "the row is not CSV under its header", "Quote cells, one for each column."),
    "duplicate_key": Code("refused", "a key stands twice in one object", "Keep one of the two values."),
    # The fields.
    "missing_field": Code("refused", "a field that the format needs is not there", "Fill it in or remove the row."),
    "wrong_type": Code("refused", "a field holds something else than its format says", "Write what the format says."),
    "empty_text": Code("refused", "a prompt or an answer is empty or only white space", "Fill it in or remove it."),
    "not_finite": Code("refused", "a score or a weight is NaN or infinite", "Write a finite number, or leave it out."),
    "out_of_range": Code("refused", "a number lies outside its range", "Correct it, or leave it out."),
    # The conversation.
    "unknown_role": Code("refused", "a turn has a role that no format knows", "Use system, user, assistant, tool."),
    "two_system_turns": Code("refused", "more than one system turn", "Join them into one."),
    "empty_message": Code("refused", "a turn says nothing", "Fill it in or remove the turn."),
    "ends_with_answer": Code(
        "refused", "the prompt ends with an assistant turn", "End it with what is to be answered."
    ),
    "last_turn_not_assistant": Code("refused", "an answer does not end with an assistant turn", "Add the answer."),
    "tool_call_answer": Code("refused", "an answer calls a tool; only answers in words are read", "Remove the row."),
    "different_prompts": Code("refused", "the two answers do not follow the same prompt", "Give both one prompt."),
    # The preference.
    "identical": Code("refused", "chosen and rejected are the same text", "Remove the row."),
    "identical_normalised": Code(
        "warned", "chosen and rejected differ only in case, white space or Unicode form", "Remove the row, or see why."
    ),
    "tie": Code("refused", "the row prefers neither answer", "Remove the row; a tie teaches nothing."),
    "scores_contradict": Code("warned", "the rejected answer has the higher score", "Exchange them, or see why."),
    "equal_scores": Code(
        "warned", "chosen and rejected have the same score", "Remove the row, or see what made it a preference."
    ),
    # Between rows.
    "duplicate_row": Code("warned", "the same prompt and answers stand in an earlier row", "Remove one of them."),
    "duplicate_id": Code("warned", "an earlier row has the same id and the same content", "Remove one of them."),
    "conflicting_id": Code("warned", "an earlier row has the same id and other content", "Give every row its own id."),
    "contradictory_pair": Code("warned", "an earlier row prefers the other answer", "Remove the wrong one, or both."),
    "contradictory_label": Code(
        "warned", "an earlier row labels the same answer the other way", "Remove the wrong one, or both."
    ),
    # With evaluation prompts.
    "eval_prompt": Code("refused", "the prompt is one of the evaluation's", "Remove the row."),
    "eval_prompt_normalised": Code(
        "refused", "the prompt is one of the evaluation's but for case, white space and punctuation", "Remove the row."
    ),
    "eval_prompt_ngram": Code(
        "warned", "the prompt shares 13 words in a row with one of the evaluation's", "Remove the row, or see why."
    ),
    # With a model.
    "control_token": Code("warned", "a control token of the template stands in a text", "Remove it from the text."),
    "prompt_too_long": Code("refused", "the prompt leaves no room for an answer", "Raise max_length, or shorten it."),
    "too_long": Code("refused", "prompt and answer are longer than max_length", "Raise max_length, or choose to cut."),
    "cut": Code("warned", "the row is cut to max_length", "Raise max_length to keep it whole."),
    "nothing_left": Code("refused", "an answer has no token left that counts", "Raise max_length."),
    "identical_cut": Code("refused", "the two answers are the same after cutting", "Raise max_length."),
    "template_refuses": Code("refused", "the model's template refuses the conversation", "Rewrite the turns."),
    "not_a_prefix": Code(
        "warned",
        "the template writes the prompt with other tokens once an answer follows it",
        "Nothing, if the model is sampled with its generation prompt; else repair the template.",
    ),
}
"""Reason codes. `prefloop lint` and `prefloop run` count by them, and scripts may rely on them."""
