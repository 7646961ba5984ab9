"""The commands that do one stage on files, one after the other, and what they refuse."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from prefloop.cli import main
from prefloop.policy import ChatCodec, PolicyFiles, Workbench, resolve_model
from prefloop.sampling import Answer, Draw, LocalSampler, SamplingSettings
from prefloop.testing import CompletionsServer

SAMPLED = ["--model", "builtin:tiny", "--set", "num_samples=4", "--set", "max_new_tokens=24", "--seed", "3"]


def prefloop(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> int:
    monkeypatch.setattr("sys.argv", ["prefloop", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_a_round_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers, scored, pairs, model = (tmp_path / name for name in ("a.jsonl", "s.jsonl", "p.jsonl", "model"))
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in ("How are you?", "Tell me a story.")))
    assert prefloop(monkeypatch, "sample", prompts, answers, *SAMPLED) == 0
    assert [row["index"] for row in lines(answers)] == [0, 1, 2, 3] * 2
    again = tmp_path / "again.jsonl"
    assert prefloop(monkeypatch, "sample", prompts, again, *SAMPLED) == 0
    assert again.read_bytes() == answers.read_bytes()
    assert not list(tmp_path.glob("*.run"))
    assert prefloop(monkeypatch, "score", answers, scored, "--judge", "shorter", "--name", "brevity") == 0
    assert [row["brevity"] for row in lines(scored)] == [-len(row["token_ids"]) for row in lines(answers)]
    assert prefloop(monkeypatch, "pair", scored, pairs, "--score", "brevity", "--set", "min_margin=1") == 0
    made = lines(pairs)
    assert made
    for row in made:
        of_prompt = [-one["brevity"] for one in lines(scored) if one["prompt"] == row["prompt"]]
        assert (len(row["chosen_ids"]), len(row["rejected_ids"])) == (min(of_prompt), max(of_prompt))
    told = ["--model", "builtin:tiny", "--set", "learning_rate=1e-3", "--set", "batch_size=2", "--set", "epochs=3"]
    assert prefloop(monkeypatch, "train", pairs, model, *told) == 0
    assert (model / "model.safetensors").is_file()
    log = lines(next((tmp_path / "model.run").rglob("training.jsonl")))
    assert log[0]["loss"] == pytest.approx(0.6931, abs=1e-4)
    assert log[-1]["loss"] < 0.69


def test_sampling_and_scoring_go_on_where_they_were_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waves that were complete are not sampled again; what a function said is not asked again."""
    prompts, whole, killed = (tmp_path / f"{name}.jsonl" for name in ("prompts", "whole", "killed"))
    prompts.write_text("".join(json.dumps({"prompt": f"Tell me about {n}."}) + "\n" for n in range(6)))
    waves = (*SAMPLED, "--set", "wave=2")
    assert prefloop(monkeypatch, "sample", prompts, whole, *waves) == 0

    sampled: list[int] = []
    sample = LocalSampler.sample

    def ended_in_the_third(self: LocalSampler, draws: Sequence[Draw], settings: SamplingSettings) -> Iterator[Answer]:
        sampled.append(len(draws))
        if len(sampled) == 3:
            raise KeyboardInterrupt
        return sample(self, draws, settings)

    monkeypatch.setattr(LocalSampler, "sample", ended_in_the_third)
    assert prefloop(monkeypatch, "sample", prompts, killed, *waves) == 130
    assert not killed.exists()
    assert prefloop(monkeypatch, "sample", prompts, killed, *waves) == 0
    assert sampled == [8, 8, 8, 8]
    assert killed.read_bytes() == whole.read_bytes()

    scored, asked = tmp_path / "scored.jsonl", tmp_path / "asked"
    monkeypatch.setenv("ASKED", str(asked))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "counting.py").write_text(COUNTING)
    judge = "{type: python, function: 'counting:length'}"
    assert prefloop(monkeypatch, "score", whole, scored, "--judge", judge) == 130
    (tmp_path / "on").touch()
    assert prefloop(monkeypatch, "score", whole, scored, "--judge", judge) == 0
    texts = asked.read_text().splitlines()
    assert len(texts) == len(set(texts)) + 1  # the one during which it was killed
    assert [row["score"] for row in lines(scored)] == [float(len(row["completion"])) for row in lines(whole)]


def test_a_file_is_sampled_by_a_server_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts, answers = tmp_path / "prompts.jsonl", tmp_path / "answers.jsonl"
    prompts.write_text(json.dumps({"prompt": "How are you?"}) + "\n")
    source = resolve_model("builtin:tiny")
    bench = Workbench(source, ChatCodec.load(source.directory, {}), torch.device("cpu"))
    server = CompletionsServer(bench, PolicyFiles("served", source.directory))
    with server.running() as url:
        told = f"sampler={{type: server, url: '{url}', model: tiny}}"
        assert prefloop(monkeypatch, "sample", prompts, answers, *SAMPLED, "--set", told) == 0
    assert any(json.loads(request).get("max_tokens") == 24 for request in server.answers)
    assert [row["index"] for row in lines(answers)] == [0, 1, 2, 3]


COUNTING = """
import os
from pathlib import Path

def length(prompt, answer):
    asked = Path(os.environ["ASKED"])
    with asked.open("a") as file:
        file.write(repr((prompt, answer)) + "\\n")
    if len(asked.read_text().splitlines()) == 9 and not asked.with_name("on").exists():
        raise KeyboardInterrupt
    return float(len(answer))
"""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sample", "everyday", "there.jsonl", "--model", "builtin:tiny"], "there.jsonl: is there already and is not"),
        (["sample", "everyday", "no/a.jsonl", "--model", "builtin:tiny"], "no/a.jsonl: there is no folder no."),
        (["pair", "there.jsonl", "p.jsonl"], "rows, row 0: has no `score`. Judge the rows first"),
        (["pair", "broken.jsonl", "p.jsonl"], "broken.jsonl:1: "),
        (["pair", "there.jsonl", "p.jsonl", "--set", "min_margin"], "--set min_margin: expected KEY.KEY=VALUE"),
        (
            ["sample", "everyday", "a.jsonl", "--model", "builtin:tiny", "--set", "num_sample=2"],
            "settings: samples.num_sample is not a setting. Did you mean 'num_samples'?",
        ),
    ],
)
def test_one_line_says_what_is_wrong(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.jsonl").write_text('{"prompt": "Hi.", "completion": "Ho."}\n')
    Path("broken.jsonl").write_text("{\n")
    assert prefloop(monkeypatch, *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"prefloop: {said}")
    assert not Path("p.jsonl").exists()
