"""What makes each system what it is acts: without it, other examples or another loss.

Every test is of one recipe's twin; docs/systems.md shows its first line beside the recipe.
"""

import gzip
import json
import re
from collections.abc import Sequence
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prefloop.config import VaderJudge, load_recipe
from prefloop.errors import DataError
from prefloop.judging.arithmetic import verdict_on
from prefloop.judging.rules import Sentiment
from prefloop.judging.verifiers import number_at_the_end
from prefloop.loop import Progress, run_recipe
from prefloop.policy import ChatCodec, PolicyFiles, Workbench, resolve_model
from prefloop.records import Example, Judgment, Prompt, Response, read_folder
from prefloop.training import read_margins

pytestmark = pytest.mark.recipes

FEW = ("machine.threads=1", "policy.epochs=1", "policy.batch_size=256", "policy.learning_rate=1e-3")
"""Every optimiser step sees all examples, so that its loss is that of the set."""
ROUNDS = ("round-00", "round-01")


def ran(name: str, run: Path, *overrides: str, until: str = "policy", reuse: Path | None = None) -> Path:
    """A twin, as far as a step; what another run has made already is taken from there."""
    loaded = load_recipe(f"{name}.tiny", [*FEW, *overrides])
    return run_recipe(loaded, run, Progress(), until=until, reuse=reuse).run


def pairs_of(folder: Path) -> list[Example]:
    return list(read_folder(folder / "pairs", Example))


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "policy" / "training.jsonl").read_text().splitlines()]


def read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))


def softplus(x: Sequence[float]) -> float:
    return float(np.mean(np.logaddexp(0, np.array(x))))


def length_gaps(examples: Sequence[Example]) -> list[int]:
    return [len(one.member("chosen").token_ids or ()) - len(one.member("rejected").token_ids or ()) for one in examples]


@pytest.mark.system("loop")
def test_the_reference_of_plain_iterative_dpo_is_where_the_round_starts(tmp_path: Path) -> None:
    """Round 1 begins at log 2 against its own start; against the initial model it does not."""
    moving = ran("loop", tmp_path / "moving", "prompts.count=12", until="round-01/policy")
    fixed = ran(
        "loop", tmp_path / "fixed", "prompts.count=12", "policy.references={ref: initial}", until="round-01/policy"
    )

    assert losses(moving / "round-01")[0] == pytest.approx(log(2), abs=1e-5)
    assert abs(losses(fixed / "round-01")[0] - log(2)) > 1e-3


@pytest.mark.system("ilr_dpo")
def test_length_stands_inside_the_sigmoid_of_iterative_length_regularised_dpo(tmp_path: Path) -> None:
    """Where training begins the loss is that of the fitted alpha times the gap in length; with alpha 0 it is log 2."""
    run = ran("ilr_dpo", tmp_path / "run", "prompts.count=16")
    plain = ran("ilr_dpo", tmp_path / "plain", "prompts.count=16", "policy.objective.alpha=0", reuse=run)

    alpha = read(run / "round-00" / "policy" / "fitted.json")["alpha"]["value"]
    gaps = length_gaps(pairs_of(run / "round-00"))
    assert abs(alpha) > 1e-3
    assert losses(run / "round-00")[0] == pytest.approx(softplus([-alpha * gap for gap in gaps]), abs=1e-5)
    assert losses(plain / "round-00")[0] == pytest.approx(log(2), abs=1e-5)


@pytest.mark.system("length_regularized_dpo")
def test_length_stands_inside_the_sigmoid_of_length_regularised_dpo(tmp_path: Path) -> None:
    """Where training begins the loss is not log 2, unless alpha is 0."""
    run = ran("length_regularized_dpo", tmp_path / "run", "policy.objective.alpha=0.1")
    plain = ran("length_regularized_dpo", tmp_path / "plain", "policy.objective.alpha=0", reuse=run)

    assert abs(losses(run / "round-00")[0] - log(2)) > 1e-2
    assert losses(plain / "round-00")[0] == pytest.approx(log(2), abs=1e-5)


