"""Cases of selections and procedures beyond the published ones: what is missing, tied, or of another size."""

import json
from math import nan
from typing import Any

import pytest

from prefloop.errors import DataError
from prefloop.testing.cases import VectorCase
from prefloop.testing.selection_readings import SELECTIONS
from prefloop.worlds import self_play_optimum, soft_policy_iteration


def computed(stem: str, inputs: dict[str, Any], op: str | None = None, **hyper: Any) -> Any:
    return SELECTIONS[stem](VectorCase(name="it", op=op, hyper=hyper, inputs=inputs), "it")["expected"]


def test_an_answer_without_a_score_keeps_its_place() -> None:
    rows = [{"rewards": [None, 2.0, nan, 1.0], "lengths": [1, 2, 3, 4], "ends_with_eos": [True] * 4}]
    expected = {"chosen": 1, "rejected": 3, "margin": 1.0}
    for pick in ("max_min", "max_min_length", "max_max", "first_two"):
        assert computed("online_dpo_selection", {"rows": rows}, K=2, pick=pick) == [expected]
        assert computed("online_dpo_selection", {"rows": rows}, K=3, pick=pick) == [None]
    prompts = [{"scores": [None, 2.0, 9.0], "lengths": [5, 6, 7]}, {"scores": [1.0], "lengths": [5]}]
    found = computed("length_bias_selection", {"prompts": prompts}, alpha_start=0.0, alpha_step=0.5, alpha_count=3)
    assert found["pairs"] == [{"chosen": 2, "rejected": 1}, None]
    assert found["mean_length_gap"] == 1.0


def test_a_grid_that_does_not_begin_at_zero_still_says_the_gap_there() -> None:
    prompts = [{"scores": [3.0, 1.0], "lengths": [30, 10]}]
    found = computed("length_bias_selection", {"prompts": prompts}, alpha_start=0.2, alpha_step=0.1, alpha_count=2)
    assert (found["alpha"], found["mean_length_gap"], found["mean_length_gap_at_zero"]) == (0.2, -20.0, 20.0)


def test_dice_without_any_usable_prompt_and_with_a_whole_share() -> None:
    hyper = {"min_chars": 3, "max_chars": 9, "min_candidates": 2, "grid": [0.0, 0.003, 0.001]}
    short = {"policy_logp": -1, "prev_ref_logp": -2, "length": 3, "truncated": False}
    found = computed("dice", {"prompts": [[short, short], []]}, "search", **hyper)
    assert found["pairs"] == [None, None]
    assert (found["alpha"], found["mean_length_gap"], found["evaluated"]) == (0.0, 0.0, 3)
    assert computed("dice", {"n_offline": 7, "n_generated": 3}, "mix", gamma=1.0) == {
        "from_generated": 0,
        "from_offline": 7,
    }


def test_small_games_and_sets() -> None:
    two = computed("inpo_selection", {"preference": [[0.5, 0.2], [0.8, 0.5]]})
    assert two == {"best": 1, "worst": 0, "kept": True, "comparisons": [[0, 1], [1, 0]], "n_comparisons": 2}
    assert computed("sppo_selection", {"scores": [3.0]}, include_self=False) == {
        "chosen": None,
        "rejected": None,
        "win_probs": [0.5],
    }
    assert computed("rm_ensembles", {"scores": [[1.0, 1.0], [2.0, 2.0]]}, "select", objective="wco") == {
        "chosen": 0,
        "rejected": None,
    }
    assert computed("rm_ensembles", {"scores": [[1.0, 3.0], [2.0, 0.5]]}, "select", objective="wco") == {
        "chosen": 0,
        "rejected": 1,
    }
    uwo = {"objective": "uwo", "lambda": 0.0, "ddof": 1}
    assert computed("rm_ensembles", {"scores": [[1.0, 4.0]]}, "aggregate", **uwo) == [1.0, 4.0]
    assert computed("bees", {"margins": {"one": [1.0, None]}}, bounds={"one": [-1, 1]}, k=5)["selected"] == [0]
    assert computed("mcts_dpo_tree", {"levels": [[], [{"Q": 0.0, "N": 0}] * 2]}, "pairs", worse="second") == [
        None,
        {"chosen": 1, "rejected": 0, "label_smoothing": 0.0},
    ]
    assert computed("srpo_prompting", {}, "schedule", rounds=1, start=1.0, end=0.25) == [1.0]


def test_results_are_plain_json() -> None:
    found = computed("bmc_diff", {"chosen_ids": [], "rejected_ids": [1]})
    assert json.loads(json.dumps(found)) == {"chosen_diff_mask": [], "rejected_diff_mask": [1]}


@pytest.mark.parametrize(
    ("stem", "op", "hyper", "inputs", "message"),
    [
        ("dice", "seek", {}, {}, "it: op is 'seek', expected one of search, mix."),
        ("dice", None, {}, {}, "it: op is None, expected one of search, mix."),
        ("selm_selection", None, {}, {}, "it: cannot be read (KeyError: 'ranks'). Expected hyper and inputs as"),
        (
            "inpo_selection",
            None,
            {},
            {"preference": [[0.5] * 3] * 3},
            "it: cannot be read (ValueError: 3 answers, expected a power of two). Expected",
        ),
        (
            "reward_augmented",
            None,
            {"template": "Be {score}", "placement": "user"},
            {
                "pairs": [
                    {
                        "prompt": [{"role": "user", "content": "Be 4\n\nHi"}],
                        "chosen": "a",
                        "rejected": "b",
                        "chosen_score": 2,
                        "rejected_score": 1,
                    }
                ]
            },
            "it: cannot be read (ValueError: the prompt has a goal already).",
        ),
        (
            "rm_ensembles",
            "best_of_n",
            {"n": 3},
            {"proxy": [1.0, 2.0]},
            "it: cannot be read (ValueError: n is 3, expected",
        ),
        (
            "online_dpo_selection",
            None,
            {"K": 2, "pick": "best"},
            {"rows": [{"rewards": [1, 2]}]},
            "it: cannot be read (Val",
        ),
    ],
)
def test_what_cannot_be_read_is_one_line(
    stem: str, op: str | None, hyper: dict[str, Any], inputs: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError) as raised:
        computed(stem, inputs, op, **hyper)
    assert str(raised.value).startswith(message)


def test_uniform_play_is_a_fixed_point_of_a_cycle_and_items_without_mass_stay_without() -> None:
    cycle = [[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]]
    found = soft_policy_iteration(cycle, [1 / 3] * 3, eta=0.3, iterations=4)
    assert found.policies[-1] == pytest.approx([1 / 3] * 3)
    assert found.exploitability_of_average == pytest.approx(0.0)
    gone = soft_policy_iteration(cycle, [0.5, 0.5, 0.0], eta=0.3, iterations=2)
    assert gone.policies[-1][2] == 0.0
    assert self_play_optimum([0.5, 0.5], [1.0, 0.0], [0.5, 0.5], 1.0) == [1.0, 0.0]


def test_each_round_wins_against_the_one_before_by_its_divergence() -> None:
    cycle = [[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]]
    found = soft_policy_iteration(cycle, [0.6, 0.3, 0.1], eta=0.7, iterations=6)
    for win, kl in zip(found.win_rate_of_next_over_current, found.kl_next_current, strict=True):
        assert win >= 0.5 + 0.7 * kl
