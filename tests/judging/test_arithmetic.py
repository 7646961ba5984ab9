"""Calculations done again, and the tokens of the steps that they stand in."""

from dataclasses import replace

import pytest

from prefloop.config import ArithmeticStepsJudge
from prefloop.judging import Ask, JudgeMachine, make_judge
from prefloop.judging.arithmetic import ArithmeticSteps, steps_of, verdict_on
from prefloop.judging.make import ANYWHERE
from prefloop.pairing import first_bad_steps
from prefloop.policy import ChatCodec, resolve_model
from prefloop.records import Group, Judgment, Prompt

from .conftest import PROMPT, answer


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (" 3 + 4 = 7.", 1.0),
        (" 3 + 4 = 8.", 0.0),
        (" There are three apples.", 0.5),
        (" x = 4 and 2x = 8", 0.5),
        (" 2 * (3 + 4) = 14", 1.0),
        (" 2 * 3 + 4 = 14", 0.0),
        (" 10 - 2 - 3 = 5", 1.0),
        (" 12 / 4 / 3 = 1", 1.0),
        (" 10 - 2 = 8, so 8 x 3 = 24", 1.0),
        (" 10 - 2 = 8, so 8 x 3 = 25", 0.0),
        (" $1,250 - $50 = $1,200", 1.0),
        (" $1,250 - $50 = $1,100", 0.0),
        (" 20% * 50 = 10", 1.0),
        (" 5 / 20 = 25%", 1.0),
        (" 5 / 20 = 35%", 0.0),
        (" 10 / 3 = 3.33", 1.0),
        (" 10 / 3 = 3.34", 1.0),
        (" 10 / 3 = 3.5", 0.0),
        (" 7 / 2 = 3", 1.0),
        (" 7 / 2 = 5", 0.0),
        (" 0.1 + 0.2 = 0.3", 1.0),
        (" 0.1 + 0.2 = 0.4", 0.0),
        (" 2 + 2 = 4.5", 0.0),
        (" 3 - 5 = -2", 1.0),
        (" 3 - 5 = 2", 0.0),
        (" -3 + 5 = 2", 1.0),
        (" 6 \N{MULTIPLICATION SIGN} 7 = 42", 1.0),
        (" 6 \N{MULTIPLICATION SIGN} 7 = 43", 0.0),
        (" 5 / 0 = 0", 0.5),
        (" 12 - 2 = 5 * 2", 0.5),
        (" 3 + 4 = 7.5", 0.0),
        (" 3 + 4 = 70", 0.0),
        (" 3+4=7", 1.0),
        (" (3 + 4 = 7", 0.5),
    ],
)
def test_calculations_of_a_step_are_done_again(step: str, expected: float) -> None:
    assert verdict_on(step) == expected


SOLUTION = "Step 1: 3 + 4 = 7.\nStep 2: Take two away, 7 - 2 = 6.\nStep 3: Nothing is left.\n\nThe answer is 6."


@pytest.fixture(scope="module")
def codec() -> ChatCodec:
    return ChatCodec.load(resolve_model("builtin:tiny").directory, {})


def test_a_step_is_the_tokens_behind_its_label_up_to_the_next(codec: ChatCodec) -> None:
    tokens = codec.response_ids(SOLUTION, finished=True)
    solution = answer(SOLUTION).model_copy(update={"token_ids": tokens})
    steps = steps_of(solution, codec.text_of)
    assert [text for text, _ in steps] == [
        " 3 + 4 = 7.",
        " Take two away, 7 - 2 = 6.",
        " Nothing is left.\n\nThe answer is 6.",
    ]
    text = codec.text_of(tokens)
    for said, (first, last) in steps:
        assert codec.text_of(tokens[first:last]).strip() == said.strip()
        assert codec.text_of(tokens[:first]).endswith(":")
        assert text.startswith(codec.text_of(tokens[:last]))
    assert steps[-1][1][1] == len(tokens)  # EOS belongs to the last step
    assert tokens[-1] in codec.eos_ids


def test_verdicts_on_steps_are_what_the_rule_of_step_dpo_reads(codec: ChatCodec) -> None:
    prompt = Prompt.of(PROMPT.messages, answer="5")
    tokens = codec.response_ids(SOLUTION, finished=True)
    solution = answer(SOLUTION, prompt).model_copy(update={"token_ids": tokens})
    machine = JudgeMachine(ANYWHERE.device, ANYWHERE.tokens_per_batch, codec.text_of)
    judge = make_judge(ArithmeticStepsJudge(type="arithmetic_steps"), machine)
    ((_, verdict),) = judge.judge([Ask(prompt, (solution,))])
    assert verdict.values == (1.0, 0.0, 0.5)
    said = [
        Judgment(judge="final", kind="label", subjects=("r",), values=(0.0,)),
        Judgment(judge=judge.name, kind="steps", subjects=("r",), values=verdict.values, spans=verdict.spans),
    ]
    (derived,) = first_bad_steps(Group((prompt,), (solution,), tuple(said)))
    assert isinstance(derived, Prompt)
    assert codec.text_of(derived.prefix_ids) == "Step 1: 3 + 4 = 7.\nStep 2:"


def test_an_answer_without_steps_has_no_verdicts() -> None:
    ((_, verdict),) = ArithmeticSteps(lambda _tokens: "7").judge([Ask(PROMPT, (answer("7"),))])
    assert (verdict.values, verdict.spans) == ((), ())


def test_a_step_is_a_line_where_so_asked(codec: ChatCodec) -> None:
    text = "3 + 4 = 7\n\n7 - 2 = 6\nA: 6"
    tokens = codec.response_ids(text, finished=True)
    solution = answer(text).model_copy(update={"token_ids": tokens})
    judge = make_judge(
        ArithmeticStepsJudge(type="arithmetic_steps", steps="lines"), replace(ANYWHERE, text_of=codec.text_of)
    )
    ((_, verdict),) = judge.judge([Ask(PROMPT, (solution,))])
    assert judge.name == "rule:arithmetic_steps:lines"
    assert verdict.values == (1.0, 0.0, 0.5)
    assert [codec.text_of(tokens[first:last]) for first, last in verdict.spans] == [
        "3 + 4 = 7\n\n", "7 - 2 = 6\n", codec.text_of(tokens)[-4:]
    ]  # fmt: skip
    assert (verdict.spans[0][0], verdict.spans[-1][1]) == (0, len(tokens))
    labelled = make_judge(ArithmeticStepsJudge(type="arithmetic_steps"), replace(ANYWHERE, text_of=codec.text_of))
    assert next(labelled.judge([Ask(PROMPT, (solution,))]))[1].values == ()
