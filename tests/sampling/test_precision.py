"""Sampling with layers in bfloat16: what is recorded is what was sampled from, and training says the same of it."""

import torch

from prefloop.policy import PolicyFiles, TokenRow, Workbench, response_logps
from prefloop.sampling import Answer, LocalPolicies

from .conftest import PLAIN, draws


def sampled(bench: Workbench, policy: PolicyFiles) -> list[Answer]:
    with LocalPolicies(bench, precision="bfloat16").serving(policy) as serving:
        return list(serving.sample(draws(bench, 16, 8), PLAIN))


def test_the_recorded_log_probability_is_that_of_training_in_bfloat16(bench: Workbench, policy: PolicyFiles) -> None:
    """Rounding differs a little with the shape of a batch; from float32 it differs ten times as much."""
    answers = sampled(bench, policy)
    recorded = torch.tensor([answer.sum_logp for answer in answers], dtype=torch.float64)
    rows = [TokenRow(one.draw.prompt_ids, one.token_ids, (True,) * len(one.token_ids)) for one in answers]

    with bench.for_scoring(policy, "bfloat16") as model:
        rounded = response_logps(model, rows)
    with bench.for_scoring(policy) as model:
        exact = response_logps(model, rows)

    assert 1e-3 < (recorded - exact).abs().mean() < 0.02  # nats of 16 tokens: bfloat16 has 8 bits
    assert (recorded - rounded).abs().mean() < 0.3 * (recorded - exact).abs().mean()


def test_the_same_call_gives_the_same_bytes_and_leaves_the_weights(bench: Workbench, policy: PolicyFiles) -> None:
    before = {name: weight.clone() for name, weight in bench.for_sampling(policy).named_parameters()}

    assert sampled(bench, policy) == sampled(bench, policy)

    after = dict(bench.for_sampling(policy).named_parameters())
    assert all(
        torch.equal(after[name], weight) and after[name].dtype == weight.dtype for name, weight in before.items()
    )
