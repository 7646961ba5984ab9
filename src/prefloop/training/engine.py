"""The training engine: an optimiser step, exact however it is cut into passes and dealt to processes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from prefloop.errors import CheckFailedError
from prefloop.objectives import State
from prefloop.policy import Trainable, added_gradients, passed_tokens, return_freed_memory
from prefloop.records import seed_for
from prefloop.training.answers import Flat, Together
from prefloop.training.columns import picked
from prefloop.training.layout import ROWS, Budget, Layout
from prefloop.training.loss import LossOfPlan, Step, functionals_of
from prefloop.training.metrics import said_of
from prefloop.training.out_of_memory import is_out_of_memory
from prefloop.training.processes import ALONE, Processes, dealt
from prefloop.training.rows import TokenExample

LOGP_TOLERANCE = 1e-6
"""Nats a token by which a policy may differ from itself in the same layout (float32 rounding; normally exactly 0)."""
LOSS_TOLERANCE = 1e-5
"""Nats by which the first loss may differ from the objective's value at policy = reference; a share of larger ones."""


class NotFiniteError(CheckFailedError):
    """A loss or its gradient is not finite; nothing has been changed."""

    def __init__(self, indices: Sequence[int], losses: Tensor, logps: Mapping[str, Tensor], grad_norm: float) -> None:
        super().__init__("training: the loss or its gradient is not finite; the weights before this step are kept.")
        self.indices = list(indices)
        self.losses = losses
        self.logps = logps
        self.grad_norm = grad_norm


