"""Evaluation prompts that stand in a training set."""

import pytest

from prefloop.data import Given, Leaks
from prefloop.data.leaks import NGRAM, TEMPLATE
from prefloop.records import Message, Prompt

LONG = "Write a short and friendly note to a neighbour who left his bicycle in front of your garage door again"


def prompt(*turns: str, place: str = "mine.jsonl:1") -> Prompt:
    """Turns of the user and the assistant in turn; the last one is the user's."""
    roles = ("assistant", "user")
    first = len(turns) % 2
    messages = tuple(
        Message.model_validate({"role": roles[(number + first) % 2], "content": turn})
        for number, turn in enumerate(turns)
    )
    assert messages[-1].role == "user"
    return Prompt.of(messages, source=place)


def found(evaluation: list[Prompt], *turns: str) -> dict[str, str]:
    return {problem.code: problem.detail for problem in Leaks(evaluation)(Given(prompt=prompt(*turns)))}


def suite(*turns: str) -> list[Prompt]:
    return [prompt(*turns, place="eval.jsonl:7")]


def test_the_same_prompt() -> None:
    assert found(suite(LONG), LONG) == {"eval_prompt": "the same as eval.jsonl:7"}


@pytest.mark.parametrize("text", ["What is 2 plus 2?", "Why?"])
def test_short_prompts_are_found_as_a_whole(text: str) -> None:
    assert found(suite(text), text) == {"eval_prompt": "the same as eval.jsonl:7"}


@pytest.mark.parametrize("text", [LONG.upper(), f"  {LONG}!!", LONG.replace(" ", "\n"), LONG.replace(" and", ", and")])
def test_the_same_but_for_case_white_space_and_punctuation(text: str) -> None:
    assert found(suite(LONG), text) == {"eval_prompt_normalised": "nearly the same as eval.jsonl:7"}


def test_thirteen_words_in_a_row() -> None:
    words = LONG.split()
    run = " ".join(words[2 : 2 + NGRAM])
    assert found(suite(LONG), f"Please {run}, thank you.") == {
        "eval_prompt_ngram": f'"{run.lower()}" stands in eval.jsonl:7'
    }
    assert found(suite(LONG), f"Please {' '.join(words[2 : 1 + NGRAM])}, thank you.") == {}


def test_thirteen_words_are_looked_for_in_every_turn() -> None:
    assert list(found(suite(LONG), "Be kind.", f"I was told: {LONG}", "Do it.")) == ["eval_prompt_ngram"]


def test_a_prompt_of_twelve_words_shares_no_run() -> None:
    twelve = " ".join(LONG.split()[:12])
    assert found(suite(twelve), f"Please {twelve}") == {}


def test_an_earlier_turn_that_is_an_evaluation_prompt() -> None:
    text = "What do you think of rain?"
    assert list(found(suite(text), text, "I like it.", "Why is that?")) == ["eval_prompt"]


def test_greetings_are_no_prompts() -> None:
    """All everyday prompts, held out or not, follow the same greeting."""
    assert found(suite("Hi there!", "Hello!", "Where is the sea?"), "Hi there!", "Hello!", "Where is the moon?") == {}
    assert found(suite("Hi there!"), "Hi there!", "Hello!", "Where is the moon?") == {}


def test_a_short_last_turn_counts_with_what_comes_before_it() -> None:
    evaluation = suite("Name a river in Europe.", "The Rhine.", "Go on.")
    assert found(evaluation, "Name a town in Asia.", "Kyoto.", "Go on.") == {}
    assert list(found(evaluation, "Name a river in Europe.", "The Danube.", "Go on.")) == ["eval_prompt"]


def test_wording_that_the_whole_suite_shares_is_no_leak() -> None:
    template = "Answer the following question in one sentence and do not explain what you are doing:"
    evaluation = [prompt(f"{template} What is {number}?") for number in range(TEMPLATE + 1)]
    assert found(evaluation, f"{template} Who was Bach?") == {}
    assert list(found(evaluation[:TEMPLATE], f"{template} Who was Bach?")) == ["eval_prompt_ngram"]


def test_other_prompts_are_no_leak() -> None:
    assert found(suite(LONG), "Where is the moon?") == {}
