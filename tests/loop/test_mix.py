"""Step type `mix`, and a loop that starts from a policy of its set-up."""

import json
from collections.abc import Callable
from pathlib import Path

from prefloop.config import load_recipe
from prefloop.loop import Progress, RunResult, run_recipe
from prefloop.records import Example, Response, read_folder

SmallRun = Callable[..., RunResult]


def mixed(folder: Path, settings: str, *overrides: str, others_begin: int = 100) -> list[int]:
    """The numbers of the questions of a mixture: 0 to 5 of the first source, others of the second."""
    folder.mkdir(exist_ok=True)
    for name, numbers in (("first", range(6)), ("others", range(others_begin, others_begin + 10))):
        rows = ({"prompt": f"{number}?", "chosen": f"Yes to {name}.", "rejected": "No."} for number in numbers)
        (folder / name).with_suffix(".jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    loaded = load_recipe(
        "offline.tiny",
        [
            "block=[data, pairs, others, other_pairs, mixed, policy]",
            f"data={folder / 'first.jsonl'}",
            "pairs.reads=[data]",
            f"others={{type: data, source: {folder / 'others.jsonl'}}}",
            "other_pairs={type: pair, rule: given, reads: [others]}",
            f"mixed={{type: mix, reads: [pairs, other_pairs], {settings}}}",
            "policy.reads=[mixed]",
            "evaluation.suite=null",
            "machine.threads=1",
            *overrides,
        ],
    )
    run = run_recipe(loaded, folder / "run", Progress(), until="mixed").run
    made = read_folder(run / "round-00" / "mixed", Example)
    return [int(one.prompt.messages[-1].content.rstrip("?")) for one in made]


def test_all_of_the_first_step_and_at_most_their_share_of_others(tmp_path: Path) -> None:
    """Two of eight are a quarter; three of nine would be more."""
    made = mixed(tmp_path / "a", "shares: [0.25]")
    assert made[:6] == list(range(6))
    assert len(made) == 8
    assert all(number >= 100 for number in made[6:])
    assert mixed(tmp_path / "b", "shares: [0.25]") == made
    assert mixed(tmp_path / "c", "shares: [0.25]", "seed=7")[6:] != made[6:]
    assert mixed(tmp_path / "d", "shares: [0]") == list(range(6))


def test_an_exact_share_takes_less_of_the_first_step_too(tmp_path: Path) -> None:
    """Half of ten others would want five of the first six."""
    made = mixed(tmp_path / "exact", "shares: [0.5], exact: true")
    assert [sum(number < 100 for number in made), sum(number >= 100 for number in made)] == [5, 5]


def test_others_may_have_to_answer_other_prompts(tmp_path: Path) -> None:
    """Of the second step's questions 2 to 11 four are the first step's as well."""
    alike = mixed(tmp_path / "alike", "shares: [0.6]", others_begin=2)
    apart = mixed(tmp_path / "apart", "shares: [0.6], other_prompts: true", others_begin=2)
    assert (len(alike), len(apart)) == (15, 12)
    assert sorted(apart) == list(range(12))


def test_the_first_round_starts_from_the_policy_that_the_recipe_names(small_run: SmallRun) -> None:
    lesson = (
        "setup=[given_pairs, lessons, taught]",
        "given_pairs={type: data, source: everyday_pairs, count: 4}",
        "lessons={type: pair, rule: given}",
        "taught={type: train, start: initial, objective: dpo, references: {ref: initial}, learning_rate: 1e-3}",
    )
    plain = small_run(*lesson, name="plain", until="policy").run
    taught = small_run(*lesson, "start=taught", name="taught", until="policy").run

    def who(run: Path) -> set[str]:
        return {one.policy for one in read_folder(run / "round-00" / "samples", Response)}

    known = {run: json.loads((run / "setup/taught/policy.json").read_text())["identity"] for run in (plain, taught)}
    trained = {run: json.loads((run / "round-00/policy/policy.json").read_text()) for run in (plain, taught)}
    assert who(taught) == {known[taught]} == {trained[taught]["start"]}
    assert trained[taught]["references"] == {"ref": known[taught]}
    assert who(plain) != {known[plain]}
