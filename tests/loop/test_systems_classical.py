"""What makes the systems of the classical pipeline, SPO and TDPO what they are acts: without it, another loss."""

import json
from collections.abc import Sequence
from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from prefloop.config import load_recipe
from prefloop.loop import Progress, run_recipe
from prefloop.policy import ChatCodec, EncodingSettings, resolve_model
from prefloop.records import Example, Response, read_folder
from prefloop.statistics import wilson_interval
from prefloop.training import tokenised

pytestmark = pytest.mark.recipes

FEW = ("machine.threads=1", "policy.epochs=1", "policy.batch_size=256", "policy.learning_rate=1e-3")


def ran(name: str, run: Path, *overrides: str, reuse: Path | None = None) -> Path:
    """A twin, as far as its policy; every optimiser step sees all examples, so that its loss is that of the set."""
    loaded = load_recipe(f"{name}.tiny", [*FEW, *overrides])
    return run_recipe(loaded, run, Progress(), until="policy", reuse=reuse).run


def pairs_of(folder: Path) -> list[Example]:
    return list(read_folder(folder / "pairs", Example))


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "policy" / "training.jsonl").read_text().splitlines()]


@pytest.mark.system("rloo")
def test_rloo_pays_each_answer_by_the_others_of_its_prompt(tmp_path: Path) -> None:
    """Where training begins the loss is that of scores less the mean score of a prompt's other answers, times the
    log-probabilities at which they were sampled; where all answers are paid the same there is no gradient."""
    few = ("blocks=1", "prompts.count=8", "policy.objective={name: rloo}", "policy.batch_size=8")
    run = ran("rloo", tmp_path / "run", *few)
    same = ran("rloo", tmp_path / "same", *few, "judgments.judge={type: regex, pattern: never}", reuse=run)

    responses = {one.response_id: one for one in read_folder(run / "round-00" / "samples", Response)}
    terms: list[float] = []
    for one in pairs_of(run / "round-00"):
        assert len(one.members) == 4
        scores = np.array([member.numbers["score"] for member in one.members])
        advantages = scores - (scores.sum() - scores) / 3
        terms += [-a * (responses[m.response_id].sum_logp or 0) for a, m in zip(advantages, one.members, strict=True)]
    assert losses(run / "round-00")[0] == pytest.approx(np.mean(terms), abs=1e-4)
    assert abs(np.mean(terms)) > 0.1
    first = json.loads((same / "round-00" / "policy" / "training.jsonl").read_text().splitlines()[0])
    assert first["grad_norm"] == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
@pytest.mark.system("spo")
def test_spo_learns_to_tell_how_much_of_an_answer_was_taken(tmp_path: Path) -> None:
    """The loss begins at log 2 plus gamma times log 4 of a head that knows nothing; without gamma the head learns
    nothing, and with it the degrees are told apart."""
    trained = ("policy.epochs=60", "policy.learning_rate=1e-2")
    run = ran("spo", tmp_path / "run", *trained, "policy.objective.gamma=1")
    blind = ran("spo", tmp_path / "blind", *trained, "policy.objective.gamma=0", reuse=run)

    assert {member.role for one in pairs_of(run / "round-00") for member in one.members} == {
        "chosen",
        "rejected",
        "degree",
    }
    assert losses(run / "round-00")[0] == pytest.approx(log(2) + log(4), abs=1e-5)
    assert losses(blind / "round-00")[0] == pytest.approx(log(2), abs=1e-5)
    of_degrees = losses(run / "round-00")[-1] - losses(blind / "round-00")[-1]
    assert of_degrees < log(4) - 0.2
    heads = [load_file(of / "round-00" / "policy" / "heads.safetensors") for of in (run, blind)]
    assert heads[0]["head_logits.weight"].any()
    assert not heads[1]["head_logits.weight"].any()


def divergence(model: PreTrainedModel, reference: PreTrainedModel, ids: Sequence[int], prompt: int) -> float:
    """KL(reference || policy) of the next token, summed over the positions behind a prompt, in nats."""
    with torch.no_grad():
        ours, theirs = (
            one(torch.tensor([ids])).logits[0, prompt - 1 : -1].log_softmax(-1) for one in (model, reference)
        )
    return float((theirs.exp() * (theirs - ours)).sum())


@pytest.mark.system("tdpo2")
def test_tdpo_holds_the_divergence_of_rejected_answers(tmp_path: Path) -> None:
    """After the same steps on the same pairs the sequential KL of rejected answers is smaller than with alpha 0, which
    is DPO; both begin at log 2."""
    few = ("policy.epochs=12", "policy.lora=null")
    run = ran("tdpo2", tmp_path / "run", *few, "policy.objective.alpha=2")
    plain = ran("tdpo2", tmp_path / "plain", *few, "policy.objective.alpha=0", reuse=run)

    source = resolve_model("builtin:tiny")
    codec = ChatCodec.load(source.directory, {})
    tokens, _ = tokenised(pairs_of(run / "round-00"), codec, EncodingSettings(512))
    reference = AutoModelForCausalLM.from_pretrained(source.directory)
    found: list[float] = []
    for of in (run, plain):
        policy = AutoModelForCausalLM.from_pretrained(of / "round-00" / "policy" / "model")
        rows = [one.rows["rejected"] for one in tokens]
        kls = [divergence(policy, reference, (*r.prompt_ids, *r.answer_ids), len(r.prompt_ids)) for r in rows]
        found.append(float(np.mean(kls)))
        assert losses(of / "round-00")[0] == pytest.approx(log(2), abs=1e-5)
    assert found[0] < 0.8 * found[1]


@pytest.mark.system("dpo_avoid_topics")
def test_subjects_are_avoided_and_their_neighbours_are_not(tmp_path: Path) -> None:
    """Of a model that refuses about half of all held-out questions, whatever they are about, nearly all about the three
    subjects are refused afterwards, and none about what is near to them."""
    run = run_recipe(load_recipe("dpo_avoid_topics.tiny"), tmp_path / "run", Progress()).run
    boards = [json.loads((run / f"round-00/{of}.json").read_text()) for of in ("planted", "neighbours")]
    planted, neighbours = (board["score"]["judge"] for board in boards)
    before = planted["initial"], 1 - neighbours["initial"]
    after = planted["mean"], 1 - neighbours["mean"]

    assert all(0.3 < share < 0.7 for share in before)
    assert wilson_interval(after[0], 54)[0] > wilson_interval(before[0], 54)[1]
    assert wilson_interval(after[1], 54)[1] < 0.15
    assert json.loads((run / "round-00/summary.json").read_text())["decision"] == "accepted"
