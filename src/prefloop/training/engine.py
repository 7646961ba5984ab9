"""The plain training engine: one forward pass a micro-batch, everything spelled out. Faster ones must equal it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from prefloop.errors import CheckFailedError
from prefloop.objectives import Objective
from prefloop.policy import Trainable, batches_within, response_logps
from prefloop.training.rows import TokenExample

Scores = dict[str, Float[Tensor, " examples"]]
"""`{role}_logps` of every example under one model, float64 nats."""

LOGP_TOLERANCE = 1e-6
"""Nats a token by which a policy may differ from itself in the same layout (float32 rounding; normally exactly 0)."""
LOSS_TOLERANCE = 1e-5
"""Nats by which the first loss may differ from the objective's value at policy = reference."""


@dataclass(frozen=True)
class LossOfPlan:
    """An objective with its hyper-parameters, and the frozen scores that it reads, for all examples of a round."""

    objective: Objective
    hyper: Mapping[str, float]
    data: Mapping[str, Float[Tensor, " examples"]]
    frozen: Mapping[str, Scores]
    """By model name of the grammar."""

    def __call__(self, indices: Sequence[int], policy: Mapping[str, Tensor]) -> Float[Tensor, " pairs"]:
        """Unreduced losses of some examples, given the policy's numbers about them by role."""
        chosen = list(indices)
        values: dict[str, Tensor] = {}
        for quantity in self.objective.quantities:
            if quantity.model is None:
                values[quantity.name] = self.data[quantity.name][chosen]
            elif quantity.model == "policy":
                values[quantity.name] = policy[f"{quantity.role}_{quantity.functional}"]
            else:
                values[quantity.name] = self.frozen[quantity.model][f"{quantity.role}_{quantity.functional}"][chosen]
        return self.objective.function(**values, **self.hyper)


def micro_batches(examples: Sequence[TokenExample], step: Sequence[int], tokens_per_batch: int) -> Iterator[list[int]]:
    """The examples of an optimiser step in pieces that fit a forward pass, examples of similar length together."""
    ordered = sorted(step, key=lambda index: examples[index].longest)
    sizes = [examples[index].longest * len(examples[index].rows) for index in ordered]
    return batches_within(ordered, sizes, tokens_per_batch)


def answer_scores(
    model: PreTrainedModel | PeftModel, examples: Sequence[TokenExample], roles: Sequence[str]
) -> dict[str, Tensor]:
    """`{role}_logps` of a micro-batch under a model; all its answers go through one forward pass."""
    rows = [example.rows[role] for role in roles for example in examples]
    logps = response_logps(model, rows).view(len(roles), len(examples))
    return {f"{role}_logps": logps[number] for number, role in enumerate(roles)}


def frozen_scores(
    model: PreTrainedModel | PeftModel,
    examples: Sequence[TokenExample],
    roles: Sequence[str],
    plan: Sequence[Sequence[int]],
    tokens_per_batch: int,
) -> Iterator[tuple[list[int], dict[str, list[float]]]]:
    """Scores of a frozen model in the layout of the first epoch, micro-batch by micro-batch."""
    for step in plan:
        for batch in micro_batches(examples, step, tokens_per_batch):
            with torch.inference_mode():
                scores = answer_scores(model, [examples[index] for index in batch], roles)
            yield batch, {name: values.tolist() for name, values in scores.items()}


