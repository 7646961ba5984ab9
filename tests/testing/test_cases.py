"""From a file's names, flags and lists to an objective, and back."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from prefloop.errors import DataError
from prefloop.objectives import find_objective
from prefloop.testing import shipped_vectors
from prefloop.testing.cases import Inputs, Switch, VectorCase, by_objective, plain, switch
from prefloop.testing.selection_readings import SELECTIONS
from prefloop.testing.vectors import METHODS


def case(hyper: dict[str, Any] | None = None, **inputs: Any) -> VectorCase:
    return VectorCase(name="it", hyper=hyper or {}, inputs=inputs)


ONE_PAIR = {
    "policy_chosen_logps": [-1.0],
    "policy_rejected_logps": [-2.0],
    "ref_chosen_logps": [-1.5],
    "ref_rejected_logps": [-1.5],
}


def published(stem: str, number: int = 0) -> dict[str, Any]:
    return json.loads((shipped_vectors() / f"{stem}.json").read_text(encoding="utf-8"))["cases"][number]


# ------------------------------------------------------------------------------------------------------------- inputs


def test_rows_of_unequal_length_are_padded_and_cut_again() -> None:
    inputs = Inputs({"policy_chosen_token_logps": [[-1.0, -2.0, -3.0], [-4.0]]})
    assert inputs["policy_chosen_token_logps"].tolist() == [[-1, -2, -3], [-4, 0, 0]]
    assert inputs["chosen_token_mask"].tolist() == [[True, True, True], [True, False, False]]
    assert inputs["chosen_lengths"].tolist() == [3, 1]
    assert inputs["mean_chosen_length"].item() == 2
    assert inputs.rows(torch.arange(6.0).view(2, 3), "policy_chosen_token_logps") == [[0, 1, 2], [3]]


def test_padding_reaches_every_depth() -> None:
    inputs = Inputs({"policy_chosen_logits": [[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0]]]})
    assert inputs["policy_chosen_logits"].tolist() == [[[1, 2], [3, 4]], [[5, 6], [0, 0]]]


def test_a_sum_is_made_of_its_tokens_and_gives_them_its_gradient() -> None:
    inputs = Inputs({"policy_chosen_token_logps": [[-1.0, -2.0], [-4.0]]})
    sums = inputs["policy_chosen_logps"]
    assert sums.tolist() == [-3, -4]
    (grad,) = torch.autograd.grad(sums.sum(), list(inputs.leaves().values()))
    assert inputs.rows(grad, "policy_chosen_token_logps") == [[1, 1], [1]]


def test_only_what_the_policy_computes_is_a_leaf() -> None:
    inputs = Inputs({**ONE_PAIR, "chosen_lengths": [3], "not_a_quantity": [1.0]})
    assert list(inputs.leaves()) == ["policy_chosen_logps", "policy_rejected_logps"]


def test_numbers_keep_their_kind() -> None:
    inputs = Inputs({"chosen_token_ids": [[3, 4]], "response_labels": [True, False], "chosen_lengths": [3]})
    assert [inputs[name].dtype for name in inputs.given] == [torch.int64, torch.bool, torch.float64]


def test_what_is_put_does_not_replace_what_the_file_has() -> None:
    inputs = Inputs({"prob_chosen_wins": [0.25]})
    inputs.put({"prob_chosen_wins": torch.ones(1)})
    assert inputs["prob_chosen_wins"].tolist() == [0.25]


def test_results_become_json() -> None:
    assert plain({"a": torch.tensor([1, 2]), "b": (torch.tensor(True), None)}) == {"a": [1, 2], "b": [True, None]}


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("stem", "flag", "value", "known"),
    [
        ("sppo", "variant", "winner", "win; pair; hard"),
        ("inpo", "target", 0.5, "half; winrate"),
        ("mrpo", "orientation", "reversed", "paper; official"),
        ("rlhf_reward_model_ranked", "form", "list", "plackett_luce; pairwise"),
        ("online_dpo", "method", "online_kto", "online_dpo, online_ipo, online_hinge, xpo, nash_md"),
        ("rlhf_rloo", "mode", "grpo", "reinforce, clipped"),
    ],
)
def test_a_flag_that_means_no_objective_is_named_with_those_that_do(
    stem: str, flag: str, value: Any, known: str
) -> None:
    first = published(stem)
    wrong = VectorCase(name="it", hyper={**first["hyper"], flag: value}, inputs=first["inputs"])
    with pytest.raises(DataError) as raised:
        METHODS[stem](wrong, f"{stem}.json: it")
    assert str(raised.value) == f"{stem}.json: it: {flag} = {value!r} is not known. Known: {known}."


def test_inputs_of_unequal_numbers_of_examples_are_an_error() -> None:
    with pytest.raises(DataError, match=r"^it: inputs differ in their numbers of examples: policy_chosen_logps 2, "):
        by_objective("dpo")(case(**{**ONE_PAIR, "policy_chosen_logps": [-1.0, -2.0]}), "it")


def test_samples_that_do_not_fill_their_prompts_are_an_error() -> None:
    first = published("rlhf_rloo")
    three = {name: values[:3] for name, values in first["inputs"].items()}
    with pytest.raises(DataError, match=r"^it: inputs cannot be read \(shape"):
        METHODS["rlhf_rloo"](case(first["hyper"], **three), "it")


# -------------------------------------------------------------------------------------------------- flags and fields


def test_two_flags_may_choose_together() -> None:
    chosen = Switch(("a", "b"), {(1, "x"): "dpo", (1, "y"): "ipo"}, {"b": "x"})
    assert [chosen(case(hyper), "it") for hyper in ({"a": 1}, {"a": 1, "b": "y"})] == ["dpo", "ipo"]
    with pytest.raises(DataError, match=r"^it: a = 2 and b = 'x' is not known\. Known: 1, x; 1, y\.$"):
        chosen(case({"a": 2}), "it")


def test_a_flag_that_chose_is_not_passed_on_and_may_be_left_out() -> None:
    compute = by_objective(switch("squared", {True: "ipo", False: "dpo"}, default=False))
    squared, plain_dpo, default = (
        compute(case(hyper, **ONE_PAIR), "it")["loss"] for hyper in ({"squared": True}, {"squared": False}, {})
    )
    assert squared == pytest.approx((1 - 5) ** 2)
    assert plain_dpo == default != squared


def test_weights_multiply_losses_and_gradients() -> None:
    one, two = (by_objective("dpo")(case(**ONE_PAIR, weights=[weight]), "it") for weight in (1.0, 2.0))
    assert two["loss_per_example"] == [2 * one["loss_per_example"][0]]
    assert two["grad"]["policy_chosen_logps"] == [2 * one["grad"]["policy_chosen_logps"][0]]


def test_gradients_go_by_the_published_names() -> None:
    ours = {"policy_first_logps": "policy_chosen_logps"}
    inputs = {"policy_first_logps" if name == "policy_chosen_logps" else name: ONE_PAIR[name] for name in ONE_PAIR}
    assert list(by_objective("dpo", inputs=ours)(case(**inputs), "it")["grad"]) == [
        "policy_first_logps",
        "policy_rejected_logps",
    ]


def test_a_state_is_updated_before_the_loss_and_comes_out() -> None:
    first = published("field_bco")
    found = METHODS["field_bco"](case(first["hyper"], **first["inputs"]), "it")
    assert found["state_out"] == pytest.approx(first["state_out"], rel=1e-12)
    assert found["state_out"]["count"] == first["inputs"]["state"]["count"] + len(first["inputs"]["labels"])


@pytest.mark.parametrize("stem", sorted(METHODS.keys() - SELECTIONS.keys() - {"ilr_dpo_selection"}))
def test_a_number_of_any_input_that_is_learnt_from_reaches_the_loss(stem: str) -> None:
    """No row of the table drops an input: each one that has a gradient somewhere in the file moves a result."""
    path = Path(str(shipped_vectors() / f"{stem}.json"))
    cases = json.loads(path.read_text(encoding="utf-8"))["cases"]
    moved = {name for one in cases for name, grad in one["grad"].items() if _any(grad)}
    for name in moved:
        one = next(one for one in cases if _any(one["grad"].get(name, [])))
        shifted = {**one["inputs"], name: _shifted(one["inputs"][name])}
        before, after = (
            METHODS[stem](VectorCase(name="it", hyper=one["hyper"], inputs=inputs), "it")["loss"]
            for inputs in (one["inputs"], shifted)
        )
        assert before != after, name


def _any(values: Any) -> bool:
    return any(map(_any, values)) if isinstance(values, list) else values != 0


def _shifted(values: Any) -> Any:
    """Each number by another amount, so that no difference stays what it was."""
    flat = torch.Generator().manual_seed(1)

    def shift(value: Any) -> Any:
        if isinstance(value, list):
            return [shift(item) for item in value]
        return value - 0.01 * float(torch.rand(1, generator=flat))

    return shift(values)


@pytest.mark.parametrize(
    ("case_of", "objective"),
    [
        ({"method": "online_dpo", "beta": 0.1}, "dpo"),
        ({"method": "online_dpo", "beta": 0.1, "label_smoothing": 0.0}, "conservative_dpo"),
        ({"method": "online_hinge", "beta": 0.1}, "hinge"),
        ({"method": "online_ipo", "beta": 0.1}, "ipo"),
    ],
)
def test_online_methods_are_the_offline_losses(case_of: dict[str, Any], objective: str) -> None:
    found = METHODS["online_dpo"](case(case_of, **ONE_PAIR), "it")
    pair = {name: torch.tensor(values, dtype=torch.float64) for name, values in ONE_PAIR.items()}
    expected = find_objective(objective, "here").function(**pair, beta=0.1, **_smoothing(case_of))
    assert found["loss_per_example"] == pytest.approx(expected.tolist(), rel=1e-15)


def _smoothing(hyper: dict[str, Any]) -> dict[str, float]:
    return {name: hyper[name] for name in ("label_smoothing",) if name in hyper}


def test_nash_md_per_token_drops_what_follows_a_token() -> None:
    """The case that no published file has: sums of products instead of a product of sums."""
    inputs = {"policy_token_logps": [[-1.0, -2.0], [-3.0]], "ref_token_logps": [[-1.5, -1.0], [-2.0]]}
    hyper = {"method": "nash_md", "beta": 0.5, "kl": "per_token"}
    found = METHODS["online_dpo"](case(hyper, **inputs, win_probs=[0.75, 0.5]), "it")
    assert found["loss_per_example"] == pytest.approx([-0.25 * -3 + 0.5 * (0.5 * -1 + -1 * -2), 0.5 * -1 * -3])
    assert found["grad"]["policy_token_logps"] == [
        pytest.approx([(-0.25 + 0.25) / 2, (-0.25 - 0.5) / 2]),
        pytest.approx([-0.5 / 2]),
    ]


def test_sapo_with_orpo_reads_no_reference() -> None:
    tokens = {
        "policy_chosen_token_logps": [[-1.0, -2.0], [-0.5]],
        "policy_rejected_token_logps": [[-2.0], [-1.0, -3.0]],
    }
    found = METHODS["sapo"](case({"loss": "orpo", "beta": 0.05}, **tokens), "it")
    assert len(found["loss_per_example"]) == 2
    assert set(found["grad"]) == set(tokens)


def test_mcts_dpo_has_the_squared_form_too() -> None:
    inputs = dict(published("mcts_dpo", 3)["inputs"])
    found = METHODS["mcts_dpo"](case({"loss": "ipo", "beta": 0.5, "length_power": 0.0}, **inputs), "it")
    plain_case = case({"loss": "plain", "beta": 0.5, "length_power": 0.0}, **inputs)
    z = (
        -torch.tensor(METHODS["mcts_dpo"](plain_case, "it")["loss_per_example"], dtype=torch.float64).expm1().log()
        / 0.5
    )
    gaps = _gaps(inputs, found["diverge_index"])
    assert found["loss_per_example"] == pytest.approx([(gap - 1) ** 2 for gap in gaps], rel=1e-12)
    assert z.tolist() == pytest.approx(gaps, rel=1e-9)
    assert found["label_smoothing"] == [0.0] * len(gaps)


def _gaps(inputs: dict[str, Any], starts: list[int]) -> list[float]:
    """Differences of the log-ratios from where the answers part, summed by hand."""

    def tail(role: str, row: int) -> float:
        pairs = zip(inputs[f"policy_{role}_token_logps"][row], inputs[f"ref_{role}_token_logps"][row], strict=True)
        return sum(policy - ref for policy, ref in list(pairs)[starts[row] :])

    return [tail("chosen", row) - tail("rejected", row) for row in range(len(starts))]
