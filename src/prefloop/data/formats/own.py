"""Lines that prefloop itself writes: given rows, and the examples of a run."""

from pydantic import ValidationError

from prefloop.data.formats.assembly import (
    dataset_judge,
)
from prefloop.data.formats.fields import (
    Values,
)
from prefloop.data.formats.registry import MAPPING, MAPPINGS, TEXT, Format, register
from prefloop.data.given import Given, given_response
from prefloop.data.problems import RowRefused
from prefloop.records import Example, Judgment, Member


def _given(values: Values, place: str) -> Given:
    try:
        given = Given.model_validate({key: value for key, value in values.items() if key in Given.model_fields})
    except ValidationError as error:
        raise _refused(error) from error
    known = {response.response_id for response in given.responses}
    for judgment in given.judgments:
        if unknown := set(judgment.subjects) - known:
            raise RowRefused("missing_field", f"a judgment speaks of {sorted(unknown)[0]}, which no response is")
    return given.model_copy(update={"prompt": given.prompt.model_copy(update={"source": place})})


def _example(values: Values, place: str) -> Given:
    """The pair of an example. Its tokens are left out, they belong to one model; a cut answer stays a cut one."""
    try:
        example = Example.model_validate({key: value for key, value in values.items() if key in Example.model_fields})
    except ValidationError as error:
        raise _refused(error) from error
    members = {member.role: member for member in example.members}
    if members.keys() != {"chosen", "rejected"} or len(example.members) != 2:
        raise RowRefused("wrong_type", f"members are {', '.join(members)}, expected one chosen and one rejected")
    prompt = example.prompt.model_copy(update={"source": place})
    both = (members["chosen"], members["rejected"])
    responses = tuple(
        given_response(prompt, one.text).model_copy(
            update={"thinking": one.thinking, "finish_reason": "given" if one.finished else "length"}
        )
        for one in both
    )
    judge, subjects = dataset_judge(place), tuple(response.response_id for response in responses)
    preference = Judgment(
        judge=judge,
        kind="preference",
        subjects=subjects,
        values=(example.numbers.get("prob_chosen_wins", 1.0),),
        numbers=_numbers_beside(example),
    )
    scores = _scores(both)
    scored = (Judgment(judge=judge, kind="score", subjects=subjects, values=scores),) if scores else ()
    return Given(prompt=prompt, responses=responses, judgments=(preference, *scored), row_id=example.example_id)


def _numbers_beside(example: Example) -> dict[str, float]:
    weight = {} if example.weight == 1 else {"weight": example.weight}
    return weight | {key: value for key, value in example.numbers.items() if key != "prob_chosen_wins"}


def _scores(members: tuple[Member, Member]) -> tuple[float, ...]:
    found = [member.numbers.get("score") for member in members]
    return tuple(score for score in found if score is not None) if None not in found else ()


def _refused(error: ValidationError) -> RowRefused:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return RowRefused("wrong_type", f"{where}: {first['msg']}")


register(
    Format(
        "prefloop",
        "prefloop rows",
        {"prompt": MAPPING},
        frozenset({"responses", "judgments", "row_id"}),
        _given,
        '{"prompt": {"prompt_id": "p", "root_id": "p", "messages": [{"role": "user", "content": "How are you?"}]}, '
        '"responses": [{"response_id": "r", "prompt_id": "p", "root_id": "p", "step": "given", '
        '"text": "Fine, thanks.", "ids_from": "text", "finish_reason": "given"}], '
        '"judgments": [{"judge": "human:ann", "kind": "score", "subjects": ["r"], "values": [8.5]}], "row_id": "1"}',
    )
)
register(
    Format(
        "prefloop_examples",
        "examples of a prefloop run",
        {"example_id": TEXT, "prompt": MAPPING, "members": MAPPINGS},
        frozenset({"weight", "numbers", "why"}),
        _example,
        '{"example_id": "e", '
        '"prompt": {"prompt_id": "p", "root_id": "p", "messages": [{"role": "user", "content": "How are you?"}]}, '
        '"members": [{"role": "chosen", "response_id": "a", "text": "Fine, thanks.", "numbers": {"score": 8.5}}, '
        '{"role": "rejected", "response_id": "b", "text": "Go away.", "numbers": {"score": 2.0}}], '
        '"weight": 0.5, "why": "best_worst: 8.50 against 2.00 of 4"}',
    )
)
