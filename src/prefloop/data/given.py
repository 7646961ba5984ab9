"""What a row of a data set becomes: a prompt, given responses and given judgments. Pairing need not know its format."""

import re

from prefloop.records import Judgment, Prompt, Record, Response, digest

_THINKING = re.compile(r"\s*<think>\n?(?P<thinking>.*?)(?:\n?</think>\n*(?P<text>.*))?", re.DOTALL)


class Given(Record):
    """One row of a data set as records: also a line of the form `prefloop` that `convert` writes."""

    prompt: Prompt
    responses: tuple[Response, ...] = ()
    judgments: tuple[Judgment, ...] = ()
    """What the row says of the answers: preferences, scores by aspect, a ranking, labels."""
    row_id: str | None = None
    """The row's own name in its data set, where it has one."""


def given_response(prompt: Prompt, text: str) -> Response:
    """An answer that a data set brought, as text; a thinking part at its beginning is kept apart.

    One whose thinking part has no end is a cut answer.
    """
    found = _THINKING.fullmatch(text)
    return Response(
        response_id=digest([prompt.prompt_id, "given", text])[:16],
        prompt_id=prompt.prompt_id,
        root_id=prompt.root_id,
        step="given",
        text=text if found is None else found["text"] or "",
        thinking="" if found is None else found["thinking"],
        ids_from="text",
        finish_reason="length" if found is not None and found["text"] is None else "given",
    )


def whole_text(response: Response) -> str:
    """An answer as data sets write it, its thinking part before it."""
    if not response.thinking:
        return response.text
    end = "" if response.finish_reason == "length" else f"\n</think>\n\n{response.text}"
    return f"<think>\n{response.thinking}{end}"
