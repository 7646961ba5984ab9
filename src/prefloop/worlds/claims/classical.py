"""The classical pipeline: reward models, and policy gradients, which have an end though they have no loss."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from prefloop.worlds.bandit import Bandit, apart
from prefloop.worlds.claims.registry import claim
from prefloop.worlds.judges import bradley_terry
from prefloop.worlds.minimise import GRADIENT, NoMinimumError
from prefloop.worlds.population import examples_of, groups
from prefloop.worlds.solve import PopulationLoss, population_loss
from prefloop.worlds.stage import World, play
from prefloop.worlds.table import TabularPolicy, language

SELF_CONSISTENT = "arXiv:2009.01325 and arXiv:2402.14740: the optimum of reward less beta KL"


def _rewards(world: Bandit, loss: PopulationLoss) -> Float[Tensor, " answers"]:
    """What a reward head says of the answers, where the expected loss is least."""
    loss.policy.free.requires_grad_(False)
    loss.minimum()
    (weights,) = loss.heads["rewards"].get_parameter("weight").detach()
    return weights[[world.policy.states[answer] for answer in world.answers]]


@claim("reward_model", source="arXiv:2009.01325; the centring of arXiv:2312.09244, worked out")
def a_reward_up_to_a_constant() -> float:
    """Labels end at the reward up to one constant; of two answers centring takes that away: plus and minus half a gap.

    Of more answers centring also draws their differences together, by its weight.
    """
    world, two = Bandit.of(4, seed=80), Bandit.of(2, seed=81)
    found = _rewards(world, population_loss("bradley_terry", world.labelled(), world.policy, {}, center_coef=0.0))
    centred = _rewards(two, population_loss("bradley_terry", two.labelled(), two.policy, {}, center_coef=0.01))
    errors = (found - found.mean() - world.reward + world.reward.mean(), centred - two.reward + two.reward.mean())
    return max(float(one.abs().max()) for one in errors)


@claim(
    "reward_model",
    source="arXiv:2405.07863 and arXiv:2406.11817, worked out",
    systems=("ilr_dpo_reward_model", "rlhf_workflow_reward_model"),
)
def a_reward_model_stands_for_people() -> float:
    """Rounds that a reward model of people's labels judges end where people's do: initial * exp(T (r - a |y|) / beta).

    Here with the margin by length; a = 0 is the workflow.
    """
    world, beta = Bandit.of(4, seed=82, lengths=(2, 3, 5, 8)), 2.0
    learnt = _rewards(world, population_loss("bradley_terry", world.labelled(), world.policy, {}, center_coef=0.0))
    errors: list[float] = []
    for alpha in (0.0, 0.1):
        played = play(
            World(world.policy, lambda _: world.judges.labelling(bradley_terry(learnt))),
            "rounds=3",
            "samples.num_samples=2",
            "pairs={rule: iid}",
            f"policy={{objective: {{name: length_regularized_dpo, beta: {beta}, alpha: {alpha}}}}}",
        )
        for number, policy in enumerate(played.policies, start=1):
            errors.append(apart(policy, world.tilted(number * (world.reward - alpha * world.lengths) / beta)))
    return max(errors)


def _followed(expected: Callable[[TabularPolicy], PopulationLoss], start: TabularPolicy, size: float) -> TabularPolicy:
    """Where natural-gradient steps come to rest that follow an expected loss of the policy as it then is.

    Args:
        expected: of answers of a policy, the loss that is followed from there.
        start: where they begin.
        size: of a step.

    Raises:
        NoMinimumError: the gradient is not below 1e-12 after 200 steps.
    """
    policy = start
    for _ in range(200):
        loss = expected(policy)
        (gradient,) = torch.autograd.grad(loss(), loss.policy.free)
        if gradient.abs().max().item() < GRADIENT:
            return policy
        logps, eye = policy.logps(), torch.eye(len(policy.answers), dtype=torch.float64)
        (slopes,) = torch.autograd.grad(logps, policy.free, eye, is_grads_batched=True)
        fisher = slopes.T @ (logps.detach().exp()[:, None] * slopes)
        step = torch.linalg.pinv(fisher, hermitian=True, rtol=1e-10) @ gradient
        policy = policy.with_logits(policy.free.detach() - size * step)
    raise NoMinimumError("the gradient does not vanish")


@claim("rloo", source=SELF_CONSISTENT)
def no_force_at_the_tilted_reference() -> float:
    """Where the expected gradient on groups of own answers vanishes, the policy is ref * exp(r / beta) / Z.

    All groups of two of the seven sentences of a language, and all of three of four answers, with their probabilities.
    """
    beta, errors = 0.5, list[float]()
    for world, count in ((Bandit.of(language(2, 2), seed=83), 2), (Bandit.of(4, seed=84), 3)):

        def expected(policy: TabularPolicy, world: Bandit = world, count: int = count) -> PopulationLoss:
            own = groups(world.drawn(count, policy.logps().detach()), world.judges.scoring(world.reward))
            references = {"ref": world.policy, "old": policy}
            made = examples_of(own, "sampled_together")
            return population_loss("rloo", made, policy, references, kl_coef=beta)

        start = TabularPolicy(world.answers, torch.zeros(len(world.answers)).double())
        errors.append(apart(_followed(expected, start, 1 / beta), world.tilted(world.reward / beta)))
    return max(errors)


@claim("ppo", source=SELF_CONSISTENT)
def values_are_soft_values() -> float:
    """Token by token it ends at ref * exp(r / beta) / Z, and values at beta log E of the exp(r / beta) to come.

    There what is still to be paid is sure, whatever is sampled next.
    """
    world, beta = Bandit.of(language(2, 2), seed=85), 0.5
    options: dict[str, Any] = {"kl_coef": beta, "lam": 1.0, "whiten_advantages": False, "cliprange_value": 1e6}

    def expected(policy: TabularPolicy) -> PopulationLoss:
        own = groups(world.drawn(1, policy.logps().detach()), world.judges.scoring(world.reward))
        made = examples_of(own, "rollouts")
        return population_loss("ppo", made, policy, {"ref": world.policy, "old": policy}, **options)

    found = _followed(expected, world.policy, 1 / beta)
    loss = expected(found)
    loss.policy.free.requires_grad_(False)
    loss.minimum()
    (values,) = loss.heads["token_values"].get_parameter("weight").detach()
    wrong = [apart(found, world.tilted(world.reward / beta))]
    for beginning, number in found.contexts.items():
        behind = torch.tensor([answer[: len(beginning)] == beginning for answer in world.answers])
        ref = world.ref[behind].log_softmax(0)
        soft = beta * (ref + world.reward[behind] / beta).logsumexp(0)
        wrong.append(abs(float(values[number] - soft)))
    return max(wrong)
