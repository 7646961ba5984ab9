"""The Python API on a model in memory: what comes back is plain, and every argument has its effect."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

import prefloop
from prefloop.errors import DataError, ModelError, RecipeError
from prefloop.policy import resolve_model

PROMPTS = ["How was the concert?", "How was the fair?", "How was your trip?", "How was the film?"]
PAIRS = [
    {"prompt": prompt, "chosen": "Oh, that sounds beautiful.", "rejected": "Sadly, this seems rather boring."}
    for prompt in PROMPTS
]


class Rows:
    """What of `datasets.Dataset` is used: it can be iterated, and yields dicts."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(resolve_model("builtin:tiny").directory).eval()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(resolve_model("builtin:tiny").directory)


@pytest.fixture(scope="module")
def answers(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[dict[str, Any]]:
    return prefloop.sample(model, PROMPTS, tokenizer=tokenizer, num_samples=4, max_new_tokens=40, threads=1)


def test_importing_prefloop_loads_no_torch() -> None:
    code = "import sys, prefloop; dir(prefloop); assert not {'torch', 'transformers', 'pydantic'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_not_there_is_an_ordinary_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        prefloop.trian  # type: ignore[attr-defined]  # noqa: B018


def test_answers_come_in_the_order_of_their_prompts_with_what_the_model_says_of_them(
    answers: list[dict[str, Any]], model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    assert [row["prompt"] for row in answers] == [prompt for prompt in PROMPTS for _ in range(4)]
    assert [row["index"] for row in answers] == [0, 1, 2, 3] * 4
    one = answers[5]
    messages = [{"role": "user", "content": one["prompt"]}]
    begun = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    with torch.no_grad():
        logits = model(torch.tensor([[*begun, *one["token_ids"]]])).logits[0].double()
    logps = logits[len(begun) - 1 : -1].log_softmax(-1)
    assert one["logp"] == pytest.approx(float(logps.gather(1, torch.tensor(one["token_ids"])[:, None]).sum()), abs=1e-4)


def test_settings_of_sampling_reach_it(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    rows = Rows([{"prompt": PROMPTS[0], "kept": 7}])
    cut = prefloop.sample(model, rows, tokenizer=tokenizer, num_samples=2, temperature=0.0, max_new_tokens=3, threads=1)

    assert [len(row["token_ids"]) for row in cut] == [3, 3]
    assert cut[0]["completion"] == cut[1]["completion"]
    assert {row["finish_reason"] for row in cut} == {"length"}
    assert cut[0]["kept"] == 7


def test_a_judge_may_be_a_function_or_one_of_a_recipe(answers: list[dict[str, Any]]) -> None:
    by_rule = prefloop.judge(answers, {"type": "longer"}, name="length", threads=1)
    by_function = prefloop.judge(answers, lambda prompt, answer: len(answer) if "concert" in prompt else None)

    assert [row["length"] for row in by_rule] == [len(row["token_ids"]) for row in answers]
    assert [row["score"] for row in by_function[:4]] == [len(row["completion"]) for row in answers[:4]]
    assert {row["score"] for row in by_function[4:]} == {None}


def test_pairs_are_the_best_against_the_worst_with_their_tokens(answers: list[dict[str, Any]]) -> None:
    judged = [{**row, "mine": float(row["index"])} for row in answers]
    pairs = prefloop.pair(judged, score="mine", finished_only=False)

    assert [(row["chosen_score"], row["rejected_score"]) for row in pairs] == [(3.0, 0.0)] * 4
    assert pairs[2]["chosen_ids"] == answers[11]["token_ids"]
    assert pairs[2]["prompt"] == PROMPTS[2]


def test_options_of_rules_reach_them(answers: list[dict[str, Any]]) -> None:
    judged = [{**row, "score": float(row["index"])} for row in answers]

    with pytest.raises(DataError, match=r"best_worst made nothing of 4 prompts \(margin too small"):
        prefloop.pair(judged, min_margin=5.0, finished_only=False)
    labelled = prefloop.pair(judged, "threshold_labels", threshold=1.5, finished_only=False)
    assert [row["label"] for row in labelled[:4]] == [False, False, True, True]
    with pytest.raises(RecipeError, match="best_wors"):
        prefloop.pair(judged, "best_wors")


def test_training_raises_what_is_chosen_and_leaves_the_given_model_alone(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    trained = prefloop.train(
        model, tokenizer, Rows(PAIRS), learning_rate=1e-3, batch_size=4, epochs=4, beta=0.1, warmup=0, threads=1
    )

    assert [line["step"] for line in trained.log] == [1, 2, 3, 4]
    assert trained.log[0]["loss"] == pytest.approx(0.693147, abs=1e-6)
    assert trained.log[-1]["rewards/margins"] > 0.05
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert not torch.equal(trained.model.lm_head.weight, model.lm_head.weight)
    assert type(trained.model) is type(model)
    assert trained.run is None


def test_sampled_tokens_are_trained_on_as_they_are(
    answers: list[dict[str, Any]], model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """The text is changed behind the tokens' back: were it read, other tokens would be trained on."""
    judged = [{**row, "score": float(row["index"])} for row in answers]
    pairs = [{**row, "chosen": "Never."} for row in prefloop.pair(judged, finished_only=False)]
    prefloop.train(model, tokenizer, pairs, batch_size=4, run=tmp_path, threads=1)

    text = (tmp_path / "run/round-00/pairs/part-00000.jsonl").read_text(encoding="utf-8")
    members = [json.loads(line)["members"] for line in text.splitlines()]
    found = {tuple(one["token_ids"]) for both in members for one in both if one["role"] == "chosen"}
    assert found == {tuple(row["chosen_ids"]) for row in pairs}


def test_a_folder_that_is_kept_is_a_run_that_goes_on(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    def call() -> prefloop.Trained:
        return prefloop.train(model, tokenizer, PAIRS, learning_rate=1e-3, batch_size=4, run=tmp_path, threads=1)

    first = call()
    file = tmp_path / "run/round-00/policy/training.jsonl"
    made = file.stat().st_mtime_ns
    again = call()

    assert first.run == tmp_path / "run"
    assert again.log == first.log
    assert file.stat().st_mtime_ns == made


def test_another_reference_is_what_rewards_are_measured_from(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    trained = prefloop.train(model, tokenizer, PAIRS, learning_rate=3e-3, batch_size=4, epochs=2, warmup=0, threads=1)
    again = prefloop.train(
        model, tokenizer, PAIRS, reference=trained.model, learning_rate=1e-6, batch_size=4, threads=1
    )

    assert again.log[0]["rewards/margins"] < -0.01


def test_validation_rows_are_measured_and_not_trained_on(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    trained = prefloop.train(
        model, tokenizer, PAIRS[:2], eval_data=PAIRS[2:], learning_rate=1e-3, batch_size=2, eval_steps=1, threads=1
    )

    assert trained.log[-1]["examples"] == 2
    assert "eval_loss" in trained.log[-1]
    assert trained.validation is not None


def test_a_reward_model_is_a_sequence_classifier(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    trained = prefloop.train(
        model, tokenizer, PAIRS, "bradley_terry", learning_rate=3e-3, batch_size=4, epochs=3, warmup=0, threads=1
    )

    assert type(trained.model).__name__ == "LlamaForSequenceClassification"
    assert trained.log[-1]["rewards/accuracies"] == 1.0


def test_with_a_judge_every_step_samples_anew(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    trained = prefloop.train(
        model, tokenizer, PROMPTS, judge="longer", batch_size=2, epochs=2, max_new_tokens=24, finished_only=False,
        num_samples=2, learning_rate=1e-3, threads=1,
    )  # fmt: skip

    assert len(trained.log) == 4  # two prompts a step, of which equally long answers give no pair
    assert len({line["logps/chosen"] for line in trained.log}) == 4


def test_evaluation_meets_every_answer_of_the_other(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    found = prefloop.evaluate(
        model, PROMPTS, judge="longer", against="builtin:tiny", tokenizer=tokenizer, num_samples=2,
        max_new_tokens=24, resamples=100, threads=1,
    )  # fmt: skip

    ours, theirs = found["answers"]["model"], found["answers"]["against"]
    won = [
        0.5 + 0.5 * ((one["score"] > other["score"]) - (one["score"] < other["score"]))
        for one in ours
        for other in theirs
        if one["prompt"] == other["prompt"]
    ]
    assert found["n"] == 16
    assert found["win_rate"] == pytest.approx(100 * sum(won) / 16)
    assert found["score"]["mean"] == pytest.approx(sum(one["score"] for one in ours) / 8)


def test_a_recipe_runs_on_a_model_in_memory(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    ran = prefloop.run(
        "offline.tiny", tmp_path / "run", model=model, tokenizer=tokenizer, round=[], policy={"epochs": 2}
    )

    assert "round-00/policy" in ran.made
    assert ran.rounds[0]["decision"] == "accepted"
    assert len({line["step"] for line in ran.log}) == len(ran.log) > 2
    assert (
        prefloop.run(
            "offline.tiny", tmp_path / "run", model=model, tokenizer=tokenizer, round=[], policy={"epochs": 2}
        ).made
        == ()
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"loss_typ": "ipo"}, "train: loss_typ means nothing here, with objective dpo. Did you mean 'loss_type'? "),
        ({"label_smoothing": 0.1}, "It is an option of alpha_dpo, conservative_dpo, "),
        ({"fp16": True}, "train: fp16 is True, but it is always False here"),
        ({"loss_type": "ippo"}, "loss_type is 'ippo', with objective='dpo'. Known: aot, "),
        ({"num_train_epochs": 1.5}, "train: num_train_epochs is 1.5, but it is a whole number here"),
        ({"lr_scheduler_type": "polynomial"}, "has no equal here; known are constant, "),
        ({"temperature": 0.5}, "train: temperature means nothing here, with objective dpo."),
        ({"learning_rate": 1e-3, "lr": 1e-3}, "both say learning_rate. Keep one of them."),
        ({"train_dataset": PAIRS}, "train: data is said twice"),
        ({"judge": lambda _prompt, answer: len(answer)}, "which stands in no file of its own"),
    ],
)
def test_what_cannot_be_meant_is_one_line(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        prefloop.train("builtin:tiny", None, PAIRS, **arguments)

    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_models_that_cannot_be_used_are_said(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ModelError, match="model is in memory, but no tokenizer comes with it"):
        prefloop.sample(model, PROMPTS)
    with pytest.raises(ModelError, match="which has a tokenizer of its own"):
        prefloop.sample("builtin:tiny", PROMPTS, tokenizer=tokenizer)
    with pytest.raises(DataError, match="prompts: found one str"):
        prefloop.sample("builtin:tiny", "How was it?")
    with pytest.raises(DataError, match="rows, row 0: has no `score`"):
        prefloop.pair([{"prompt": "a", "completion": "b"}])
