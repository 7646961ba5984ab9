"""AlpacaEval's judge protocol: the coin of the order and the probabilities behind a preference."""

import gzip
import json
import math
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prefloop.cli.app import app
from prefloop.evaluation import is_switched, preference_of, prob_first
from prefloop.evaluation.alpaca_files import read_judged
from prefloop.evaluation.alpaca_protocol import listed_logprobs, noisy_label

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"the published rows are not at {SHARED}")


def test_probability_of_the_first_by_hand() -> None:
    assert prob_first([("m", math.log(0.6)), ("M", math.log(0.2)), ("The", -1.0)]) == pytest.approx(0.75, abs=1e-15)


def test_a_missing_token_has_probability_zero_and_two_missing_ones_have_none() -> None:
    assert prob_first([("m", -30.0)]) == 1.0
    assert prob_first([("M", -30.0), ("model", -0.1)]) == 0.0
    assert math.isnan(prob_first([("The", -0.1)]))
    assert math.isnan(prob_first([]))


def test_far_log_probabilities_do_not_overflow() -> None:
    assert prob_first([("m", -5000.0), ("M", -5001.0)]) == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-15)


def test_the_order_shown_is_undone() -> None:
    assert preference_of(0.9, switched=False) == pytest.approx(1.1)
    assert preference_of(0.9, switched=True) == pytest.approx(1.9)


def test_the_coin_depends_on_instruction_and_seed_alone() -> None:
    texts = [f"question {number}" for number in range(400)]
    coins = [is_switched(text) for text in texts]
    assert coins == [is_switched(text) for text in texts]
    assert 160 < sum(coins) < 240
    assert coins != [is_switched(text, seed=1) for text in texts]


def test_label_noise_replaces_twice_the_share_that_it_turns_round() -> None:
    texts = [f"question {number}" for number in range(2000)]
    labels = [noisy_label(text, 0.1) for text in texts]
    assert labels == [noisy_label(text, 0.1) for text in texts]
    counts = [labels.count(one) for one in (None, 1, 2)]
    assert counts == pytest.approx([1600, 200, 200], abs=60)
    assert {noisy_label(text, 0.0) for text in texts} == {None}
    assert None not in {noisy_label(text, 0.5) for text in texts}
    assert labels != [noisy_label(text, 0.1, seed=1) for text in texts]


def test_label_noise_pulls_the_win_rate_to_50_and_leaves_draws(tmp_path: Path) -> None:
    """At 0.1 a judge that always prefers the model is turned round on a tenth of 1,000 instructions."""
    file = tmp_path / "m.jsonl"
    rows = [
        {"instruction": f"q {number}", "preference": 2 if number < 1000 else 1.5, "len_baseline": 9, "len_model": 9}
        for number in range(1010)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    noisy = read_judged(file, "m", p_label_flip=0.1).preferences
    expected = [label - 1 for row in rows[:1000] if (label := noisy_label(str(row["instruction"]), 0.1)) is not None]
    assert (noisy[:1000] == 0).sum() == expected.count(0)
    assert noisy[:1000].mean() == pytest.approx(0.9, abs=0.03)
    assert noisy[1000:].tolist() == [0.5] * 10
    result = CliRunner().invoke(
        app,
        [
            "evaluate",
            "alpaca-eval",
            str(file),
            "--p-label-flip",
            "0.1",
            "--bootstrap",
            "10",
            "--c",
            "100",
            "--json",
            "-",
        ],
    )
    assert json.loads(result.stdout)["models"]["m"]["win_rate"] == pytest.approx(100 * noisy.mean())


@pytest.mark.parametrize(
    "given",
    [[["m", -0.5], ["M", -1]], {"m": -0.5, "M": -1}, [{"token": "m", "logprob": -0.5}, {"token": "M", "logprob": -1}]],
)
def test_log_probabilities_are_read_in_the_forms_of_apis(given: object) -> None:
    assert listed_logprobs(given) == [("m", -0.5), ("M", -1.0)]


@pytest.mark.parametrize("given", [[["m"]], [["m", "x"]], [[1, -0.5]], 7, None, [{"token": "m"}]])
def test_other_forms_are_refused(given: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        listed_logprobs(given)


@shared
def test_order_and_preference_of_the_published_rows_come_out() -> None:
    """Published preferences have ten decimals."""
    with gzip.open(SHARED / "evaluation" / "data" / "alpacaeval" / "logprob_vectors.jsonl.gz", "rt") as lines:
        rows = [json.loads(line) for line in lines]
    assert len(rows) == 64
    for row in rows:
        assert is_switched(row["instruction"]) is row["switched"]
        found = preference_of(prob_first(listed_logprobs(row["top_logprobs"])), switched=row["switched"])
        assert found == pytest.approx(row["preference"], abs=1e-10)


@shared
def test_a_judge_that_takes_the_first_shown_gives_406_of_805() -> None:
    with gzip.open(SHARED / "data" / "alpacaeval_prefs.jsonl.gz", "rt") as lines:
        prompts = [json.loads(line)["prompt"] for line in lines]
    preferences = [preference_of(1.0, switched=is_switched(prompt)) for prompt in prompts]
    assert len(preferences) == 805
    assert sum(preference - 1 for preference in preferences) == 406
