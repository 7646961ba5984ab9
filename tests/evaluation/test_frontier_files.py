"""`prefloop evaluate frontier`: points on file by hand, runs, what is drawn, and what cannot be read."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from typer.testing import CliRunner

from prefloop.cli.app import app
from prefloop.errors import DataError, PrefloopError, RecipeError
from prefloop.evaluation import FrontierSettings, Measured, evaluate_frontier

SVG = "{http://www.w3.org/2000/svg}"
POINTS = {"initial": (0.0, 1.0), "a": (1.0, 2.0), "b": (2.0, 1.5), "c": (3.0, 4.0)}
"""The envelope leaves b out."""


def rows(method: str, shift: float = 0.0, prompts: int = 4) -> list[dict[str, Any]]:
    """Rewards of a prompt are the point's and half a unit more or less, the same at all points."""
    return [
        {
            "method": method,
            "point": point,
            "prompt": f"p{n}",
            "kl": kl,
            "reward": reward + shift * (kl > 0) + 0.5 * (-1) ** n,
        }
        for point, (kl, reward) in POINTS.items()
        for n in range(prompts)
    ]


def written(file: Path, lines: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def result(tmp_path: Path, *words: str) -> dict[str, Any]:
    out = tmp_path / "out.json"
    found = CliRunner().invoke(app, ["evaluate", "frontier", *words, "--json", str(out)])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    assert found.exit_code == 0, found.output
    return json.loads(out.read_text()) | {"text": found.output}


def test_points_envelope_rewards_at_kl_and_area_by_hand(tmp_path: Path) -> None:
    file = written(tmp_path / "a.jsonl", rows("dpo"))
    found = result(tmp_path, str(file), "--at", "0.5,2,9", "--up-to", "2")
    dpo = found["methods"]["dpo"]
    assert {name: (at["kl"]["value"], at["reward"]["value"]) for name, at in dpo["points"].items()} == POINTS
    assert [at["on_envelope"] for at in dpo["points"].values()] == [True, True, False, True]
    error = 0.5 * (4 / 3) ** 0.5 / 2  # the standard deviation of +-0.5 over four prompts, by sqrt(4)
    assert dpo["points"]["a"]["reward"]["interval"] == pytest.approx([2 - 3.182446 * error, 2 + 3.182446 * error])
    assert [one["value"] for one in dpo["reward_at"]] == [1.5, 3.0, None]
    assert dpo["area"] | {"interval": None} == {"up_to": 2.0, "value": 1.5 + 2.5, "interval": None}
    assert (dpo["n"], dpo["left_out"]) == (4, 0)
    assert "dpo: 1.50 [" in found["text"]
    assert "3.00 [" in found["text"]


def test_methods_are_compared_at_equal_kl_on_the_same_prompts(tmp_path: Path) -> None:
    """One is better by exactly 0.7 at every point but the first: the noise of prompts cancels."""
    file = written(tmp_path / "a.jsonl", rows("dpo") + rows("ipo", 0.7))
    (row,) = result(tmp_path, str(file), "--at", "2")["paired"]
    assert (row["model"], row["against"], row["kl"], row["n"]) == ("ipo", "dpo", 2.0, 4)
    assert row["difference"] == pytest.approx(0.7)
    assert row["interval"] == pytest.approx([0.7, 0.7])


def test_prompts_that_a_point_lacks_are_left_out_and_counted(tmp_path: Path) -> None:
    lines = [line for line in rows("dpo") if (line["point"], line["prompt"]) != ("a", "p3")]
    found = result(tmp_path, str(written(tmp_path / "a.jsonl", lines)))
    assert (found["methods"]["dpo"]["n"], found["methods"]["dpo"]["left_out"]) == (3, 1)
    assert "1 prompts were not measured at all of its points and are left out" in found["text"]


def test_order_and_repetition_of_lines_change_nothing() -> None:
    measured = [Measured(**line) for line in rows("dpo")]
    plain = evaluate_frontier(measured, FrontierSettings())
    shuffled = [measured[n] for n in np.random.default_rng(0).permutation(len(measured))]
    in_order = sorted(shuffled, key=lambda one: list(POINTS).index(one.point))
    assert evaluate_frontier(in_order, FrontierSettings()) == plain
    assert evaluate_frontier(measured * 2, FrontierSettings()) == plain


def test_best_of_n_stands_beside_it(tmp_path: Path) -> None:
    file = written(tmp_path / "a.jsonl", rows("dpo"))
    sets = written(tmp_path / "s.jsonl", [{"prompt": f"p{n}", "rewards": [1, 2, 3, 4 + n, 0]} for n in range(3)])
    found = result(tmp_path, str(file), "--best-of-n", str(sets))["best_of_n"]
    assert [one["n_samples"] for one in found] == [1, 2, 4]
    assert [one["kl"] for one in found] == pytest.approx([0.0, np.log(2) - 0.5, np.log(4) - 0.75])
    # of 0, 1, 2, 3 and m: the best of two is m in 4 of 10 pairs, 3 in 3, 2 in 2, 1 in 1
    assert found[1]["reward"]["value"] == pytest.approx(np.mean([(4 * m + 9 + 4 + 1) / 10 for m in (4, 5, 6)]))


def test_everything_is_drawn(tmp_path: Path) -> None:
    file = written(tmp_path / "a.jsonl", rows("dpo") + rows("ipo <1>", 0.7))
    sets = written(
        tmp_path / "s.jsonl", [{"prompt": "p", "rewards": [1.0, 2.0]}, {"prompt": "q", "rewards": [1.0, 2.0]}]
    )
    result(tmp_path, str(file), "--best-of-n", str(sets), "--plot", str(tmp_path / "f.svg"))
    root = ElementTree.fromstring((tmp_path / "f.svg").read_text())
    assert [text.text for text in root.iter(f"{SVG}text")][-3:] == ["dpo", "ipo <1>", "best of n"]
    envelopes = [line.attrib["points"].split() for line in root.iter(f"{SVG}polyline")]
    assert [len(points) for points in envelopes] == [3, 3, 2]
    titles = [title.text for title in root.iter(f"{SVG}title")]
    assert "dpo, b: 2.000 nats, 1.500" in titles
    hollow = [dot for dot in root.iter(f"{SVG}circle") if dot.attrib["fill"] == "#fff"]
    assert len(hollow) == 2


@pytest.mark.parametrize(
    ("lines", "options", "said"),
    [
        ([{"point": "a", "prompt": "p", "kl": 1.0, "reward": 2.0}], (), "a.jsonl:1: has no method"),
        ([{"method": "m", "point": "a", "prompt": "p", "kl": "1", "reward": 2.0}], (), "kl is '1', expected a number"),
        (
            [
                {"method": "m", "point": "a", "prompt": "p", "kl": 0.0, "reward": 2.0},
                {"method": "m", "point": "b", "prompt": "q", "kl": 1.0, "reward": 2.0},
            ],
            (),
            "m: no prompt was measured at all of its points (a, b)",
        ),
        (rows("m"), ("--at", "x"), "--at is 'x', expected KLs in nats by commas, such as 1,2,5."),
        (rows("m"), ("--up-to", "-1"), "--up-to -1: the points of m begin at 0 nats. Name a larger KL."),
        (rows("m"), ("--up-to", "nan"), "--up-to is nan, expected a KL in nats."),
        (rows("m"), ("--best-of-n", "none.jsonl"), "none.jsonl: there is no such file"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, lines: list[dict[str, Any]], options: tuple[str, ...], said: str
) -> None:
    with pytest.raises(PrefloopError) as error:
        result(tmp_path, str(written(tmp_path / "a.jsonl", lines)), *options)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_source_is_named_once(tmp_path: Path) -> None:
    file = str(written(tmp_path / "a.jsonl", rows("dpo")))
    with pytest.raises(RecipeError, match=r"a\.jsonl: named twice"):
        result(tmp_path, file, f"x={file}")


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: there is no such file or run"):
        result(tmp_path, "nowhere")


def test_one_prompt_has_no_interval() -> None:
    found = evaluate_frontier([Measured(**line) for line in rows("dpo", prompts=1)], FrontierSettings())["methods"][
        "dpo"
    ]
    assert found["points"]["a"]["reward"]["interval"] is None
    assert found["reward_at"][0] == {"kl": 1.0, "value": 2.5, "interval": None}


@pytest.mark.slow
def test_printed_intervals_cover_the_truth_as_often_as_stated() -> None:
    """400 frontiers of 120 prompts that are easier or harder at all points: of a point, at equal KL, and an area."""
    points = {"a": (0.0, 0.0), "b": (1.0, 1.0), "c": (3.0, 2.0)}
    covered: dict[str, int] = dict.fromkeys(("point", "at", "area"), 0)
    for seed in range(1000, 1400):
        generator = np.random.default_rng(seed)
        easy = generator.normal(size=120)
        measured = [
            Measured("m", name, f"p{n}", kl * generator.gamma(9.0, 1 / 9), reward + easy[n] + generator.normal() / 3)
            for name, (kl, reward) in points.items()
            for n in range(120)
        ]
        found = evaluate_frontier(measured, FrontierSettings(at=(2.0,), up_to=2.0, seed=seed, draws=300))
        one = found["methods"]["m"]
        bounds = {
            "point": (one["points"]["b"]["reward"]["interval"], 1.0),
            "at": (one["reward_at"][0]["interval"], 1.5),
            "area": (one["area"]["interval"], 0.5 + 1.25),
        }
        for name, ((low, high), truth) in bounds.items():
            covered[name] += low <= truth <= high
    shares = {name: count / 400 for name, count in covered.items()}
    assert all(0.93 <= share <= 0.97 for share in shares.values()), shares
