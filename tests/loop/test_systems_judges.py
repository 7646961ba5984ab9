"""Systems in their real form: what a trained or language model judges makes the pairs, and the policy itself may judge.

As in `test_systems.py` every test is of one recipe's twin; docs/systems.md shows its first line beside the recipe.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from prefloop.config import load_recipe
from prefloop.loop import Progress, run_recipe
from prefloop.records import Example, Judgment, Prompt, Response, read_folder

pytestmark = pytest.mark.recipes

FEW = ("machine.threads=1", "policy.epochs=1")


def ran(name: str, run: Path, *overrides: str, until: str = "pairs", reuse: Path | None = None) -> Path:
    loaded = load_recipe(f"{name}.tiny", [*FEW, *overrides])
    return run_recipe(loaded, run, Progress(), until=until, reuse=reuse).run


def pairs_of(folder: Path) -> list[Example]:
    return list(read_folder(folder / "pairs", Example))


def said_of(folder: Path, step: str = "judgments") -> list[Judgment]:
    return list(read_folder(folder / step, Judgment))


def ids(examples: Sequence[Example]) -> list[tuple[str, ...]]:
    return [tuple(member.response_id for member in one.members) for one in examples]


def assert_a_trained_model_decides(name: str, folder: Path) -> None:
    """Every pair is in the order of the model's own scores, which are centred; a rule makes other pairs."""
    run = ran(name, folder / "run", "prompts.count=12")
    ruled = ran(name, folder / "ruled", "prompts.count=12", "judgments.judge=vader", reuse=run)

    said = {one.subjects[0]: one.values[0] or 0.0 for one in said_of(run / "round-00")}
    assert {one.judge.rpartition(":center")[0][:20] for one in said_of(run / "round-00")} == {"reward_model:reward:"}
    assert len(set(said.values())) > 12
    for chosen, rejected in ids(pairs_of(run / "round-00")):
        assert said[chosen] > said[rejected]
    assert ids(pairs_of(run / "round-00")) != ids(pairs_of(ruled / "round-00"))


@pytest.mark.system("ilr_dpo_reward_model")
def test_a_trained_reward_model_judges_length_regularised_dpo(tmp_path: Path) -> None:
    """Every pair is in the order of the scores of the model that the run trained; a rule makes other pairs."""
    assert_a_trained_model_decides("ilr_dpo_reward_model", tmp_path)


@pytest.mark.system("rlhf_workflow_reward_model")
def test_a_trained_reward_model_judges_the_workflow(tmp_path: Path) -> None:
    """Every pair is in the order of the scores of the model that the run trained; a rule makes other pairs."""
    assert_a_trained_model_decides("rlhf_workflow_reward_model", tmp_path)


@pytest.mark.system("reward_ensemble")
def test_an_ensemble_chooses_by_its_worst_case_and_rejects_by_its_mean(tmp_path: Path) -> None:
    """Chosen is the highest smallest score of four models, rejected the lowest mean, from the judgments by hand; the
    mean on both sides makes other pairs of the same judgments, and nobody judges again."""
    run = ran("reward_ensemble", tmp_path / "run", "prompts.count=24")
    mean = ran("reward_ensemble", tmp_path / "mean", "prompts.count=24", "pairs.chosen=mean", reuse=run)

    said: dict[str, dict[str, float]] = {}
    for one in said_of(run / "round-00"):
        said.setdefault(one.subjects[0], {})[one.judge] = one.values[0] or 0.0
    assert all(len(by) == 4 for by in said.values())
    prompt_of = {one.response_id: one.prompt_id for one in read_folder(run / "round-00/samples", Response)}
    for chosen, rejected in ids(pairs_of(run / "round-00")):
        group = [one for one in said if prompt_of[one] == prompt_of[chosen]]
        assert min(said[chosen].values()) == max(min(said[one].values()) for one in group)
        means = {one: np.mean([*said[one].values()]) for one in group}
        assert means[rejected] == pytest.approx(min(means.values()), abs=1e-12)
    assert ids(pairs_of(run / "round-00")) != ids(pairs_of(mean / "round-00"))
    judged = [(of / "round-00/judgments/part-00000.jsonl").read_bytes() for of in (run, mean)]
    assert judged[0] == judged[1]


@pytest.mark.system("dno_llm")
def test_a_language_model_grades_teacher_and_policy_side_by_side(tmp_path: Path) -> None:
    """One ask has all answers of a prompt, the teacher's among them, in a drawn order; pairs are as far apart in its
    scores as the margins say."""
    run = ran("dno_llm", tmp_path / "run")

    said = said_of(run / "round-00")
    assert [len(one.subjects) for one in said] == [4] * 4
    assert all(one.judge.startswith("llm:builtin:smollm2-135m-instruct") for one in said)
    assert all(0 < (value or 0.0) < 6 for one in said for value in one.values)
    teacher = {one.response_id for one in read_folder(run / "round-00/data/responses", Response)}
    places = [next(n for n, subject in enumerate(one.subjects) if subject in teacher) for one in said]
    assert len(set(places)) > 1
    scores = {subject: value for one in said for subject, value in zip(one.subjects, one.values, strict=True)}
    made = pairs_of(run / "round-00")
    assert made
    for chosen, rejected in ids(made):
        assert (scores[chosen] or 0) - (scores[rejected] or 0) >= (0.02 if chosen in teacher else 0.01)


