"""The training engine: one forward pass a micro-batch in some layout, everything else spelled out."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from prefloop.errors import CheckFailedError
from prefloop.objectives import Objective, Quantity, State
from prefloop.objectives.registry import EXCHANGED
from prefloop.policy import Trainable
from prefloop.records import seed_for
from prefloop.training.columns import Column, picked
from prefloop.training.layout import ROWS, TOKEN_FUNCTIONALS, Layout, step_budget
from prefloop.training.rows import TokenExample

Scores = Mapping[str, Column]
"""What one model says of every example, in float64: always `{role}_logps`, and what the objective reads besides."""
Step = Mapping[str, Any]
"""Quantities that belong to an optimiser step as a whole, by name."""

LOGP_TOLERANCE = 1e-6
"""Nats a token by which a policy may differ from itself in the same layout (float32 rounding; normally exactly 0)."""
LOSS_TOLERANCE = 1e-5
"""Nats by which the first loss may differ from the objective's value at policy = reference; a share of larger ones."""


@dataclass(frozen=True)
class LossOfPlan:
    """An objective with its hyper-parameters, and what it reads that does not change, for all examples of a round."""

    objective: Objective
    hyper: Mapping[str, Any]
    data: Mapping[str, Column]
    frozen: Mapping[str, Scores]
    """By model name of the grammar."""
    soft_labels: bool = False
    """The loss is p L(chosen, rejected) + (1 - p) L(rejected, chosen), with p of the example."""
    seed: int = 0
    """Of the random numbers that an objective may read."""
    parts: Sequence[str] = ()
    """Of each example the source of a mixture that it came from; empty where there is one source."""

    def __call__(self, indices: Sequence[int], policy: Mapping[str, Tensor], step: Step) -> Float[Tensor, " pairs"]:
        """Unreduced losses of some examples of a step, given the policy's numbers about them."""
        losses = self.objective.function(**self.values(indices, policy, step), **self.hyper)
        if not self.soft_labels:
            return losses
        turned = self.objective.function(**self.values(indices, policy, step, exchanged=EXCHANGED), **self.hyper)
        prob_chosen_wins = picked(self.data["prob_chosen_wins"], indices)
        return prob_chosen_wins * losses + (1 - prob_chosen_wins) * turned

    def values(
        self,
        indices: Sequence[int],
        policy: Mapping[str, Tensor],
        step: Step,
        exchanged: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """The objective's arguments for some examples of a step, with the numbers of other roles where exchanged."""
        return {
            quantity.name: self._value(quantity.with_roles(exchanged or {}), indices, policy, step)
            for quantity in self.objective.quantities
        }

    def _value(self, quantity: Quantity, indices: Sequence[int], policy: Mapping[str, Tensor], step: Step) -> Any:
        if quantity.model == "policy":
            return policy[quantity.of_model]
        if quantity.model is not None:
            values = picked(self.frozen[quantity.model][quantity.of_model], indices)
            return values.unsqueeze(1) if quantity.model == "aux_ref" else values
        if quantity.name in step:
            of_step = step[quantity.name]
            return of_step[list(indices)] if quantity.what.of == "example" else of_step
        return picked(self.data[quantity.name], indices)

    def of_step(self, indices: Sequence[int], number: int) -> dict[str, Any]:
        """What belongs to an optimiser step as a whole, apart from the state.

        Args:
            indices: examples of the step.
            number: of the step; decides the random numbers.
        """
        found: dict[str, Any] = {}
        for quantity in self.objective.quantities:
            if quantity.name == "uniforms":
                random = np.random.Generator(np.random.Philox(seed_for(self.seed, "uniforms", number)))
                found["uniforms"] = torch.full((len(self.data["weights"]),), torch.nan, dtype=torch.float64)
                found["uniforms"][list(indices)] = torch.from_numpy(random.random(len(indices)))
            elif quantity.functional == "state":
                continue
            elif quantity.what.of == "step":
                found[quantity.name] = self._mean_length(quantity, indices)
        return found

    def _mean_length(self, quantity: Quantity, indices: Sequence[int]) -> Tensor:
        """Mean tokens over the step; with soft labels of the answer that wins, in expectation."""
        of = quantity.functional.removeprefix("mean_").removesuffix("_length")
        lengths = picked(self.data[f"{of}_lengths"], indices)
        if self.soft_labels and of in EXCHANGED:
            prob_chosen_wins = picked(self.data["prob_chosen_wins"], indices)
            turned = picked(self.data[f"{EXCHANGED[of]}_lengths"], indices)
            lengths = prob_chosen_wins * lengths + (1 - prob_chosen_wins) * turned
        return lengths.mean()


def functionals_of(objective: Objective, model: str) -> set[str]:
    """What an objective wants one model to compute."""
    return {quantity.functional for quantity in objective.quantities if quantity.model == model}


def frozen_scores(
    model: PreTrainedModel | PeftModel,
    examples: Sequence[TokenExample],
    roles: Sequence[str],
    plan: Sequence[Sequence[int]],
    tokens_per_batch: int | None,
    functionals: Collection[str] = (),
    layout: Layout = ROWS,
) -> Iterator[tuple[list[int], dict[str, list[Any]]]]:
    """Scores of a frozen model in the layout of the first epoch, micro-batch by micro-batch, without padding."""
    for step in plan:
        for batch in layout.cut(examples, step, tokens_per_batch):
            of_batch = [examples[index] for index in batch]
            with torch.inference_mode():
                scores = layout.scores(model, of_batch, roles, functionals)
            lists = {name: values.tolist() for name, values in scores.items()}
            for role in roles:
                for name in (f"{role}_{functional}" for functional in TOKEN_FUNCTIONALS):
                    if name in lists:
                        pairs = zip(of_batch, lists[name], strict=True)
                        lists[name] = [values[: len(example.rows[role].answer_ids)] for example, values in pairs]
            yield batch, lists


@dataclass
class PlainEngine:
    """Optimiser steps on a model, exact and normalised by the number of examples of the step."""

    trainable: Trainable
    loss: LossOfPlan
    examples: Sequence[TokenExample]
    optimizer: torch.optim.Optimizer
    max_grad_norm: float
    tokens_per_batch: int
    layout: Layout = ROWS
    state: State | None = field(init=False)
    """The objective's running statistics after the steps so far."""
    margins: Tensor = field(init=False)
    """By example, how far the chosen answer was ahead when the example was last trained on; NaN before that."""

    def __post_init__(self) -> None:
        kind = self.loss.objective.state
        self.state = None if kind is None else kind.initial(self.loss.hyper)
        self.margins = torch.full((len(self.examples),), torch.nan, dtype=torch.float64)

    def step(self, indices: Sequence[int], learning_rate: float, number: int = 0) -> dict[str, float]:
        """One optimiser step on some examples; metrics are means over them, under TRL's names.

        Args:
            indices: of the examples.
            learning_rate: of this step.
            number: of the step in the plan.

        Raises:
            CheckFailedError: the loss or its gradient is not finite; no weight has been changed.
        """
        batches = list(self._batches(indices))
        order = [index for batch in batches for index in batch]
        weights = picked(self.loss.data["weights"], order)
        of_step = self.loss.of_step(indices, number)
        losses: list[Tensor] = []
        scores: list[dict[str, Tensor]] = []
        self.optimizer.zero_grad(set_to_none=True)
        for batch in batches:
            answers = self._answers(batch)
            if self.state is not None:
                of_step["state"] = self.state = self._next_state(batch, answers, of_step)
            of_batch = self.loss(batch, answers, of_step)
            (of_batch * picked(self.loss.data["weights"], batch)).sum().div(len(order)).backward()
            losses.append(of_batch.detach())
            scores.append({name: answers[name].detach() for name in self._sums})
        loss = (torch.cat(losses) * weights).sum() / len(order)
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
        policy = {name: torch.cat([of_batch[name] for of_batch in scores]) for name in self._sums}
        self._keep_margins(order, policy)
        return {**self._said(order, torch.cat(losses) * weights, policy), "grad_norm": float(grad_norm)}

    def measured(self, indices: Sequence[int], number: int = 0) -> dict[str, float]:
        """What `step` would say of some examples as the policy is, with nothing changed.

        Args:
            indices: of the examples.
            number: decides the random numbers that an objective may read.
        """
        batches = list(self._batches(indices))
        order = [index for batch in batches for index in batch]
        of_step = {**self.loss.of_step(indices, number), "state": self.state}
        with torch.no_grad():
            scores = [self._answers(batch) for batch in batches]
            losses = [self.loss(batch, answers, of_step) for batch, answers in zip(batches, scores, strict=True)]
        policy = {name: torch.cat([of_batch[name] for of_batch in scores]) for name in self._sums}
        return self._said(order, torch.cat(losses) * picked(self.loss.data["weights"], order), policy)

    @property
    def _sums(self) -> list[str]:
        """Names of the log-probabilities of whole answers."""
        return [f"{role}_logps" for role in self.loss.objective.roles]

    def _batches(self, step: Sequence[int]) -> Iterator[list[int]]:
        return self.layout.cut(self.examples, step, step_budget(self.loss.objective, self.tokens_per_batch))

    def _answers(self, batch: Sequence[int]) -> dict[str, Tensor]:
        """What the policy says of some examples."""
        objective, examples = self.loss.objective, [self.examples[index] for index in batch]
        wanted = functionals_of(objective, "policy")
        scores = self.layout.scores(self.trainable.model, examples, objective.roles, wanted, self.trainable.live)
        return {name: values.cpu() for name, values in scores.items()}

    def _next_state(self, batch: Sequence[int], answers: Mapping[str, Tensor], of_step: Step) -> State:
        """The statistics once the whole step has been seen."""
        assert self.state is not None
        values = self.loss.values(batch, answers, {**of_step, "state": self.state})
        return self.loss.objective.updated(self.state, values, self.loss.hyper)

    def _keep_margins(self, indices: Sequence[int], policy: Mapping[str, Tensor]) -> None:
        """Log-probability of the chosen answer less that of the rejected one; of both less the reference's, if any."""
        if not {"chosen_logps", "rejected_logps"} <= policy.keys():
            return
        ahead = policy["chosen_logps"] - policy["rejected_logps"]
        if (ref := self.loss.frozen.get("ref")) is not None:
            ahead = ahead - picked(ref["chosen_logps"], indices) + picked(ref["rejected_logps"], indices)
        self.margins[list(indices)] = ahead.double()

    def _said(self, indices: Sequence[int], losses: Tensor, policy: Mapping[str, Tensor]) -> dict[str, float]:
        """The metrics of some examples; of each source of a mixture too, as `METRIC@SOURCE`."""
        found = self.metrics(indices, losses, policy)
        parts = [self.loss.parts[index] for index in indices] if self.loss.parts else []
        for part in sorted(set(parts)):
            places = [place for place, of_example in enumerate(parts) if of_example == part]
            of_part = {name: values[places] for name, values in policy.items()}
            metrics = self.metrics([indices[place] for place in places], losses[places], of_part)
            found |= {f"examples@{part}": len(places), **{f"{name}@{part}": metrics[name] for name in metrics}}
        return found

    def metrics(self, indices: Sequence[int], losses: Tensor, policy: Mapping[str, Tensor]) -> dict[str, float]:
        """Mean loss, log-probabilities, implicit rewards, margins and accuracies; a tie is half a win."""
        chosen = list(indices)
        named = {f"logps/{name.removesuffix('_logps')}": float(values.mean()) for name, values in policy.items()}
        named = {"loss": float(losses.sum() / len(chosen)), **named}
        ref, beta = self.loss.frozen.get("ref"), self.loss.hyper.get("beta")
        if ref is None or beta is None or not {"chosen_logps", "rejected_logps"} <= policy.keys():
            return named
        rewards = {
            role: beta * (policy[f"{role}_logps"] - picked(ref[f"{role}_logps"], chosen))
            for role in ("chosen", "rejected")
        }
        margins = rewards["chosen"] - rewards["rejected"]
        lengths = picked(self.loss.data["chosen_lengths"], chosen)
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
        of_step = self.loss.of_step(first_step, 0)
        for batch in self._batches(first_step):
            with torch.no_grad():
                scores = self._answers(batch)
            for model in same_as_start:
                frozen = {name: picked(column, batch) for name, column in self.loss.frozen[model].items()}
                for role in self.loss.objective.roles:
                    tokens = torch.tensor([len(self.examples[index].rows[role].answer_ids) for index in batch])
                    gap = ((scores[f"{role}_logps"] - frozen[f"{role}_logps"]).abs() / tokens).max()
                    _must_be_small(
                        float(gap), LOGP_TOLERANCE, f"{model}_{role}_logps of the start policy, nats a token"
                    )
                if self.state is not None:
                    of_step["state"] = self._next_state(batch, scores, of_step)
                losses = self.loss(batch, scores, of_step)
                gap = self._gap_at_reference(losses, batch, {**scores, **frozen}, of_step, same_as_start)
                _must_be_small(gap, LOSS_TOLERANCE, f"first loss against its value at policy = {model}, nats")

    def _gap_at_reference(
        self,
        losses: Tensor,
        batch: Sequence[int],
        frozen: Mapping[str, Tensor],
        of_step: Step,
        same_as_start: Sequence[str],
    ) -> float:
        """How far losses are from what the formula says of policy = reference, or gives for the reference's scores.

        In nats, or where the loss is larger than one nat, as a share of it.
        """
        objective = self.loss.objective
        if objective.at_reference is None or not set(objective.models) <= set(same_as_start):
            expected = self.loss(batch, frozen, of_step)
        else:
            expected = torch.tensor(objective.at_reference(self.loss.hyper), dtype=torch.float64)
            losses = losses.mean() if objective.couples_batch else losses
        return ((losses - expected).abs() / expected.abs().clamp(min=1)).max().item()


def _must_be_small(gap: float, tolerance: float, what: str) -> None:
    if not gap <= tolerance:
        raise CheckFailedError(
            f"training: {what}: differs by {gap:.2g}, expected at most {tolerance:.0e}. The cached reference scores do "
            "not belong to these weights: run again with a fresh --run folder; if it persists, the model is not "
            "deterministic."
        )
