"""Solutions in steps: the parser of verdicts, the cut at a label, and pairs of steps."""

from collections.abc import Callable, Sequence

from prefloop.pairing import better_steps, first_bad_steps
from prefloop.pairing.steps import (
    Continuation,
    first_bad_step,
    first_step,
    split_at_step,
    wrong_answers,
)
from prefloop.pairing.steps import (
    better_steps as better_texts,
)
from prefloop.records import Example, Group, Judgment, Message, Prompt, Response

Read = Callable[[object], list[str]]
QUESTION = Prompt.of((Message(role="user", content="2+2?"),), answer="4")
SOLUTION = "Step 1: one.\nStep 2: two, see Step 1: one.\n\nStep 11: eleven.\n"


def test_a_missing_answer_is_wrong_and_only_so_many_are_taken() -> None:
    assert wrong_answers(["4", None, "5", "6"], "4", 2) == [1, 2]
    assert wrong_answers(["4"], "4", 2) == []
    assert wrong_answers(["1", "2"], "4", 0) == []


def test_the_verdict_behind_the_last_decision_counts() -> None:
    text = "Step 1: incorrect. FINAL DECISION: Step 1: neutral\nfinal decision\n**Step 1**: Correct, Step 12: Incorrect"
    assert first_bad_step(text) == 12
    assert first_bad_step(text, "incorrect_or_neutral") == 12
    assert first_bad_step("final decision: Step 1: neutral; Step 2: incorrect") == 2
    assert first_bad_step("final decision: Step 1: neutral; Step 2: incorrect", "incorrect_or_neutral") == 1
    assert first_bad_step("Step 1: incorrect") is None
    assert first_bad_step("final decision: Step 1: correct") is None


def test_labels_stand_at_the_beginning_of_a_line_and_whole_numbers_count() -> None:
    found = split_at_step(SOLUTION, 1)
    assert found is not None
    assert (found.prefix, found.step) == ("Step 1:", " one.")
    found = split_at_step(SOLUTION, 2)
    assert found is not None
    assert (found.prefix, found.step) == ("Step 1: one.\nStep 2:", " two, see Step 1: one.")
    found = split_at_step(SOLUTION, 11)
    assert found is not None
    assert found.step == " eleven."
    assert split_at_step("so Step 3: no", 3) is None


def test_prefix_and_step_are_the_solution_up_to_the_next_label() -> None:
    for number in (1, 2, 11):
        found = split_at_step(SOLUTION, number)
        assert found is not None
        assert SOLUTION.startswith(found.prefix + found.step)


def test_better_steps_end_right_and_differ() -> None:
    assert first_step(" x.\n\nStep 4: y") == " x."
    said = [Continuation(" a.\nStep 3: b", "4"), Continuation(" a.", "4"), Continuation(" c.\n", "4")]
    said += [Continuation(" d.", "5"), Continuation(" e.", None), Continuation(" bad.\nStep 3: luck", "4")]
    assert better_texts(" bad.\n", "4", said) == [" a.", " c."]


def solution(name: str, tokens: Sequence[int], prompt: Prompt = QUESTION, *, finish_reason: str = "stop") -> Response:
    return Response.model_validate(
        {
            "response_id": name,
            "prompt_id": prompt.prompt_id,
            "root_id": QUESTION.prompt_id,
            "step": "samples",
            "text": name,
            "token_ids": tuple(tokens),
            "finish_reason": finish_reason,
        }
    )


def verdicts(
    name: str, right: float | None, spans: Sequence[tuple[int, int]], values: Sequence[float | None]
) -> list[Judgment]:
    return [
        Judgment(judge="final", kind="label", subjects=(name,), values=(right,)),
        Judgment(judge="steps", kind="steps", subjects=(name,), values=tuple(values), spans=tuple(spans)),
    ]


WRONG = solution("wrong", [1, 10, 11, 2, 20, 21, 3, 30, 9])
SPANS = [(1, 3), (4, 6), (7, 9)]


def question(values: Sequence[float | None] = (1, 0, 1), right: float | None = 0.0) -> Group:
    return Group(prompts=(QUESTION,), responses=(WRONG,), judgments=tuple(verdicts("wrong", right, SPANS, values)))


def test_a_wrong_solution_becomes_a_prompt_up_to_its_first_bad_step(read: Read) -> None:
    (derived,) = first_bad_steps(question())
    assert isinstance(derived, Prompt)
    assert derived.prefix_ids == (1, 10, 11, 2)
    assert (derived.root_id, derived.answer) == (QUESTION.prompt_id, "4")
    (earlier,) = first_bad_steps(question([0.5, 0, 1]), first_bad="incorrect_or_neutral")
    assert isinstance(earlier, Prompt)
    assert earlier.prefix_ids == (1,)
    assert list(first_bad_steps(question([0.5, 0, 1]))) == [derived]
    assert list(first_bad_steps(question([0.9, 0.6, 0.8]), first_bad="least_likely")) == [derived]
    assert list(first_bad_steps(question([0.9, 0.6, 0.6]), first_bad="least_likely")) == [derived]  # the first of them
    assert list(first_bad_steps(question([0.2, None, 0.3]), first_bad="least_likely")) == [earlier]
    assert read(list(first_bad_steps(question([None] * 3), first_bad="least_likely"))) == ["no bad step found"]
    assert read(list(first_bad_steps(question([1, 1, 1]), first_bad="incorrect_or_neutral"))) == ["no bad step found"]
    (missing,) = first_bad_steps(question(right=None))
    assert missing == derived
    assert read(list(first_bad_steps(question([1, 1, None])))) == ["no bad step found"]
    assert read(list(first_bad_steps(question(right=1.0)))) == ["no wrong solution"]
    assert read(list(first_bad_steps(Group(prompts=(QUESTION,), responses=(WRONG,))))) == [
        "no verdict on final answers"
    ]


