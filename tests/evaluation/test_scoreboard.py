"""The scoreboard on tables counted by hand."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from prefloop.evaluation import Answers, distinct_2, duel, length_ratio, meet, scoreboard
from prefloop.evaluation.scoreboard import finish_rate
from prefloop.evaluation.text import distinct_2_estimate
from prefloop.records import FinishReason, Response
from prefloop.statistics import AnswerKl, clustered_mean, length_controlled

WORDS = "one two three four five six seven eight nine ten"


def response(name: str, prompt: str, tokens: int = 5, text: str = WORDS, finish: FinishReason = "stop") -> Response:
    return Response(
        response_id=name,
        prompt_id=prompt,
        root_id=prompt,
        step="evaluation-samples",
        text=text,
        token_ids=(0,) * tokens,
        finish_reason=finish,
    )


def answers(rows: Sequence[Response], scores: Sequence[float | None]) -> Answers:
    known = {row.response_id: score for row, score in zip(rows, scores, strict=True) if score is not None}
    return Answers(tuple(rows), {"judge": known})


def one_each(owner: str, scores: Mapping[str, float | None]) -> Answers:
    return answers([response(f"{owner}-{prompt}", prompt) for prompt in scores], list(scores.values()))


OURS = one_each("ours", {"p": 3.0, "q": 1.0, "r": 2.0, "s": 5.0})
THEIRS = one_each("theirs", {"p": 1.0, "q": 2.0, "r": 2.0, "s": 4.0})
"""Two wins, one loss, one draw."""


def test_wins_losses_and_draws_are_counted() -> None:
    found = duel(OURS, THEIRS, "judge", seed=0, resamples=200)
    assert {key: found[key] for key in ("n_wins", "n_wins_base", "n_draws", "n", "clusters")} == {
        "n_wins": 2,
        "n_wins_base": 1,
        "n_draws": 1,
        "n": 4,
        "clusters": 4,
    }
    assert found["win_rate"] == pytest.approx(62.5)
    assert found["discrete_win_rate"] == pytest.approx(62.5)


def test_exchanging_the_sides_turns_the_win_rate_around() -> None:
    found = duel(THEIRS, OURS, "judge", seed=0, resamples=200)
    assert (found["win_rate"], found["n_wins"], found["n_wins_base"]) == (pytest.approx(37.5), 1, 2)


def test_against_itself_everything_is_a_draw() -> None:
    found = duel(OURS, OURS, "judge", seed=0, resamples=200)
    assert (found["win_rate"], found["n_draws"], found["interval"]) == (50.0, 4, [50.0, 50.0])
    assert found["length_controlled_winrate"] == pytest.approx(50.0, abs=1e-9)


def test_with_equal_lengths_the_length_controlled_rate_is_the_raw_one() -> None:
    """The penalty of the fit pulls it towards 50 by at most 100 / (100 * 4) points."""
    found = duel(OURS, THEIRS, "judge", seed=0, resamples=200)
    assert found["length_controlled_winrate"] == pytest.approx(62.5, abs=0.25)


def test_a_policy_that_wins_only_by_length_is_brought_down() -> None:
    short, long = WORDS[:20], WORDS * 3
    rows = [(f"p{number}", number % 4 != 0) for number in range(40)]  # longer, and then better, on three of four
    ours = answers(
        [response(f"o-{p}", p, text=long if longer else short) for p, longer in rows],
        [1.0 if longer else 0.0 for _, longer in rows],
    )
    theirs = answers([response(f"t-{p}", p, text=WORDS) for p, _ in rows], [0.5] * 40)
    found = duel(ours, theirs, "judge", seed=0, resamples=100)
    assert found["win_rate"] == pytest.approx(75.0)
    assert found["length_controlled_winrate"] < 60.0


def test_every_answer_meets_every_answer_to_the_same_prompt() -> None:
    ours = answers([response("a", "p", text="12"), response("b", "p", text="1234")], [1.0, 3.0])
    theirs = answers(
        [response("c", "p", text="1"), response("d", "p", text="123"), response("e", "q")], [2.0, 3.0, 9.0]
    )
    met = meet(ours, theirs, "judge")
    assert met.preferences.tolist() == [0.0, 0.0, 1.0, 0.5]
    assert met.ours_length.tolist() == [2, 2, 4, 4]
    assert met.theirs_length.tolist() == [1, 3, 1, 3]
    assert met.prompts.tolist() == ["p"] * 4


def test_an_answer_without_a_score_meets_nobody() -> None:
    ours = one_each("ours", {"p": 3.0, "q": None, "r": 1.0})
    theirs = one_each("theirs", {"p": 1.0, "q": 2.0, "r": None})
    assert meet(ours, theirs, "judge").prompts.tolist() == ["p"]


def test_the_same_seed_gives_the_same_interval() -> None:
    first, again, other = (duel(OURS, THEIRS, "judge", seed=seed, resamples=200) for seed in (1, 1, 2))
    assert first == again
    assert first["standard_error"] != other["standard_error"]


def test_one_prompt_gives_no_interval() -> None:
    rows = {"p": 1.0}
    found = scoreboard(
        one_each("ours", rows),
        {"initial": one_each("theirs", {"p": 0.0})},
        [AnswerKl(exact=0.5, k1=0.4, k3=0.6)],
        seed=0,
        resamples=100,
    )
    met = found["against"]["initial"]["judge"]
    assert met["win_rate"] == 100.0
    assert [met["interval"], met["standard_error"], met["lc_interval"], met["lc_standard_error"]] == [None] * 4
    assert (found["length"]["interval"], found["kl"]["interval"], found["kl"]["k3"]["interval"]) == (None, None, None)
    assert (found["length"]["ratio_interval"], found["finish_rate"]["interval"]) == (None, None)
    assert (found["distinct_2"]["interval"], found["score"]["judge"]["interval"]) == (None, None)


@pytest.fixture(scope="module")
def board() -> dict[str, Any]:
    ours = Answers(
        (
            response("a", "p", tokens=4, text="a b a b"),
            response("b", "q", tokens=8, text="A b c", finish="length"),
            response("c", "r", tokens=6, text="x"),
        ),
        {"judge": {"a": 1.0, "b": 2.0, "c": 6.0}, "truth": {"a": 0.0, "b": 0.0, "c": 1.0}},
    )
    initial = Answers(
        (
            response("d", "p", tokens=2, text="u v"),
            response("e", "q", tokens=3, text="v w"),
            response("f", "r", tokens=4, text="u v"),
        ),
        {"judge": {"d": 0.0, "e": 3.0, "f": 3.0}, "truth": {"d": 1.0, "e": 1.0, "f": 1.0}},
    )
    kls = [AnswerKl(exact=1.0, k1=-1.0, k3=0.5), AnswerKl(2.0, 2.0, 1.5), AnswerKl(6.0, 8.0, 4.0)]
    return scoreboard(ours, {"initial": initial, "previous": ours}, kls, seed=0, resamples=100)


def test_each_judge_has_its_own_say_against_each_opponent(board: dict[str, Any]) -> None:
    rates = {(o, j): found["win_rate"] for o, judges in board["against"].items() for j, found in judges.items()}
    assert rates == {
        ("initial", "judge"): pytest.approx(200 / 3),
        ("initial", "truth"): pytest.approx(50 / 3),
        ("previous", "judge"): 50.0,
        ("previous", "truth"): 50.0,
    }


def test_lengths_are_mean_tokens_beside_the_initial_models(board: dict[str, Any]) -> None:
    """Mean 6 with standard deviation 2 over three prompts, each answered once; t(2) at 97.5 % is 4.3027."""
    length = board["length"]
    error = 2 / 3**0.5
    assert (length["mean"], length["initial"], length["ratio"], length["unit"]) == (6.0, 3.0, 2.0, "tokens")
    assert length["standard_error"] == pytest.approx(error)
    assert length["interval"] == pytest.approx([6 - 4.302653 * error, 6 + 4.302653 * error], abs=1e-5)


def test_the_ratio_of_lengths_is_over_prompts_and_both_sides_are_uncertain() -> None:
    """The same prompts are long on both sides: the ratio is known better than either mean."""
    tokens = range(20, 35)
    ours = answers([response(f"o{n}", f"p{n}", tokens=n + 2) for n in tokens], [1.0] * 15)
    theirs = answers([response(f"t{n}", f"p{n}", tokens=n) for n in tokens], [1.0] * 15)
    ratio = length_ratio(ours, theirs, seed=0, draws=1000)
    assert (ratio.value, ratio.n, ratio.clusters) == (pytest.approx(29 / 27), 15, 15)
    assert 1.05 < ratio.interval[0] < ratio.value < ratio.interval[1] < 1.1


def test_the_ratio_of_lengths_is_over_all_turns_of_prompts_that_both_answered() -> None:
    def two_turns(owner: str, prompts: Sequence[str], first: int, second: int) -> Answers:
        opened = [response(f"{owner}{p}", p, tokens=first) for p in prompts]
        followed = [
            response(f"{owner}{p}2", f"{owner} said to {p}", tokens=second).model_copy(update={"root_id": p})
            for p in prompts
        ]
        return Answers((*opened, *followed), {}, {one.response_id: 2 for one in followed})

    ratio = length_ratio(two_turns("o", "pq", 10, 20), two_turns("t", "pqr", 5, 15), seed=0, draws=100)
    assert (ratio.value, ratio.n, ratio.clusters) == (1.5, 4, 2)


def test_kl_has_every_estimator_and_stands_beside_its_value_a_token(board: dict[str, Any]) -> None:
    """1, 2 and 6 nats: mean 3 with standard error sqrt(7 / 3); t(2) at 97.5 % is 4.3027."""
    kl = board["kl"]
    assert (kl["value"], kl["unit"], kl["n"], kl["per_token"]) == (3.0, "nats", 3, pytest.approx(0.5))
    assert kl["standard_error"] == pytest.approx((7 / 3) ** 0.5)
    assert kl["interval"] == pytest.approx([3 - 4.302653 * (7 / 3) ** 0.5, 3 + 4.302653 * (7 / 3) ** 0.5], abs=1e-5)
    assert [kl[name]["value"] for name in ("k1", "k3")] == [3.0, 2.0]
    assert kl["k1"]["interval"][0] < 3.0 < kl["k1"]["interval"][1]
    assert kl["cut"] == pytest.approx(1 / 3)
    assert kl["by_prompt"] == {"p": 1.0, "q": 2.0, "r": 6.0}


def test_finish_rate_repetition_and_scores_stand_beside_the_initial_models(board: dict[str, Any]) -> None:
    assert (board["finish_rate"]["value"], board["finish_rate"]["initial"]) == (pytest.approx(2 / 3), 1.0)
    variety = board["distinct_2"]
    assert (variety["value"], variety["initial"]) == (pytest.approx(3 / 5), pytest.approx(2 / 3))
    # without p: ab, bc of 2; without q: ab, ba of 3; without r, whose answer has no pair: as it is
    without = np.array([1.0, 2 / 3, 3 / 5])
    assert variety["standard_error"] == pytest.approx((2 / 3 * ((without - without.mean()) ** 2).sum()) ** 0.5)
    shown = {judge: (one["mean"], one["initial"], one["invalid"]) for judge, one in board["score"].items()}
    assert shown == {"judge": (3.0, 2.0, 0), "truth": (pytest.approx(1 / 3), 1.0, 0)}
    assert board["score"]["judge"]["standard_error"] == pytest.approx((7 / 3) ** 0.5)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["a b c"], 1.0),
        (["a b a b"], 2 / 3),
        (["a b", "A  B"], 0.5),
        (["a", "b"], 1.0),
        ([], 1.0),
        (["no no no no no"], 0.25),
    ],
)
def test_distinct_2_is_the_share_of_word_pairs_seen_once(texts: list[str], expected: float) -> None:
    assert distinct_2(texts) == pytest.approx(expected)


@pytest.mark.slow
def test_printed_intervals_of_a_round_cover_the_truth_as_often_as_stated() -> None:
    """400 rounds of 120 prompts before a judge that pays for length; the truth is the fit of a population of 400,000.

    The simulation's own standard error is 1.1 %.
    """
    theta, slope, scale = 0.5, -1.2, 900.0

    def drawn(generator: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        theirs = generator.lognormal(7.0, 0.4, size).round()
        ours = generator.lognormal(6.8, 0.5, size).round()
        return theirs, ours, 1 / (1 + np.exp(-slope * np.tanh((theirs - ours) / scale) - theta))

    theirs, ours, prob = drawn(np.random.default_rng(5), 400_000)
    truth = {
        "interval": 100 * prob.mean(),
        "lc_interval": length_controlled(prob, theirs, ours, c=1e6).length_controlled_winrate,
    }
    generator, covered = np.random.default_rng(1), dict.fromkeys(truth, 0)
    for number in range(400):
        theirs, ours, prob = drawn(generator, 120)
        won = generator.uniform(size=120) < prob
        sides = [
            Answers(
                tuple(response(f"{side}{n}", f"p{n}", text="x" * int(length)) for n, length in enumerate(lengths)),
                {"judge": {f"{side}{n}": float(score) for n, score in enumerate(scores)}},
            )
            for side, lengths, scores in (("o", ours, won), ("t", theirs, np.full(120, 0.5)))
        ]
        found = duel(*sides, "judge", seed=number, resamples=400)
        for interval, value in truth.items():
            low, high = found[interval]
            covered[interval] += low <= value <= high
    shares = {interval: count / 400 for interval, count in covered.items()}
    assert all(0.93 <= share <= 0.97 for share in shares.values()), shares


@pytest.mark.slow
def test_the_interval_of_variety_covers_what_as_many_prompts_show_on_average() -> None:
    """500 sets of 60 answers in 30 words by Zipf's law; the truth is the mean of 1,500 other sets."""
    chance = np.arange(1, 31) ** -1.0

    def drawn(seed: int) -> list[str]:
        generator = np.random.default_rng(seed)
        lengths = generator.integers(5, 25, 60)
        return [" ".join(map(str, generator.choice(30, size, p=chance / chance.sum()))) for size in lengths]

    truth = np.mean([distinct_2(drawn(10**6 + seed)) for seed in range(1500)])
    prompts = [f"p{number}" for number in range(60)]
    found = [distinct_2_estimate(drawn(seed), prompts).interval for seed in range(500)]
    assert 0.93 <= np.mean([low <= truth <= high for low, high in found]) <= 0.97


