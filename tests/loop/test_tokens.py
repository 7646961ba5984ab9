"""The tokens of a round, made once and shown."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prefloop.cli.inspect import inspect_command
from prefloop.cli.model_tokens import ModelTokens
from prefloop.config import SampleStep
from prefloop.errors import PrefloopError, RecipeError
from prefloop.loop import RunResult
from prefloop.loop.artifact import Artifact, Place
from prefloop.loop.steps.sample import response_of
from prefloop.loop.steps.work import Work
from prefloop.policy import ChatCodec, resolve_model
from prefloop.records import Message, Prompt
from prefloop.sampling import Answer, Draw

pytestmark = pytest.mark.long

SmallRun = Callable[..., RunResult]
TOKENS, POLICY = "round-00/policy-tokens", "round-00/policy"


@pytest.mark.parametrize(
    ("change", "made"),
    [
        ("policy.learning_rate=2e-4", {POLICY}),
        ("policy.objective.beta=0.2", {POLICY}),
        ("policy.max_length=500", {TOKENS, POLICY}),
        ("policy.truncation=cut_response", {TOKENS, POLICY}),
        ("policy.loss_on=all_turns", {TOKENS, POLICY}),
    ],
)
def test_only_what_decides_about_tokens_makes_them_again(small_run: SmallRun, change: str, made: set[str]) -> None:
    small_run(until="policy")
    assert set(small_run(change, until="policy").made) == made


def test_nothing_that_fits_ends_the_run_with_the_reasons(small_run: SmallRun) -> None:
    with pytest.raises(PrefloopError) as raised:
        small_run("policy.max_length=8", until="policy")
    assert str(raised.value).startswith("round-00/policy-tokens: no example can be used (")
    assert str(raised.value).endswith(" prompt_too_long). Raise policy.max_length.")


def test_what_is_left_out_is_said(small_run: SmallRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = small_run("policy.max_length=80", until="policy").run
    lines = (run / TOKENS / "part-00000.jsonl").read_text().splitlines()
    left_out = (run / TOKENS / "left-out.jsonl").read_text().splitlines()
    total = len(lines) + len(left_out)
    said = f"{TOKENS}: {len(lines)} of {total} examples are used ({len(left_out)} too_long)"
    assert said in capsys.readouterr().err
    assert left_out


def test_a_run_shows_first_what_its_policy_has_most_wrong(
    small_run: SmallRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = small_run(until="policy").run
    lines = (run / POLICY / "margins.jsonl").read_text().splitlines()
    margins = {one["example_id"]: one for one in map(json.loads, lines)}

    found = inspect_command(str(run), tokens=ModelTokens(), rows=1, worst=3)
    shown, said = found["rows"], capsys.readouterr().out

    worst = sorted(margins.values(), key=lambda one: one["after"])[:3]
    names = ("margin", "before", "after")
    assert [{"example_id": one["where"], **{name: one[name] for name in names}} for one in shown] == worst
    assert all(one["before"] == 0 for one in margins.values())  # the reference is the policy that it started from
    assert [row["name"] for row in shown[0]["rows"]] == ["chosen", "rejected"]
    behind = sum(one["after"] < 0 for one in margins.values())
    assert [found[name] for name in ("pairs", "measured", "behind_before", "behind_after", "fell")] == [
        len(margins),
        len(margins),
        0,
        behind,
        behind,
    ]
    assert f"ahead in 0 and is in {behind}; the chosen one lost ground in {behind}" in " ".join(said.split())
    first = shown[0]
    margin = f"+0.00 nats before, {first['margin']:+.2f} nats when last trained on, {first['after']:+.2f} nats after"
    assert f"{first['where']}, margin {margin}" in said


def test_margins_of_runs_that_measured_neither_before_nor_after_are_shown_too(
    small_run: SmallRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = small_run("policy.measured_margins=0", until="policy").run
    lines = [json.loads(line) for line in (run / POLICY / "margins.jsonl").read_text().splitlines()]
    assert all(line.keys() == {"example_id", "margin"} for line in lines)

    found = inspect_command(str(run), tokens=ModelTokens(), rows=1, worst=2)

    worst = sorted(lines, key=lambda line: line["margin"])[:2]
    assert [one["where"] for one in found["rows"]] == [line["example_id"] for line in worst]
    assert "measured" not in found
    assert f"{worst[0]['example_id']}, margin {worst[0]['margin']:+.2f} nats when last trained on\n" in (
        capsys.readouterr().out
    )


def test_a_shown_row_is_its_text_with_brackets_by_what_counts(capsys: pytest.CaptureFixture[str]) -> None:
    shown = inspect_command("everyday_pairs", tokens=ModelTokens("builtin:tiny"), rows=1, worst=None)["rows"]
    said = capsys.readouterr().out

    (tokens, *_) = [row["tokens"] for row in shown[0]["rows"]]
    text = "".join(token["text"] for token in tokens)
    assert text.startswith("<|im_start|>user\n")
    assert {token["part"] for token in tokens if token["counted"]} == {"answer", "control"}
    assert "(<|im_start|>)(assistant)(\\n)\n" in said
    assert said.rstrip().endswith("[.][<|im_end|>]")


def test_a_row_is_shown_as_training_would_cut_it() -> None:
    def shown(*limits: Any) -> Any:
        return inspect_command("everyday_pairs", tokens=ModelTokens("builtin:tiny", *limits), rows=1, worst=None)

    (whole,) = shown()["rows"]
    limit = whole["rows"][0]["prompt_tokens"] + 4
    (cut,) = shown(limit, "cut_response")["rows"]
    for row, cut_row in zip(whole["rows"], cut["rows"], strict=True):
        assert len(row["tokens"]) > limit
        assert cut_row["tokens"] == row["tokens"][:limit]
    assert cut["warned"] == ["cut"]


@pytest.mark.parametrize(
    ("what", "options", "message"),
    [
        ("everyday_pairs", {}, "--model: is missing. Name the model whose tokens are shown, such as builtin:tiny."),
        (
            "everyday_pairs",
            {"tokens": ModelTokens("builtin:tiny"), "worst": 2},
            "--worst: needs a run, whose policy has seen the pairs. Name its folder.",
        ),
    ],
)
def test_what_cannot_be_shown_is_said(what: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError) as raised:
        inspect_command(what, **{"tokens": ModelTokens(), "rows": 1, "worst": None, **options})
    assert str(raised.value) == message


THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{{ '<think>\n' if thinks }}{% endif %}"
)


def thinking_codec(directory: Path, **settings: bool) -> ChatCodec:
    """The smallest model's, with markers of a thinking part."""
    tokenizer = ChatCodec.load(resolve_model("builtin:tiny").directory, {}).tokenizer
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.chat_template = THINKING
    tokenizer.save_pretrained(directory)
    return ChatCodec.load(directory, settings)


