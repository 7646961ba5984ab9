"""Which way a round's pairs push the length of answers: `python benchmarks/length_push.py RUN [--bias 0.01]`.

A language model controls its length by one thing only, the probability of ending at each position. For an answer of T
tokens the derivative of its log-probability by a constant added to the logit of ending is

    1 - sum over t of p_t(end)        (without the 1 where the answer was cut)

which is zero on average over the policy's own answers and far from linear in T. At policy = reference a pair pulls
with weight sigmoid(-alpha * gap), so the first-order push of a round on length is the mean of weight * (derivative of
chosen - derivative of rejected): negative makes answers longer. Beside it: the same mean of the truth, which is what
the round teaches of quality, and the number of pairs that the weights amount to.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM

from prefloop.pairing import find_rule, finished
from prefloop.policy import ChatCodec, resolve_model
from prefloop.records import Example, Group, Judgment, Prompt, Response, grouped, read_folder
from prefloop.statistics import length_slope

PENALTIES = (0.0, 0.0025, 0.005, 0.0075, 0.01, 0.0125)
BATCH = 16


@torch.inference_mode()
def ending_derivatives(model_name: str, prompts: Mapping[str, Prompt], responses: list[Response]) -> dict[str, float]:
    """The derivative above for every answer, by response id."""
    source = resolve_model(model_name)
    codec = ChatCodec.load(source.directory, {})
    model = AutoModelForCausalLM.from_pretrained(source.directory, dtype=torch.float32).eval()
    ends = torch.tensor(sorted(codec.eos_ids))
    found: dict[str, float] = {}
    ordered = sorted(responses, key=lambda response: response.num_tokens)
    for start in range(0, len(ordered), BATCH):
        batch = ordered[start : start + BATCH]
        rows = [(*codec.prompt_ids(prompts[one.prompt_id]), *(one.token_ids or ())) for one in batch]
        width, longest = max(map(len, rows)), max(one.num_tokens for one in batch)
        ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
        seen = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        logits = model(
            input_ids=ids,
            attention_mask=seen,
            position_ids=(seen.cumsum(1) - 1).clamp(min=0),
            logits_to_keep=longest + 1,
        ).logits[:, :-1]
        ending = logits.log_softmax(2)[..., ends].exp().sum(2)
        for row, one in enumerate(batch):
            ended = 1.0 if one.finish_reason == "stop" else 0.0
            found[one.response_id] = ended - float(ending[row, longest - one.num_tokens :].sum())
    return found


def pairs_of(groups: list[Group], penalty: float) -> Iterator[Example]:
    """What `best_worst` makes of the round with such a penalty."""
    rule = find_rule("best_worst", "rule")
    options = rule.checked({"length_penalty": penalty}, "rule")
    for group in groups:
        yield from (made for made in rule.apply(finished(group), options) if isinstance(made, Example))


def with_error(values: NDArray[np.float64]) -> str:
    """Mean and standard error over pairs."""
    return f"{values.mean():+.3f} +- {values.std(ddof=1) / len(values) ** 0.5:.3f}"


def main() -> None:
    """Prints one line a penalty, for the loss with its fitted alpha and for plain DPO."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="Run folder; its first round, sampled from the model, is read.")
    parser.add_argument("--model", default="builtin:smollm2-135m-instruct", help="The model that sampled it.")
    parser.add_argument("--bias", type=float, default=0.01, help="Bonus a token that was planted in the judge.")
    arguments = parser.parse_args()
    folder = arguments.run / "round-00"
    prompts = list(read_folder(folder / "prompts", Prompt))
    responses = list(read_folder(folder / "samples", Response))
    groups = list(grouped(prompts, responses, list(read_folder(folder / "judgments", Judgment))))
    ending = ending_derivatives(arguments.model, {prompt.prompt_id: prompt for prompt in prompts}, responses)
    sys.stdout.write(
        "penalty pairs gap   alpha  weigh as  ending, fitted    truth, fitted     ending, plain     truth, plain\n"
    )
    for penalty in PENALTIES:
        pairs = [(pair.member("chosen"), pair.member("rejected")) for pair in pairs_of(groups, penalty)]
        gaps = np.array([len(won.token_ids or ()) - len(lost.token_ids or ()) for won, lost in pairs], float)
        pull = np.array([ending[str(won.response_id)] - ending[str(lost.response_id)] for won, lost in pairs])
        better = np.array([won.numbers["score"] - lost.numbers["score"] for won, lost in pairs]) - arguments.bias * gaps
        alpha = length_slope(gaps, cap=1.0).slope
        weights = 1 / (1 + np.exp(alpha * gaps))
        effective = weights.sum() ** 2 / (weights**2).sum()
        figures = "  ".join(map(with_error, (weights * pull, weights * better, pull / 2, better / 2)))
        sys.stdout.write(f"{penalty:<7} {len(pairs):<5} {gaps.mean():+5.1f} {alpha:+.3f} {effective:<9.0f} {figures}\n")


if __name__ == "__main__":
    main()