@pytest.mark.slow
def test_the_intervals_of_kl_finish_rate_and_length_ratio_cover_the_truth() -> None:
    """400 rounds of 60 prompts: lengths and KLs vary by prompt, and three of ten answers are cut.

    Of shares nearer to 0 or 1 whole counts make every interval's coverage oscillate (`test_proportion`).
    """
    covered: dict[str, int] = dict.fromkeys(("kl", "k1", "finish", "ratio"), 0)
    for seed in range(400):
        generator = np.random.default_rng(seed)
        hard = generator.normal(size=60)
        lengths = [(20 + 4 * hard + generator.normal(size=60) * 3 + more).round().astype(int) for more in (5, 0)]
        cut = generator.random(60) < 0.3
        exact = generator.gamma(4.0, 0.5, 60)
        ours, theirs = (
            answers(
                [
                    response(
                        f"{side}{n}", f"p{n}", tokens=int(lengths[number][n]), finish="length" if end[n] else "stop"
                    )
                    for n in range(60)
                ],
                [1.0 + (side == "o") * (n % 2) for n in range(60)],
            )
            for number, (side, end) in enumerate((("o", cut), ("t", np.zeros(60, bool))))
        )
        noisy, prompts = exact + 2 * generator.normal(size=60), np.arange(60)
        bounds = {
            "kl": (clustered_mean(exact, prompts).interval, 2.0),
            "k1": (clustered_mean(noisy, prompts).interval, 2.0),
            "finish": (finish_rate(ours, seed=seed, draws=400).interval, 0.7),
            "ratio": (length_ratio(ours, theirs, seed=seed, draws=400).interval, 25 / 20),
        }
        for name, ((low, high), truth) in bounds.items():
            covered[name] += low <= truth <= high
    shares = {name: count / 400 for name, count in covered.items()}
    assert all(0.93 <= share <= 0.97 for share in shares.values()), shares
