"""Rules by name, their options, and what is said when they are wrong."""

import pytest

from prefloop.errors import RecipeError
from prefloop.pairing import best_worst, find_rule, rules
from prefloop.records import Group, Message, Prompt

EMPTY = Group(prompts=(Prompt.of((Message(role="user", content="?"),)),))


def test_rules_declare_what_they_write_and_read() -> None:
    pairs = {name for name, found in rules().items() if found.roles == ("chosen", "rejected")}
    assert rules().keys() - pairs == {
        "chance_to_win",
        "cut_open",
        "degraded",
        "demonstrations",
        "editing",
        "explored",
        "first_bad_steps",
        "instructed",
        "learnable",
        "own_answer",
        "prompt_writing",
        "ranking",
        "rollouts",
        "sampled_together",
        "threshold_labels",
        "unpaired",
        "written_prompts",
    }
    given = {name for name, found in rules().items() if found.reads_given}
    assert given == {
        "clear_pairs",
        "degraded",
        "demonstrations",
        "editing",
        "given",
        "goal_labelled",
        "learnable",
        "not_outdone",
        "side_by_side",
        "unpaired",
    }
    fitted = {name: set(found.fit) for name, found in rules().items() if found.fit}
    assert fitted == {
        "clear_pairs": {"min_evidence"},
        "dice": {"alpha"},
        "learnable": {"min_learnability"},
        "length_corrected": {"alpha"},
    }


def test_a_rule_is_applied_with_its_options() -> None:
    rule = find_rule("best_worst", "here")
    options = rule.checked({"min_margin": 0.5}, "here")
    assert options.model_dump() == {"min_margin": 0.5, "length_penalty": 0.0, "min_judgments": 1}
    assert list(rule.apply(EMPTY, options)) == list(best_worst(EMPTY, min_margin=0.5))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "best_worst",
            {"min_margn": 1},
            "pairs.min_margn is not an option of best_worst. Did you mean 'min_margin'? "
            "Known: length_penalty, min_judgments, min_margin.",
        ),
        (
            "best_worst",
            {"min_margin": -1},
            "pairs.min_margin: Input should be greater than or equal to 0, found -1. "
            "best_worst takes min_margin, length_penalty, min_judgments.",
        ),
        (
            "best_worst",
            {"length_penalty": "fitted"},
            "pairs.length_penalty: Input should be a valid number, found 'fitted'. "
            "best_worst takes min_margin, length_penalty, min_judgments.",
        ),
        ("given", {"min_margin": 1}, "pairs.min_margin is not an option of given. It takes no options."),
    ],
)
def test_a_wrong_option_is_an_error_that_says_where_and_what(
    name: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(RecipeError) as raised:
        find_rule(name, "here").checked(options, "pairs")
    assert str(raised.value) == message


def test_an_unknown_rule_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(RecipeError) as raised:
        find_rule("best_wurst", "mine.yaml: pairs.rule")
    assert str(raised.value) == (
        "mine.yaml: pairs.rule is 'best_wurst', which is not a rule. Did you mean 'best_worst'? "
        f"Known: {', '.join(sorted(rules()))}."
    )
