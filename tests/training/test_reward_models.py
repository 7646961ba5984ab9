"""Reward models: trained, saved as other tools load them, and judging as they were trained."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, GPT2Config, OPTConfig

from prefloop.config import LoraConfig, RewardModelJudge, load_recipe
from prefloop.errors import ModelError, RecipeError
from prefloop.judging import Ask, RewardModel
from prefloop.loop import Progress, run_recipe
from prefloop.loop.wiring import rehearse
from prefloop.objectives import find_objective
from prefloop.policy import ChatCodec, EncodingSettings, Workbench
from prefloop.policy.model_heads import heads_of, new_heads, write_heads
from prefloop.policy.reward_model_directory import padding_token, require_classifier
from prefloop.records import Example, Judgment, Member, Message, Prompt, Response, digest, read_folder, seed_for
from prefloop.statistics import clustered_share
from prefloop.training import ROWS, TREES, TokenExample, TrainRequest, tokenised, train

RequestFor = Callable[..., TrainRequest]
ADAPTER = LoraConfig(r=4, alpha=8)
TURNS = (
    Message(role="user", content="How are you?"),
    Message(role="assistant", content="I am happy."),
    Message(role="user", content="What shall I do today?"),
)
"""A conversation of several turns, whose last answer is judged."""


@pytest.fixture
def reward(request_for: RequestFor) -> Callable[..., TrainRequest]:
    """A request for a reward model on the seven pairs."""

    def build(name: str, **changed: Any) -> TrainRequest:
        found = find_objective(changed.pop("objective", "bradley_terry"), "here")
        more = {key: changed.pop(key) for key in ("examples", "validation") if key in changed}
        request = request_for(name, references={}, learning_rate=3e-3, **changed)
        hyper = found.options().model_dump()
        return replace(request, objective=found, hyper=hyper, **more)

    return build


def nothing(*_: Any) -> None:
    pass


def room(folder: Path) -> Path:
    """Where the model goes, in a step's folder that is there."""
    folder.mkdir()
    return folder / "model"


def judge(directory: Path, center: float = 0.0) -> RewardModel:
    return RewardModel(
        RewardModelJudge(type="reward_model", model=str(directory), center=center), torch.device("cpu"), 500
    )


def asked(prompt: Prompt, *texts: str) -> list[Ask]:
    return [
        Ask(
            prompt,
            (
                Response(
                    response_id=text,
                    prompt_id=prompt.prompt_id,
                    root_id=prompt.root_id,
                    step="given",
                    text=text,
                    finish_reason="given",
                ),
            ),
        )
        for text in texts
    ]


def scores(model: RewardModel, asks: list[Ask]) -> list[float]:
    found = dict(model.judge(asks))
    return [float(found[number].values[0] or 0.0) for number in range(len(asks))]


def example(prompt: Prompt, *answers: tuple[str, str], number: int = 0) -> Example:
    members = [Member.model_validate({"role": role, "response_id": text, "text": text}) for role, text in answers]
    return Example(example_id=f"e{number}", prompt=prompt, members=tuple(members), why="test")


# ------------------------------------------------------------------------------------------------------ the directory


@pytest.mark.parametrize("layout", [ROWS, TREES], ids=lambda layout: layout.name)
@pytest.mark.parametrize("lora", [None, ADAPTER], ids=["all weights", "lora"])
def test_transformers_and_the_judge_give_the_scores_that_were_trained(
    lora: LoraConfig | None, layout: Any, reward: RequestFor, bench: Workbench, codec: ChatCodec, tmp_path: Path
) -> None:
    """Of the answers that validation measured: their margins are known from training itself."""
    prompt, texts = Prompt.of(TURNS), ("You can go for a walk.", "No.")
    (held,), _ = tokenised(
        [example(prompt, *zip(("chosen", "rejected"), texts, strict=True))], codec, EncodingSettings(512)
    )
    request = reward("run", lora=lora, layout=layout, validation=[held])
    out = room(tmp_path / "out")

    train(request, bench, out, nothing)

    told = json.loads((out.parent / "validation.json").read_text())["after"]
    model, loaded = AutoModelForSequenceClassification.from_pretrained(out, output_loading_info=True)
    assert not loaded["missing_keys"]
    assert not loaded["unexpected_keys"]
    rows = [(*held.rows[role].prompt_ids, *held.rows[role].answer_ids) for role in ("chosen", "rejected")]
    with torch.no_grad():
        theirs = [model(input_ids=torch.tensor([row])).logits.item() for row in rows]
    ours = scores(judge(out), asked(prompt, *texts))
    assert theirs == pytest.approx([told["rewards/chosen"], told["rewards/rejected"]], abs=2e-6)
    assert ours == pytest.approx(theirs, abs=2e-6)
    assert theirs[0] - theirs[1] != pytest.approx(0, abs=1e-4)