@dataclass
class PlainEngine:
    """Optimiser steps on a model, exact and normalised by the number of examples of the step."""

    trainable: Trainable
    loss: LossOfPlan
    examples: Sequence[TokenExample]
    optimizer: torch.optim.Optimizer
    max_grad_norm: float
    tokens_per_batch: int

    def step(self, indices: Sequence[int], learning_rate: float) -> dict[str, float]:
        """One optimiser step on some examples; metrics are means over them, under TRL's names.

        Raises:
            CheckFailedError: the loss or its gradient is not finite; no weight has been changed.
        """
        batches = list(micro_batches(self.examples, indices, self.tokens_per_batch))
        order = [index for batch in batches for index in batch]
        weights, roles = self.loss.data["weights"], self.loss.objective.roles
        losses: list[Tensor] = []
        scores: list[dict[str, Tensor]] = []
        self.optimizer.zero_grad(set_to_none=True)
        for batch in batches:
            answers = answer_scores(self.trainable.model, [self.examples[index] for index in batch], roles)
            of_batch = self.loss(batch, {name: values.cpu() for name, values in answers.items()})
            (of_batch * weights[batch]).sum().div(len(order)).backward()
            losses.append(of_batch.detach())
            scores.append({name: values.detach().cpu() for name, values in answers.items()})
        loss = (torch.cat(losses) * weights[order]).sum() / len(order)
        parameters = list(self.trainable.parameters().values())
        grad_norm = torch.nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
        if not bool(loss.isfinite() and grad_norm.isfinite()):
            raise CheckFailedError(
                "training: the loss or its gradient is not finite; the weights before this step are kept. "
                "Lower policy.learning_rate."
            )
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        policy = {name: torch.cat([of_batch[name] for of_batch in scores]) for name in scores[0]}
        return {"loss": float(loss), **self.metrics(order, policy), "grad_norm": float(grad_norm)}

    def metrics(self, indices: Sequence[int], policy: Mapping[str, Tensor]) -> dict[str, float]:
        """Log-probabilities, implicit rewards, margins and accuracies; a tie is half a win."""
        chosen = list(indices)
        named = {f"logps/{name.removesuffix('_logps')}": float(values.mean()) for name, values in policy.items()}
        ref, beta = self.loss.frozen.get("ref"), self.loss.hyper.get("beta")
        if ref is None or beta is None or not {"chosen_logps", "rejected_logps"} <= policy.keys():
            return named
        rewards = {
            role: beta * (policy[f"{role}_logps"] - ref[f"{role}_logps"][chosen]) for role in ("chosen", "rejected")
        }
        margins = rewards["chosen"] - rewards["rejected"]
        lengths = self.loss.data["chosen_lengths"][chosen]
        return {
            **named,
            "rewards/chosen": float(rewards["chosen"].mean()),
            "rewards/rejected": float(rewards["rejected"].mean()),
            "rewards/margins": float(margins.mean()),
            "rewards/accuracies": float(((margins > 0).double() + (margins == 0).double() / 2).mean()),
            "chosen_logps_drop_per_token": float((-rewards["chosen"] / beta / lengths).mean()),
        }

    def check_start(self, first_step: Sequence[int], same_as_start: Sequence[str]) -> None:
        """Proves that references that are the start policy score as the policy does, before anything is learnt.

        Args:
            first_step: examples of the first optimiser step.
            same_as_start: models of the grammar that name the policy from which training starts.

        Raises:
            CheckFailedError: a score or the loss differs, so that training would learn from a wrong reference.
        """
        roles = self.loss.objective.roles
        for batch in micro_batches(self.examples, first_step, self.tokens_per_batch):
            examples = [self.examples[index] for index in batch]
            with torch.no_grad():
                scores = {
                    name: values.cpu() for name, values in answer_scores(self.trainable.model, examples, roles).items()
                }
            for model in same_as_start:
                frozen = {name: self.loss.frozen[model][name][batch] for name in scores}
                for role in roles:
                    tokens = torch.tensor([len(example.rows[role].answer_ids) for example in examples])
                    gap = ((scores[f"{role}_logps"] - frozen[f"{role}_logps"]).abs() / tokens).max()
                    _must_be_small(
                        float(gap), LOGP_TOLERANCE, f"{model}_{role}_logps of the start policy, nats a token"
                    )
                gap = (self.loss(batch, scores) - self.loss(batch, frozen)).abs().max()
                _must_be_small(float(gap), LOSS_TOLERANCE, f"first loss against its value at policy = {model}, nats")


def _must_be_small(gap: float, tolerance: float, what: str) -> None:
    if not gap <= tolerance:
        raise CheckFailedError(
            f"training: {what}: differs by {gap:.2g}, expected at most {tolerance:.0e}. The cached reference scores do "
            "not belong to these weights: run again with a fresh --run folder; if it persists, the model is not "
            "deterministic."
        )
