"""What decides about tokens, in a recipe."""

import pytest

from prefloop.config import TokensStep, TrainStep, load_recipe
from prefloop.errors import RecipeError


def test_a_train_step_is_preceded_by_one_that_makes_its_tokens_with_its_settings() -> None:
    recipe = load_recipe("dpo.tiny", ["policy.max_length=300", "policy.loss_on=all_turns"]).recipe
    steps = list(recipe.names())
    assert steps[steps.index("policy") - 1] == "policy-tokens"
    made, trained = recipe.step("policy-tokens"), recipe.step("policy")
    assert isinstance(made, TokensStep)
    assert isinstance(trained, TrainStep)
    assert (made.max_length, made.loss_on, made.truncation) == (300, "all_turns", "drop")
    assert (trained.max_length, trained.loss_on, trained.truncation) == (300, "all_turns", "drop")


def test_numbers_by_round_reach_the_tokens_of_their_round() -> None:
    recipe = load_recipe("loop.tiny", ["policy.max_length={by_round: [100, 200]}"]).recipe
    lengths = [recipe.step("policy-tokens", number) for number in (0, 1, 2)]
    assert [step.max_length for step in lengths if isinstance(step, TokensStep)] == [100, 200, 200]


@pytest.mark.parametrize(("theirs", "ours"), [("keep_start", "cut_response"), ("keep_end", "cut_prompt_left")])
def test_trls_truncation_mode_is_translated_aloud(theirs: str, ours: str) -> None:
    loaded = load_recipe("dpo.tiny", [f"policy.truncation_mode={theirs}"])
    step = loaded.recipe.step("policy")
    assert isinstance(step, TrainStep)
    assert step.truncation == ours
    assert f"policy.truncation_mode: {theirs} is read as policy.truncation: {ours}" in loaded.notes


def test_a_truncation_mode_that_means_nothing_here_is_refused() -> None:
    with pytest.raises(RecipeError) as raised:
        load_recipe("dpo.tiny", ["policy.truncation_mode=keep_middle"])
    assert str(raised.value).startswith(
        "recipe dpo.tiny: policy.truncation_mode is 'keep_middle', which has no equal here. Did you mean 'keep_"
    )


def test_a_wrong_setting_is_named_by_the_train_step_and_not_by_its_tokens() -> None:
    with pytest.raises(RecipeError, match=r"^recipe dpo\.tiny: policy\.max_length: Input should be"):
        load_recipe("dpo.tiny", ["policy.max_length=1"])