@pytest.mark.system("rlhf_workflow")
def test_the_workflow_trains_on_all_rounds_against_the_start_model_with_unsure_labels(tmp_path: Path) -> None:
    """Round 1 trains on the pairs of both rounds; without smoothed labels the same steps go further."""
    few = ("prompts.count=8", "policy.batch_size=2", "policy.references={ref: initial}")
    run = ran("rlhf_workflow", tmp_path / "run", *few, until="round-01/policy")
    sure = ran("rlhf_workflow", tmp_path / "sure", *few, "policy.objective.label_smoothing=0", reuse=run)

    counted = [len(pairs_of(run / name)) for name in ("round-00", "round-01")]
    tokens = run / "round-01" / "policy-tokens"
    assert (
        read(run / "round-01" / "policy" / "policy.json")["references"]["ref"]
        == (read(run / "round-00" / "policy" / "policy.json")["start"])
    )
    assert len(list(tokens.rglob("*"))) > 0
    steps = [len(losses(run / name)) for name in ("round-00", "round-01")]
    assert steps == [-(-counted[0] // 2), -(-sum(counted) // 2)]
    assert losses(sure / "round-00")[-1] < losses(run / "round-00")[-1]


@pytest.mark.system("sppo")
def test_win_probabilities_are_what_sppo_regresses_on(tmp_path: Path) -> None:
    """Where training begins the loss is half the squares of eta times the win probabilities less one half; these are
    means over what the trained pairwise model says of every two answers in both orders."""
    run = ran("sppo", tmp_path / "run", "prompts.count=12")
    assert_mean_of_orders(run / "round-00")

    wins = [
        [one.member(role).numbers["win_prob"] for role in ("chosen", "rejected")] for one in pairs_of(run / "round-00")
    ]
    expected = np.mean([sum((10 * (win - 0.5)) ** 2 for win in two) / 2 for two in wins])
    assert losses(run / "round-00")[0] == pytest.approx(expected, abs=1e-5)
    assert np.std([win for two in wins for win in two]) > 0.01


def assert_mean_of_orders(folder: Path) -> None:
    """Win probabilities of pairs, from the judgments by hand."""
    said = {one.subjects: one.values[0] or 0.0 for one in read_folder(folder / "judgments", Judgment)}
    assert all(one.judge.startswith("pairwise_model:") for one in read_folder(folder / "judgments", Judgment))
    for one in pairs_of(folder):
        chosen = one.member("chosen")
        others = {subject for two in said if chosen.response_id in two for subject in two} - {chosen.response_id}
        wins = [(said[chosen.response_id, o] + 1 - said[o, chosen.response_id]) / 2 for o in others]
        assert chosen.numbers["win_prob"] == pytest.approx((sum(wins) + 0.5) / (len(wins) + 1), abs=1e-9)


@pytest.mark.system("oaif")
def test_every_block_of_online_feedback_is_on_answers_of_the_block_before(tmp_path: Path) -> None:
    """Block 1 is answered by the policy of block 0, and no more by the start model, which stays the reference."""
    few = ("prompts.count=8", "policy.batch_size=4")
    run = ran("oaif", tmp_path / "run", *few, "blocks=2", until="evaluation") / "round-00"

    who = [{one.policy for one in read_folder(run / block / "samples", Response)} for block in ("block-00", "block-01")]
    first, second = (read(run / block / "policy" / "policy.json") for block in ("block-00", "block-01"))
    assert who == [{first["start"]}, {first["identity"]}]
    assert second["references"] == first["references"] == {"ref": first["start"]}


@pytest.mark.system("sapo")
def test_sapo_rewrites_its_demonstrations_by_the_average_and_draws_pairs_from_a_buffer(tmp_path: Path) -> None:
    """Rejected is a demonstration up to where the average of the policy wrote on, and behind that unless it ended;
    block 1 trains on pairs of both blocks, more on those not drawn before. With a buffer of one block it does not."""
    run = ran("sapo", tmp_path / "run", until="pairs") / "round-00"
    few = ("data.count=12", "buffer.draws=12", "blocks=2")
    long = ran("sapo", tmp_path / "long", *few, "rounds=1", until="evaluation-samples") / "round-00"
    short = ran("sapo", tmp_path / "short", *few, "rounds=1", "buffer.size=12", until="evaluation-samples") / "round-00"

    cut = {one.prompt_id: one for one in read_folder(long / "block-01" / "cuts", Prompt)}
    averaged = read(long / "block-00" / "policy" / "policy.json")["identity"] + ".ema"
    starts: set[int] = set()
    for one in read_folder(long / "block-01" / "segments", Response):
        assert one.policy == averaged
        assert (one.token_ids or ())[: len(cut[one.prompt_id].prefix_ids)] == cut[one.prompt_id].prefix_ids
    for one in pairs_of(long / "block-01"):
        chosen, rejected = (list(one.member(role).token_ids or []) for role in ("chosen", "rejected"))
        start = int(one.numbers["start"])
        starts.add(start)
        assert chosen[:start] == rejected[:start]
        assert chosen != rejected
        assert rejected[-1] == chosen[-1]
        assert len(rejected) <= len(chosen)
        assert len(rejected) < len(chosen) or rejected[start + 16 :] == chosen[start + 16 :]
    assert len(starts) > 4
    blocks = [of / block for of in (long, short) for block in ("block-00", "block-01")]
    made = [{one.example_id for one in pairs_of(block)} for block in blocks]
    drawn = [{one.example_id for one in read_folder(block / "buffer" / "drawn", Example)} for block in blocks]
    assert len(drawn[1]) == 12
    assert 0 < len(drawn[1] & made[0]) < len(drawn[1] & made[1])
    assert drawn[3] == made[3]
    assert len(list(read_folder(run / "block-00" / "pairs", Example))) == 16


@pytest.mark.system("dno_lookahead")
def test_dno_lookahead_trains_once_on_answers_of_the_start_model(tmp_path: Path) -> None:
    """All prompts are answered by the start model, and their pairs trained on in one pass, the policy's own answers
    winning some; asked for a few prompts a round, dno has a part of the same in its first."""
    run = ran("dno_lookahead", tmp_path / "run", until="round-00/policy") / "round-00"
    part = ran("dno", tmp_path / "part", until="pairs") / "round-00"

    start = read(run / "policy" / "policy.json")["start"]
    assert {one.policy for one in read_folder(run / "samples", Response)} == {start}
    assert {one.prompt_id for one in read_folder(run / "data" / "prompts", Prompt)} > {
        one.prompt_id for one in read_folder(part / "data" / "prompts", Prompt)
    }
    pairs = pairs_of(run)
    assert {one.why.split()[1] for one in pairs} == {"teacher", "student"}
    assert len(losses(run)) == -(-len(pairs) // 256)
    assert len(pairs) > 2 * len(pairs_of(part))


@pytest.mark.system("dno_theory")
def test_dno_regresses_on_differences_of_win_rates(tmp_path: Path) -> None:
    """Targets are differences of win rates among four; the loss falls no lower than their entropy. Without reward
    nothing is learnt: it stays at log 2."""
    few = ("prompts.count=16", "policy.epochs=6", "policy.objective.eta=0.5")
    run = ran("dno_theory", tmp_path / "run", *few)
    blind = ran("dno_theory", tmp_path / "blind", *few, "policy.objective.reward_scale=0", reuse=run)

    gaps = [
        one.member("chosen").numbers["win_prob"] - one.member("rejected").numbers["win_prob"]
        for one in pairs_of(run / "round-00")
    ]
    odds = 1 / (1 + np.exp(-np.array(gaps)))
    entropy = float(np.mean(-odds * np.log(odds) - (1 - odds) * np.log(1 - odds)))
    found = losses(run / "round-00")
    assert entropy < found[-1] < found[0] - 1e-4
    assert losses(blind / "round-00") == pytest.approx([log(2)] * len(found), abs=1e-6)


@pytest.mark.system("ilr_dpo_combined")
def test_every_remedy_of_the_combination_acts(tmp_path: Path) -> None:
    """The policy's own log-ratio judges, and small gaps are left out; where training begins the loss is of alpha times
    the gap in length less the offset; without both it is log 2; later steps differ without the token level."""
    few = ("prompts.count=24", "policy.epochs=4")
    name = "policy.objective"
    run = ran("ilr_dpo_combined", tmp_path / "run", *few)
    plain = ran("ilr_dpo_combined", tmp_path / "plain", *few, f"{name}.alpha=0", f"{name}.offset=0", reuse=run)
    sums = ran("ilr_dpo_combined", tmp_path / "sums", *few, f"{name}.kl_weight=0", reuse=run)
    every = ran("ilr_dpo_combined", tmp_path / "every", *few, "pairs.min_margin=0", until="pairs", reuse=run)

    pairs = pairs_of(run / "round-00")
    gaps = [one.member("chosen").numbers["score"] - one.member("rejected").numbers["score"] for one in pairs]
    assert min(gaps) > 0.5
    assert len(pairs_of(every / "round-00")) > len(pairs) > 5
    alpha = read(run / "round-00" / "policy" / "fitted.json")["alpha"]["value"]
    shifts = [0.5 * log(gap) - alpha * length for gap, length in zip(gaps, length_gaps(pairs), strict=True)]
    assert losses(run / "round-00")[0] == losses(sums / "round-00")[0] == pytest.approx(softplus(shifts), abs=1e-5)
    assert losses(plain / "round-00")[0] == pytest.approx(log(2), abs=1e-5)
    assert abs(losses(run / "round-00")[-1] - losses(sums / "round-00")[-1]) > 1e-5


@pytest.mark.system("bmc")
def test_bmc_trains_on_what_was_edited(tmp_path: Path) -> None:
    """Chosen is a rejected answer with another end; edited tokens weigh more, so that the same steps go further than
    with delta 0."""
    few = ("policy.epochs=8",)
    run = ran("bmc", tmp_path / "run", *few)
    plain = ran("bmc", tmp_path / "plain", *few, "policy.objective.delta=0", reuse=run)

    given = {one.text for one in read_folder(run / "round-00" / "data" / "responses", Response)}
    for one in pairs_of(run / "round-00"):
        chosen, rejected = (one.member(role) for role in ("chosen", "rejected"))
        assert rejected.text in given
        assert chosen.text.startswith(" ".join(re.split(r"(?<=[.!?])\s+", rejected.text)[:-1]))
        assert 0 < one.numbers["edited"] <= 0.9
        assert all(member.marked for member in (chosen, rejected))
    assert losses(run / "round-00")[0] == losses(plain / "round-00")[0] == pytest.approx(log(2), abs=1e-6)
    gained = [log(2) - losses(of / "round-00")[-1] for of in (run, plain)]
    assert gained[0] > 1.5 * gained[1] > 0


@pytest.mark.system("reward_augmented")
def test_each_pair_stands_once_for_either_score_as_the_goal(tmp_path: Path) -> None:
    """Asked for the rejected answer's score the order is turned round; with the chosen goals alone no pair is."""
    run = ran("reward_augmented", tmp_path / "run", until="pairs") / "round-00"
    half = ran("reward_augmented", tmp_path / "half", "pairs.goals=[chosen]", until="pairs") / "round-00"

    both, kept = pairs_of(run), pairs_of(half)
    turned = [one for one in both if one.member("chosen").numbers["score"] < one.member("rejected").numbers["score"]]
    assert len(both) == 2 * len(turned) == 2 * len(kept) > 0
    assert all(one.member("chosen").numbers["score"] > one.member("rejected").numbers["score"] for one in kept)
    for one in both:
        assert one.prompt.messages[0].content == f"Target: {one.member('chosen').numbers['score']:g}"


@pytest.mark.system("mrpo")
def test_the_reference_of_mrpo_is_a_mixture(tmp_path: Path) -> None:
    """Where training begins the loss is not log 2, which it is against the start model alone."""
    run = ran("mrpo", tmp_path / "run")
    alone = ran("mrpo", tmp_path / "alone", "policy.references={ref: initial, aux_ref: [initial]}", reuse=run)

    assert abs(losses(run / "round-00")[0] - log(2)) > 1e-4
    assert losses(alone / "round-00")[0] == pytest.approx(log(2), abs=1e-5)


@pytest.mark.system("filtered_dpo")
def test_a_pair_that_filtered_dpo_drops_never_returns(tmp_path: Path) -> None:
    """What round 1 keeps is a part of what round 0 kept; where it does not read that, dropped pairs return."""
    few = ("policy.batch_size=8", "policy.learning_rate=1e-3")
    run = ran("filtered_dpo", tmp_path / "run", *few, until="round-01/pairs")
    forgetful = ran(
        "filtered_dpo",
        tmp_path / "forgetful",
        *few,
        "pairs.reads=[data, given_scores, samples, scores]",
        until="round-01/pairs",
        reuse=run,
    )
    offline = ran("filtered_dpo", tmp_path / "offline", *few, "pairs.threshold=10", until="pairs", reuse=run)

    kept = [{one.example_id for one in pairs_of(of / name)} for of in (run, forgetful) for name in ROUNDS]
    assert kept[1] < kept[0] == kept[2]
    assert kept[3] - kept[2]
    assert len(pairs_of(offline / "round-00")) == 48 > len(kept[0])


@pytest.mark.slow
@pytest.mark.system("sprec")
def test_sprec_pushes_down_what_it_recommends_too_often(tmp_path: Path) -> None:
    """Rejected are a title or two that it recommends to nearly all; they lose more than half a nat where others do not,
    and the next round recommends them to nobody. Drawn at temperature 1 no title stands out."""
    run = ran("sprec", tmp_path / "run", "policy.batch_size=16", until="round-01/samples")
    drawn = ran("sprec", tmp_path / "drawn", "samples.temperature=1", until="pairs", reuse=run)

    quoted = re.compile(r'"[^"]+"\n')
    rejected = [[one.member("rejected").text for one in pairs_of(of / "round-00")] for of in (run, drawn)]
    shares = [max(map(some.count, some)) / len(some) for some in rejected]
    assert shares[0] > 0.6 > 2 * shares[1]
    for one in pairs_of(run / "round-00"):
        texts = [member.text for member in one.members]
        assert all(map(quoted.fullmatch, texts))
        assert len({*texts}) == 2
    lines = [json.loads(line) for line in (run / "round-00" / "policy" / "training.jsonl").read_text().splitlines()]
    assert lines[0]["logps/rejected"] - lines[-1]["logps/rejected"] > 0.5
    assert lines[-1]["logps/chosen"] > lines[0]["logps/chosen"] - 0.3
    assert not {one.text for one in read_folder(run / "round-01" / "samples", Response)} & {*rejected[0]}


@pytest.mark.system("only_prompting")
def test_the_instruction_alone_says_which_answer_is_the_better(tmp_path: Path) -> None:
    """Judged by nobody, the chosen answers are the kinder ones, behind plain prompts; less so by half of the gap, and
    not at all without one, or after the same instruction twice."""
    run = ran("only_prompting", tmp_path / "run", until="pairs") / "round-00"
    same = ran("only_prompting", tmp_path / "same", "bad_prompts.instruction=happy lovely wonderful", until="pairs")
    half, none = (
        ran("only_prompting", tmp_path / f"gap-{gap}", f"bad.gap={gap}", until="pairs", reuse=run.parent)
        for gap in (0.5, 0)
    )

    plain = {one.prompt_id for one in read_folder(run / "prompts", Prompt)}
    tones = [kindness(pairs_of(folder)) for folder in (run, *(of / "round-00" for of in (half, none, same)))]
    assert {one.prompt.prompt_id for one in pairs_of(run)} <= plain
    assert tones[0] > 0.3
    assert 0.1 < tones[1] < tones[0] - 0.1
    assert max(map(abs, tones[2:])) < 0.15


def kindness(examples: Sequence[Example]) -> float:
    """How much more positive the chosen answers are, by VADER's mean score of a sentence."""
    tone = Sentiment(VaderJudge(type="vader"))
    return float(
        np.mean([tone.of(one.member("chosen").text) - tone.of(one.member("rejected").text) for one in examples])
    )


@pytest.mark.system("nash_md")
def test_nash_md_meets_answers_of_the_mixture_and_learns_by_its_chance_to_win(tmp_path: Path) -> None:
    """What block 1 meets is sampled from the policy's distribution to the power of 3/4 times the initial model's to
    that of 1/4, in every token; against the policy alone it meets others. Where training begins, the loss is one half
    less the chance to win, times the log-likelihood of the answer."""
    run = ran("nash_md", tmp_path / "run", "blocks=2", until="evaluation-samples") / "round-00"
    alone = ran(
        "nash_md", tmp_path / "alone", "blocks=2", "opponents.policy.geometric.weights=[1, 0]",
        until="evaluation-samples", reuse=run.parent,
    )  # fmt: skip

    first, met = run / "block-00", list(read_folder(run / "block-01" / "opponents", Response))
    own = {one.response_id: one.sum_logp or 0.0 for one in read_folder(first / "samples", Response)}
    answers = [one.member("response") for one in pairs_of(first)]
    surrogate = [(0.5 - one.numbers["win_prob"]) * own[one.response_id] for one in answers]
    assert losses(first)[0] == pytest.approx(float(np.mean(surrogate)), abs=1e-4)
    assert {one.numbers["win_prob"] for one in answers} > {0, 1}
    prompts = {one.prompt_id: one for one in read_folder(run / "block-01" / "prompts", Prompt)}
    for one in met[:6]:
        policy, initial = (
            next_token_logps(adapter, prompts[one.prompt_id], one.token_ids or ())
            for adapter in (first / "policy" / "model", None)
        )
        mixture = (0.75 * policy + 0.25 * initial).log_softmax(-1)
        assert (policy - initial).abs().max() > 0.01
        said = mixture.gather(-1, torch.tensor(one.token_ids)[:, None]).sum().item()
        assert one.sum_logp == pytest.approx(said, abs=1e-4)
    theirs = [one.text for one in read_folder(alone / "round-00" / "block-01" / "opponents", Response)]
    assert theirs != [one.text for one in met]


def next_token_logps(adapter: Path | None, prompt: Prompt, answer: Sequence[int]) -> torch.Tensor:
    """What builtin:tiny, with an adapter or without, says of every token of an answer: (tokens, vocabulary), nats."""
    source = resolve_model("builtin:tiny")
    bench = Workbench(source, ChatCodec.load(source.directory, {}), torch.device("cpu"))
    begun = bench.codec.prompt_ids(prompt)
    with bench.for_scoring(PolicyFiles("one", source.directory, adapter)) as model, torch.no_grad():
        logits = model(input_ids=torch.tensor([[*begun, *answer]]), use_cache=False).logits[0, len(begun) - 1 : -1]
    return logits.double().log_softmax(-1)


@pytest.mark.system("dice")
def test_dice_judges_by_what_the_last_training_changed_and_charges_for_length(tmp_path: Path) -> None:
    """The fitted charge closes the gap in length that is there at 0; half of what is trained on was given; against
    itself instead of the policy before it the policy says nothing, and no pair is left."""
    run = ran("dice", tmp_path / "run", "prompts.count=24") / "round-00"

    alpha = read(run / "pairs" / "fitted.json")["alpha"]
    figures = alpha["figures"]
    assert alpha["value"] > 0
    assert abs(figures["mean_length_gap"]) < abs(figures["mean_length_gap_at_zero"]) / 5
    trained = list(read_folder(run / "mixed", Example))
    generated, offline = (
        [one for one in trained if (one.why[:5] == "given") == is_given] for is_given in (False, True)
    )
    assert len(generated) == len(offline) > 5
    assert not {one.prompt.root_id for one in generated} & {one.prompt.root_id for one in offline}
    with pytest.raises(DataError, match="no usable pair in 24 prompts"):
        ran(
            "dice", tmp_path / "itself", "prompts.count=24", "judgments.judge.reference=current", until="pairs",
            reuse=run.parent,
        )  # fmt: skip


@pytest.mark.system("bees")
def test_bees_keeps_the_pairs_that_two_sources_are_surest_of(tmp_path: Path) -> None:
    """Kept are the pairs with the largest product of odds; with one source made neutral they are others."""
    both = ran("bees", tmp_path / "both", until="round-00/pairs")
    alone = ran("bees", tmp_path / "alone", 'pairs.bounds={"rule:vader": [-1000, 1000]}', until="pairs", reuse=both)

    cut = read(both / "round-00" / "pairs" / "fitted.json")["min_evidence"]["value"]
    kept = [pairs_of(of / "round-00") for of in (both, alone)]
    assert all(one.numbers["evidence"] >= cut for one in kept[0])
    assert len(kept[0]) == 24
    assert {one.example_id for one in kept[0]} != {one.example_id for one in kept[1]}


@pytest.mark.system("davir")
def test_davir_keeps_what_fine_tuning_learnt_relative_to_its_loss(tmp_path: Path) -> None:
    """Kept is the half whose loss fell by the largest share; by the plain fall it is another, of longer answers."""
    run = ran("davir", tmp_path / "run", until="pairs")
    plain = ran("davir", tmp_path / "plain", "pairs.normalise=none", until="pairs", reuse=run)

    kept = [pairs_of(of / "round-00") for of in (run, plain)]
    words = [np.mean([len(one.member("chosen").text.split()) for one in some]) for some in kept]
    assert [len(some) for some in kept] == [24, 24]
    assert {one.example_id for one in kept[0]} != {one.example_id for one in kept[1]}
    assert words[0] < words[1]


@pytest.mark.slow
@pytest.mark.system("selm")
def test_selm_pushes_its_own_greedy_answer_down(tmp_path: Path) -> None:
    """With optimism its own answer ends less likely than without, after the same steps on the same pairs, which the
    pairwise model made; a judge that always prefers the longer makes others."""
    few = ("policy.epochs=8", "policy.learning_rate=1e-3")
    strong = ran("selm", tmp_path / "strong", *few, "policy.objective.alpha=5")
    plain = ran("selm", tmp_path / "plain", *few, "policy.objective.alpha=0", reuse=strong)

    last = [
        json.loads((of / "round-00" / "policy" / "training.jsonl").read_text().splitlines()[-1])
        for of in (strong, plain)
    ]
    assert last[0]["loss"] < last[1]["loss"] - 0.05
    assert any("own answer is the worst" in one.why for one in pairs_of(strong / "round-00"))
    longer = ran("selm", tmp_path / "longer", "judgments.judge=longer", until="pairs", reuse=strong)
    by = [{one.example_id for one in pairs_of(of / "round-00")} for of in (strong, longer)]
    assert by[0] - by[1]


@pytest.mark.slow
@pytest.mark.system("inpo")
def test_inpo_is_pulled_to_the_initial_model_and_to_its_round_start_at_once(tmp_path: Path) -> None:
    """Where round 1 begins, the loss is of tau / eta times what round 0 changed; a single reference has 1 / (2 eta)
    alone. By the pairwise model a winner of the tournament has won its last meeting, in the mean of both orders."""
    run = ran("inpo", tmp_path / "run", "prompts.count=16", until="round-01/policy")
    single = ran(
        "inpo", tmp_path / "single", "prompts.count=16", "policy.references={ref: round_start, prev: round_start}",
        until="round-01/policy",
    )  # fmt: skip

    target = (1 / (2 * 0.1)) ** 2
    assert losses(run / "round-00")[0] == pytest.approx(target, abs=1e-3)
    assert losses(single / "round-01")[0] == pytest.approx(target, abs=1e-3)
    assert abs(losses(run / "round-01")[0] - target) > 3e-3  # three times what the others are held to
    said = {one.subjects: one.values[0] or 0.0 for one in read_folder(run / "round-00/judgments", Judgment)}
    for one in pairs_of(run / "round-00"):
        two = (one.member("chosen").response_id, one.member("rejected").response_id)
        assert 0.5 < one.numbers["prob_chosen_wins"] == pytest.approx((said[two] + 1 - said[two[::-1]]) / 2, abs=1e-9)


@pytest.mark.system("dno")
def test_dno_pairs_a_teacher_with_the_policy_by_large_margins_and_replays_earlier_rounds(tmp_path: Path) -> None:
    """Both sides win pairs, the teacher by 2 points and the policy by 1, with 5 or more; in round 1 at most 30 % of
    the examples are replayed. In restrictive mode the policy never wins."""
    run = ran("dno", tmp_path / "run", until="round-01/mixed")
    strict = ran("dno", tmp_path / "strict", "pairs.mode=restrictive", until="pairs", reuse=run)

    won: dict[str, list[float]] = {"teacher": [], "student": []}
    for one in pairs_of(run / "round-00"):
        chosen, rejected = (one.member(role).numbers["score"] for role in ("chosen", "rejected"))
        assert chosen >= 5
        won[one.why.split()[1]].append(chosen - rejected)
    assert min(won["teacher"]) == 2
    assert min(won["student"]) == 1
    assert {one.why.split()[1] for one in pairs_of(strict / "round-00")} == {"teacher"}
    mixed = list(read_folder(run / "round-01" / "mixed", Example))
    here = {one.example_id for one in pairs_of(run / "round-01")}
    replayed = sum(one.example_id not in here for one in mixed)
    assert len(mixed) - replayed == len(here)
    assert replayed == int(0.3 * len(mixed)) > 0


@pytest.mark.system("sopo")
def test_sopo_reads_an_own_answer_only_where_it_is_bad(tmp_path: Path) -> None:
    """The rejected answer is the worst of four; with tau below all scores it is not read, and the same steps lower its
    likelihood less; the weight of the good answer is higher the less it is like the own ones."""
    few = ("policy.epochs=6",)
    run = ran("sopo", tmp_path / "run", *few, "policy.objective.tau=10")
    blind = ran("sopo", tmp_path / "blind", *few, "policy.objective.tau=-10", reuse=run)

    similar = [one.numbers["similarity"] for one in pairs_of(run / "round-00")]
    assert 0 <= min(similar) < max(similar) < 1
    last = [
        json.loads((of / "round-00" / "policy" / "training.jsonl").read_text().splitlines()[-1]) for of in (run, blind)
    ]
    assert last[0]["logps/rejected"] < last[1]["logps/rejected"] - 0.01


@pytest.mark.system("xpo")
def test_xpo_pushes_the_answer_of_the_initial_model_down(tmp_path: Path) -> None:
    """One answer is the initial model's, and the third member; where training begins the loss is log 2 plus alpha times
    its log-likelihood."""
    run = ran("xpo", tmp_path / "run", "blocks=1", "policy.objective.alpha=0.01")
    plain = ran("xpo", tmp_path / "plain", "blocks=1", "policy.objective.alpha=0", reuse=run)

    responses = {one.response_id: one for one in read_folder(run / "round-00" / "reference_samples", Response)}
    theirs = [responses[one.member("response").response_id] for one in pairs_of(run / "round-00")]
    bonus = 0.01 * np.mean([one.sum_logp or 0.0 for one in theirs])
    assert losses(run / "round-00")[0] == pytest.approx(log(2) + bonus, abs=1e-4)
    assert losses(plain / "round-00")[0] == pytest.approx(log(2), abs=1e-5)


def margins_before(folder: Path) -> dict[str, float]:
    """Log-ratios of the chosen answer less those of the rejected one, as training began, by example."""
    return {one.example_id: one.before or 0.0 for one in read_margins(folder / "policy")}


def column(folder: Path, name: str) -> list[float]:
    return [json.loads(line)[name] for line in (folder / "policy" / "training.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.system("dpop_paired")
def test_dpop_keeps_right_answers_likely_beside_their_corrupted_copies(tmp_path: Path) -> None:
    """A rejected solution differs from the right one in a number of its calculation, a rejected choice is a wrong one.
    After the same steps chosen answers are likelier than before; with lam 0, which is DPO, they are less likely."""
    run = ran("dpop_paired", tmp_path / "run", "policy.epochs=6") / "round-00"
    plain = ran("dpop_paired", tmp_path / "plain", "policy.epochs=6", "policy.objective.lam=0", reuse=run.parent)

    corrupted, choices = pairs_of(run), list(read_folder(run / "choices", Example))
    for one in corrupted:
        texts = [one.member(role).text for role in ("chosen", "rejected")]
        numbers = [re.findall(r"\d", text) for text in texts]
        assert re.sub(r"\d", "_", texts[0]) == re.sub(r"\d", "_", texts[1])
        ((right, _),) = [(a, b) for a, b in zip(*numbers, strict=True) if a != b]
        assert right != numbers[0][-1] == numbers[1][-1]
        assert one.numbers["edit_distance"] == 1 / len(texts[0].split())
    assert len(corrupted) == 67
    assert len(choices) == 3 * 67
    for one in choices:
        said = [int(one.member(role).text) for role in ("chosen", "rejected")]
        assert said[0] == sum(map(int, re.findall(r"\d", one.prompt.messages[-1].content))) != said[1]
    assert column(run, "rewards/chosen")[-1] > 0.02
    assert column(plain / "round-00", "rewards/chosen")[-1] < -0.005


@pytest.mark.system("robust_dpo")
def test_robust_dpo_pays_back_what_wrong_labels_cost(tmp_path: Path) -> None:
    """After the same first step the loss is that of DPO less e / (1 - 2e) times the mean margin: what labels of which a
    share e is wrong add to the mean is taken off again."""
    few = ("policy.epochs=2", "policy.max_grad_norm=1e9")
    run = ran("robust_dpo", tmp_path / "run", *few, "policy.objective.label_smoothing=0.2") / "round-00"
    sure = ran("robust_dpo", tmp_path / "sure", *few, "policy.objective.label_smoothing=0", reuse=run.parent)

    margins = [column(folder, "rewards/margins")[1] for folder in (run, sure / "round-00")]
    assert margins[0] == pytest.approx(margins[1], rel=1e-3)
    assert margins[0] > 0.01
    assert losses(run)[1] == pytest.approx(losses(sure / "round-00")[1] - 0.2 / 0.6 * margins[0], rel=1e-4)
    assert losses(run)[0] == pytest.approx(log(2), abs=1e-5)


@pytest.mark.system("step_dpo")
def test_step_dpo_sets_right_steps_against_the_first_wrong_one(tmp_path: Path) -> None:
    """Behind one beginning of right steps, trained on are a wrong calculation and a right one that led to the right
    end; unverified ones are more, with wrong calculations among them."""
    run = ran("step_dpo", tmp_path / "run")
    lucky = ran("step_dpo", tmp_path / "lucky", "pairs.verified=false", until="pairs", reuse=run)

    round_0 = run / "round-00"
    responses = {
        one.response_id: one for step in ("solutions", "continuations") for one in read_folder(round_0 / step, Response)
    }
    text_of = ChatCodec.load(resolve_model("builtin:tiny").directory, {}).text_of
    behind = set[int]()
    for one in pairs_of(round_0):
        start = len(one.prompt.prefix_ids)
        steps = [member.token_ids or () for member in one.members]
        assert steps[0][:start] == steps[1][:start] == one.prompt.prefix_ids
        assert [verdict_on(text_of(tokens[start:])) for tokens in steps] == [1.0, 0.0]
        assert {verdict_on(line) for line in text_of(one.prompt.prefix_ids).splitlines()} <= {1.0}
        ends = [number_at_the_end(responses[member.response_id].text) for member in one.members]
        assert ends[0] == int(one.prompt.answer or "") != ends[1]
        behind.add(start)
    assert 0 in behind
    assert len(behind) > 1
    chosen = [
        (one.member("chosen").token_ids or ())[len(one.prompt.prefix_ids) :] for one in pairs_of(lucky / "round-00")
    ]
    assert len(chosen) > len(pairs_of(round_0))
    assert {verdict_on(text_of(tokens)) for tokens in chosen} >= {0.0, 1.0}


@pytest.mark.slow
@pytest.mark.system("mcts_dpo")
def test_the_search_of_mcts_dpo_visits_what_ends_right(tmp_path: Path) -> None:
    """Of the siblings behind one beginning the chosen one was visited more, and chosen ones end right more often. Where
    training begins, each pair's loss is as unsure of its label as the visits are. The same trees grow again, byte by
    byte; where no end is right, no pair is left."""
    few = ("blocks=1", "policy.references={ref: taught}")
    run = ran("mcts_dpo", tmp_path / "run", *few) / "round-00"

    trees = {one.prompt_id: one for one in read_folder(run / "tree" / "prompts", Prompt)}
    q = {
        subject: value
        for one in read_folder(run / "tree" / "judgments", Judgment)
        if one.aspect == "q"
        for subject, value in zip(one.subjects, one.values, strict=True)
    }
    for one in pairs_of(run):
        assert trees[one.prompt.prompt_id].prefix_ids == one.prompt.prefix_ids
        visits = [one.member(role).numbers["visits"] for role in ("chosen", "rejected")]
        assert visits[0] >= visits[1]
        for member in one.members:
            assert (member.token_ids or ())[: len(one.prompt.prefix_ids)] == one.prompt.prefix_ids
    means = [np.mean([q[one.member(role).response_id] for one in pairs_of(run)]) for role in ("chosen", "rejected")]
    assert means[0] > means[1] + 0.3
    asked = [one.prompt.prefix_ids for one in pairs_of(run)]
    assert () in asked
    assert len({len(ids) for ids in asked}) > 1
    start = ran("mcts_dpo", tmp_path / "start", "blocks=1", "policy.references={ref: initial}", reuse=run.parent)
    started = start / "round-00"
    h = 0.1 * np.array([margins_before(started)[one.example_id] for one in pairs_of(started)])
    counts = np.array(
        [[one.member(role).numbers["visits"] for role in ("chosen", "rejected")] for one in pairs_of(run)]
    )
    unsure = np.minimum(counts[:, 1] / (counts[:, 1] + np.maximum(counts[:, 0], 1)), 0.5)
    expected = (1 - unsure) * np.logaddexp(0, -h) + unsure * np.logaddexp(0, h)
    assert losses(started)[0] == pytest.approx(expected.mean(), abs=1e-4)
    assert abs(np.logaddexp(0, -h).mean() - expected.mean()) > 2e-3
    again = ran("mcts_dpo", tmp_path / "again", *few, "policy.objective=dpo", until="tree")
    for kind in ("prompts", "responses", "judgments"):
        files = [of / "tree" / kind / "part-00000.jsonl" for of in (run, again / "round-00")]
        assert files[0].read_bytes() == files[1].read_bytes()
    with pytest.raises(DataError, match="no usable pair"):
        ran("mcts_dpo", tmp_path / "blind", *few, "tree.simulations=1", "tree.num_actions=2", "pairs.right_only=true",
            "tree.judge={type: regex, pattern: never}", until="pairs", reuse=run.parent)  # fmt: skip


SOLUTIONS = Path(__file__).parents[3] / "shared" / "data" / "gsm8k_model_solutions.jsonl.gz"


def _begins_wrong_and_right(row: dict[str, Any]) -> bool:
    """A stored solution ends wrong and begins with a wrong calculation, another one ends and begins right."""
    stored = [one for one in row.values() if isinstance(one, dict)]
    begin = {(one["is_correct"], verdict_on(one["solution"].splitlines()[0])) for one in stored}
    return begin >= {(False, 0.0), (True, 1.0)}


@pytest.mark.skipif(not SOLUTIONS.exists(), reason="the stored solutions are not part of the project")
def test_stored_solutions_are_cut_before_their_first_wrong_calculation_and_trained_on(tmp_path: Path) -> None:
    """Where the first step is wrong already, other stored solutions that end right go on from there."""
    stored = tmp_path / "solutions.jsonl"
    with gzip.open(SOLUTIONS, "rt", encoding="utf-8") as lines:
        everything = [json.loads(line) for line in lines]
    rows = [*everything[:40], *[row for row in everything[40:] if _begins_wrong_and_right(row)][:6]]
    stored.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    loaded = load_recipe(
        "step_dpo",
        [
            "model=builtin:tiny",
            f"prompts.data={stored}",
            f"solutions.sampler={{type: replay, file: {stored}}}",
            "solutions.num_samples=4",
            "beginnings.max_per_question=4",
            "continuations={num_samples: 1, max_new_tokens: 8}",
            "policy={epochs: 1, learning_rate: 1e-3, reads: [pairs]}",
            "machine.threads=1",
        ],
    )
    run = run_recipe(loaded, tmp_path / "run", Progress(), until="policy").run / "round-00"

    right = [value for one in read_folder(run / "ends", Judgment) for value in one.values]
    models = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
    assert sum(value or 0.0 for value in right) == sum(row[model]["is_correct"] for row in rows for model in models)
    cut = [one for one in read_folder(run / "beginnings", Prompt) if one.prefix_ids]
    text_of = ChatCodec.load(resolve_model("builtin:tiny").directory, {}).text_of
    assert cut
    for one in cut:
        begun = text_of(one.prefix_ids)
        assert begun.endswith("\n")
        assert all(verdict_on(line) > 0 for line in begun.splitlines())
        question = one.messages[-1].content
        row = next(row for row in rows if row["question"] == question)
        wrong = [row[model]["solution"] for model in models if row[model]["solution"].startswith(begun)]
        assert any(verdict_on(text[len(begun) :].splitlines()[0]) == 0 for text in wrong)

    by_text = {row[model]["solution"]: bool(row[model]["is_correct"]) for row in rows for model in models}
    stored_texts = {one.response_id: one.text for one in read_folder(run / "solutions", Response)}
    pairs = [one for one in pairs_of(run) if one.member("chosen").response_id in stored_texts]
    for one in pairs:
        steps = [text_of((member.token_ids or ())[len(one.prompt.prefix_ids) :]) for member in one.members]
        assert [verdict_on(step) for step in steps] == [1.0, 0.0]
        assert [by_text[stored_texts[member.response_id]] for member in one.members] == [True, False]
    assert len(pairs) >= 3
    trained = [json.loads(line) for line in (run / "policy" / "training.jsonl").read_text().splitlines()]
    assert trained[0]["loss"] == pytest.approx(log(2), abs=1e-5)
