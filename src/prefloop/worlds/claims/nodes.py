"""Behind a beginning: steps against steps, and what a selection leaves of several questions."""

from collections.abc import Iterator, Sequence
from itertools import product
from math import exp

import torch
from jaxtyping import Float
from torch import Tensor

from prefloop.pairing.learnable import fit_min_learnability
from prefloop.records import Group, Judgment, Response
from prefloop.training import TokenExample
from prefloop.worlds.bandit import Bandit, apart
from prefloop.worlds.claims.registry import claim, unless
from prefloop.worlds.judges import bradley_terry
from prefloop.worlds.population import QUESTION, Drawn, Massed, every_pair, examples_of, groups, response
from prefloop.worlds.solve import population_loss
from prefloop.worlds.table import IMPOSSIBLE, TabularPolicy

# ------------------------------------------------------------------------------------------------------- a tree's node


@claim("mcts_dpo", source="arXiv:2405.00451, worked out", systems=("mcts_dpo", "mcts_dpo_confidence"))
def visits_are_the_target() -> float:
    """All pairs of a node's steps, behind a common beginning, end at ref * N^(1 / beta) there and nowhere else."""
    beginning, visits = (2, 3), torch.tensor([17.0, 8.0, 4.0, 1.0], dtype=torch.float64)
    steps = tuple((*beginning, 4 + number, 1) for number in range(4))
    world = Bandit.of((*steps, (5, 1), (2, 4, 1)), seed=46)
    masses = torch.ones(4, 4, dtype=torch.float64).triu(1)
    examples = every_pair(steps, masses, {"visits": visits})
    loss = population_loss("mcts_dpo", examples, world.policy, beta=0.5)
    found, ref = loss.minimum().logps().detach(), world.ref
    expected = (ref[:4] + visits.log() / 0.5).log_softmax(0) + ref[:4].logsumexp(0)
    return max(float((found[:4] - expected).abs().max()), float((found[4:] - ref[4:]).abs().max()))


@claim("mcts_dpo", source="arXiv:2405.00451, worked out", systems=("mcts_dpo", "mcts_dpo_confidence"))
def two_siblings() -> float:
    """Rule siblings at a node of two steps ends there too: the margin is log(N / N') / beta."""
    world = Bandit.of(2, seed=47)
    visits = torch.tensor([5.0, 12.0], dtype=torch.float64)

    def searched(responses: Sequence[Response]) -> Iterator[tuple[float, tuple[Judgment, ...]]]:
        yield (
            1.0,
            tuple(
                Judgment(judge="search", kind="score", aspect="visits", subjects=(one.response_id,), values=(count,))
                for one, count in zip(responses, visits[world.judges.numbers(responses)].tolist(), strict=True)
            ),
        )

    both = [Drawn("search", (answer,), torch.ones(1, dtype=torch.float64)) for answer in world.answers]
    examples = examples_of(groups(both, searched), "siblings")
    found = population_loss("mcts_dpo", examples, world.policy, beta=0.5).minimum()
    return apart(found, world.tilted(visits.log() / 0.5))


# ----------------------------------------------------------------------------------------------------------- Step-DPO

BEGINNING = (2, 3)
STEPS = (4, 5, 6)
ENDS = ((7, 1), (8, 1))


def _first_wrong(steps: Float[Tensor, " steps"], prefers: Float[Tensor, "steps steps"]) -> list[Massed]:
    """A solution and a continuation of its beginning, their steps drawn from the same distribution; one is right.

    Which one is, people say, who are as unsure of it as their preferences: all groups, each with its probability.
    """
    derived = QUESTION.derived(prefix_ids=BEGINNING)
    found: list[Massed] = []
    for first, second in product(range(len(STEPS)), repeat=2):
        answers = [response(n, (*BEGINNING, STEPS[one], *ENDS[0]), "samples") for n, one in enumerate((first, second))]
        answers[1] = answers[1].model_copy(update={"prompt_id": derived.prompt_id})
        for is_right, chance in ((1.0, float(prefers[second, first])), (0.0, float(prefers[first, second]))):
            said = _verdicts(answers, (1 - is_right, is_right))
            mass = float(steps[first] * steps[second]) * chance
            found.append(Massed(mass, Group((QUESTION, derived), tuple(answers), said)))
    return found


def _verdicts(answers: Sequence[Response], right: Sequence[float]) -> tuple[Judgment, ...]:
    """On the end and on the step behind the beginning."""
    start = len(BEGINNING)
    said: list[Judgment] = []
    for answer, value in zip(answers, right, strict=True):
        subjects, spans = (answer.response_id,), ((0, start), (start, start + 1))
        said.append(Judgment(judge="ends", kind="label", subjects=subjects, values=(value,)))
        said.append(Judgment(judge="steps", kind="steps", subjects=subjects, values=(1.0, value), spans=spans))
    return tuple(said)


