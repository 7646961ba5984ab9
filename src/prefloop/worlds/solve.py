"""An exact train step: the objective's expected loss over a population, minimised over all policies of a table."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from prefloop.config import GeometricMixture
from prefloop.objectives import Objective, find_objective
from prefloop.policy import LiveReference
from prefloop.training import LossOfPlan, TokenExample, data_columns
from prefloop.training.answers import Together
from prefloop.training.layout import scores_of_rows
from prefloop.training.loss import Scores, functionals_of, outputs_of
from prefloop.training.mixtures import mixed
from prefloop.worlds.minimise import minimise
from prefloop.worlds.table import TabularPolicy


@dataclass(frozen=True)
class Mixed:
    """Several policies as one reference."""

    policies: Sequence[TabularPolicy]
    mixture: GeometricMixture


Reference = TabularPolicy | Mixed


class PopulationLoss(nn.Module):
    """What training minimises, without its noise: losses of all examples by their probabilities.

    Objective, data quantities, references, mixtures, soft labels and the policy's numbers come from the code that
    trains language models; each answer passes through the table once.
    """

    def __init__(
        self,
        policy: TabularPolicy,
        objective: Objective,
        hyper: Mapping[str, Any],
        examples: Sequence[TokenExample],
        references: Mapping[str, Reference],
        *,
        soft_labels: bool = False,
    ) -> None:
        super().__init__()
        self.policy = policy
        everyone = range(len(examples))
        self.together = Together.of(dict(enumerate(examples)), objective.roles, [(everyone, True)])
        self.rows = list(dict.fromkeys(answer.row for answer in self.together.answers))
        numbers = {row: number for number, row in enumerate(self.rows)}
        self.row_of = torch.tensor([numbers[answer.row] for answer in self.together.answers])
        self.functionals = functionals_of(objective, "policy")
        live = references[objective.live] if objective.live is not None else None
        self.live = [LiveReference(live)] if isinstance(live, TabularPolicy) else []
        data = data_columns(examples, objective, soft_labels=soft_labels)
        self.heads = nn.ModuleDict(
            {name: _head(len(policy.states), count) for name, count in outputs_of(self.functionals, data).items()}
        )
        """What the policy says beside its tokens, by functional: a table too, as its hidden states are."""
        frozen = {
            name: self._frozen(functionals_of(objective, name.partition(".")[0]), one)
            for name, one in references.items()
        }
        self.loss = LossOfPlan(objective, hyper, data, frozen, soft_labels)
        self.masses = torch.tensor([example.weight for example in examples], dtype=torch.float64)

    def forward(self) -> Float[Tensor, ""]:
        """The expected loss, nats; gradient flows to the policy."""
        return (self.masses * self.losses()).sum()

    def losses(self) -> Float[Tensor, " examples"]:
        """The loss of each example."""
        scores = self._said(self.policy, self.functionals, self.live[0] if self.live else None)
        indices = self.together.indices
        return self.loss(indices, scores, self.loss.of_step(indices, 0))

    def at(self, free: Float[Tensor, " free"]) -> Float[Tensor, ""]:
        """The expected loss elsewhere: by the policy's free logits, and behind them the weights of its heads."""
        return torch.func.functional_call(self, self._parts(free), ())

    def minimum(self) -> TabularPolicy:
        """The policy of least expected loss (NoMinimumError where there is none); the heads stay as they are there."""
        start = torch.cat([one.detach().flatten() for one in self._trained().values()])
        found = self._parts(minimise(self.at, start))
        for name, head in self.heads.named_parameters():
            head.data = found.get(f"heads.{name}", head.data)
        return self.policy.with_logits(found.get("policy.free", self.policy.free))

    def _said(
        self, policy: TabularPolicy, functionals: Collection[str], live: LiveReference | None = None
    ) -> dict[str, Tensor]:
        """What a policy says of all examples; gradient flows."""
        of_rows = scores_of_rows(policy, self.rows, functionals, live=live, heads=self._linear())
        return self.together.by_role({name: values[self.row_of] for name, values in of_rows.items()})

    def _frozen(self, functionals: Collection[str], reference: Reference) -> Scores:
        """What a reference says of all examples, or a mixture of several."""
        if isinstance(reference, Mixed):
            return mixed([self._frozen(functionals, one) for one in reference.policies], reference.mixture)
        with torch.no_grad():
            return self._said(reference, set(functionals) - {"seq_kl"})

    def _trained(self) -> dict[str, nn.Parameter]:
        return {name: one for name, one in self.named_parameters() if one.requires_grad}

    def _parts(self, free: Float[Tensor, " free"]) -> dict[str, Tensor]:
        trained = self._trained()
        cut = free.split([one.numel() for one in trained.values()])
        return {name: part.view_as(one) for (name, one), part in zip(trained.items(), cut, strict=True)}

    def _linear(self) -> dict[str, nn.Linear]:
        return {name: head for name, head in self.heads.items() if isinstance(head, nn.Linear)}


def _head(states: int, outputs: int) -> nn.Linear:
    """A head that says 0 of everything."""
    head = nn.Linear(states, outputs, bias=False, dtype=torch.float64)
    nn.init.zeros_(head.weight)
    return head


def population_loss(
    name: str,
    examples: Sequence[TokenExample],
    start: TabularPolicy,
    references: Mapping[str, Reference] | None = None,
    *,
    soft_labels: bool = False,
    **hyper: Any,
) -> PopulationLoss:
    """The expected loss of a registered objective; hyper-parameters are checked, and those not named have defaults.

    Args:
        name: of the objective.
        examples: of a population.
        start: the policy that is trained.
        references: by model name of the grammar; None: the start is every reference.
        soft_labels: as a train step has it.
        hyper: hyper-parameters, as a recipe says them.
    """
    objective = find_objective(name, "objective")
    options = objective.checked(hyper, "objective")
    return PopulationLoss(
        start,
        objective,
        {key: getattr(options, key) for key in type(options).model_fields},
        examples,
        dict.fromkeys(objective.models, start) if references is None else references,
        soft_labels=soft_labels,
    )
