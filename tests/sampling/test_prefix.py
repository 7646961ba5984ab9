"""Answers that go on behind a beginning that is given: steps of a solution, nodes of a search tree."""

from typing import Any

import pytest
import torch

from prefloop.errors import DataError
from prefloop.policy import PolicyFiles, Workbench
from prefloop.records import Message, Prompt
from prefloop.sampling import Answer, LocalSampler, SamplingSettings, draws_for

GREEDY = SamplingSettings(temperature=0.0, top_p=1.0, max_new_tokens=12)
ROOT = Prompt.of((Message(role="user", content="Tell me about your day."),))


@pytest.fixture(scope="module")
def model(bench: Workbench, policy: PolicyFiles) -> Any:
    return bench.for_sampling(policy)


def continued(
    bench: Workbench, model: Any, nodes: list[Prompt], settings: SamplingSettings, num_samples: int = 1
) -> dict[tuple[str, int], Answer]:
    """The answers of some prompts, each with a beginning."""
    draws = [
        draw
        for node in nodes
        for draw in draws_for(
            node.prompt_id,
            bench.codec.prompt_ids(node),
            num_samples=num_samples,
            recipe_seed=0,
            step="s",
            round_number=0,
            block=0,
        )
    ]
    sampler = LocalSampler(model, bench.codec.eos_ids, rows=16, text_of=bench.codec.text_of)
    return {(answer.draw.prompt_id, answer.draw.index): answer for answer in sampler.sample(draws, settings)}


def tree(bench: Workbench) -> list[Prompt]:
    """A prompt, and nodes under it: each of some begins with the one before."""
    ids = bench.codec.response_ids("I am happy, and the morning was wonderful today.", finished=False)
    return [ROOT, *(ROOT.derived(prefix_ids=ids[:length]) for length in (1, 3, 4, len(ids)))]


def test_a_greedy_continuation_is_that_of_transformers_token_by_token(bench: Workbench, model: Any) -> None:
    nodes = tree(bench)
    found = continued(bench, model, nodes, GREEDY)

    for node in nodes:
        begun = bench.codec.prompt_ids(node)
        ids = torch.tensor([begun])
        whole = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12, pad_token_id=0,
            eos_token_id=sorted(bench.codec.eos_ids),
        )  # fmt: skip
        assert found[node.prompt_id, 0].token_ids == tuple(whole[0, len(begun) :].tolist())
    assert len({answer.token_ids for answer in found.values()}) > 3


def test_an_answer_is_sampled_again_from_any_of_its_beginnings(bench: Workbench, model: Any) -> None:
    whole = continued(bench, model, [ROOT], GREEDY)[ROOT.prompt_id, 0].token_ids
    nodes = [ROOT.derived(prefix_ids=whole[:length]) for length in range(1, len(whole) - 1)]

    rest = continued(bench, model, nodes, GREEDY)

    assert [(*one.prefix_ids, *rest[one.prompt_id, 0].token_ids)[: len(whole)] for one in nodes] == [whole] * len(nodes)


def test_sum_logp_is_of_what_was_sampled_alone(bench: Workbench, model: Any) -> None:
    nodes = tree(bench)
    answers = continued(bench, model, nodes, SamplingSettings(1.0, 1.0, 8))
    for node in nodes:
        answer = answers[node.prompt_id, 0]
        ids = torch.tensor([answer.draw.prompt_ids + answer.token_ids])
        with torch.no_grad():
            logps = model(input_ids=ids, use_cache=False).logits.double().log_softmax(-1)[0, :-1]
        told = logps.gather(-1, ids[0, 1:, None])[-len(answer.token_ids) :].sum().item()
        assert answer.draw.prompt_ids == bench.codec.prompt_ids(node)
        assert answer.sum_logp == pytest.approx(told, abs=1e-4)


def test_each_node_has_random_numbers_of_its_own_and_what_they_share_passes_once(bench: Workbench, model: Any) -> None:
    passed: list[int] = []
    handle = model.get_input_embeddings().register_forward_hook(
        lambda _module, ids, _out: passed.append(ids[0].numel())
    )
    nodes = tree(bench)
    answers = continued(bench, model, nodes, SamplingSettings(1.0, 1.0, 4), num_samples=3)
    handle.remove()

    assert len({answer.draw.seed for answer in answers.values()}) == 3 * len(nodes)
    lengths = [len(bench.codec.prompt_ids(node)) for node in nodes]
    assert lengths[-1] < passed[0] < sum(lengths) / 2


def test_a_derived_prompt_keeps_its_root_and_all_that_is_known_of_it() -> None:
    gold = Prompt.of(ROOT.messages, source="a.jsonl:3", answer="7", numbers={"x": 1.0})
    node = gold.derived(prefix_ids=(5, 6)).derived(prefix_ids=(5, 6, 7))
    assert node == gold.model_copy(update={"prefix_ids": (5, 6, 7), "prompt_id": node.prompt_id})
    assert node.root_id == gold.prompt_id != node.prompt_id
    assert node.prompt_id == Prompt.of(gold.messages, prefix_ids=(5, 6, 7)).prompt_id
    assert node.derived(messages=(Message(role="user", content="?"),)).prefix_ids == (5, 6, 7)


def test_a_given_beginning_that_has_ended_is_not_continued(bench: Workbench) -> None:
    ended = Prompt.of(ROOT.messages, source="a.jsonl:3", prefix_ids=(7, bench.codec.eos_id, 9))
    with pytest.raises(DataError, match=r"a.jsonl:3: the given beginning of its answer has EOS at token 1, behind wh"):
        bench.codec.prompt_ids(ended)