@claim("step_dpo", source="arXiv:2406.18629, worked out", systems=("step_dpo", "step_dpo_llm"))
def steps_behind_a_beginning() -> float:
    """Unsure verdicts on steps end at ref(step) * exp(r / beta) behind their beginning, and move nothing else.

    Neither how likely the beginning is, nor what follows the steps, nor other beginnings.
    """
    behind = tuple((*BEGINNING, step, *end) for step, end in product(STEPS, ENDS))
    world, beta = Bandit.of((*behind, (2, 4, 1), (5, 1)), seed=86), 0.5
    reward = world.reward[: len(STEPS)]
    of_steps = world.ref[: len(behind)].view(len(STEPS), len(ENDS)).logsumexp(1).log_softmax(0)
    examples = examples_of(_first_wrong(of_steps.exp(), bradley_terry(reward)), "better_steps", verified=True)
    found = population_loss("dpo", examples, world.policy, beta=beta).minimum().logps().detach()
    moved = ((of_steps + reward / beta).log_softmax(0) - of_steps).repeat_interleave(len(ENDS))
    expected = torch.cat([world.ref[: len(behind)] + moved, world.ref[len(behind) :]])
    return float((found - expected).abs().max())


# -------------------------------------------------------------------------------------------------------------- DavIR

QUESTIONS, TOLD = 3, 3
"""Each a beginning, and so many given answers to each."""
JUDGES = ("log_likelihood:initial", "log_likelihood:fine_tuned")


def _given(world: Bandit, people: Float[Tensor, " answers"], *models: Float[Tensor, " answers"]) -> list[Massed]:
    """Every given answer by itself, behind its question, with what some models say of it."""
    found: list[Massed] = []
    for number, (answer, logp) in enumerate(zip(world.answers, people.tolist(), strict=True)):
        question = QUESTION.derived(prefix_ids=answer[:1])
        made = response(number, answer, "given").model_copy(update={"prompt_id": question.prompt_id})
        said = tuple(
            Judgment(judge=name, kind="score", subjects=(made.response_id,), values=(float(model[number]),))
            for name, model in zip(JUDGES, models, strict=False)
        )
        found.append(Massed(exp(logp) / QUESTIONS, Group((question,), (made,), said)))
    return found


def _by_question(logps: Float[Tensor, " answers"]) -> Float[Tensor, " answers"]:
    """Log-probabilities behind the question of each answer."""
    return logps.view(QUESTIONS, TOLD).log_softmax(1).flatten()


@claim("davir", source="arXiv:2310.13008, worked out")
def what_is_kept_is_all_that_is_learnt() -> float:
    """A third with the largest 1 - log p / log ref is kept; fine-tuned on it, it is as likely as among what is kept.

    Fine-tuning on all gives the model whose likelihoods are p. Questions of which nothing is kept stay at ref; of the
    others what was dropped has nothing left. The plain fall of the loss keeps other answers.
    """
    lengths = (1, 3, 2)
    answers = tuple((2 + q, *(8 + n,) * length, 1) for q in range(QUESTIONS) for n, length in enumerate(lengths))
    world, people = Bandit.of(answers, seed=82), _by_question(Bandit.of(answers, seed=83).reward)
    ref = _by_question(world.ref)
    everyone = examples_of(_given(world, people), "demonstrations")
    tuned = _by_question(
        population_loss("sft", everyone, world.policy, {}, nll_reduction="sequence_sum").minimum().logps().detach()
    )
    judged = _given(world, people, ref, tuned)
    kept, by_fall = (_kept(judged, normalise, share=1 / QUESTIONS) for normalise in ("base", "none"))
    is_kept = torch.zeros(len(answers), dtype=torch.bool)
    is_kept[(1 - people / ref).topk(len(answers) // QUESTIONS).indices] = True
    masses = torch.where(is_kept, people.exp() / QUESTIONS, 0.0)
    asked = is_kept.view(QUESTIONS, TOLD).any(1).repeat_interleave(TOLD)
    learnt = torch.where(asked, _by_question(torch.where(is_kept, people, IMPOSSIBLE)), ref)
    end = TabularPolicy(answers, world.ref - ref + learnt)
    loss = population_loss("sft", kept, end, {}, nll_reduction="sequence_sum")
    (force,) = torch.autograd.grad(loss(), end.free)
    least = -(masses[is_kept] * learnt[is_kept]).sum()
    wrong = (_masses(world, kept) - masses, force, loss() - least)
    others = unless(not bool(asked.all()) and not torch.equal(_masses(world, by_fall) > 0, is_kept))
    return max(float(one.detach().abs().max()) for one in wrong) + others


def _kept(judged: Sequence[Massed], normalise: str, share: float) -> list[TokenExample]:
    """By the rule, with the cut that it finds on all answers."""
    options = {"base": JUDGES[0], "fine_tuned": JUDGES[1], "normalise": normalise}
    cut = fit_min_learnability([one.group for one in judged], {**options, "share": share}).value
    return examples_of(judged, "learnable", min_learnability=cut, **options)


def _masses(world: Bandit, examples: Sequence[TokenExample]) -> Float[Tensor, " answers"]:
    """How much of each answer there is among demonstrations."""
    found = torch.zeros(len(world.answers), dtype=torch.float64)
    for one in examples:
        row = one.rows["chosen"]
        found[world.judges.number[(*row.prompt_ids[1:], *row.answer_ids)]] += one.weight
    return found
