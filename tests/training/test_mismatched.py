"""Answers to other prompts, which KTO's reference point is computed from."""

from collections import Counter
from collections.abc import Sequence

import pytest
import torch

from prefloop.config import load_recipe
from prefloop.errors import DataError, RecipeError
from prefloop.loop.wiring import rehearse
from prefloop.objectives import find_objective
from prefloop.policy import TokenRow
from prefloop.training import LossOfPlan, Mismatched, TokenExample
from prefloop.training.metrics import metrics

KTO = find_objective("kto", "here")


def answered(prompts: Sequence[tuple[int, ...]], lengths: Sequence[int]) -> list[TokenExample]:
    """One answer an example, whose tokens are all the number of the example."""
    rows = [
        TokenRow(prompt, (number,) * length, (True,) * length)
        for number, (prompt, length) in enumerate(zip(prompts, lengths, strict=True))
    ]
    return [
        TokenExample(str(number), {"response": row}, {"response": row.counted}, 1.0, {}, {"response": {"label": 1.0}})
        for number, row in enumerate(rows)
    ]


EIGHT = answered([(100 + number // 2, 7) for number in range(8)], [3] * 8)
"""Two answers to each of four prompts."""


def borrowed(examples: Sequence[TokenExample]) -> list[int]:
    return [one.rows["kl"].answer_ids[0] for one in examples]


def test_every_example_has_the_answer_to_another_prompt_behind_its_own() -> None:
    made = Mismatched.of(EIGHT, max_length=20, seed=3)

    for own, other in enumerate(borrowed(made)):
        assert other // 2 != own // 2
        assert made[own].rows["kl"] == TokenRow((100 + own // 2, 7), (other,) * 3, (True,) * 3)
        assert made[own].rows["response"] == EIGHT[own].rows["response"]
    assert max(Counter(borrowed(made)).values()) <= 3


def test_answers_move_on_by_one_where_all_prompts_differ() -> None:
    examples = answered([(number,) for number in range(50)], [2] * 50)

    assert sorted(borrowed(Mismatched.of(examples, 10, seed=1))) == list(range(50))


def test_the_seed_decides_whose_answer_it_is() -> None:
    assert borrowed(Mismatched.of(EIGHT, 20, seed=1)) == borrowed(Mismatched.of(EIGHT, 20, seed=1))
    assert borrowed(Mismatched.of(EIGHT, 20, seed=1)) != borrowed(Mismatched.of(EIGHT, 20, seed=2))


def test_the_first_that_fits_is_taken_and_where_none_does_its_first_tokens() -> None:
    long_prompt = tuple(range(8))
    fits = Mismatched.of(answered([long_prompt, (1,), (2,)], [1, 9, 2]), max_length=10, seed=0)
    cut = Mismatched.of(answered([long_prompt, (1,), (2,)], [1, 9, 6]), max_length=10, seed=0)

    assert fits[0].rows["kl"].answer_ids == (2, 2)
    assert len(cut[0].rows["kl"]) == 10
    assert all(len(one.rows["kl"]) <= 10 for one in (*fits, *cut))


def test_one_prompt_has_no_other() -> None:
    with pytest.raises(DataError) as raised:
        Mismatched.of(answered([(1,), (1,)], [1, 1]), 10, seed=0)
    assert str(raised.value) == (
        "training: all 2 examples have one prompt, but KTO compares with answers to other prompts. Give data with "
        "several prompts, or choose bco or apo_zero_unpaired."
    )


def test_kto_with_earlier_turns_in_the_loss_is_an_error() -> None:
    with pytest.raises(RecipeError, match=r"policy\.loss_on is all_turns, but kto compares with answers to other"):
        rehearse(load_recipe("kto.tiny", ["policy.loss_on=all_turns"]))


def test_metrics_are_the_share_of_rewards_with_the_sign_of_their_label_and_the_reference_point() -> None:
    ref = {"response_logps": torch.zeros(4), "kl_logps": torch.tensor([-1.0, -1.0, -1.0, -1.0])}
    data = {"weights": torch.ones(4), "response_labels": torch.tensor([True, False, True, False])}
    loss = LossOfPlan(KTO, {"beta": 0.5}, data, {"ref": ref})
    policy = {
        "response_logps": torch.tensor([0.2, 0.3, -0.1, 0.0]),
        "kl_logps": torch.tensor([0.0, -1.0, 0.0, -1.0]),
    }

    said = metrics(loss, range(4), torch.ones(4), policy)

    assert said["rewards/accuracies"] == pytest.approx((1 + 0 + 0 + 0.5) / 4)
    assert said["kl"] == pytest.approx(0.5)
    assert metrics(loss, range(4), torch.ones(4), {**policy, "kl_logps": torch.full((4,), -3.0)})["kl"] == 0.0
