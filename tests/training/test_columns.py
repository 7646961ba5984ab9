"""What training knows of examples without a model."""

import pytest
import torch

from prefloop.errors import DataError
from prefloop.objectives import Objective, Quantity, find_objective, parse_quantity
from prefloop.policy import TokenRow
from prefloop.records import Example, Member, Message, Prompt
from prefloop.training import TokenExample, data_columns
from prefloop.training.columns import column, picked

DPO = find_objective("dpo", "here")


def reading(*names: str) -> Objective:
    """An objective that reads two answers and some more."""
    quantities: tuple[Quantity, ...] = tuple(parse_quantity(name) for name in names)
    return Objective("it", DPO.function, "", (*DPO.quantities, *quantities), DPO.options)


def example(
    chosen: dict[str, float], marked: tuple[bool, ...] = (False, False, False), **numbers: float
) -> TokenExample:
    """A prompt of four tokens, two of them a given beginning of the answer; one token of the second is not counted."""
    members = (
        Member(role="chosen", response_id="a", text="", numbers=chosen),
        Member(role="rejected", response_id="b", text="", numbers={"score": -1.0}),
    )
    prompt = Prompt.of((Message(role="user", content="?"),), prefix_ids=(8, 9))
    marks = {"chosen": marked, "rejected": (False, False)}
    rows = {
        "chosen": TokenRow((1, 2, 8, 9), (3, 4, 5), (True, True, True)),
        "rejected": TokenRow((1, 2, 8, 9), (6, 7), (False, True)),
    }
    made = Example(example_id="e", prompt=prompt, members=members, numbers=numbers, why="test")
    return TokenExample.of(made, rows, marks)


def test_numbers_of_answers_and_of_examples_are_read_where_they_stand() -> None:
    examples = [
        example({"score": 2.0, "win_prob": 0.9}, margin=0.5),
        example({"score": 3.5, "win_prob": 0.7}, margin=1),
    ]
    found = data_columns(examples, reading("chosen_scores", "rejected_scores", "chosen_win_probs", "margin"))
    assert {name: picked(values, [1, 0]).tolist() for name, values in found.items()} == {
        "chosen_lengths": [3.0, 3.0],
        "rejected_lengths": [1.0, 1.0],
        "weights": [1.0, 1.0],
        "chosen_scores": [3.5, 2.0],
        "rejected_scores": [-1.0, -1.0],
        "chosen_win_probs": [0.7, 0.9],
        "margin": [1.0, 0.5],
    }


def test_tokens_are_known_by_mask_id_and_mark() -> None:
    names = (
        "chosen_token_mask",
        "rejected_token_mask",
        "chosen_token_ids",
        "chosen_diff_mask",
        "rejected_prefix_lengths",
    )
    found = data_columns([example({}, marked=(True, False, True))], reading(*names, "prompt_lengths"))
    assert {name: picked(found[name], [0]).tolist() for name in (*names, "prompt_lengths")} == {
        "chosen_token_mask": [[True, True, True]],
        "rejected_token_mask": [[False, True]],
        "chosen_token_ids": [[3, 4, 5]],
        "chosen_diff_mask": [[True, False, True]],
        "rejected_prefix_lengths": [1],
        "prompt_lengths": [3.0],
    }


def test_tokens_are_padded_on_the_right_to_the_longest_that_is_asked_for() -> None:
    of_all = column([[1.0], [2.0, 3.0], [4.0, 5.0, 6.0]])
    assert picked(of_all, [1, 0]).tolist() == [[2.0, 3.0], [1.0, 0.0]]
    assert picked(column([[True], [True, True]], torch.bool), [0, 1]).tolist() == [[True, False], [True, True]]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "chosen_scores",
            "it reads chosen_scores, but in 1 of 2 examples the chosen answer has no number 'score'. "
            "Choose a rule or data that give it.",
        ),
        (
            "similarity",
            "it reads similarity, but in 2 of 2 examples the example has no number 'similarity'. "
            "Choose a rule or data that give it.",
        ),
    ],
)
def test_a_number_that_examples_lack_is_an_error_that_says_which(name: str, message: str) -> None:
    with pytest.raises(DataError) as raised:
        data_columns([example({"score": 1.0}), example({})], reading(name))
    assert str(raised.value) == message


def test_soft_labels_need_to_know_how_often_the_chosen_answer_wins() -> None:
    with pytest.raises(DataError, match="it reads prob_chosen_wins, but in 1 of 2 examples the example has no number"):
        data_columns([example({}, prob_chosen_wins=0.8), example({})], reading(), soft_labels=True)


def test_soft_labels_need_the_same_numbers_of_both_answers() -> None:
    found = data_columns([example({"score": 1.0}, prob_chosen_wins=0.8)], reading("chosen_scores"), soft_labels=True)
    assert picked(found["rejected_scores"], [0]).tolist() == [-1.0]
