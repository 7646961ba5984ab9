"""What a row of a data set becomes: a prompt, given responses and given judgments. Pairing need not know its format."""

from prefloop.records import Judgment, Prompt, Record, Response, digest


class Given(Record):
    """One row of a data set as records: also a line of the form `prefloop` that `convert` writes."""

    prompt: Prompt
    responses: tuple[Response, ...] = ()
    judgments: tuple[Judgment, ...] = ()
    """What the row says of the answers: preferences, scores by aspect, a ranking, labels."""
    row_id: str | None = None
    """The row's own name in its data set, where it has one."""


def given_response(prompt: Prompt, text: str) -> Response:
    """An answer that a data set brought, as text."""
    return Response(
        response_id=digest([prompt.prompt_id, "given", text])[:16],
        prompt_id=prompt.prompt_id,
        root_id=prompt.root_id,
        step="given",
        text=text,
        ids_from="text",
        finish_reason="given",
    )