def test_who_renders_and_pads_as_the_directory_says_reads_the_score_at_the_last_eos(
    reward: RequestFor, bench: Workbench, codec: ChatCodec, tmp_path: Path
) -> None:
    out = room(tmp_path / "out")
    train(reward("run"), bench, out, nothing)
    tokenizer: Any = AutoTokenizer.from_pretrained(out)
    model: Any = AutoModelForSequenceClassification.from_pretrained(out)
    texts = ("Go.", "You can go for a walk and enjoy the sun.")
    dialogues = [[*(turn.model_dump(include={"role", "content"}) for turn in TURNS)] for _ in texts]
    for dialogue, text in zip(dialogues, texts, strict=True):
        dialogue.append({"role": "assistant", "content": text})

    rendered = tokenizer.apply_chat_template(dialogues, tokenize=False)
    batch = tokenizer(rendered, padding=True, return_tensors="pt", padding_side="right", add_special_tokens=False)

    assert all(text.endswith("<|im_end|>") for text in rendered)
    assert tokenizer.pad_token_id == model.config.pad_token_id
    assert tokenizer.pad_token_id not in codec.eos_ids
    with torch.no_grad():
        found = model(**batch).logits[:, 0].tolist()
    assert found == pytest.approx(scores(judge(out), asked(Prompt.of(TURNS), *texts)), abs=2e-6)
    # with a question to be answered, and with nothing, the template is as it was
    for turns, asks in ((TURNS, True), (TURNS, False)):
        plain = [turn.model_dump(include={"role", "content"}) for turn in turns]
        options: dict[str, Any] = {"tokenize": False, "add_generation_prompt": asks}
        was = codec.tokenizer.apply_chat_template(plain, **options)
        now = tokenizer.apply_chat_template(plain, **options)
        assert now == (was if asks else str(was).removesuffix("\n"))


def test_an_architecture_without_such_a_classifier_is_refused(tmp_path: Path) -> None:
    OPTConfig(hidden_size=16, num_attention_heads=2, ffn_dim=16, num_hidden_layers=1).save_pretrained(tmp_path / "opt")
    GPT2Config(n_embd=16, n_head=2, n_layer=1).save_pretrained(tmp_path / "gpt2")
    config: Any = AutoConfig.for_model("mamba", hidden_size=16, num_hidden_layers=1)
    config.save_pretrained(tmp_path / "mamba")

    require_classifier(tmp_path / "opt")
    require_classifier(tmp_path / "gpt2")
    with pytest.raises(ModelError) as raised:
        require_classifier(tmp_path / "mamba")
    assert str(raised.value) == (
        f"{tmp_path / 'mamba'}: mamba has no sequence classifier in transformers whose head is one matrix called "
        "score, so that no reward model can be saved. Train one from another model."
    )


def test_a_padding_token_that_ends_answers_is_replaced(codec: ChatCodec) -> None:
    assert padding_token(codec) == codec.tokenizer.pad_token_id
    ends = replace(codec, eos_ids=frozenset({*codec.eos_ids, padding_token(codec)}))
    assert padding_token(ends) in ends.control_ids
    assert padding_token(ends) not in ends.eos_ids
    with pytest.raises(ModelError, match="every control token of the tokenizer ends answers"):
        padding_token(replace(codec, eos_ids=frozenset(codec.control_ids)))


# ------------------------------------------------------------------------------------------------------------- heads


def test_a_reward_begins_with_the_published_deviation_and_the_other_heads_with_nothing() -> None:
    cpu = torch.device("cpu")
    found = new_heads({"rewards": 1, "token_values": 1, "head_logits": 4}, 4095, seed=3, device=cpu)

    assert found["rewards"].weight.std().item() == pytest.approx(1 / 64, rel=0.05)
    assert "bias" not in dict(found["rewards"].named_parameters())
    assert not found["token_values"].weight.any()
    assert tuple(found["head_logits"].bias.shape) == (4,)
    assert torch.equal(found["rewards"].weight, new_heads({"rewards": 1}, 4095, 3, cpu)["rewards"].weight)
    assert not torch.equal(found["rewards"].weight, new_heads({"rewards": 1}, 4095, 4, cpu)["rewards"].weight)