def test_solutions_with_the_same_beginning_give_one_prompt_and_only_so_many_are_looked_at(read: Read) -> None:
    twin = solution("twin", [1, 10, 11, 2, 77, 78])
    said = (*question().judgments, *verdicts("twin", 0.0, SPANS[:2], (1, 0)))
    group = Group(prompts=(QUESTION,), responses=(WRONG, twin), judgments=said)
    made = list(first_bad_steps(group))
    assert [type(one) for one in made[:1]] == [Prompt]
    assert read(made[1:]) == ["same beginning"]
    assert len(list(first_bad_steps(group, max_per_question=1))) == 1


def pairs_of(*continuations: tuple[Response, list[Judgment]], **options: bool) -> list[object]:
    asked = question()
    (derived,) = first_bad_steps(asked)
    assert isinstance(derived, Prompt)
    judgments = [*asked.judgments, *(said for _, many in continuations for said in many)]
    responses = [WRONG, *(response for response, _ in continuations)]
    group = Group(prompts=(QUESTION, derived), responses=tuple(responses), judgments=tuple(judgments))
    return list(better_steps(group, **options))


def continued(
    name: str, tokens: Sequence[int], right: float, end: int, value: float = 1.0
) -> tuple[Response, list[Judgment]]:
    (derived,) = first_bad_steps(question())
    assert isinstance(derived, Prompt)
    return solution(name, [*derived.prefix_ids, *tokens], derived), verdicts(
        name, right, [(1, 3), (4, end)], (1, value)
    )


def test_a_step_that_leads_to_the_right_answer_meets_the_bad_one() -> None:
    (example,) = pairs_of(continued("better", [40, 41, 3, 44, 9], 1.0, 6))
    assert isinstance(example, Example)
    assert example.prompt.prefix_ids == (1, 10, 11, 2)
    chosen, rejected = example.member("chosen"), example.member("rejected")
    assert (chosen.token_ids, chosen.finished) == ((1, 10, 11, 2, 40, 41), False)
    assert (rejected.token_ids, rejected.finished) == ((1, 10, 11, 2, 20, 21), False)


def test_the_last_step_of_an_answer_keeps_its_end() -> None:
    (example,) = pairs_of(continued("better", [40, 9], 1.0, 6))
    assert isinstance(example, Example)
    assert (example.member("chosen").token_ids, example.member("chosen").finished) == ((1, 10, 11, 2, 40, 9), True)


def test_copies_wrong_ends_and_unsure_steps_are_left_out(read: Read) -> None:
    again = continued("again", [20, 21, 3, 44], 1.0, 6)
    wrong = continued("bad", [50, 51], 0.0, 6)
    first, second = continued("one", [40, 41, 5], 1.0, 6, 0.5), continued("two", [40, 41, 6], 1.0, 6, 0.5)
    assert read(pairs_of(again, wrong)) == ["no better step"]
    assert read(pairs_of(first, second)) == ["one>wrong"]
    assert read(pairs_of(first, second, verified=True)) == ["no better step"]
    assert read(list(better_steps(question()))) == ["no beginning to go on from"]


def test_a_wrong_first_step_meets_right_ones_behind_the_question_itself(read: Read) -> None:
    wrong = solution("wrong", [20, 21, 2, 22], QUESTION)
    right = solution("right", [40, 41, 2, 42], QUESTION)
    said = [*verdicts("wrong", 0.0, [(0, 3), (3, 4)], (0, 1)), *verdicts("right", 1.0, [(0, 2), (2, 4)], (1, 1))]
    group = Group(prompts=(QUESTION,), responses=(wrong, right), judgments=tuple(said))
    (beginning,) = first_bad_steps(group)
    assert beginning == QUESTION
    (example,) = better_steps(group)
    assert isinstance(example, Example)
    assert read([example]) == ["right>wrong"]
    assert [member.token_ids for member in example.members] == [(40, 41), (20, 21, 2)]


def test_a_wrong_step_that_was_followed_by_the_right_end_is_not_rejected(read: Read) -> None:
    lucky, wrong = solution("lucky", [30, 31, 2, 42], QUESTION), solution("wrong", [20, 21, 2, 22], QUESTION)
    right = solution("right", [40, 41, 2, 42], QUESTION)
    said = [*verdicts("lucky", 1.0, [(0, 2), (2, 4)], (0, 1)), *verdicts("wrong", 0.0, [(0, 2), (2, 4)], (0, 1))]
    said += verdicts("right", 1.0, [(0, 2), (2, 4)], (1, 1))
    group = Group(prompts=(QUESTION,), responses=(lucky, wrong, right), judgments=tuple(said))
    assert read(list(better_steps(group, verified=True))) == ["right>wrong"]


def test_a_solution_without_a_verdict_on_its_end_is_not_a_wrong_one(read: Read) -> None:
    asked = question()
    (derived,) = first_bad_steps(asked)
    assert isinstance(derived, Prompt)
    better, said = continued("better", [40, 41], 1.0, 6)
    steps_alone = [one for one in asked.judgments if one.kind == "steps"]
    group = Group(prompts=(QUESTION, derived), responses=(WRONG, better), judgments=(*steps_alone, *said))
    assert read(list(better_steps(group))) == ["bad step not found again"]
