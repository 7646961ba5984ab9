"""Self-supervised preference optimisation: the model also tells how far an answer was degraded."""

from typing import Annotated

from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid

from prefloop.objectives.registry import objective


def degree_cross_entropy(
    policy_degree_head_logits: Float[Tensor, "pairs ranks classes"],
    degree_grades: Int[Tensor, "pairs ranks"],
    degree_mask: Bool[Tensor, "pairs ranks"],
) -> Float[Tensor, " pairs"]:
    """Cross-entropy of the grades, averaged over the versions that an example has, in nats."""
    of_versions = cross_entropy(policy_degree_head_logits.transpose(1, 2), degree_grades, reduction="none")
    return of_versions.masked_fill(~degree_mask, 0.0).sum(1) / degree_mask.sum(1)


@objective(source="arXiv:2409.17791 (the abstract: the formula of the degree loss is our reading)")
def spo(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    policy_degree_head_logits: Float[Tensor, "pairs ranks classes"],
    degree_grades: Int[Tensor, "pairs ranks"],
    degree_mask: Bool[Tensor, "pairs ranks"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
    gamma: Annotated[float, Field(ge=0)] = 0.1,
) -> Float[Tensor, " pairs"]:
    r"""DPO and a classification of versions of an answer from which ever more of its key content was taken.

    With rho(y) = log pi(y|x) - log pi_ref(y|x), in nats, and V graded versions of an answer:

        loss = -log sigmoid(beta * (rho(chosen) - rho(rejected))) + gamma / V * sum_v -log softmax(head(h_v))[grade_v]

    Limits: gamma = 0 gives `dpo`, and the head learns nothing. A head that knows nothing adds gamma * log(classes).

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        policy_degree_head_logits: of each version, from a head on the policy's last hidden state; gradient flows.
        degree_grades: 0 for the untouched answer, up to classes - 1.
        degree_mask: which versions an example has.
        beta: KL strength, > 0.
        gamma: weight of the classification, >= 0; no published value is known.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> zero, head, grades = torch.zeros(1), torch.zeros(1, 2, 4), torch.tensor([[0, 3]])
        >>> spo(zero, zero, zero, zero, head, grades, grades >= 0, gamma=1.0)  # log 2 + log 4
        tensor([2.0794])
    """
    rho_chosen = policy_chosen_logps - ref_chosen_logps
    rho_rejected = policy_rejected_logps - ref_rejected_logps
    alignment = -logsigmoid(beta * (rho_chosen - rho_rejected))
    return alignment + gamma * degree_cross_entropy(policy_degree_head_logits, degree_grades, degree_mask)
