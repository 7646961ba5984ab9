"""Likelihood judges say what transformers says of the tokens that training would read."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from prefloop.config import ImplicitRewardJudge, LogLikelihoodJudge
from prefloop.judging import Ask
from prefloop.judging.likelihoods import Likelihood
from prefloop.policy import ChatCodec, PolicyFiles, Workbench, resolve_model
from prefloop.records import Response

from .conftest import PROMPT, answer

TEXTS = ("Good day.", "The cat is here, and it was a good day.", "No.")


@pytest.fixture
def bench() -> Workbench:
    source = resolve_model("builtin:tiny")
    return Workbench(source, ChatCodec.load(source.directory, {}), torch.device("cpu"))


@pytest.fixture
def changed(bench: Workbench, tmp_path: Path) -> PolicyFiles:
    """The same model with a sharper head."""
    model = AutoModelForCausalLM.from_pretrained(bench.source.directory)
    assert isinstance(model, PreTrainedModel)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(1.25)  # type: ignore[union-attr]
    model.save_pretrained(tmp_path)
    return PolicyFiles("changed", tmp_path)


def given(text: str, *, finished: bool = True) -> Response:
    """An answer without tokens of its own."""
    return answer(text).model_copy(update={"token_ids": None, "finish_reason": "stop" if finished else "length"})


def token_logps(bench: Workbench, directory: Path, text: str, *, finished: bool = True) -> torch.Tensor:
    """By a plain forward pass over prompt and answer."""
    model = AutoModelForCausalLM.from_pretrained(directory)
    prompt, ids = bench.codec.prompt_ids(PROMPT), bench.codec.response_ids(text, finished=finished)
    logits = model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    return logits.gather(1, torch.tensor(ids)[:, None])[:, 0].detach()


def log_likelihood(bench: Workbench, directory: Path, text: str, *, finished: bool = True) -> float:
    return float(token_logps(bench, directory, text, finished=finished).sum())


def said(judge: Likelihood, *responses: Response) -> list[float | None]:
    found = dict(judge.judge([Ask(PROMPT, (one,)) for one in responses]))
    return [found[number].values[0] for number in range(len(responses))]


def test_a_log_likelihood_is_that_of_the_answer_behind_its_prompt_in_the_order_of_the_asks(bench: Workbench) -> None:
    initial = PolicyFiles(bench.source.identity, bench.source.directory)
    judge = Likelihood(LogLikelihoodJudge(type="log_likelihood", policy="initial"), bench, {"policy": initial})
    expected = [log_likelihood(bench, initial.directory, text) for text in TEXTS]
    assert said(judge, *map(given, TEXTS)) == pytest.approx(expected, abs=1e-3)
    assert judge.name == "log_likelihood:initial"
    (cut,) = said(judge, given(TEXTS[0], finished=False))
    assert cut == pytest.approx(log_likelihood(bench, initial.directory, TEXTS[0], finished=False), abs=1e-3)
    assert cut is not None
    assert cut > expected[0]


def test_an_implicit_reward_is_the_policys_log_likelihood_less_the_references(
    bench: Workbench, changed: PolicyFiles
) -> None:
    initial = PolicyFiles(bench.source.identity, bench.source.directory)
    config = ImplicitRewardJudge(type="implicit_reward", policy="current", reference="current.ref")
    judge = Likelihood(config, bench, {"policy": changed, "reference": initial})
    expected = [
        log_likelihood(bench, changed.directory, text) - log_likelihood(bench, initial.directory, text)
        for text in TEXTS
    ]
    assert said(judge, *map(given, TEXTS)) == pytest.approx(expected, abs=2e-3)
    assert max(map(abs, expected)) > 0.1
    assert judge.name == "implicit_reward:current:current.ref"
    turned = Likelihood(config, bench, {"policy": initial, "reference": changed})
    assert said(turned, *map(given, TEXTS)) == pytest.approx([-one for one in expected], abs=2e-3)


def test_over_tokens_an_implicit_reward_is_what_rewardbench_takes(bench: Workbench, changed: PolicyFiles) -> None:
    initial = PolicyFiles(bench.source.identity, bench.source.directory)
    for tokens, over in (("avg", torch.Tensor.mean), ("norm", lambda logps: -logps.norm())):
        config = ImplicitRewardJudge.model_validate(
            {"type": "implicit_reward", "policy": "current", "reference": "current.ref", "tokens": tokens}
        )
        judge = Likelihood(config, bench, {"policy": changed, "reference": initial})
        expected = [
            float(over(token_logps(bench, changed.directory, text)) - over(token_logps(bench, initial.directory, text)))
            for text in TEXTS
        ]
        assert said(judge, *map(given, TEXTS)) == pytest.approx(expected, abs=1e-3)
        assert judge.name == f"implicit_reward:current:current.ref:{tokens}"
