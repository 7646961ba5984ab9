import hashlib
import json
import re
import sqlite3
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from prefloop.errors import DataError
from prefloop.records import Alert, Estimate
from prefloop.report import closing_table, headline, page_of, read_run, text_table, write_report
from prefloop.report.curves import scatter, training, win_rates
from prefloop.report.figures import with_coarse_interval, with_interval
from prefloop.report.usable import usable_pairs
from prefloop.report.validation import reward_models_table, validation_table

from .conftest import CONTROLLED, JUDGE, TRUTH, BuildRun, evaluation, prompt, summary, write_json

ALERT = Alert(
    monitor="length",
    metric="length.ratio",
    value=2.14,
    threshold=2.0,
    remedy="set policy.objective.alpha to fitted",
    action="roll_back",
    message="answers became 2.14 times as long as the initial model's",
)


def page(run: Path) -> str:
    return write_report(run).read_text(encoding="utf-8")


class Attributes(HTMLParser):
    """All attributes and elements of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [(tag, "", ""), *((tag, name, value or "") for name, value in attrs)]


def test_the_numbers_of_the_evaluation_stand_in_the_page(build_run: BuildRun) -> None:
    run = build_run()
    text = page(run)
    for number in range(3):
        measured = json.loads((run / f"round-{number:02d}/evaluation.json").read_text())
        judge, truth = measured["against"]["initial"]["judge"], measured["against"]["initial"]["truth"]
        for value, ends in (
            (judge["win_rate"], judge["interval"]),
            (judge["length_controlled_winrate"], judge["lc_interval"]),
            (truth["win_rate"], truth["interval"]),
            (measured["length"]["mean"], measured["length"]["interval"]),
        ):
            assert f"<td>{value:.1f} ({ends[0]:.1f}–{ends[1]:.1f})</td>" in text  # noqa: RUF001
        assert f"<td>{measured['kl']['value']:.2f} ± 0.21</td>" in text
        assert f"<td>{100 * measured['finish_rate']['value']:.1f}</td>" in text


def test_the_closing_table_has_a_row_for_the_initial_model_and_one_a_round(build_run: BuildRun) -> None:
    rows = closing_table(build_run())
    assert [row.label for row in rows] == ["initial", "1", "2", "3"]
    assert rows[0].judge == rows[0].truth == Estimate(value=50.0)
    assert rows[3].truth == Estimate(value=68.2, standard_error=3.6, interval=(68.2 - 7.1, 68.2 + 7.1), n=96)
    assert rows[3].cells()[-3:] == ("3.09 ± 0.21", "59", "accepted")


def test_columns_in_which_nothing_was_measured_are_left_out(build_run: BuildRun) -> None:
    table = text_table(closing_table(build_run(1, evaluated=False)))
    assert table.headings == ("round", "pairs", "decision")
    assert table.lines == (("1", "57", "accepted"),)


def test_hostile_text_stays_text(build_run: BuildRun) -> None:
    hostile = '<script>alert(1)</script>"\' onload="alert(2)" </style></title><img src=https://example.org/x>'
    run = build_run(text=hostile)
    (run / "recipe.yaml").write_text(json.dumps({"title": hostile, "name": hostile, "rounds": 3}), encoding="utf-8")
    text = page(run)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    found = Attributes(text).found
    assert not [tag for tag, _, _ in found if tag in {"script", "img", "iframe", "object", "embed"}]
    assert not [name for _, name, _ in found if name.startswith("on")]


def test_a_hostile_name_of_a_constant_stays_inside_its_svg(build_run: BuildRun) -> None:
    run = build_run(1)
    write_json(run / "round-00/policy/fitted.json", {'"><script>alert(1)</script>': {"value": 1.0}})
    assert "<script" not in page(run)


def test_the_page_loads_nothing(build_run: BuildRun) -> None:
    text = page(build_run())
    links = [value for _, name, value in Attributes(text).found if name in {"src", "href", "srcset", "action", "data"}]
    assert links
    assert all(link.startswith("#") or link == "data:," for link in links)
    assert "url(" not in text
    assert "@import" not in text
    assert "http://" not in text
    assert "https://" not in text


def test_every_anchor_leads_to_a_section(build_run: BuildRun) -> None:
    found = Attributes(page(build_run())).found
    ids = [value for _, name, value in found if name == "id"]
    assert len(ids) == len(set(ids))
    wanted = {value.removeprefix("#") for tag, name, value in found if tag == "a" and name == "href"}
    wanted |= {word for _, name, value in found if name == "aria-labelledby" for word in value.split()}
    assert wanted <= set(ids)


def test_every_plot_is_well_formed_and_described(build_run: BuildRun) -> None:
    plots = re.findall(r"<figure.*?(<svg.*?</svg>)", page(build_run()), flags=re.DOTALL)
    assert len(plots) == 13
    for plot in plots:
        root = ElementTree.fromstring(plot)
        assert root.get("role") == "img"
        title, text = root.find("title"), root.find("desc")
        assert title is not None
        assert title.text
        assert text is not None
        assert text.text


def test_the_same_run_gives_the_same_bytes(build_run: BuildRun) -> None:
    run = build_run()
    assert page_of(read_run(run)) == page(run)


def test_nothing_of_this_machine_is_on_the_page(build_run: BuildRun, tmp_path: Path) -> None:
    run = build_run()
    recipe = {
        "title": "Mine",
        "rounds": 3,
        "model": f"{tmp_path}/models/mine",
        "data": ["~/x/pairs.jsonl", "org/name@main"],
    }
    (run / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    text = page(run)
    assert str(tmp_path) not in text
    assert "/opt/bin" not in text
    assert "…/mine" in text
    assert "…/pairs.jsonl" in text
    assert "org/name@main" in text
    assert "python 3.11.7, torch 2.13.0" in text


def test_superseded_artifacts_are_not_among_the_stages(build_run: BuildRun) -> None:
    stages = [stage.path for stage in read_run(build_run(1)).stages]
    assert stages[:3] == ["setup/evaluation-prompts", "setup/evaluation-initial", "round-00/prompts"]
    assert not [path for path in stages if path.startswith("superseded")]


def test_the_prompts_that_are_shown_are_the_first_by_the_hash_of_their_id(build_run: BuildRun) -> None:
    run = build_run()
    prompts = {prompt(number).prompt_id: number for number in range(15)}
    order = sorted(prompts, key=lambda name: hashlib.sha256(f'"{name}"'.encode()).hexdigest())
    compared = read_run(run).comparisons
    assert [one.prompt for one in compared] == [prompt(prompts[name]).messages[-1].content for name in order[:8]]
    for one, name in zip(compared, order, strict=False):
        assert one.before.scores == {judge: pytest.approx(0.1 * (prompts[name] % 7)) for judge in ("judge", "truth")}
        assert one.after.scores["truth"] == pytest.approx(0.1 * (prompts[name] % 7) + 0.15)
        assert one.before.cut == (prompts[name] == 3)
    assert "of 15 held-out prompts the first 8 in the order of the SHA-256 of their id" in page(run)


def test_the_answers_are_those_of_the_last_accepted_round(build_run: BuildRun) -> None:
    run = build_run()
    (run / "round-02/summary.json").write_text(summary(2, "rolled_back", (ALERT,)).model_dump_json())
    text = page(run)
    assert "<h4>After round 2</h4>" in text
    assert "<h4>After round 3</h4>" not in text
    assert "Round 3: rolled back; the run went on from the last accepted round" in text
    assert ALERT.remedy in text
    assert ">3†<" in text
    assert "Not accepted: round 3." in text
    assert "Alarm of the length monitor: round 3." in text


@pytest.mark.parametrize(
    ("truth", "claim"),
    [
        (
            (68.2, (61.1, 75.3)),
            "After 3 rounds the policy is better than the initial model: it wins 68.2 %",
        ),
        ((38.0, (31.0, 45.0)), "After 3 rounds the policy is worse than the initial model: it wins only 38.0 %"),
        (
            (53.0, (46.0, 60.0)),
            "After 3 rounds the policy is not shown to differ from the initial model: it wins 53.0 %",
        ),
        ((57.0, (50.0, 64.0)), "After 3 rounds the policy is not shown to differ from the initial model"),
        ((68.2, None), "without an interval, this may be chance."),
    ],
)
def test_the_headline_claims_what_the_interval_shows(
    build_run: BuildRun, truth: tuple[float, tuple[float, float] | None], claim: str
) -> None:
    run = build_run()
    measured = evaluation(2)
    rate, ends = truth
    measured["against"]["initial"]["truth"] |= {"win_rate": rate, "interval": ends}
    write_json(run / "round-02/evaluation.json", measured)
    sentence = headline(read_run(run)).replace("\N{NO-BREAK SPACE}", " ")
    assert claim in sentence
    assert "by the judge's truth, at 1.08 (1.04–1.12) times its length" in sentence  # noqa: RUF001


def test_without_a_truth_the_headline_takes_the_length_controlled_judge(build_run: BuildRun) -> None:
    run = build_run(truth=False)
    sentence = headline(read_run(run)).replace("\N{NO-BREAK SPACE}", " ")
    assert "wins 70.7 % (63.6–77.8) of held-out prompts by the judge with length controlled" in sentence  # noqa: RUF001
    assert ">truth, %<" not in page(run)


def test_a_run_that_was_never_evaluated_claims_nothing(build_run: BuildRun) -> None:
    run = build_run(1, evaluated=False, planned=1)
    assert headline(read_run(run)).endswith("it was not evaluated: this page cannot say whether it is better.")
    text = page(run)
    assert "Training loss" in text
    assert "Judge, raw" not in text
    assert "What this means" not in text


def test_a_run_of_which_no_round_was_accepted_says_so(build_run: BuildRun) -> None:
    run = build_run(1)
    (run / "round-00/summary.json").write_text(summary(0, "stopped", (ALERT,)).model_dump_json())
    assert headline(read_run(run)).startswith("None of 1 round was accepted")
    assert "Answers before and after" not in page(run)


def test_a_run_without_a_finished_round_has_a_page(build_run: BuildRun) -> None:
    run = build_run(0)
    assert "No round has finished yet" in page(run)
    assert closing_table(run) == ()


def test_a_round_that_is_under_way_is_shown_as_such(build_run: BuildRun) -> None:
    run = build_run(2)
    (run / "round-01/summary.json").unlink()
    (run / "round-01/evaluation.json").unlink()
    (run / "round-01/policy/fitted.json").unlink()
    text = page(run)
    assert "1 of 3 rounds has finished." in text
    assert [row.decision for row in closing_table(run)] == ["", "accepted", "unfinished"]


def test_a_bare_recipe_is_enough(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("name: mine\n")
    assert '<h1 id="title">mine</h1>' in page(tmp_path)


def test_training_in_blocks_is_found(build_run: BuildRun) -> None:
    run = build_run(1)
    for block in range(2):
        target = run / f"round-00/block-{block:02d}/policy"
        target.mkdir(parents=True)
        (target / "training.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
    assert [one.place for one in read_run(run).rounds[0].training] == [
        "round-00/block-00/policy",
        "round-00/block-01/policy",
        "round-00/policy",
    ]


def test_examples_that_were_kept_apart_are_told_by_source(build_run: BuildRun) -> None:
    """The share 0.625 of 8 has the standard error sqrt(0.625 x 0.375 / 8) = 17.1 points."""
    run = build_run(1)
    numbers = {"loss": 0.5, "rewards/accuracies": 0.625, "examples@b": 2, "loss@b": 0.7, "rewards/accuracies@b": 0.5}
    before = {**numbers, "loss": 0.693, "rewards/accuracies": 0.5, "loss@b": 0.6931}
    (run / "round-00/policy/validation.json").write_text(
        json.dumps({"examples": 8, "before": before, "after": numbers}), encoding="utf-8"
    )
    table = validation_table(read_run(run))
    assert table is not None
    assert table.lines == (
        ("1", "8", "all", "0.693", "0.500", "50.0", "62.5 ± 17.1"),
        ("1", "2", "b", "0.693", "0.700", "50.0", "50.0 ± 35.4"),
    )
    text = page(run)
    assert "On examples that were kept apart" in text
    assert "<td>62.5 ± 17.1</td>" in text


def test_reward_models_are_told_with_their_intervals(build_run: BuildRun) -> None:
    """One of the set-up; one of a round, which no pairs were kept apart for, is left out."""
    run = build_run(1)
    told = {"center": 0.1, "center_examples": 9, "accuracy": 0.635, "interval": [0.601, 0.662], "pairs": 800}
    for place, about in {"setup/rm": {**told, "prompts": 790}, "round-00/policy": {"center": 0.0}}.items():
        (run / place).mkdir(parents=True, exist_ok=True)
        (run / place / "reward_model.json").write_text(json.dumps(about), encoding="utf-8")
    table = reward_models_table(read_run(run))
    assert table is not None
    assert table.lines == (("setup/rm", "800", "790", "63.5", "60.1 to 66.2"),)
    text = page(run)
    assert "Reward models on pairs that were kept apart" in text
    assert "60.1 to 66.2" in re.sub("<[^>]+>", "", text)


def test_losses_that_are_no_numbers_are_left_out(build_run: BuildRun) -> None:
    run = build_run(1)
    (run / "round-00/policy/training.jsonl").write_text('{"step": 1, "loss": NaN}\n{"step": 2, "loss": 0.5}\n')
    assert not re.search(r"\bnan\b", page(run), flags=re.IGNORECASE)


def test_the_page_of_an_ordinary_run_is_small(build_run: BuildRun) -> None:
    assert len(page(build_run()).encode()) < 200_000


def test_long_training_and_long_answers_stay_under_a_megabyte(build_run: BuildRun) -> None:
    run = build_run(3, text="\N{CJK UNIFIED IDEOGRAPH-9577}'answer' " * 100_000)
    line = '{"loss": 0.5, "rewards/margins": 0.1, "logps/chosen": -50.123456, "logps/rejected": -60.0}\n'
    (run / "round-00/policy/training.jsonl").write_text(line * 20_000)
    text = page(run)
    assert len(text.encode()) < 1_000_000
    assert "characters in all" in text


def test_a_folder_that_is_no_run_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no recipe.yaml in it, so this is not a run folder") as caught:
        write_report(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("recipe.yaml", "a: [", "recipe.yaml: not a recipe: "),
        ("round-00/evaluation.json", "{}", "round-00/evaluation.json: not a Evaluation: against: Field required."),
        ("round-00/policy/training.jsonl", '{"loss": 1}\n{', "round-00/policy/training.jsonl:2: not a line of metrics"),
        ("environment.json", "{", "environment.json: not a JSON file"),
        ("journal.sqlite", "no database at all", "journal.sqlite: not a journal"),
    ],
)
def test_a_damaged_file_is_named(build_run: BuildRun, file: str, content: str, message: str) -> None:
    run = build_run(1)
    (run / file).write_text(content)
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        read_run(run)
    assert "\n" not in str(caught.value)
    assert not (run / "report").exists()


def test_coarse_intervals_are_rounded_outwards() -> None:
    assert with_coarse_interval(Estimate(value=58.3, interval=(49.2, 67.1))) == "58.3 (49–68)"  # noqa: RUF001
    assert with_coarse_interval(Estimate(value=58.3)) == "58.3"


def test_intervals_below_zero_are_written_in_words() -> None:
    assert with_interval(Estimate(value=0.04, interval=(-0.31, 0.4))) == "0.0 (−0.3 to 0.4)"  # noqa: RUF001


def test_the_first_screen_has_three_views_of_the_win_rate_on_one_scale(build_run: BuildRun) -> None:
    found = win_rates(read_run(build_run()))
    assert [plot.title for plot in found] == ["Judge, raw", "Judge, length-controlled", "Truth"]
    assert len({plot.at_least for plot in found}) == 1
    for plot, values in zip(found, (JUDGE, CONTROLLED, TRUTH), strict=True):
        (line,) = plot.series
        assert [point.y for point in line.points] == [50.0, *values]
        assert line.points[1].low == pytest.approx(values[0] - 7.1)


def test_every_figure_has_its_numbers_and_says_their_file(build_run: BuildRun) -> None:
    text = page(build_run())
    plots = re.findall(r"<figure.*?</figure>", text, flags=re.DOTALL)
    for plot in plots:
        assert "<summary>Numbers" in plot
        assert re.search(r"<th scope=\"row\">.*?<td>.*?</td>", plot)
        assert re.search(r"From (round-NN|setup)/[\w./-]+", plot)
    origins = text.split("<summary>Files of each figure")[1]
    for title in re.findall(r"<figcaption><strong>(.*?)</strong>", text):
        assert title in origins


def test_headings_go_down_one_level_at_a_time_and_landmarks_are_there(build_run: BuildRun) -> None:
    text = page(build_run())
    levels = [int(level) for level in re.findall(r"<h([1-6])", text)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    tags = [tag for tag, name, _ in Attributes(text).found if not name]
    assert {"header", "nav", "main"} <= set(tags)
    assert tags[tags.index("body") + 1] == "a"  # the skip link comes first
    assert '<a class="skip" href="#content">' in text


def test_the_log_ratios_are_rewards_divided_by_beta(build_run: BuildRun) -> None:
    found = {plot.name: plot for plot in training(read_run(build_run(1)))}
    chosen, rejected = found["log-ratios"].series
    assert (found["log-ratios"].y_label, chosen.label, rejected.label) == ("nats an answer", "chosen", "rejected")
    assert chosen.points[-1].y == pytest.approx(0.01 * 12 / 0.1)
    assert rejected.points[-1].y == pytest.approx(-0.02 * 12 / 0.1)


def test_without_a_beta_in_the_recipe_the_rewards_are_shown_as_they_are(build_run: BuildRun) -> None:
    run = build_run(1)
    (run / "recipe.yaml").write_text("name: mine\n")
    found = {plot.name: plot for plot in training(read_run(run))}
    assert found["log-ratios"].y_label == "reward units"
    assert found["log-ratios"].series[0].points[-1].y == pytest.approx(0.12)


def test_pairs_say_why_other_prompts_gave_none(build_run: BuildRun) -> None:
    run = build_run(1)
    (line,) = usable_pairs(read_run(run))
    assert (line.label, line.prompts, line.usable, line.cut, line.answers) == ("1", 64, 57, 3, 1256)
    assert line.dropped == (("tie", 4), ("same text", 3))
    assert "<td>57 from 64 prompts</td>" in page(run)
    assert "<td>tie: 4, same text: 3</td>" in page(run)


def test_a_round_whose_answers_gave_no_pair_is_in_the_table(build_run: BuildRun) -> None:
    run = build_run(2)
    (run / "round-01/summary.json").unlink()
    with sqlite3.connect(run / "journal.sqlite") as connection:
        connection.execute("delete from artifacts where path in ('round-01/pairs', 'round-01/policy')")
    connection.close()
    line = usable_pairs(read_run(run))[1]
    assert (line.label, line.note, line.cut, line.answers) == ("2", "judged, but no pairs are there", 3, 1256)
    assert "judged, but no pairs are there" in page(run)


@pytest.mark.parametrize("place", ["", "block-00/"])
def test_held_out_answers_are_none_that_could_have_been_paired(build_run: BuildRun, place: str) -> None:
    run = read_run(build_run(1))
    held_out = {"evaluation-samples": {"responses": 48.0, "cut": 7.0}, "evaluation-judgments": {"judgments": 48.0}}
    counts = {f"{place}data": {"pairs": 48.0}, f"{place}pairs": {"groups": 48.0, "examples": 40.0}, **held_out}
    unfinished = replace(run.rounds[0], counts=counts, summary=None)

    (line,) = usable_pairs(replace(run, rounds=(unfinished,)))

    assert (line.usable, line.answers, line.cut, line.note) == (40, 0, 0, "")


def test_score_is_plotted_against_length_before_and_after(build_run: BuildRun) -> None:
    judge, truth = scatter(read_run(build_run()))
    assert (judge.title, truth.title) == ("Judge's score against length", "True score against length")
    before, after = judge.clouds
    assert (before.label, after.label) == ("initial", "after round 3")
    assert before.dots[3] == (23.0, pytest.approx(0.3))
    assert after.dots[3] == (25.0, pytest.approx(0.45))
    assert before.mean[0] == 27.0
    assert judge.table.lines[0] == ("1 to 6", "–", "–")  # noqa: RUF001


def test_the_command_that_repeats_the_run_is_on_the_page(build_run: BuildRun) -> None:
    assert "<code>prefloop run RUN/recipe.yaml --run ANOTHER</code> (seed 0" in page(build_run())
