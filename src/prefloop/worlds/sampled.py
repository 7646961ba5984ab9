"""What a round of finitely many groups may differ by: the standard errors of the policy that it ends at."""

import torch
from jaxtyping import Float
from torch import Tensor

from prefloop.worlds.solve import PopulationLoss


def standard_errors(at_minimum: PopulationLoss, count: int) -> Float[Tensor, " answers"]:
    """Standard error of each answer's log-probability when so many groups are drawn instead of all of them.

    The sandwich of M-estimation (Huber 1967): J H^+ S H^+ J^T / count, with H the curvature of the expected loss, S the
    covariance of a group's gradient, and J the derivative of the log-probabilities. Groups without an example have no
    gradient; no group has more than one.

    Args:
        at_minimum: the expected loss whose policy is its minimiser.
        count: groups that are drawn.
    """
    free = at_minimum.policy.free

    def derivatives(values: Tensor) -> Tensor:
        eye = torch.eye(len(values), dtype=values.dtype)
        (found,) = torch.autograd.grad(values, free, eye, is_grads_batched=True, retain_graph=True)
        return found

    (gradient,) = torch.autograd.grad(at_minimum(), free, create_graph=True)
    inverse = torch.linalg.pinv(derivatives(gradient), hermitian=True, rtol=1e-10)
    each = derivatives(at_minimum.losses())
    spread = each.T @ (at_minimum.masses[:, None] * each) - torch.outer(gradient, gradient).detach()
    of_logps = derivatives(at_minimum.policy.logps()) @ inverse
    return ((of_logps @ spread * of_logps).sum(1) / count).clamp(min=0).sqrt()


def in_standard_errors(exact: PopulationLoss, drawn: PopulationLoss, count: int) -> Float[Tensor, " answers"]:
    """How far the minimum of a draw lies from that of the population, answer by answer, in standard errors.

    Args:
        exact: the population's expected loss, of any policy.
        drawn: the same loss on the groups that were drawn.
        count: of these groups.
    """
    truth = exact.minimum()
    exact.policy = truth
    gap = (drawn.minimum().logps() - truth.logps()).detach()
    return gap / standard_errors(exact, count)