@dataclass
class Engine:
    """Optimiser steps on a model, exact and normalised by the number of examples of the step."""

    trainable: Trainable
    loss: LossOfPlan
    examples: Sequence[TokenExample]
    optimizer: torch.optim.Optimizer
    max_grad_norm: float
    budget: Budget
    layout: Layout = ROWS
    processes: Processes = ALONE
    notice: Callable[[str], None] = lambda _text: None
    """Is told what a user should know."""
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

        Where memory runs out, the same step is taken in smaller passes.

        Args:
            indices: of the examples.
            learning_rate: of this step.
            number: of the step in the plan.

        Raises:
            NotFiniteError: the loss or its gradient is not finite; no weight has been changed.
            MemoryError: not even a single answer fits; so do RuntimeError and OSError (`is_out_of_memory`).
        """
        before = self.state
        while True:
            try:
                return self._step(indices, learning_rate, number)
            except (MemoryError, RuntimeError, OSError) as error:
                if not is_out_of_memory(error) or self.processes.size > 1 or not self._take_smaller_passes(indices):
                    raise
            self.state = before
            self.optimizer.zero_grad(set_to_none=True)
            return_freed_memory()

    def _step(self, indices: Sequence[int], learning_rate: float, number: int) -> dict[str, float]:
        before = self.state
        self.optimizer.zero_grad(set_to_none=True)
        with passed_tokens(self.trainable.model) as passed, added_gradients():
            order, losses, logps = self._evaluated(indices, self.loss.of_step(indices, number), learning=number)
        tokens = int(self.processes.total(torch.tensor(passed())))
        parameters = list(self.trainable.parameters().values())
        self.processes.add_gradients(parameters)
        grad_norm = torch.nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
        if not bool(losses.isfinite().all() and grad_norm.isfinite()):
            self.state = before
            raise NotFiniteError(order, losses, logps, float(grad_norm))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self._keep_margins(order, logps)
        return {**said_of(self.loss, order, losses, logps), "grad_norm": float(grad_norm), "tokens": tokens}

    def measured(self, indices: Sequence[int], number: int = 0) -> dict[str, float]:
        """What `step` would say of some examples as the policy is, with nothing changed.

        Args:
            indices: of the examples.
            number: decides the random numbers that an objective may read.
        """
        of_step = {**self.loss.of_step(indices, number), "state": self.state}
        return said_of(self.loss, *self._evaluated(indices, of_step))

    def _evaluated(
        self, indices: Sequence[int], of_step: Step, *, learning: int | None = None
    ) -> tuple[list[int], Tensor, dict[str, Tensor]]:
        """The examples of a step in the order of their passes, their weighted losses and what is told of their answers.

        In a step, which has a number, their share of the gradient is added to that of the weights.
        """
        parts = list(self._parts(indices))
        everything = Together(tuple(answer for part in parts for answer in part.answers), ())
        losses = torch.zeros(len(indices), dtype=torch.float64)
        told = torch.zeros(len(everything.answers), dtype=torch.float64)
        example, answer = 0, 0
        for part in parts:
            ends = example + len(part.indices), answer + len(part.answers)
            if part.passes or self._coupled:
                found = (
                    self._measured(part, of_step)
                    if learning is None
                    else self._learnt(part, of_step, len(indices), learning)
                )
                losses[example : ends[0]], told[answer : ends[1]] = found
            example, answer = ends
        if not self._coupled:
            losses, told = self.processes.total(losses), self.processes.total(told)
        return everything.indices, losses, everything.by_role({self.loss.objective.told: told})

    def _parts(self, indices: Sequence[int]) -> Iterator[Together]:
        """The examples whose losses are taken together; those of another process have no passes here."""
        examples, roles = {index: self.examples[index] for index in indices}, self.loss.objective.roles
        sizes = {index: self.layout.size([row for _, row in one.answers(roles)]) for index, one in examples.items()}
        batches = list(self.layout.cut(examples, self.budget.tokens))
        hands = dealt(batches, sizes, self.processes.size)
        own = [(batch, rank == self.processes.rank) for rank, hand in enumerate(hands) for batch in hand if batch]
        for together in [own] if self._coupled else [[one] for one in own]:
            yield Together.of(examples, roles, together).within(self.layout, self.budget)

    @property
    def _coupled(self) -> bool:
        return self.loss.objective.whole_step

    def _learnt(self, part: Together, of_step: Step, total: int, number: int) -> tuple[Tensor, Tensor]:
        """Adds the gradient of some losses, divided by the examples of the whole step; says what `_measured` says.

        Answers that do not pass at once pass twice: first their numbers, then, knowing how the loss depends on each
        number, the gradient of one pass after another.
        """
        alone = self.processes.size == 1 or not self._coupled
        if alone and len(part.passes) == 1 and len(part.passes[0]) == len(part.answers):
            with self._dropout(part, part.passes[0], number):
                flat = self._scores(part, part.passes[0])
                losses = self._losses(part, flat, of_step, learn=True)
                losses.sum().div(total).backward()
            return losses.detach(), self._told(flat)
        flat = self._seen(part, number)
        leaves = [values.requires_grad_() for values in flat.values()]
        losses = self._losses(part, flat, of_step, learn=True)
        slopes = torch.autograd.grad(losses.sum().div(total), leaves, materialize_grads=True)
        needed = {name: slope for name, slope in zip(flat, slopes, strict=True) if slope.any()}
        for places in part.passes:
            with self._dropout(part, places, number):
                found = self._scores(part, places)
                own = part.taken(needed, places, found)
                torch.autograd.backward(
                    [found[name] for name in own], [own[name].to(found[name].dtype) for name in own]
                )
        return losses.detach(), self._told(flat)

    def _told(self, flat: Flat) -> Tensor:
        """The log-probabilities of some answers, or their rewards."""
        return flat[self.loss.objective.told].detach()

    def _dropout(self, part: Together, places: Sequence[int], number: int) -> AbstractContextManager[None]:
        """The same zeros whenever these answers pass in the step of this number."""
        first = part.answers[places[0]]
        return self.trainable.dropout(seed_for(self.loss.seed, "dropout", number, first.index, first.number))

    def _measured(self, part: Together, of_step: Step) -> tuple[Tensor, Tensor]:
        """Weighted losses, and what is told of the answers, alone."""
        with torch.no_grad():
            flat = self._seen(part)
            return self._losses(part, flat, of_step, learn=False), self._told(flat)

    def _seen(self, part: Together, learning: int | None = None) -> Flat:
        """What the policy says of all answers of a part, without gradient; of coupled examples in every process."""
        flat = part.zeros(self._functionals, self.trainable.heads)
        for places in part.passes:
            dropout = nullcontext() if learning is None else self._dropout(part, places, learning)
            with dropout, torch.no_grad():
                part.put(flat, places, self._scores(part, places))
        return {name: self.processes.total(values) for name, values in flat.items()} if self._coupled else flat

    def _scores(self, part: Together, places: Sequence[int]) -> Flat:
        own = self.trainable
        return part.scores(own.model, places, self._functionals, self.layout, own.live, own.heads)

    @property
    def _functionals(self) -> set[str]:
        return functionals_of(self.loss.objective, "policy")

    def _losses(self, part: Together, flat: Flat, of_step: Step, *, learn: bool) -> Tensor:
        """Weighted losses of some examples; what is learnt moves the objective's running statistics first."""
        answers = part.by_role(flat)
        if learn and self.state is not None:
            self.state = self._next_state(part.indices, answers, of_step)
        losses = self.loss(part.indices, answers, {**of_step, "state": self.state})
        return losses * picked(self.loss.data["weights"], part.indices)

    def _next_state(self, indices: Sequence[int], answers: Mapping[str, Tensor], of_step: Step) -> State:
        """The statistics once the whole step has been seen."""
        assert self.state is not None
        values = self.loss.values(indices, answers, {**of_step, "state": self.state})
        return self.loss.objective.updated(self.state, values, self.loss.hyper)

    def _take_smaller_passes(self, indices: Sequence[int]) -> bool:
        """Halves what passes at once; False where every answer passes alone already."""
        if all(len(places) == 1 for part in self._parts(indices) for places in part.passes):
            return False
        self.budget = self.budget.halved()
        self.notice(f"training: out of memory; from here on {self.budget.tokens:,} tokens pass at once")
        return True

    def _keep_margins(self, indices: Sequence[int], policy: Mapping[str, Tensor]) -> None:
        """Log-probability of the chosen answer less that of the rejected one; of both less the reference's, if any.

        Of a reward model the difference of rewards.
        """
        told = self.loss.objective.told
        if not {f"chosen_{told}", f"rejected_{told}"} <= policy.keys():
            return
        ahead = policy[f"chosen_{told}"] - policy[f"rejected_{told}"]
        if (ref := self.loss.frozen.get("ref")) is not None:
            ahead = ahead - picked(ref["chosen_logps"], indices) + picked(ref["rejected_logps"], indices)
        self.margins[list(indices)] = ahead.double()

    def check_start(self, first_step: Sequence[int], same_as_start: Sequence[str]) -> None:
        """Proves that references that are the start policy score as the policy does, before anything is learnt.

        Args:
            first_step: examples of the first optimiser step.
            same_as_start: models of the grammar that name the policy from which training starts.

        Raises:
            CheckFailedError: a score or the loss differs, so that training would learn from a wrong reference.
        """
        of_step = self.loss.of_step(first_step, 0)
        for part in self._parts(first_step):
            if not part.passes and not self._coupled:
                continue
            with torch.no_grad():
                scores = part.by_role(self._seen(part))
            tokens = part.by_role({"tokens": torch.tensor([len(answer.row.answer_ids) for answer in part.answers])})
            for model in same_as_start:
                frozen = {name: picked(column, part.indices) for name, column in self.loss.frozen[model].items()}
                for role in self.loss.objective.roles:
                    gap = (scores[f"{role}_logps"] - frozen[f"{role}_logps"]).abs() / tokens[f"{role}_tokens"].clamp(1)
                    _must_be_small(
                        float(gap.max()), LOGP_TOLERANCE, f"{model}_{role}_logps of the start policy, nats a token"
                    )
                if self.state is not None:
                    of_step["state"] = self._next_state(part.indices, scores, of_step)
                losses = self.loss(part.indices, scores, of_step)
                gap = self._gap_at_reference(losses, part.indices, {**scores, **frozen}, of_step, same_as_start)
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
