"""Every mistake is one line that says where, what was found, what was expected; and nothing is written."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from prefloop.config import load_recipe
from prefloop.errors import PrefloopError
from prefloop.loop import Progress, run_recipe

TINY = "recipe loop.tiny"

MISTAKES: Sequence[tuple[str, Sequence[str], str]] = [
    (
        "an unknown key",
        ["polcy.epochs=2"],
        f"{TINY}: 'polcy' is neither a recipe key nor a step of this recipe. Did you mean 'policy'?",
    ),
    (
        "an unknown setting",
        ["samples.num_sample=2"],
        f"{TINY}: samples.num_sample is not a setting. Did you mean 'num_samples'?",
    ),
    (
        "a wrong type",
        ["rounds=many"],
        f"{TINY}: rounds: Input should be a valid integer, unable to parse string as an integer, found 'many'.",
    ),
    (
        "a value out of range",
        ["samples.top_p=1.5"],
        f"{TINY}: samples.top_p: Input should be less than or equal to 1, found 1.5.",
    ),
    ("a wrong type of step", ["pairs.type=pear"], f"{TINY}: pairs: type is 'pear'. Did you mean 'pair'?"),
    ("an unknown judge", ["judgments.judge=vadr"], f"{TINY}: judgments.judge.type is 'vadr'. Did you mean 'vader'?"),
    (
        "a wrong field of a judge",
        ["judgments.judge.lenght_bias=1"],
        f"{TINY}: judgments.judge.lenght_bias is not a setting. Did you mean 'length_bias'?",
    ),
    (
        "an unknown objective",
        ["policy.objective=dpoo"],
        f"{TINY}: policy.objective.name is 'dpoo', which is not registered. Did you mean 'dpo'?",
    ),
    (
        "an unknown hyper-parameter",
        ["policy.objective.bta=1"],
        f"{TINY}: policy.objective.bta is not an option of dpo. Did you mean 'beta'?",
    ),
    (
        "a hyper-parameter out of range",
        ["policy.objective.beta=-1"],
        f"{TINY}: policy.objective.beta: Input should be greater than 0, found -1. dpo takes beta.",
    ),
    (
        "fitted where nothing fits",
        ["policy.objective.beta=fitted"],
        f"{TINY}: policy.objective.beta: Input should be a valid number",
    ),
    (
        "a way of finding a number that nobody knows",
        ["policy.objective={name: length_regularized_dpo, alpha: {length_ration: 1.0}}"],
        f"{TINY}: policy.objective.alpha.length_ration says nothing. Did you mean 'length_ratio'?",
    ),
    (
        "two ways of finding one number",
        ["policy.objective={name: length_regularized_dpo, alpha: {length_ratio: 1.0, fitted: 0.5}}"],
        f"{TINY}: policy.objective.alpha.fitted: Extra inputs are not permitted, found "
        "{'length_ratio': 1.0, 'fitted': 0.5}. Expected one of {fitted: ...}, {length_ratio: ..., gain: ...}.",
    ),
    (
        "an objective whose examples are still to come",
        ["policy.objective=tpo"],
        f"{TINY}: policy.objective.name is 'tpo', but policy_gold_logps",
    ),
    (
        "soft labels of an objective whose examples are coupled",
        ["policy.objective=aot", "policy.soft_labels=true"],
        f"{TINY}: policy.soft_labels: labels of aot cannot be softened, since ranks are of the whole step",
    ),
    (
        "an unknown rule",
        ["pairs.rule=best_wurst"],
        f"{TINY}: pairs.rule is 'best_wurst', which is not a rule. Did you mean 'best_worst'?",
    ),
    (
        "an option of no rule",
        ["pairs.min_margn=1"],
        f"{TINY}: pairs.min_margn is not an option of best_worst. Did you mean 'min_margin'?",
    ),
    (
        "a missing reference",
        ["policy.references={}"],
        f"{TINY}: policy.references does not name 'ref', which dpo reads. Add {{ref: round_start}} or {{ref: init",
    ),
    (
        "a reference that nobody reads",
        ["policy.references={ref: initial, prev: initial}"],
        f"{TINY}: policy.references names 'prev', but dpo reads ref. Remove it.",
    ),
    (
        "a list where one is read",
        ["policy.references={ref: [initial, round_start]}"],
        f"{TINY}: policy.references.ref has a list, but dpo reads one. Name one policy, or mix them: {{geometric:",
    ),
    (
        "an empty list of references",
        ["policy={objective: mrpo, references: {ref: initial, aux_ref: []}}"],
        f"{TINY}: policy.references.aux_ref is an empty list. Name a policy.",
    ),
    (
        "weights of fewer references than are named",
        [
            "policy={objective: {name: mrpo, weights: [0.5, 0.5]}, references: {ref: initial, "
            "aux_ref: [round_start, current]}}"
        ],
        f"{TINY}: policy.objective.weights has 2 values, but references name 3 policies. Give one a policy, that of",
    ),
    (
        "a reference of no form",
        ["policy.references={ref: {mean: [initial]}}"],
        f"{TINY}: policy.references.ref: expected a policy, a list of policies, {{geometric: ...}} or {{harmonic: ",
    ),
    (
        "weights that do not add up",
        ["policy.references={ref: {geometric: {policies: [initial, current], weights: [0.5, 0.4]}}}"],
        f"{TINY}: policy.references.ref.geometric: weights add up to 0.9, expected 1.",
    ),
    (
        "weights of other policies",
        ["policy.references={ref: {harmonic: {policies: [initial, current], weights: [1]}}}"],
        f"{TINY}: policy.references.ref.harmonic: 1 weights for 2 policies. Give one a policy.",
    ),
    (
        "an option of the other mixture",
        ["policy.references={ref: {geometric: {policies: [initial, current], weights: [0.5, 0.5], eta: 0.1}}}"],
        f"{TINY}: policy.references.ref.geometric.eta is not a setting.",
    ),
    (
        "a mixture with a policy that does not exist",
        ["policy.references={ref: {geometric: {policies: [initial, curent], weights: [0.5, 0.5]}}}"],
        f"{TINY}: policy: 'curent' has not been made when it is read.",
    ),
    (
        "a mixture of what cannot be mixed",
        ["policy={objective: wpo, references: {ref: {harmonic: {policies: [initial, current], weights: [1, 0]}}}}"],
        f"{TINY}: policy.references.ref is a mixture, which has no ",
    ),
    (
        "a mixture that would have to be loaded",
        ["policy={objective: tdpo2, references: {ref: {geometric: {policies: [initial, current], weights: [1, 0]}}}}"],
        f"{TINY}: policy.references.ref is a mixture, which has no weights, but tdpo2 needs it loaded while it trains.",
    ),
    (
        "a policy that does not exist",
        ["policy.references={ref: round_strat}"],
        f"{TINY}: policy: 'round_strat' has not been made when it is read.",
    ),
    (
        "a rule without its data",
        ["pairs.rule=given"],
        f"{TINY}: pairs.rule is 'given', which reads pairs of a data set, but no step of type data is there.",
    ),
    (
        "a step that reads nothing",
        ["block=[prompts, samples, pairs, policy]", "evaluation={suite: everyday, judge: vader}"],
        f"{TINY}: pairs: it reads judgments, but no step before it makes them.",
    ),
    (
        "steps in the wrong order",
        ["block=[prompts, judgments, samples, pairs, policy]"],
        f"{TINY}: judgments: it reads prompts, but no step before it makes them.",
    ),
    (
        "a name that reads forward",
        ["judgments.reads=[pairs]"],
        f"{TINY}: judgments: 'pairs' has not been made when it is read.",
    ),
    (
        "an earlier step that there is not",
        ["policy.references={ref: previous.plicy}"],
        f"{TINY}: policy: 'previous.plicy': there is no step 'plicy'. Did you mean 'policy'?",
    ),
    ("prompts as a policy", ["samples.policy=prompts"], f"{TINY}: samples: 'prompts' is no policy here."),
    (
        "the start of what was not trained",
        ["policy.references={ref: initial.start}"],
        f"{TINY}: policy: 'initial.start' is no policy here.",
    ),
    ("reads where nothing is read", ["prompts.reads=[pairs]"], f"{TINY}: prompts.reads is not a setting."),
    ("steps that are no list", ["setup=5"], f"{TINY}: setup: found 5, expected a list of step names."),
    (
        "a step listed twice",
        ["block=[prompts, samples, samples, judgments, pairs, policy]"],
        f"{TINY}: step 'samples': it is listed twice.",
    ),
    ("an override that is no YAML", ["policy.epochs=[1"], "--set ...=[1: not YAML:"),
    ("one with an e that is no YAML", ["samples.policy={current: "], "--set ...={current: : not YAML:"),
    (
        "a missing model",
        ["model=./models/none"],
        "./models/none: no such directory. Expected a directory with config.json, builtin:NAME or org/name@revision.",
    ),
    ("an unknown built-in", ["model=builtin:tinny"], "builtin:tinny"),
    (
        "more prompts than there are",
        ["prompts.count=100000"],
        f"{TINY}: prompts: prompts.count is 100000, but the set has 162 prompts.",
    ),
    ("a missing prompt file", ["prompts.data=none.jsonl"], f"{TINY}: prompts: none.jsonl: no such file."),
    (
        "an override without a value",
        ["rounds"],
        "--set rounds: expected KEY.KEY=VALUE, for example --set policy.learning_rate=1e-5.",
    ),
    (
        "an alias beside its own name",
        ["policy={lr: 1e-4, learning_rate: 1e-4}"],
        f"{TINY}: policy.lr and policy.learning_rate are the same setting.",
    ),
]


@pytest.mark.parametrize(("overrides", "message"), [case[1:] for case in MISTAKES], ids=[case[0] for case in MISTAKES])
def test_a_mistake_is_one_line_and_nothing_is_written(overrides: Sequence[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(PrefloopError) as error:
        run_recipe(load_recipe("loop.tiny", overrides), tmp_path / "run", Progress())

    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("\n", "all of its 1 rows are refused (empty_line 1)."),
        ('{"prompt": "Hello?"\n', "all of its 1 rows are refused (invalid_json 1)."),
        ('{"prompt": "  "}\n', "all of its 1 rows are refused (empty_text 1)."),
        ('{"messages": [{"role": "owner", "content": "x"}]}\n', "all of its 1 rows are refused (unknown_role 1)."),
        ('{"prompt": [{"role": "assistant", "content": "x"}]}\n', "no format fits the columns prompt (reply)."),
        ("[1]\n", "all of its 1 rows are refused (not_an_object 1)."),
        ("", "has no rows."),
    ],
)
def test_prompts_without_a_usable_row_are_found_before_anything_runs(rows: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(rows)

    with pytest.raises(PrefloopError) as error:
        run_recipe(load_recipe("loop.tiny", [f"prompts={{data: {file}, count: null}}"]), tmp_path / "run", Progress())

    assert str(error.value).startswith(f"{TINY}: prompts: prompts.jsonl: {message}")
    assert not (tmp_path / "run").exists()


def test_a_model_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "model" / name).write_text("{}")
    (tmp_path / "model" / "model.safetensors").touch()

    with pytest.raises(PrefloopError, match=r"has no chat template. Use an instruction-tuned model"):
        run_recipe(load_recipe("loop.tiny", [f"model={tmp_path / 'model'}"]), tmp_path / "run", Progress())


def test_a_folder_that_is_no_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("all my work")

    with pytest.raises(PrefloopError, match=r"is not empty and not a run folder\. Name another with --run\."):
        run_recipe(load_recipe("loop.tiny"), tmp_path, Progress())

    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_unwritable_place_is_said_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # the tests may run as root, who may write everywhere

    with pytest.raises(PrefloopError, match=rf"cannot be written, {tmp_path} does not allow it"):
        run_recipe(load_recipe("loop.tiny"), tmp_path / "run", Progress())


def test_an_unknown_step_for_until_names_the_steps(tmp_path: Path) -> None:
    loaded = load_recipe("loop.tiny")

    with pytest.raises(
        PrefloopError, match=r"--until pear: 'pear' is not a step of recipe loop.tiny. Did you mean 'pairs'\?"
    ):
        run_recipe(loaded, tmp_path / "run", Progress(), until="pear")
    with pytest.raises(
        PrefloopError, match=r"'round-07' is not a round of recipe loop.tiny. Known: round-00 to round-01."
    ):
        run_recipe(loaded, tmp_path / "run", Progress(), until="round-07/pairs")


@pytest.mark.long
def test_the_command_line_says_one_line_and_exits_with_2(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("extends: loop\nmodel: builtin:tiny\npolicy: {objective: simp0}\n")

    done = subprocess.run(
        [sys.executable, "-m", "prefloop", "run", "mine.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert done.stderr == (
        "prefloop: mine.yaml: policy.objective.name is 'simp0', which is not registered. "
        "Did you mean 'simpo'? `prefloop objectives` lists all.\n"
    )
    assert [file.name for file in tmp_path.iterdir()] == ["mine.yaml"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["run"], "Missing argument 'recipe'. `prefloop run --help` says what it takes.\n"),
        (["verify", "--nope"], "No such option: --nope. `prefloop verify --help` says what it takes.\n"),
        (["nope"], "No such command 'nope'. `prefloop --help` says what it takes.\n"),
    ],
)
def test_a_wrong_command_line_is_one_line_too(given: list[str], said: str) -> None:
    done = subprocess.run([sys.executable, "-m", "prefloop", *given], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.replace("python -m ", "") == f"prefloop: {said}"
