"""The largest batches that a step could meet: of the longest prompts, with answers as long as they may become."""

from collections.abc import Iterable, Iterator, Sequence
from heapq import nlargest
from itertools import chain, cycle
from typing import cast

from prefloop.config import DataStep, NextTurnStep, PairStep, PromptsStep, Recipe, SampleStep, SearchStep, TrainStep
from prefloop.data import GivenGroup
from prefloop.loop.artifact import Artifact, unmixed
from prefloop.loop.data_set import LONGEST, survey
from prefloop.loop.prompt_set import prompts_at
from prefloop.loop.steps.tokens import encoding_settings
from prefloop.loop.steps.train import budget_of, layout_of
from prefloop.objectives import REPEATED_ROLES, find_objective
from prefloop.pairing import find_rule
from prefloop.policy import ChatCodec, ModelFacts, TokenRow
from prefloop.records import Example, Member, Message, Prompt, Response, Role
from prefloop.training import MISMATCHED, largest_pass, tokenised


def longest_prompts(artifacts: Iterable[Artifact], recipe: Recipe) -> list[Prompt]:
    """The longest prompts that some steps give, in characters."""
    prompts: Iterable[Prompt] = ()
    for artifact in artifacts:
        settings = recipe.step(artifact.step, artifact.place.round or 0)
        if isinstance(settings, PromptsStep):
            prompts = chain(prompts, prompts_at(artifact, settings, recipe))
        elif isinstance(settings, PairStep):
            begun = longest_prompts(artifact.inputs["prompts"], recipe)
            if find_rule(settings.rule, "rule").of_each == "answer":  # what was sampled may stand before the answer
                given = (0,) * max(_longest_answer(one, recipe) for one in artifact.inputs["responses"])
                begun = [prompt.derived(prefix_ids=(*prompt.prefix_ids, *given)) for prompt in begun]
            prompts = chain(prompts, begun)
        elif isinstance(settings, DataStep):
            prompts = chain(prompts, survey(artifact.step, settings, recipe).longest_prompts)
        elif isinstance(settings, NextTurnStep):
            prompts = chain(prompts, _after_longest_answers(artifact, recipe))
    return nlargest(LONGEST, prompts, key=_characters)


def _longest_answer(artifact: Artifact, recipe: Recipe) -> int:
    """Tokens of the longest answer that a step may sample."""
    settings = recipe.step(artifact.step, artifact.place.round or 0)
    if isinstance(settings, SearchStep):
        return settings.max_steps * settings.max_step_tokens
    return settings.max_new_tokens if isinstance(settings, SampleStep) else 0


def _after_longest_answers(artifact: Artifact, recipe: Recipe) -> list[Prompt]:
    """Second questions after answers as long as they may become, a word a token."""
    found: list[Prompt] = []
    for answered in artifact.inputs["responses"]:
        said = Message(role="assistant", content=" a" * _longest_answer(answered, recipe))
        for prompt in longest_prompts(artifact.inputs["prompts"], recipe):
            asked = tuple(Message(role="user", content=turn.content) for turn in (prompt.later or ())[:1])
            found.append(Prompt.of((*prompt.messages, said, *asked)))
    return found


def largest_of(artifact: Artifact, recipe: Recipe, codec: ChatCodec, facts: ModelFacts) -> list[TokenRow]:
    """The answers of a train step's pass that would need most memory; none where no example fits `max_length`."""
    settings = recipe.step(artifact.step, artifact.place.round or 0)
    assert isinstance(settings, TrainStep)
    objective = find_objective(settings.objective.name, "objective")
    roles = cast("tuple[Role, ...]", objective.roles)
    records = [
        example
        for made in unmixed(artifact.inputs["examples"])
        for example in (*_of_data(made, recipe, roles), *_of_samples(made, recipe, roles, codec, settings))
    ]
    examples, _ = tokenised(records, codec, encoding_settings(settings))
    layout = layout_of(recipe.machine, takes_trees=facts.trees)
    if not examples:
        return []
    return largest_pass(examples, objective.roles, settings.batch_size, budget_of(recipe.machine), facts, layout)


def _of_data(made: Artifact, recipe: Recipe, roles: Sequence[Role]) -> list[Example]:
    """The longest given examples among what a pair step reads."""
    found: list[tuple[Prompt, list[Response]]] = []
    for artifact in made.inputs.get("responses", ()):
        settings = recipe.step(artifact.step, artifact.place.round or 0)
        if isinstance(settings, DataStep):
            for group in survey(artifact.step, settings, recipe).longest:
                found += [(group.prompt, together) for together in _given_together(group)]
    longest = max((answer for _, together in found for answer in together), key=_characters_of, default=None)
    return [
        _example(
            prompt,
            [
                Member(role=role, response_id=answer.response_id, text=answer.text)
                for role, given in zip(_repeated(roles, len(together)), cycle(together), strict=False)
                for answer in (longest if role == MISMATCHED and longest is not None else given,)
            ],
        )
        for prompt, together in found
    ]


def _given_together(group: GivenGroup) -> Iterator[list[Response]]:
    """The two answers of every preference, without preferences all answers, the longest first."""
    by_id = {response.response_id: response for response in group.responses}
    preferences = [judgment for judgment in group.judgments if judgment.kind == "preference"]
    for judgment in preferences:
        yield sorted((by_id[subject] for subject in judgment.subjects), key=_characters_of, reverse=True)
    if not preferences:
        yield sorted(group.responses, key=_characters_of, reverse=True)


def _of_samples(
    made: Artifact, recipe: Recipe, roles: Sequence[Role], codec: ChatCodec, settings: TrainStep
) -> list[Example]:
    """Stand-ins for sampled answers that grow until the length limit cuts them."""
    sampled = [one for one in made.inputs.get("responses", ()) if one.step_type in {"sample", "search"}]
    limits = [recipe.step(one.step, one.place.round or 0) for one in sampled]
    most_answers = max((limit.num_samples for limit in limits if isinstance(limit, SampleStep)), default=2)
    longest_answer = max((_longest_answer(one, recipe) for one in sampled), default=0)
    prompts = longest_prompts((read for one in sampled for read in one.inputs["prompts"]), recipe)
    examples: list[Example] = []
    for prompt in prompts:
        room = settings.max_length - len(codec.prompt_ids(prompt))
        if settings.truncation == "cut_prompt_left":
            room = max(room, settings.max_length // 2)
        rest = (codec.eos_id,) * (min(longest_answer, room) - 1)
        if room > 0:
            members = [  # they differ from the first token on, so that nothing of them is shared
                Member(role=role, response_id="longest", text="", token_ids=(*prompt.prefix_ids, number, *rest))
                for number, role in enumerate(_repeated(roles, most_answers))
            ]
            examples.append(_example(prompt, members))
    return examples


def _repeated(roles: Sequence[Role], count: int) -> list[Role]:
    """Roles of an example's answers; one that it has several times as often as there can be answers."""
    return [role for role in roles for _ in range(count if role in REPEATED_ROLES else 1)]


def _example(prompt: Prompt, members: list[Member]) -> Example:
    return Example(example_id="largest", prompt=prompt, members=tuple(members), why="the longest that could come")


def _characters_of(response: Response) -> int:
    return len(response.text)


def _characters(prompt: Prompt) -> int:
    return sum(len(message.content) for message in prompt.messages)