@pytest.mark.parametrize("thinks", [False, True])
@pytest.mark.parametrize(
    ("answer", "text", "thinking", "finish"),
    [
        ("I am happy.</think>\n\nGood morning.", "Good morning.", "I am happy.", "stop"),
        ("I am happy.", "", "I am happy.", "length"),
    ],
)
def test_a_sampled_thinking_part_is_kept_apart_and_cut_without_its_end(
    tmp_path: Path, thinks: bool, answer: str, text: str, thinking: str, finish: str
) -> None:
    codec = thinking_codec(tmp_path, thinks=thinks)
    begun = answer if thinks else f"<think>\n{answer}"
    ids = (*codec.ids_of_rendered([begun])[0], codec.eos_id)
    prompt = Prompt.of((Message(role="user", content="Hi"),))
    drawn = Answer(Draw(prompt.prompt_id, 0, 0, ()), ids, "stop", -1.0)
    policy = Artifact("model", "model", "it", Place(), "", {}, {}, Path)
    made = Artifact("samples", "sample", "s", Place(), "", {"policy": (policy,)}, {}, Path)
    work = Work.__new__(Work)
    object.__setattr__(work, "artifact", made)

    response = response_of(drawn, prompt, work, SampleStep(type="sample"), codec)

    assert (response.text, response.thinking, response.finish_reason) == (text, thinking, finish)
    assert response.token_ids == ids
    assert response.num_tokens == (
        0 if finish == "length" else len(codec.response_ids("\n\nGood morning.", finished=True))
    )


def test_one_setting_of_the_template_reaches_sampling_training_and_export(small_run: SmallRun, tmp_path: Path) -> None:
    directory = tmp_path / "model"
    source = resolve_model("builtin:tiny").directory
    directory.mkdir()
    for file in source.iterdir():
        (directory / file.name).write_bytes(file.read_bytes())
    tokenizer = ChatCodec.load(source, {}).tokenizer
    tokenizer.chat_template = THINKING.replace("<think>\n", "A: ")
    tokenizer.save_pretrained(directory)
    setting = f"model={{path: {directory}, chat_template_kwargs: {{thinks: true}}}}"

    run = small_run(setting, until="policy").run

    exported = ChatCodec.load(run / POLICY / "model", {})
    told = ChatCodec.load(directory, {"thinks": True})
    pair = json.loads((run / "round-00/pairs/part-00000.jsonl").read_text().splitlines()[0])
    prompt = Prompt.model_validate(pair["prompt"])
    assert told.rendered(prompt).endswith("A: ")
    assert exported.prompt_ids(prompt) == told.prompt_ids(prompt)
    shown = inspect_command(str(run), tokens=ModelTokens(), rows=1, worst=None)["rows"][0]["rows"][0]
    of_prompt = [token["id"] for token in shown["tokens"]][: shown["prompt_tokens"]]
    assert tuple(of_prompt) == told.prompt_ids(prompt)