@pytest.mark.system("oaif_llm")
def test_a_language_model_compares_two_answers_in_both_orders(tmp_path: Path) -> None:
    """A pair has the winner of the mean of both orders, by the log-probabilities of two letters, and how sure it is."""
    run = ran("oaif_llm", tmp_path / "run", "blocks=1", "rounds=1")
    folder = run / "round-00"

    said = {one.subjects: one.values[0] or 0.0 for one in said_of(folder)}
    assert all(one.judge.startswith("llm:builtin:smollm2-135m-instruct") for one in said_of(folder))
    made = pairs_of(folder)
    assert made
    for one, (chosen, rejected) in zip(made, ids(made), strict=True):
        won = (said[chosen, rejected] + 1 - said[rejected, chosen]) / 2
        assert 0.5 < won == pytest.approx(one.numbers["prob_chosen_wins"], abs=1e-12)


@pytest.mark.system("self_rewarding")
def test_a_self_rewarding_policy_writes_its_prompts_and_grades_its_answers(tmp_path: Path) -> None:
    """Answered are prompts that it wrote, none of the set; its own scores decide, best against worst, and in round 1
    the trained policy is the judge."""
    run = ran("self_rewarding", tmp_path / "run", "seed_prompts.count=12", until="round-01/pairs")

    for round_ in ("round-00", "round-01"):
        folder = run / round_
        seeds = {one.messages[-1].content for one in read_folder(folder / "seed_prompts", Prompt)}
        asked = {one.prompt_id: one for one in read_folder(folder / "new_prompts", Prompt)}
        written = " ".join(one.text for one in read_folder(folder / "written", Response))
        assert asked
        assert all(
            one.messages[-1].content in written and one.messages[-1].content not in seeds for one in asked.values()
        )
        assert {one.prompt_id for one in read_folder(folder / "samples", Response)} == set(asked)
        said = {one.subjects[0]: one.values[0] or 0.0 for one in said_of(folder)}
        prompt_of = {one.response_id: one.prompt_id for one in read_folder(folder / "samples", Response)}
        for one, (chosen, rejected) in zip(pairs_of(folder), ids(pairs_of(folder)), strict=True):
            group = [said[answer] for answer in said if prompt_of[answer] == prompt_of[chosen]]
            assert (said[chosen], said[rejected]) == (max(group), min(group))
            assert one.prompt.prompt_id == prompt_of[chosen]
    judges = [{one.judge for one in said_of(run / round_)} for round_ in ("round-00", "round-01")]
    assert all(name.startswith("llm:current:") for name in judges[0] | judges[1])
    assert not judges[0] & judges[1]


@pytest.mark.slow
@pytest.mark.system("step_dpo_llm")
def test_a_language_model_finds_the_step_that_is_least_likely_right(tmp_path: Path) -> None:
    """Every wrong solution is cut before the step with the lowest of its probabilities; where the judge is a rule that
    does the sums again, other beginnings are left."""
    few = ("prompts.count=4", "solutions.num_samples=3")
    run = ran("step_dpo_llm", tmp_path / "run", *few, until="beginnings")
    ruled = ran(
        "step_dpo_llm", tmp_path / "ruled", *few, "verdicts.judge={type: arithmetic_steps, steps: lines}",
        until="beginnings", reuse=run,
    )  # fmt: skip

    folder = run / "round-00"
    solutions = {one.response_id: one for one in read_folder(folder / "solutions", Response)}
    right = {one.subjects[0]: one.values[0] for one in said_of(folder, "ends")}
    expected: set[tuple[int, ...]] = set()
    for one in said_of(folder, "verdicts"):
        assert one.kind == "steps"
        assert one.judge.startswith("llm_steps:builtin:smollm2-135m-instruct")
        if right[one.subjects[0]] != 1:
            worst = min(range(len(one.values)), key=lambda place: one.values[place] or 0.0)
            expected.add((solutions[one.subjects[0]].token_ids or ())[: one.spans[worst][0]])
    begun = [{one.prefix_ids for one in read_folder(of / "round-00/beginnings", Prompt)} for of in (run, ruled)]
    assert begun[0] <= expected
    assert len(begun[0]) > 1
    assert begun[0] != begun[1]


@pytest.mark.system("mcts_dpo_confidence")
def test_a_search_values_steps_by_the_policys_own_confidence(tmp_path: Path) -> None:
    """No rollout is sampled: what steps are worth are the policy's own probabilities, and visits are others than by
    rollouts."""
    few = ("prompts.count=6", "tree.simulations=6")
    run = ran("mcts_dpo_confidence", tmp_path / "run", *few, until="tree")
    rolled = ran("mcts_dpo_confidence", tmp_path / "rolled", *few, "tree.worth=rollouts", until="tree", reuse=run)

    q = [
        value
        for one in read_folder(run / "round-00/tree/judgments", Judgment)
        if one.aspect == "q"
        for value in one.values
        if value is not None
    ]
    assert len({round(value, 9) for value in q}) > len(q) / 2  # rollouts behind a step end in one of few ways
    visits = [
        [one.values for one in read_folder(of / "round-00/tree/judgments", Judgment) if one.aspect == "visits"]
        for of in (run, rolled)
    ]
    assert visits[0] != visits[1]
