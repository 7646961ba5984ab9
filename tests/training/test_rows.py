"""Examples as tokens, and the order in which they are trained on."""

from collections import Counter

import pytest

from prefloop.policy import ChatCodec, EncodingSettings
from prefloop.records import Example, Member, Message, Prompt
from prefloop.training import example_data, step_plan, tokenised

ROLES = ("chosen", "rejected")
UNCUT = EncodingSettings(max_length=99)
QUESTION = (Message(role="user", content="How are you?"),)


def member(role: str, **changed: object) -> Member:
    return Member.model_validate({"role": role, "response_id": role, "text": f"I am {role}.", **changed})


def example(*members: Member, prefix_ids: tuple[int, ...] = (), weight: float = 1.0) -> Example:
    prompt = Prompt.of(QUESTION, prefix_ids=prefix_ids)
    return Example(example_id="e", prompt=prompt, members=members, weight=weight, why="test")


def test_a_text_is_tokenised_with_eos_only_where_it_ended(codec: ChatCodec) -> None:
    ((made,), _) = tokenised([example(member("chosen"), member("rejected", finished=False))], codec, UNCUT)
    chosen, rejected = (made.rows[role].answer_ids for role in ROLES)
    assert chosen[-1] == codec.eos_id
    assert codec.eos_id not in rejected
    assert codec.text_of(chosen) == "I am chosen."


def test_sampled_tokens_are_taken_as_they_are(codec: ChatCodec) -> None:
    """Not what tokenising the text would give: there is no way back from text to tokens."""
    given = example(member("chosen", token_ids=(5, 5, 9)), member("rejected", token_ids=(7,)))
    ((made,), _) = tokenised([given], codec, UNCUT)
    assert [made.rows[role].answer_ids for role in ROLES] == [(5, 5, 9), (7,)]


def test_both_answers_follow_the_same_prompt_tokens(codec: ChatCodec) -> None:
    ((made,), _) = tokenised([example(member("chosen"), member("rejected"))], codec, UNCUT)
    assert made.rows["chosen"].prompt_ids == made.rows["rejected"].prompt_ids == codec.prompt_ids(Prompt.of(QUESTION))


def test_a_given_beginning_of_the_answer_belongs_to_the_prompt(codec: ChatCodec) -> None:
    given = example(
        member("chosen", token_ids=(8, 9, 4, 5, 6), counted=((1, 4),)),
        member("rejected", token_ids=(8, 9, 7)),
        prefix_ids=(8, 9),
    )
    ((made,), _) = tokenised([given], codec, UNCUT)
    assert made.rows["chosen"].prompt_ids[-2:] == (8, 9)
    assert made.rows["chosen"].answer_ids == (4, 5, 6)
    assert made.rows["chosen"].counted == (True, True, False)
    assert made.rows["rejected"].answer_ids == (7,)


def test_only_the_spans_are_counted(codec: ChatCodec) -> None:
    given = example(member("chosen", token_ids=(4, 5, 6, 7), counted=((0, 1), (3, 9))), member("rejected"))
    ((made,), _) = tokenised([given], codec, UNCUT)
    assert made.rows["chosen"].counted == (True, False, False, True)
    assert made.rows["rejected"].counted == (True,) * len(made.rows["rejected"].answer_ids)


def test_lengths_are_counted_tokens_and_weights_are_those_of_the_examples(codec: ChatCodec) -> None:
    given = [
        example(member("chosen", token_ids=(4, 5, 6), counted=((1, 3),)), member("rejected", token_ids=(7,))),
        example(member("chosen", token_ids=(4,)), member("rejected", token_ids=(7, 8)), weight=0.25),
    ]
    kept, _ = tokenised(given, codec, UNCUT)
    found = {name: values.tolist() for name, values in example_data(kept, ROLES).items()}
    assert found == {"chosen_lengths": [2, 1], "rejected_lengths": [1, 2], "weights": [1, 0.25]}


@pytest.mark.parametrize("role", ROLES)
def test_nothing_longer_than_the_limit_is_kept_and_nothing_is_cut(codec: ChatCodec, role: str) -> None:
    prompt = len(codec.prompt_ids(Prompt.of(QUESTION)))
    other = next(name for name in ROLES if name != role)
    given = [example(member(role, token_ids=(5,) * n), member(other, token_ids=(5, 6))) for n in (2, 3, 4, 5, 6)]
    kept, dropped = tokenised(given, codec, EncodingSettings(max_length=prompt + 4))
    assert [len(made.rows[role].answer_ids) for made in kept] == [2, 3, 4]
    assert max(made.longest for made in kept) == prompt + 4
    assert dropped == Counter({"too_long": 2})


@pytest.mark.parametrize("broken", [{"token_ids": ()}, {"counted": ()}, {"text": "", "finished": False}])
def test_an_answer_without_counted_tokens_is_left_out_and_counted(codec: ChatCodec, broken: dict[str, object]) -> None:
    given = [example(member("chosen"), member("rejected", **broken)), example(member("chosen"), member("rejected"))]
    kept, dropped = tokenised(given, codec, UNCUT)
    assert (len(kept), dropped) == (1, Counter({"nothing_left": 1}))


def test_an_empty_answer_that_ended_is_its_eos(codec: ChatCodec) -> None:
    ((made,), _) = tokenised([example(member("chosen", text=""), member("rejected"))], codec, UNCUT)
    assert made.rows["chosen"].answer_ids == (codec.eos_id,)


@pytest.mark.parametrize(("count", "batch_size", "epochs"), [(10, 4, 3), (8, 4, 2), (3, 64, 2), (1, 1, 1)])
def test_each_epoch_sees_every_example_once(count: int, batch_size: int, epochs: int) -> None:
    plan = step_plan(count, batch_size, epochs, seed=1)
    steps = -(-count // batch_size)
    assert len(plan) == steps * epochs
    for epoch in range(epochs):
        of_epoch = plan[epoch * steps : (epoch + 1) * steps]
        assert sorted(index for step in of_epoch for index in step) == list(range(count))
        assert all(len(step) == batch_size for step in of_epoch[:-1])


def test_epochs_and_seeds_shuffle_differently_and_the_same_seed_alike() -> None:
    plan = step_plan(50, 50, 3, seed=1)
    assert plan == step_plan(50, 50, 3, seed=1)
    assert len({tuple(order) for order in (*plan, *step_plan(50, 50, 3, seed=2), list(range(50)))}) == 7


def test_more_epochs_do_not_change_the_first_ones() -> None:
    assert step_plan(9, 4, 5, seed=3)[:6] == step_plan(9, 4, 2, seed=3)
