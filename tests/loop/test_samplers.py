"""Sample steps of real runs on builtin:tiny: what they can be told, and answers that were sampled before."""

import json
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from prefloop.config import Precision, load_recipe
from prefloop.errors import DataError, RecipeError, ResumableError
from prefloop.loop import RunResult, appraisal, plan_recipe, precision
from prefloop.loop.plan import PlannedStep
from prefloop.loop.steps import sample
from prefloop.policy import ChatCodec, PolicyFiles, Workbench, resolve_model
from prefloop.policy.faster_precision import Trial
from prefloop.sampling import LocalPolicies
from prefloop.testing import CompletionsServer, Faults

from .conftest import SMALL, stable_files

SmallRun = Callable[..., RunResult]
SAMPLES = "round-00/samples/part-00000.jsonl"
EVALUATED = "round-00/evaluation-samples/part-00000.jsonl"


def responses(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / SAMPLES).read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("setting", "value"),
    [("repetition_penalty", 2.0)]
    + [
        pytest.param(*one, marks=pytest.mark.slow)
        for one in (("top_k", 2), ("min_p", 0.5), ("stop", [" the"]), ("stop_ids", [300]))
    ],
)
def test_a_setting_reaches_the_sampler_and_is_recorded(small_run: SmallRun, setting: str, value: object) -> None:
    plain = responses(small_run(name="plain", until="samples").run)
    told = responses(small_run(f"samples.{setting}={value}", name="told", until="samples").run)

    assert [one["settings"] for one in plain] == [{"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 24}] * 18
    assert [one["settings"][setting] for one in told] == [value] * 18
    assert [one["seed"] for one in told] == [one["seed"] for one in plain]
    if setting != "stop_ids":
        assert [one["token_ids"] for one in told] != [one["token_ids"] for one in plain]


def test_an_open_precision_is_tried_once_and_stays_with_the_run(
    small_run: SmallRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [Trial(2.0, 1.0)]
    monkeypatch.setattr(precision, "faster_precision", lambda _directory, _device: clock[0])
    open_one = "samples.sampler={type: local, precision: auto}"
    rounded = small_run("samples.sampler={type: local, precision: bfloat16}", name="told", until="samples").run
    plain = small_run("samples.sampler={type: local, precision: float32}", name="plain", until="samples").run
    loaded = load_recipe("loop.tiny", (*SMALL, open_one))
    assert plan_recipe(loaded, tmp_path / "run").precision == str(clock[0])

    first = small_run(open_one, until="samples")

    assert "sampling in bfloat16: products in bfloat16 are 2.00 times as fast" in capsys.readouterr().err
    assert (first.run / SAMPLES).read_bytes() == (rounded / SAMPLES).read_bytes() != (plain / SAMPLES).read_bytes()
    assert {one["settings"]["precision"] for one in responses(first.run)} == {"bfloat16"}
    assert "precision" not in responses(plain)[0]["settings"]
    assert json.loads((first.run / "precision.json").read_text()) == {"float32": 2.0, "bfloat16": 1.0}

    clock[0] = Trial(1.0, 2.0)  # a later call finds the machine busy
    assert small_run(open_one, until="samples").made == ()
    assert plan_recipe(loaded, first.run).steps[1].status == "kept"
    (first.run / "precision.json").unlink()
    assert small_run(open_one, until="samples").made == ("round-00/samples",)
    assert (first.run / SAMPLES).read_bytes() == (plain / SAMPLES).read_bytes()

    (first.run / "precision.json").write_text('{"float32": 2.0}')
    with pytest.raises(DataError, match=r"precision\.json: is damaged, expected the seconds of a trial\. Remove it"):
        small_run(open_one, until="samples")
    with pytest.raises(RecipeError, match=r"samples\.sampler\.precision is not a setting"):
        load_recipe("loop.tiny", ["samples.sampler={type: server, url: 'http://a', model: m, precision: auto}"])


def test_instructions_take_turns_and_the_answers_stay_those_of_the_plain_prompt(small_run: SmallRun) -> None:
    plain = responses(small_run(name="plain", until="samples").run)
    told = responses(small_run("samples.instructions=['', happy lovely wonderful]", name="told", until="samples").run)

    assert [one["prompt_id"] for one in told] == [one["prompt_id"] for one in plain]
    followed = [one["settings"].get("instruction") for one in told]
    assert followed == [None, "happy lovely wonderful", None] * 6
    same = [one["token_ids"] == other["token_ids"] for one, other in zip(told, plain, strict=True)]
    assert all(equal for equal, text in zip(same, followed, strict=True) if text is None)
    assert not any(equal for equal, text in zip(same, followed, strict=True) if text is not None)


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        ("{policy: {geometric: {policies: [current, initial], weights: [0.5, 0.5]}}, sampler: {type: server, "
         "url: http://localhost:1, model: m}}", "policy is a mixture, which sampler server cannot give: use sampler"),
        ("{contrast: prompts, sampler: {type: replay, file: x}}",
         "contrast is a mixture, which sampler replay cannot give: use sampler local"),
        ("{contrast: prompts, policy: {geometric: {policies: [current, initial], "
         "weights: [0.5, 0.5]}}}", "contrast is of one policy, but policy is a mixture"),
        ("{contrast: prompts, instructions: [Be kind.]}", "instructions and contrast both change"),
        ("{instructions: [Be kind.], sampler: {type: replay, file: x}}", "instructions are for a sampler, but"),
        ("{gap: 0.5}", "gap is between two prompts, but there is one: name the step with the other as contrast"),
        ("{placement: system}", "placement says where instructions stand, but there are none"),
        ("{policy: {harmonic: {}}}", "expected a policy, or {geometric: ...} of several"),
        ("{policy: {geometric: {policies: [current, initial], weights: [0.5, 0.6]}}}", "weights add up to 1.1, expec"),
        ("{policy: {geometric: {policies: [current, nobody], weights: [0.5, 0.5]}}}", "'nobody' has not been made"),
        ("{contrast: nobody}", "'nobody' has not been made when it is read"),
    ],
)  # fmt: skip
def test_what_cannot_be_sampled_so_is_said_before_the_run(
    small_run: SmallRun, samples: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError) as error:
        small_run(f"samples={samples}")
    assert said in str(error.value)
    assert str(error.value).startswith("recipe loop.tiny: samples")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_replayed_samples_give_the_same_run_byte_by_byte(small_run: SmallRun, tmp_path: Path) -> None:
    first = small_run(name="first")
    kept = tmp_path / "kept"
    shutil.copytree(first.run / "round-00" / "samples", kept)

    again = small_run(f"samples.sampler={{type: replay, file: {kept}}}", name="again")

    before, after = stable_files(first.run), stable_files(again.run)
    naming_policies = ("round-00/evaluation-samples", "round-00/evaluation-judgments", "round-00/summary.json")
    same = {name for name in before if not name.startswith((*naming_policies, "round-00/policy/policy.json"))}
    assert after.keys() == before.keys()
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    assert {SAMPLES, "round-00/policy/training.jsonl", "round-00/evaluation.json"} < same


@pytest.mark.slow
def test_another_content_of_the_replayed_file_runs_again_and_another_place_does_not(
    small_run: SmallRun, tmp_path: Path
) -> None:
    first = small_run(name="first", until="samples")
    for name in ("kept", "moved"):
        shutil.copytree(first.run / "round-00" / "samples", tmp_path / name)
    replayed = small_run(f"samples.sampler={{type: replay, file: {tmp_path / 'kept'}}}", name="again", until="samples")
    assert replayed.made[-1] == "round-00/samples"

    moved = f"samples.sampler={{type: replay, file: {tmp_path / 'moved'}}}"
    assert small_run(moved, name="again", until="samples").made == ()
    file = tmp_path / "moved" / "part-00000.jsonl"
    file.write_text(file.read_text(encoding="utf-8").replace('"index": 2', '"index": 7'), encoding="utf-8")
    with pytest.raises(DataError, match=r"has 3 answers to prompt \w+ \(.*\), expected 3, index 0 and up"):
        small_run(moved, name="again", until="samples")


def test_a_file_that_is_not_there_is_said_before_the_run(small_run: SmallRun, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"loop.tiny: samples: sampler.file nowhere: there is no such file"):
        small_run("samples.sampler={type: replay, file: nowhere}")
    assert not (tmp_path / "run").exists()


def tiny_server(**options: Any) -> CompletionsServer:
    source = resolve_model("builtin:tiny")
    bench = Workbench(source, ChatCodec.load(source.directory, {}), torch.device("cpu"))
    return CompletionsServer(bench, PolicyFiles("served", source.directory), **options)


def at(url: str, step: str = "samples", **others: Any) -> str:
    return f"{step}.sampler={json.dumps({'type': 'server', 'url': url, 'model': 'tiny', **others})}"


RUNS = """
import sys
from pathlib import Path
from prefloop.config import Precision, load_recipe
from prefloop.loop import Progress, run_recipe
run_recipe(load_recipe("loop.tiny", sys.argv[2:]), Path(sys.argv[1]), Progress(), until="samples")
"""


def asked_of(server: CompletionsServer) -> list[str]:
    return [body for body in server.answers if '"max_tokens":24' in body]


def kept_in(file: Path) -> int:
    with closing(sqlite3.connect(file)) as database:
        return database.execute("SELECT count(*) FROM completions").fetchone()[0]


def wait_for(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 300
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.02)


class HoldsAfterFive(CompletionsServer):
    """Keeps clients waiting once five of the step's calls are answered."""

    holds: bool = False

    def delay(self) -> None:
        self.is_holding = self.is_holding or (self.holds and len(asked_of(self)) >= 5)


@pytest.mark.crash
def test_a_process_that_is_killed_with_calls_under_way_lost_no_answer_and_asks_for_none_again(
    small_run: SmallRun, tmp_path: Path
) -> None:
    plain = tiny_server()
    server = HoldsAfterFive(plain.bench, plain.policy, lacks=frozenset({"n"}))
    with server.running() as url:
        told = (at(url, concurrency=4), "samples.wave=6")
        whole = small_run(*told, name="whole", until="samples").run
        server.answers.clear()
        server.holds = True
        killed = subprocess.Popen([sys.executable, "-c", RUNS, str(tmp_path / "killed"), *SMALL, *told])
        try:
            wait_for(lambda: server.held == 4)
            answered = len(asked_of(server))
            wait_for(lambda: kept_in(tmp_path / "killed" / "answers.sqlite") == answered)
        finally:
            killed.kill()
            killed.wait()
        wait_for(lambda: server.held == 0)
        server.holds = server.is_holding = False
        assert 5 <= answered == len(asked_of(server)) <= 14
        ran = small_run(*told, name="killed", until="samples").run
    assert len(asked_of(server)) == len(set(asked_of(server))) == 18
    assert (ran / SAMPLES).read_bytes() == (whole / SAMPLES).read_bytes()


ADAPTED = "policy={lora: 4, learning_rate: 1e-2, batch_size: 2}"


@pytest.mark.slow
def test_every_rounds_adapter_is_published_and_answers_and_is_taken_back(small_run: SmallRun) -> None:
    server = tiny_server()
    with server.running() as url:
        ran = small_run(at(url), ADAPTED, "rounds=2", until="round-01/samples").run
    first = json.loads((ran / SAMPLES).read_text(encoding="utf-8").splitlines()[0])
    assert first["ids_from"] == "sampler"
    assert first["sum_logp"] < 0
    names = {json.loads(body)["model"] for body in server.answers}
    assert len(names) == 2
    assert "tiny" in names
    assert any(name.startswith("prefloop-") for name in names)
    assert server.adapters == {}
    assert (ran / "answers.sqlite").is_file()


@pytest.mark.slow
def test_an_evaluation_samples_from_servers_and_knows_its_kl_also_where_they_give_no_log_probabilities(
    small_run: SmallRun,
) -> None:
    found: list[dict[str, Any]] = []
    for name, lacks in (("with", frozenset[str]()), ("without", frozenset({"logprobs"}))):
        server = tiny_server(lacks=lacks)
        with server.running() as url:
            ran = small_run(at(url, "evaluation"), ADAPTED, name=name).run
        asked = Counter(json.loads(body)["model"].split("-")[0] for body in asked_of(server))
        assert asked == {"tiny": 5, "prefloop": 5}
        answers = [json.loads(line) for line in (ran / EVALUATED).read_text(encoding="utf-8").splitlines()]
        assert [("sum_logp" in one) for one in answers] == [name == "with"] * 5
        found.append(json.loads((ran / "round-00/evaluation.json").read_text(encoding="utf-8")))
    assert found[0]["kl"]["value"] > 1e-3
    assert found[1]["kl"]["value"] == pytest.approx(found[0]["kl"]["value"], abs=1e-4)
    assert {**found[1], "kl": None} == {**found[0], "kl": None}


@pytest.mark.slow
def test_an_engine_that_loads_no_adapters_is_said_in_one_line_and_the_run_goes_on_later(small_run: SmallRun) -> None:
    told = (ADAPTED, "rounds=2")
    without = tiny_server(lacks=frozenset({"load_lora_adapter"}))
    with without.running() as url, pytest.raises(ResumableError) as error:
        small_run(at(url), *told, until="round-01/samples")
    assert (
        f"{url}: loads no adapters (load_lora_adapter answered 404; vLLM needs --enable-lora and "
        f"VLLM_ALLOW_RUNTIME_LORA_UPDATING=true); {url}: its log-probabilities of greedy answers are"
    ) in str(error.value)
    assert "/round-00/policy/model as tiny and give the same command again." in str(error.value)
    assert "\n" not in str(error.value)
    with tiny_server().running() as url:  # at another address, which is no part of any identity
        assert small_run(at(url), *told, until="round-01/samples").made == ("round-01/samples",)


@pytest.mark.slow
def test_weights_of_its_own_need_a_server_that_takes_them(small_run: SmallRun) -> None:
    with tiny_server().running() as url, pytest.raises(ResumableError) as error:
        small_run(at(url), "policy={learning_rate: 1e-2, batch_size: 2}", "rounds=2", until="round-01/samples")
    assert "takes no new weights (update_weights_from_disk answered 404)" in str(error.value)


@pytest.mark.slow
def test_samples_of_a_server_that_was_lost_are_made_again_from_what_was_kept(small_run: SmallRun) -> None:
    server = tiny_server()
    with server.running() as url:
        ran = small_run(at(url), until="samples").run
        before = (ran / SAMPLES).read_bytes()
        asked = sum('"max_tokens":24' in body for body in server.answers)
        shutil.rmtree(ran / "round-00" / "samples")
        small_run(at(url), until="samples")
        assert (ran / SAMPLES).read_bytes() == before
        assert sum('"max_tokens":24' in body for body in server.answers) == asked == 6


def test_tokens_that_were_made_from_text_are_counted(small_run: SmallRun) -> None:
    with tiny_server(lacks=frozenset({"return_token_ids"})).running() as url:
        ran = small_run(at(url), until="samples").run
    database = sqlite3.connect(ran / "journal.sqlite")
    counts = [json.loads(row[0]) for row in database.execute("SELECT counts FROM artifacts WHERE step = 'samples'")]
    database.close()
    assert [one["ids_from_text"] for one in counts] == [18]
    assert {one["ids_from"] for one in responses(ran)} == {"text"}


def test_a_server_that_stays_away_ends_with_75_and_keeps_what_was_made(small_run: SmallRun) -> None:
    gone = "http://127.0.0.1:9/v1"
    with pytest.raises(ResumableError) as error:
        small_run(at(gone, deadline_s=0.2, timeout_s=1), until="samples")
    assert error.value.exit_code == 75
    assert str(error.value).startswith(f"{gone}: ")
    assert str(error.value).endswith(
        "No usable answer within 0.2 s. Look after the server and give the same command again: what was answered is "
        "kept."
    )
    with tiny_server().running() as url:
        assert small_run(at(url), until="samples").made == ("round-00/samples",)


def test_a_plan_knows_that_servers_sample_with_memory_of_their_own(tmp_path: Path) -> None:
    def planned(*overrides: str) -> dict[str, Any]:
        found = plan_recipe(load_recipe("loop.tiny", overrides), tmp_path)
        (step,) = [one for one in found.steps if one.path == "round-00/samples"]
        return {"memory": step.memory, "answers": step.at_most["answers"]}

    local, replay = planned("samples.wave=64"), planned(at("http://server/v1"))
    assert replay["answers"] == local["answers"]
    assert replay["memory"] < local["memory"]


def test_a_wrong_address_or_a_missing_key_is_said_before_the_run(small_run: SmallRun) -> None:
    with pytest.raises(RecipeError, match=r"samples\.sampler.*url"):
        small_run(at("localhost:8000"))
    with pytest.raises(RecipeError, match="names the environment variable NO_SUCH_KEY, which is not set"):
        small_run(at("http://localhost:8000/v1", key="NO_SUCH_KEY"))


def test_a_key_goes_to_its_server_and_into_no_file_of_the_run(
    small_run: SmallRun, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OUR_KEY", "sk-0123456789abcdef")
    server = tiny_server()
    with server.running() as url:
        told = at(url, key="OUR_KEY", restart="true")
        ran = small_run(told, until="samples").run
        server.faults = Faults(1.0, ("unauthorized",))
        with pytest.raises(RecipeError, match="401") as error:
            small_run(told, "seed=1", until="samples")
    assert set(server.headers) == {"Bearer sk-0123456789abcdef"}
    files = [file for file in ran.rglob("*") if file.is_file()]
    assert {"answers.sqlite", "journal.sqlite", "recipe.yaml"} <= {file.name for file in files}
    assert not [file for file in files if b"sk-0123" in file.read_bytes()]
    printed = capfd.readouterr()
    assert "sk-0123" not in f"{error.value}{printed.out}{printed.err}"


def test_rounds_are_evaluated_by_the_best_of_several_answers_of_both_sides(small_run: SmallRun) -> None:
    ran = small_run("evaluation.best_of=3", "rounds=1").run
    evaluation = json.loads((ran / "round-00/evaluation.json").read_text(encoding="utf-8"))
    sampled = (ran / EVALUATED).read_text(encoding="utf-8").splitlines()
    duel = evaluation["against"]["initial"]["judge"]
    assert (len(sampled), duel["n"]) == (3 * evaluation["prompts"], evaluation["prompts"])
    assert evaluation["kl"] is None
    assert evaluation["best_of"]["n"] == 3
    assert evaluation["score"]["judge"]["mean"] == pytest.approx(evaluation["best_of"]["by_n"]["judge"][2])


def test_as_many_answers_grow_together_as_fit_into_memory(small_run: SmallRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """128, or multiples of 16 down to 16: the sampler gets what the plan says, and what the machine says wins."""
    taken: list[int] = []

    def local(bench: Workbench, rows: int, precision: Precision) -> LocalPolicies:
        taken.append(rows)
        return LocalPolicies(bench, rows, precision)

    monkeypatch.setattr(sample, "LocalPolicies", local)
    told = ("prompts.count=40", "samples={num_samples: 4, max_new_tokens: 400, wave: 40}")

    def planned(*changes: str) -> PlannedStep:
        (found,) = (
            step
            for step in plan_recipe(load_recipe("loop.tiny", (*SMALL, *told, *changes)), Path("nowhere")).steps
            if step.path == "round-00/samples"
        )
        return found

    monkeypatch.setattr(appraisal, "resident_memory", lambda: 0)
    assert planned().rows == 128
    most, few = planned().memory, planned("machine.rows=64").memory
    assert most is not None
    assert few is not None
    for bytes_there, rows in ((most, 128), (few - 1, 48), (1, 16), (few, 64)):
        monkeypatch.setattr(appraisal, "total_memory", lambda there=bytes_there: there / appraisal.SHARE_FOR_SAMPLING)
        assert planned().rows == rows
    small_run(*told, until="samples")
    assert taken[-1] == 64
    small_run(*told, "machine.rows=5", name="told", until="samples")
    assert taken[-1] == planned("machine.rows=5").rows == 5