def test_heads_of_a_file_go_on_and_those_that_it_lacks_are_new(tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    value = new_heads({"token_values": 1}, 8, 0, cpu)
    torch.nn.init.ones_(value["token_values"].weight)
    write_heads(value, tmp_path / "heads")

    found = heads_of(tmp_path / "heads", {"token_values": 1, "head_logits": 2}, 8, 0, cpu)

    assert torch.equal(found["token_values"].weight, torch.ones(1, 8))
    assert not found["head_logits"].weight.any()


# ----------------------------------------------------------------------------------------------------------- training


def test_the_pairs_are_learnt_and_the_mean_reward_of_the_best_answers_is_stored(
    reward: RequestFor, bench: Workbench, examples: list[TokenExample], tmp_path: Path
) -> None:
    out = room(tmp_path / "out")
    request = reward("run", lora=ADAPTER)
    request = replace(request, settings=request.settings.model_copy(update={"epochs": 20}))

    lines = train(request, bench, out, nothing)

    assert lines[-1]["loss"] < lines[0]["loss"] - 0.3
    assert lines[-1]["rewards/accuracies"] == 1.0
    model: Any = AutoModelForSequenceClassification.from_pretrained(out)
    with torch.no_grad():
        rows = [(*one.rows["chosen"].prompt_ids, *one.rows["chosen"].answer_ids) for one in examples]
        chosen = [model(input_ids=torch.tensor([row])).logits.item() for row in rows]
    about = json.loads((out.parent / "reward_model.json").read_text())
    assert about == {"center": pytest.approx(np.mean(chosen), abs=1e-5), "center_examples": 7}


def test_the_accuracy_on_held_out_pairs_has_an_interval_over_prompts(
    reward: RequestFor, bench: Workbench, examples: list[TokenExample], tmp_path: Path
) -> None:
    out = room(tmp_path / "out")
    request = reward("run", validation=examples)

    train(request, bench, out, nothing)

    model: Any = AutoModelForSequenceClassification.from_pretrained(out)

    def score(one: TokenExample, role: str) -> float:
        with torch.no_grad():
            return model(input_ids=torch.tensor([(*one.prompt_ids, *one.rows[role].answer_ids)])).logits.item()

    right = np.array([float(score(one, "chosen") > score(one, "rejected")) for one in examples])
    prompts = np.array([digest(list(one.prompt_ids))[:16] for one in examples])
    expected = clustered_share(right, prompts, seed=seed_for(request.seed, "accuracy"))
    about = json.loads((out.parent / "reward_model.json").read_text())
    assert (about["accuracy"], about["interval"]) == (right.mean(), list(expected.interval))
    assert (about["pairs"], about["prompts"]) == (7, 2)


@pytest.mark.parametrize(("objective", "first"), [("ranked_rewards", 1.79), ("ranked_rewards_by_pairs", 0.69)])
def test_rankings_are_learnt_whole_and_by_pairs(
    objective: str, first: float, reward: RequestFor, bench: Workbench, codec: ChatCodec, tmp_path: Path
) -> None:
    """Three answers to each of three prompts: log 3! at equal rewards, or log 2."""
    texts = ("It is a beautiful day, I am happy.", "Yes!", "I am sad.")
    records = [
        example(
            Prompt.of((Message(role="user", content=question),)), *(("ranked", text) for text in texts), number=number
        )
        for number, question in enumerate(("How are you?", "What shall I do today?", "Is it a good day?"))
    ]
    ranked, _ = tokenised(records, codec, EncodingSettings(512))
    request = reward("run", objective=objective, examples=ranked, validation=ranked, batch_size=3)
    request = replace(request, settings=request.settings.model_copy(update={"epochs": 12}))

    lines = train(request, bench, room(tmp_path / "out"), nothing)

    assert lines[0]["loss"] == pytest.approx(first, abs=0.1)
    assert lines[-1]["loss"] < lines[0]["loss"] / 2
    about = json.loads((tmp_path / "out" / "reward_model.json").read_text())
    assert (about["accuracy"], about["pairs"]) == (1.0, 9)


def test_a_killed_reward_model_goes_on_to_the_same_bytes(reward: RequestFor, bench: Workbench, tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def until_third(what: str, done: int, _total: int) -> None:
        if what == "train" and done == 3:
            raise KilledError

    whole = reward("whole", lora=ADAPTER)
    train(whole, bench, tmp_path / "whole" / "model", nothing)
    killed = reward("killed", lora=ADAPTER)
    with pytest.raises(KilledError):
        train(killed, bench, tmp_path / "killed" / "model", until_third)
    train(killed, bench, tmp_path / "killed" / "model", nothing)

    for file in ("model/model.safetensors", "reward_model.json"):
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


# ------------------------------------------------------------------------------------------------------------ in a run

PIPELINE = (
    "rounds=1",
    "setup=[comparisons, compared, reward]",
    "comparisons={type: data, source: builtin:everyday_pairs}",
    "compared={type: pair, rule: given}",
    "reward={type: train, objective: bradley_terry, batch_size: 12, learning_rate: 3e-3, ensemble: 2, lora: {r: 4}}",
    "judgments.judge={type: reward_model, model: reward}",
    "prompts.count=6",
    "samples={num_samples: 3, max_new_tokens: 16}",
    "policy={learning_rate: 1e-3, batch_size: 4}",
    "evaluation={count: 4, resamples: 100}",
    "machine={threads: 1}",
)


def test_a_run_trains_the_reward_models_that_judge_its_answers(tmp_path: Path) -> None:
    done = run_recipe(load_recipe("loop.tiny", PIPELINE), tmp_path / "run", Progress()).run

    said = list(read_folder(done / "round-00/judgments", Judgment))
    of_member = {f"reward#{number}": [one for one in said if f":reward#{number}:" in one.judge] for number in (0, 1)}
    assert [len(of) for of in of_member.values()] == [18, 18]
    assert json.loads((done / "round-00/summary.json").read_text())["judges"] == ["reward_model:reward"]
    prompts = {one.prompt_id: one for one in read_folder(done / "round-00/prompts", Prompt)}
    answers = {one.response_id: one for one in read_folder(done / "round-00/samples", Response)}
    for number, folder in enumerate((done / "setup/reward", done / "setup/reward/member-01")):
        center = json.loads((folder / "reward_model.json").read_text())["center"]
        asks = [Ask(prompts[one.prompt_id], (one,)) for one in answers.values()]
        raw = dict(zip(answers, scores(judge(folder / "model"), asks), strict=True))
        for one in of_member[f"reward#{number}"]:
            assert one.values[0] == pytest.approx(raw[one.subjects[0]] - center, abs=1e-5)
    board = json.loads((done / "round-00/evaluation.json").read_text())
    assert "judge" in board["against"]["initial"]
    # the tokens are made once, whatever the number of models
    assert sorted(folder.name for folder in (done / "setup").iterdir() if "tokens" in folder.name) == ["reward-tokens"]
    seeds = [(done / f"setup/reward/{member}training.jsonl").read_text() for member in ("", "member-01/")]
    assert seeds[0] != seeds[1]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            ["judgments.judge.model=policy", "evaluation.judge=vader"],
            "recipe loop.tiny: judgments.judge.model is 'policy', a step that trains no reward model. Give it the "
            "objective bradley_terry, or name the directory ./policy.",
        ),
        (
            ["policy.start=reward"],
            "recipe loop.tiny: policy: 'reward' trains a reward model, which answers nothing. Name initial, "
            "round_start, current, best or a train step of a policy.",
        ),
        (
            ["reward.ema_decay=0.9"],
            "recipe loop.tiny: reward.ema_decay is 0.9, but bradley_terry trains a head, of which no average is kept. "
            "Remove it, or choose another objective.",
        ),
        (
            ["policy.ensemble=2"],
            "recipe loop.tiny: policy.ensemble is 2, but dpo trains a policy. Remove it, or choose a reward model's "
            "objective.",
        ),
    ],
)
def test_what_cannot_work_is_said_before_a_run(changed: list[str], message: str) -> None:
    with pytest.raises(RecipeError) as raised:
        rehearse(load_recipe("loop.tiny", (*PIPELINE, *changed)))
    assert str(raised.value) == message


def test_another_combination_of_an_ensemble_asks_nobody_again(tmp_path: Path) -> None:
    """Mean, worst case and mean less variance are made of the same raw judgments; other answers may then be chosen."""
    why: dict[str, list[str]] = {}
    for number, side in enumerate(("worst_case", "mean", "2.0")):
        recipe = load_recipe("loop.tiny", (*PIPELINE, f"pairs={{rule: ensemble, chosen: {side}}}"))
        result = run_recipe(recipe, tmp_path / "run", Progress(), until="pairs")
        if number:
            assert result.made == ("round-00/pairs",)
        examples = list(read_folder(result.run / "round-00/pairs", Example))
        why[side] = [one.why for one in examples]
        said = list(read_folder(result.run / "round-00/judgments", Judgment))
        for one in examples:
            chosen = [s.values[0] or 0.0 for s in said if s.subjects == (one.member("chosen").response_id,)]
            assert len(chosen) == 2
            assert one.member("chosen").numbers["score"] == pytest.approx(sum(chosen) / 2)
    assert why["worst_case"] != why["mean"] != why["2.0"]
